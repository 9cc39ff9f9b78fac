"""A decoder is read from its config.json with the sizes that transformers gives it, or refused."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
import torch
import transformers
from single_rows import predicted, refusal

from ridgeline_backends.errors import InvalidModel, UnsupportedModel
from ridgeline_backends.neuron.builders.architecture import Experts, SelfAttention
from ridgeline_backends.neuron.builders.configs import decoder_architecture
from ridgeline_backends.neuron.builders.decoder import decoder_program
from ridgeline_backends.neuron.builders.rules import NXDI
from ridgeline_backends.neuron.builders.site import Phase
from ridgeline_backends.neuron.config import NeuronConfig
from ridgeline_backends.neuron.program import BufferKind

Settings = Mapping[str, object]

WIDTH: Settings = {
    "hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 8, "vocab_size": 1000,
    "pad_token_id": 0,
}  # fmt: skip
PLAIN: Settings = {**WIDTH, "intermediate_size": 640}
GROUPED: Settings = {**PLAIN, "num_key_value_heads": 2}
WIDE: Settings = {**GROUPED, "head_dim": 64}
GPT: Settings = {"n_embd": 256, "n_layer": 4, "n_head": 8, "vocab_size": 1000}
CHOSEN: Settings = {"num_experts_per_tok": 2, "moe_intermediate_size": 128}
QWEN_MOE: Settings = {**GROUPED, **CHOSEN, "num_experts": 8}
DEEPSEEK: Settings = {
    **PLAIN, **CHOSEN, "n_routed_experts": 8, "n_shared_experts": 2, "kv_lora_rank": 64,
    "q_lora_rank": 96, "qk_nope_head_dim": 32, "qk_rope_head_dim": 16, "v_head_dim": 32,
    "first_k_dense_replace": 1, "num_key_value_heads": 8, "n_group": 1, "topk_group": 1,
}  # fmt: skip
MAMBA_2: Settings = {
    "mamba_n_heads": 16, "mamba_d_head": 32, "mamba_n_groups": 1, "mamba_d_state": 16,
}  # fmt: skip

FAMILIES: list[tuple[str, Settings]] = [
    ("apertus", GROUPED),
    ("arcee", GROUPED),
    ("bamba", {**GROUPED, **MAMBA_2, "attn_layer_indices": [2]}),
    ("bloom", {"hidden_size": 256, "n_layer": 4, "n_head": 8, "vocab_size": 1000}),
    ("codegen", {**GPT, "rotary_dim": 16}),
    ("cohere", GROUPED),
    ("cohere2", GROUPED),
    ("deepseek_v2", DEEPSEEK),
    ("deepseek_v3", DEEPSEEK),
    (
        "dbrx",
        {
            "d_model": 256, "n_heads": 8, "n_layers": 4, "vocab_size": 1000,
            "attn_config": {"kv_n_heads": 2, "rope_theta": 10_000.0},
            "ffn_config": {
                "ffn_hidden_size": 640, "moe_num_experts": 4, "moe_top_k": 2, "hidden_size": 256,
            },
        },
    ),
    ("dots1", {**DEEPSEEK, "head_dim": 32, "kv_lora_rank": None}),
    ("ernie4_5", WIDE),
    (
        "ernie4_5_moe",
        {
            **GROUPED, "moe_num_experts": 8, "moe_k": 2, "moe_num_shared_experts": 2,
            "moe_intermediate_size": 128, "moe_layer_start_index": 1, "moe_layer_interval": 2,
        },
    ),
    ("exaone4", GROUPED),
    ("falcon", {**WIDTH, "num_kv_heads": 8, "multi_query": True}),
    ("falcon", {**WIDTH, "num_kv_heads": 2, "new_decoder_architecture": True}),
    ("falcon", {**WIDTH, "multi_query": False, "parallel_attn": False, "bias": True}),
    ("gemma", WIDE),
    ("gemma2", WIDE),
    ("gemma3_text", WIDE),
    ("glm4", WIDE),
    ("glm4_moe", {**DEEPSEEK, "head_dim": 32, "kv_lora_rank": None}),
    ("gpt2", GPT),
    ("gpt_bigcode", GPT),
    ("gpt_neox", PLAIN),
    ("gpt_oss", {**GROUPED, "head_dim": 32, "num_local_experts": 8, "num_experts_per_tok": 2}),
    ("gptj", {**GPT, "rotary_dim": 16}),
    ("granite", GROUPED),
    ("granitemoe", {**GROUPED, "num_local_experts": 8}),
    ("granitemoeshared", {**GROUPED, "num_local_experts": 8, "shared_intermediate_size": 320}),
    (
        "granitemoehybrid",
        {
            **GROUPED, **MAMBA_2, "num_local_experts": 4, "num_experts_per_tok": 2,
            "shared_intermediate_size": 320,
            "layer_types": ["mamba", "mamba", "attention", "mamba"],
        },
    ),
    ("hunyuan_v1_moe", {**GROUPED, "head_dim": 32, "num_experts": 8, "moe_topk": 2}),
    (
        "jamba",
        {
            **GROUPED, "num_hidden_layers": 8, "num_experts": 4, "num_experts_per_tok": 2,
            "attn_layer_period": 4, "attn_layer_offset": 2, "expert_layer_period": 2,
            "expert_layer_offset": 1, "mamba_dt_rank": 16,
        },
    ),
    ("lfm2", {**GROUPED, "layer_types": ["conv", "full_attention"] * 2}),
    ("llama", GROUPED),
    (
        "llama4_text",
        {
            **GROUPED, "head_dim": 32, "intermediate_size_mlp": 768, "num_local_experts": 4,
            "interleave_moe_layer_step": 2,
        },
    ),
    ("minimax", {**GROUPED, "head_dim": 32, "num_local_experts": 4}),
    ("minimax_m2", {**WIDE, "num_local_experts": 4, "num_experts_per_tok": 2}),
    ("mixtral", {**GROUPED, "num_local_experts": 4}),
    ("mpt", {"d_model": 256, "n_layers": 4, "n_heads": 8, "vocab_size": 1000}),
    ("nanochat", GROUPED),
    ("nemotron", GROUPED),
    ("olmo", GROUPED),
    ("olmo2", GROUPED),
    ("olmoe", {**GROUPED, "num_experts": 8}),
    ("openai-gpt", GPT),
    ("opt", {**WIDTH, "ffn_dim": 640, "word_embed_proj_dim": 256}),
    ("persimmon", PLAIN),
    ("phi", GROUPED),
    ("phi3", GROUPED),
    ("phimoe", {**GROUPED, "num_local_experts": 4}),
    ("qwen2", GROUPED),
    ("qwen2_moe", {**QWEN_MOE, "shared_expert_intermediate_size": 320, "decoder_sparse_step": 2}),
    ("qwen3", WIDE),
    ("qwen3_moe", {**QWEN_MOE, "head_dim": 32, "mlp_only_layers": [1]}),
    ("recurrent_gemma", {**WIDTH, "intermediate_size": 1280, "head_dim": 32, "lru_width": 256}),
    ("seed_oss", WIDE),
    ("smollm3", GROUPED),
    ("stablelm", GROUPED),
    ("starcoder2", GROUPED),
]  # fmt: skip


def parameters(config: Settings) -> int:
    model = decoder_architecture(config)
    program = decoder_program(
        model, NeuronConfig(seq_len=128), phase=Phase.TOKEN_GENERATION, bucket=128, rules=NXDI
    )
    return sum(
        one.elements * section.repeats
        for one, section in program.buffers(BufferKind.WEIGHT)
        if not one.name.startswith("rope.") and not (model.tied_head and one.name == "head")
    )


@pytest.mark.parametrize(("kind", "sizes"), FAMILIES, ids=[kind for kind, _ in FAMILIES])
def test_a_config_has_as_many_parameters_as_transformers_makes(kind: str, sizes: Settings) -> None:
    config = transformers.CONFIG_MAPPING[kind](**sizes)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    expected = sum(one.numel() for one in model.parameters())
    found = parameters(json.loads(config.to_json_string()))
    assert found == pytest.approx(expected, rel=0.01)


DBRX: Settings = {
    "model_type": "dbrx", "d_model": 6144, "n_heads": 48, "n_layers": 40, "vocab_size": 100352,
    "attn_config": {"kv_n_heads": 8, "clip_qkv": 8, "rope_theta": 500000},
    "ffn_config": {"ffn_hidden_size": 10752, "moe_num_experts": 16, "moe_top_k": 4},
}  # fmt: skip
FALCON_7B: Settings = {
    "model_type": "falcon", "hidden_size": 4544, "num_hidden_layers": 32, "num_attention_heads": 71,
    "num_kv_heads": 71, "multi_query": True, "new_decoder_architecture": False,
    "tie_word_embeddings": True, "vocab_size": 65024,
}  # fmt: skip
ERNIE: Settings = {
    "model_type": "ernie4_5_moe", "hidden_size": 2560, "num_hidden_layers": 28,
    "num_attention_heads": 20, "num_key_value_heads": 4, "intermediate_size": 12288,
    "moe_num_experts": 64, "moe_k": 6, "moe_num_shared_experts": 2, "moe_intermediate_size": 1536,
    "moe_layer_start_index": 1, "moe_layer_end_index": 27, "moe_layer_interval": 1,
    "moe_capacity": [64, 64, 64], "tie_word_embeddings": True, "vocab_size": 103424,
}  # fmt: skip
JAMBA: Settings = {
    "model_type": "jamba", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "intermediate_size": 14336, "num_experts": 16,
    "num_experts_per_tok": 2, "expert_layer_period": 2, "expert_layer_offset": 1,
    "attn_layer_period": 8, "attn_layer_offset": 4, "mamba_d_state": 16, "mamba_d_conv": 4,
    "mamba_expand": 2, "mamba_dt_rank": 256, "vocab_size": 65536,
}  # fmt: skip
QWEN_1: Settings = {
    "model_type": "qwen", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
    "kv_channels": 128, "intermediate_size": 22016, "vocab_size": 151936,
}  # fmt: skip
HUNYUAN: Settings = {
    "model_type": "hunyuan_v1_moe", "hidden_size": 4096, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "attention_head_dim": 128,
    "intermediate_size": 3072, "moe_intermediate_size": [3072] * 32, "moe_topk": [8] * 32,
    "num_experts": 64, "num_shared_expert": [1] * 32, "tie_word_embeddings": True,
    "vocab_size": 128167,
}  # fmt: skip
CHATGLM: Settings = {
    "model_type": "chatglm", "hidden_size": 4096, "num_layers": 28, "num_attention_heads": 32,
    "multi_query_attention": True, "multi_query_group_num": 2, "kv_channels": 128,
    "ffn_hidden_size": 13696, "padded_vocab_size": 65024,
}  # fmt: skip
PIXTRAL: Settings = {
    "model_type": "llava",
    "text_config": {
        "model_type": "mistral", "hidden_size": 5120, "head_dim": 128, "intermediate_size": 14336,
        "num_hidden_layers": 40, "num_key_value_heads": 8, "vocab_size": 131072,
    },
    "vision_config": {"model_type": "pixtral", "hidden_size": 1024, "patch_size": 16},
}  # fmt: skip
LLAVA: Settings = {
    "model_type": "llava",
    "text_config": {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 32064,
        "max_position_embeddings": 4096,
    },
    "vision_config": {"model_type": "clip_vision_model", "hidden_size": 1024},
}  # fmt: skip
OLMO_1B: Settings = {
    "model_type": "hf_olmo", "d_model": 2048, "n_heads": 16, "n_layers": 16, "mlp_ratio": 8,
    "mlp_hidden_size": None, "weight_tying": True, "vocab_size": 50280,
}  # fmt: skip
OLMO_7B: Settings = {
    "model_type": "hf_olmo", "d_model": 4096, "n_heads": 32, "n_layers": 32, "mlp_ratio": 4,
    "mlp_hidden_size": 22016, "weight_tying": False, "vocab_size": 50280,
}  # fmt: skip
BLOOM: Settings = {
    "model_type": "bloom", "n_embed": 1024, "n_layer": 24, "num_attention_heads": 16,
    "tie_word_embeddings": True, "vocab_size": 250880,
}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "billions"),
    [
        (DBRX, 131.6),
        (FALCON_7B, 6.92),
        (ERNIE, 21.8),
        (JAMBA, 51.6),
        (QWEN_1, 7.72),
        (HUNYUAN, 80.4),
        (CHATGLM, 6.24),
        (PIXTRAL, 12.25),
        (LLAVA, 6.74),
        (BLOOM, 0.559),
        (OLMO_1B, 1.18),
        (OLMO_7B, 6.89),
    ],
)
def test_published_configs_are_read_in_their_own_words(config: Settings, billions: float) -> None:
    assert parameters(config) / 1e9 == pytest.approx(billions, rel=0.01)


@pytest.mark.parametrize("config", [CHATGLM, LLAVA, PIXTRAL])
def test_training_reads_them_too(config: Settings) -> None:
    row = {"cat": "training", "model": "m", "instance": "trn1.32xlarge", "nodes": 4,
           "topology": "TP=8", "microbatch": 1, "global_batch": 256, "seq_len": 4096}  # fmt: skip
    assert predicted(row, config=config).prediction["seq_per_s"] > 0


def test_key_heads_and_experts_are_those_of_the_model() -> None:
    layer = decoder_architecture(DBRX).layers[0]
    assert isinstance(layer.mixer, SelfAttention)
    assert isinstance(layer.mlp, Experts)
    assert (layer.mixer.kv_heads, layer.mlp.count, layer.mlp.chosen) == (8, 16, 4)
    older = decoder_architecture(FALCON_7B).layers[0].mixer
    assert isinstance(older, SelfAttention)
    assert older.kv_heads == 1


def test_a_step_of_layers_with_a_state_does_not_wait_for_the_context() -> None:
    """Four of Jamba's layers read their keys; of a decoder of its size all 32 do."""
    row = {"cat": "llm_decode", "model": "m", "instance": "trn1.32xlarge", "tp": 32, "batch": 16}
    plain = {name: one for name, one in JAMBA.items() if "mamba" not in name and "attn" not in name}

    def growth(config: Settings) -> float:
        short, long = (
            predicted(row, config=config, seq_len=length).prediction["tpot_p50_ms"]
            for length in (1024, 16384)
        )
        return long - short

    assert 0 < growth(JAMBA) < 0.3 * growth(plain)


def test_a_model_that_does_not_fit_is_not_said_to() -> None:
    row = {"cat": "memory", "model": "mine", "config": DBRX, "instance": "inf2.48xlarge", "tp": 8,
           "batch": 1, "seq_len": 2048, "model_dtype": "bf16"}  # fmt: skip
    assert predicted(row).prediction == {"fits": False}


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("moe_layer_frequency", 2),
        ("moe_ffn_hidden_sizes", [1024, 2048]),
        ("num_key_value_heads_per_layer", [2, 2, 4, 4]),
        ("hybrid_override_pattern", "M-*-"),
        ("mamba_d_state", 16),
        ("share_expert_dim", 5120),
        ("mamba_d_ssm", 1024),
        ("hidden_size_per_layer_input", 256),
        ("mlp_hidden_size", 22016),
        ("block_configs", [{"attention": {"n_heads_in_group": 8}}]),
        ("linear_attn_config", {"num_heads": 32, "head_dim": 128}),
    ],
)
def test_a_setting_of_sizes_that_is_not_read_is_refused_by_name(
    setting: str, value: object
) -> None:
    config = {**GROUPED, "model_type": "mine", setting: value}
    with pytest.raises(UnsupportedModel, match=f"{setting} in config.json is not read"):
        decoder_architecture(config)
    row = {"cat": "llm_decode", "model": "m", "instance": "inf2.xlarge", "config": config}
    assert f"{setting} in config.json is not read" in refusal(row)


def test_experts_in_a_section_that_is_not_read_are_refused_by_name() -> None:
    config = {**GROUPED, "model_type": "mine", "ffn_config": {"moe": {"n_experts": 16}}}
    with pytest.raises(UnsupportedModel, match=r"ffn_config\.moe\.n_experts in"):
        decoder_architecture(config)


@pytest.mark.parametrize("name", [
    "perceiver_config", "slice_config", "transformers.js_config", "neuron_config", "peft_config",
    "awq_config", "ds_config", "attention_config", "init_config", "mup_cfg",
])  # fmt: skip
def test_sections_without_experts_are_passed_over(name: str) -> None:
    config = {**GROUPED, "model_type": "mine"}
    section = {"verbose": 2, "num_key_value_heads": 1, "moe_tp_degree": 8, "steps": [1000]}
    assert decoder_architecture({**config, name: section}) == decoder_architecture(config)


def test_sections_of_other_parts_change_nothing_of_what_is_trained_or_embedded() -> None:
    config = {"model_type": "mine", "text_config": {**GROUPED, "model_type": "opt"}}
    parts = {"qformer_config": {"hidden_size": 768}, "talker_config": {"num_experts": 128}}
    for row in (
        {"cat": "training", "instance": "trn1.32xlarge", "global_batch": 8, "seq_len": 2048},
        {"cat": "encoder", "instance": "inf2.xlarge", "batch": 1, "seq_len": 128},
    ):
        alone = predicted(row, model="m", config=config).prediction
        assert alone
        assert predicted(row, model="m", config={**config, **parts}).prediction == alone


def test_a_hybrid_all_of_whose_layers_attend_has_no_state() -> None:
    dense = {
        **GROUPED, "model_type": "granitemoehybrid", "num_local_experts": 0,
        "shared_intermediate_size": 640, "layer_types": ["attention"] * 4,
    }  # fmt: skip
    assert decoder_architecture({**dense, **MAMBA_2}) == decoder_architecture(dense)


def test_an_mlp_is_as_wide_as_its_ratio_says_where_nothing_else_does() -> None:
    config = {**WIDTH, "model_type": "mine"}
    wide = decoder_architecture({**config, "mlp_ratio": 2.5})
    assert wide == decoder_architecture({**config, "intermediate_size": 640})
    for superfluous in (8, "none"):
        given = {**config, "mlp_ratio": superfluous, "intermediate_size": 640}
        assert decoder_architecture(given) == wide


@pytest.mark.parametrize(
    "harmless",
    [
        {"router_aux_loss_coef": 0.001, "output_router_logits": False, "moe_capacity": [64, 64]},
        {"vision_config": {"hidden_size": 1024}, "quantization_config": {"bits": 4}},
        {"num_experts": 0, "moe_intermediate_size": 0, "shared_expert_intermediate_size": None},
        {"mamba_d_state": 0, "expert_dropout": 1, "moe_layer_frequency": 1, "moe_group": 1},
        {"num_expert_group": 8, "expert_group": 8, "zero_expert_num": 256, "mlp_layers": 2},
    ],
)
def test_settings_that_change_no_sizes_are_passed_over(harmless: Settings) -> None:
    config = {**GROUPED, "model_type": "mine"}
    assert decoder_architecture({**config, **harmless}) == decoder_architecture(config)


def test_layers_of_a_kind_that_nobody_knows_are_refused() -> None:
    config = {**GROUPED, "model_type": "mine", "layer_types": ["full_attention", "spectral"] * 2}
    with pytest.raises(UnsupportedModel, match="'spectral'"):
        decoder_architecture(config)
    with pytest.raises(UnsupportedModel, match="attention is made by experts"):
        decoder_architecture({**GROUPED, "model_type": "jetmoe", "num_local_experts": 8})


def test_a_list_has_a_value_for_each_layer() -> None:
    config = {**GROUPED, "model_type": "mine", "num_experts": [8, 8], "num_experts_per_tok": 2}
    with pytest.raises(InvalidModel, match=r"num_experts in .* must have a value for each"):
        decoder_architecture(config)


@pytest.mark.parametrize("name", ["num_attention_heads", "hidden_size", "num_hidden_layers"])
def test_sizes_of_the_whole_model_are_no_lists(name: str) -> None:
    with pytest.raises(InvalidModel, match=f"{name} in .* must be a positive integer"):
        decoder_architecture({**GROUPED, "model_type": "mine", name: [8, 8, 8, 8]})
