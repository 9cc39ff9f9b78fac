"""Models that rows bring a config.json of: read by what it says, not by a list of names."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from single_rows import predicted, refusal, value

from ridgeline_backends.neuron.calibration.rows import Row
from ridgeline_backends.neuron.calibration.workloads.sizes import sizes_of
from ridgeline_backends.neuron.catalogue.families import is_decoder, reads_gated

SIZES: Mapping[str, object] = {
    "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32000,
}  # fmt: skip
GATED = (
    "llama", "mistral", "mixtral", "qwen2", "qwen3", "granite", "phi3", "gemma2", "olmo2",
    "internlm3",
)  # fmt: skip
EXPERTS = {**SIZES, "model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2}
DISTILBERT = {
    "model_type": "distilbert", "dim": 768, "hidden_dim": 3072, "n_layers": 6, "n_heads": 12,
    "vocab_size": 30522,
}  # fmt: skip
TRAINING: Mapping[str, object] = {
    "cat": "training", "model": "m", "instance": "trn1.32xlarge", "nodes": 4,
    "topology": "TP=8 DP=16", "microbatch": 1, "global_batch": 256, "seq_len": 4096,
    "train_dtype": "BF16", "sdk": "2.20",
}  # fmt: skip
ENCODER: Mapping[str, object] = {
    "cat": "encoder", "model": "m", "instance": "inf2.xlarge", "batch": 1, "seq_len": 512,
    "framework": "PyTorch 2.1",
}  # fmt: skip


def of(kind: str) -> Mapping[str, object]:
    return {**SIZES, "model_type": kind}


def test_decoders_of_the_same_sizes_train_and_encode_alike() -> None:
    assert len({value(TRAINING, "seq_per_s", config=of(kind)) for kind in GATED}) == 1
    assert len({value(ENCODER, "lat_p50_ms", config=of(kind)) for kind in GATED}) == 1


def test_an_mlp_of_two_matrices_is_less_work_and_an_encoder_drops_out() -> None:
    gated, plain, encoder = (
        value(TRAINING, "seq_per_s", config=of(kind)) for kind in ("llama", "starcoder2", "bert")
    )
    assert encoder < gated < plain
    latencies = [value(ENCODER, "lat_p50_ms", config=of(kind)) for kind in ("bert", "modernbert")]
    assert 1.2 * latencies[0] < latencies[1]


@pytest.mark.parametrize(
    ("config", "decodes", "gated"),
    [
        ({"model_type": "bert"}, False, False),
        ({"model_type": "modernbert"}, False, True),
        ({"model_type": "t5", "feed_forward_proj": "gated-gelu"}, False, True),
        ({"architectures": ["NewForMaskedLM"], "hidden_act": "swiglu"}, False, True),
        ({"model_type": "gemma3_text", "use_bidirectional_attention": True}, False, False),
        ({"model_type": "mine", "is_encoder_decoder": True}, False, False),
        ({"model_type": "qwen2"}, True, False),
        ({"architectures": ["MineForCausalLM"]}, True, False),
        ({"model_type": "gemma3", "text_config": {"model_type": "gemma3_text"}}, True, False),
    ],
)
def test_a_config_tells_readers_from_writers(
    config: Mapping[str, object], decodes: bool, gated: bool
) -> None:
    assert (is_decoder(config), reads_gated(config)) == (decodes, gated)


def test_of_experts_a_token_goes_through_the_chosen_and_all_are_kept() -> None:
    sizes = sizes_of(EXPERTS, Row({"id": "X"}))
    assert (sizes.intermediate, sizes.kept) == (2 * 14336, 8 * 14336)
    given = {**TRAINING, "nodes": 16, "topology": "TP=8 PP=4"}
    few = value(given, "seq_per_s", config=of("mistral"))
    mixture = predicted(given, config=EXPERTS)
    assert mixture.label == "prior-only"
    # Twice the MLP; and eight of them are summed and updated.
    assert 0.4 * few < mixture.prediction["seq_per_s"] < 0.75 * few
    more = value(given, "seq_per_s", config={**EXPERTS, "num_local_experts": 32})
    assert more < 0.9 * mixture.prediction["seq_per_s"]


def test_experts_are_work_for_an_encoder_too() -> None:
    assert value(ENCODER, "lat_p50_ms", config=EXPERTS) > 1.5 * value(
        ENCODER, "lat_p50_ms", config=of("mistral")
    )
    bert = {**of("bert"), "num_experts": 8}
    assert "encoders with experts are not modelled" in refusal(ENCODER, config=bert)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"topology": "TP=8 PP=0"}, "topology 'TP=8 PP=0' has a degree of 0"),
        ({"nodes": 1, "topology": "TP=32 PP=8"}, "TP=32 x PP=8 takes 256 cores; 1 x trn1.32xlarge"),
        ({"nodes": 16, "topology": "TP=8 PP=64"}, "32 layers cannot be cut into 64 stages"),
        ({"topology": "TP=3 PP=1"}, "TP=3 does not divide the 4096 columns"),
        ({"instance": "inf2.48xlarge"}, "inf2.48xlarge does not train"),
    ],
)
def test_training_that_no_machine_can_do_is_refused(
    fields: Mapping[str, object], said: str
) -> None:
    assert said in refusal(TRAINING, config=of("llama"), **fields)


def test_a_model_with_parts_for_images_trains_its_text_part() -> None:
    whole = {"model_type": "gemma3", "text_config": {**SIZES, "model_type": "gemma3_text"}}
    assert value(TRAINING, "seq_per_s", config=whole) == value(
        TRAINING, "seq_per_s", config=of("gemma3_text")
    )


def test_sizes_are_read_in_every_spelling() -> None:
    same = {"model_type": "bert", "hidden_size": 768, "num_hidden_layers": 6,
            "num_attention_heads": 12, "vocab_size": 30522}  # fmt: skip
    assert value(TRAINING, "seq_per_s", config=DISTILBERT, topology="[32xNC(DP)]") == value(
        TRAINING, "seq_per_s", config=same, topology="[32xNC(DP)]"
    )


@pytest.mark.parametrize("kind", [{}, [], 5, None, True])
def test_a_type_that_is_no_text_is_no_fault(kind: object) -> None:
    assert value(ENCODER, "lat_p50_ms", config={**SIZES, "model_type": kind}) > 0


@pytest.mark.parametrize("degree", [2, 4, 5, 8, 16, 32])
def test_heads_that_a_degree_cuts_unevenly_are_padded_and_copied(degree: int) -> None:
    phi4 = {**SIZES, "model_type": "phi3", "hidden_size": 5120, "num_attention_heads": 40,
            "num_key_value_heads": 10}  # fmt: skip
    assert value(TRAINING, "seq_per_s", config=phi4, topology=f"TP={degree}") > 0
    given = {**ENCODER, "instance": "trn1.32xlarge", "tp": degree}
    assert value(given, "lat_p50_ms", config=phi4) > 0


@pytest.mark.parametrize(
    ("lacks", "said"),
    [
        ("vocab_size", "X: its config.json has no vocab_size above 0"),
        ("num_hidden_layers", "X: its config.json has no num_hidden_layers"),
    ],
)
def test_a_size_that_is_missing_is_named(lacks: str, said: str) -> None:
    config = {name: one for name, one in of("bert").items() if name != lacks}
    assert said in refusal(ENCODER, config=config, task="Raw Output (AutoModelForMaskedLM)")
