"""Programs from configs: their bytes and FLOPs against what the model's own arithmetic says."""

from __future__ import annotations

import sys
from subprocess import run
from typing import Any

import pytest

from ridgeline_backends.neuron.builders.build import build_decoder
from ridgeline_backends.neuron.builders.rules import (
    NXDI,
    OPTIMUM_NEURON,
    TRANSFORMERS_NEURONX_2_18,
)
from ridgeline_backends.neuron.builders.site import Phase
from ridgeline_backends.neuron.config import InvalidNeuronConfig, NeuronConfig, neuron_config
from ridgeline_backends.neuron.operations import CachedAttention, ExpertMatmul
from ridgeline_backends.neuron.partition import KVRule, plan_heads
from ridgeline_backends.neuron.program import BufferKind, Program

LLAMA_8B: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
}
DEEPSEEK_V3: dict[str, Any] = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "hidden_size": 7168,
    "num_hidden_layers": 61,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "intermediate_size": 18432,
    "moe_intermediate_size": 2048,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "first_k_dense_replace": 3,
    "q_lora_rank": 1536,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "vocab_size": 129280,
    "max_position_embeddings": 163840,
    "hidden_act": "silu",
}


def built(config: dict[str, Any], phase: Phase, bucket: int, **settings: Any) -> Program:
    program = build_decoder(config, NeuronConfig(**settings), phase=phase, bucket=bucket)
    program.check()
    return program


@pytest.mark.parametrize("tp", [1, 2, 8, 32])
def test_a_decode_step_holds_its_part_of_the_weights_and_reads_all_of_them(tp: int) -> None:
    program = built(LLAMA_8B, Phase.TOKEN_GENERATION, 2048, tp_degree=tp, seq_len=2048)
    kv_rows = max(8, tp) * 128
    layer = 4096 * (4096 * 2 + 2 * kv_rows + 3 * 14336)
    expected = 2 * (32 * layer + 2 * 128256 * 4096) / tp
    assert program.bytes_of(BufferKind.WEIGHT) == pytest.approx(expected, rel=0.01)
    assert program.bytes_of(BufferKind.KV) == 32 * 2 * max(8 // tp, 1) * 2048 * 128 * 2
    # Two FLOPs for each weight but the embedding's, and the scores.
    scores = 32 * (32 // tp) * 2048 * (4 * 128 + 5)
    flops = 2 * (32 * layer + 128256 * 4096) / tp + scores
    assert program.flops == pytest.approx(flops, rel=0.01)


def test_a_part_of_a_prompt_reads_the_whole_cache_and_gives_one_tokens_logits() -> None:
    settings = {"tp_degree": 8, "batch_size": 4, "seq_len": 4096, "on_device_sampling": False}
    program = built(LLAMA_8B, Phase.CHUNKED_PREFILL, 1024, **settings)
    kinds = [one.kind for section in program.sections for one in section.operations]
    assert "cached_attention" in kinds
    assert "attention" not in kinds
    (logits,) = [
        one
        for section in program.sections
        for operation in section.operations
        for one in operation.outputs
        if one.kind is BufferKind.OUTPUT
    ]
    assert logits.form.shape[1] == 1
    (scores,) = {
        one.attributes.length
        for section in program.sections
        for one in section.operations
        if isinstance(one.attributes, CachedAttention)
    }
    assert scores == 4096


def test_two_sums_a_layer_join_the_cores() -> None:
    program = built(LLAMA_8B, Phase.TOKEN_GENERATION, 128, tp_degree=8)
    counts: dict[str, int] = {}
    for operation, times in program.operations():
        counts[operation.kind] = counts.get(operation.kind, 0) + times
    assert (counts["all_reduce"], counts["all_gather"]) == (64, 1)
    assert not any(
        one.kind.startswith("all_")
        for one, _ in built(LLAMA_8B, Phase.TOKEN_GENERATION, 128).operations()
    )


def test_sequence_parallelism_cuts_the_sums_and_keeps_their_bytes() -> None:
    settings = {"tp_degree": 8, "seq_len": 1024, "sequence_parallel_enabled": True}
    program = built(LLAMA_8B, Phase.CONTEXT_ENCODING, 1024, **settings)
    kinds = {one.kind for one, _ in program.operations()}
    assert {"reduce_scatter", "all_gather", "own_part"} <= kinds
    assert "all_reduce" not in kinds
    decoding = built(LLAMA_8B, Phase.TOKEN_GENERATION, 1024, **settings)
    assert "all_reduce" in {one.kind for one, _ in decoding.operations()}


def test_the_rule_for_kv_heads_decides_how_many_are_kept() -> None:
    heads = plan_heads(64, 8, 24, KVRule.REPLICATED_HEADS)
    assert (heads.queries_per_core, heads.keys_per_core) == (3, 3)
    heads = plan_heads(64, 8, 24, KVRule.REPLICATE_TO_TP_DEGREE)
    assert (heads.queries_per_core, heads.keys_per_core) == (3, 1)
    heads = plan_heads(9, 3, 2, KVRule.REPLICATE_TO_TP_DEGREE)
    assert heads.rule is KVRule.CONVERT_TO_MHA
    assert heads.queries == ((0, 1, 2, 3, 4), (5, 6, 7, 8, None))


@pytest.mark.parametrize("rule", KVRule)
@pytest.mark.parametrize(("heads", "kv"), [(9, 3), (32, 8), (12, 12), (8, 1), (14, 2), (28, 4)])
@pytest.mark.parametrize("degree", [1, 2, 4, 8, 16])
def test_every_query_finds_its_own_key_on_its_core(
    heads: int, kv: int, degree: int, rule: KVRule
) -> None:
    plan = plan_heads(heads, kv, degree, rule)
    assert sorted(h for core in plan.queries for h in core if h is not None) == list(range(heads))
    share = plan.queries_per_core // plan.keys_per_core
    assert share * plan.keys_per_core == plan.queries_per_core
    for queries, keys in zip(plan.queries, plan.keys, strict=True):
        for place, query in enumerate(queries):
            if query is not None:
                assert keys[place // share] == query // (heads // kv)


def test_library_rules_change_the_kv_cache() -> None:
    config = NeuronConfig(tp_degree=8, seq_len=2048)
    old, new = (
        build_decoder(LLAMA_8B, config, phase=Phase.TOKEN_GENERATION, bucket=2048, rules=rules)
        for rules in (TRANSFORMERS_NEURONX_2_18, NXDI)
    )
    assert old.bytes_of(BufferKind.KV) == 4 * new.bytes_of(BufferKind.KV)


def test_latent_attention_keeps_one_latent_a_token_on_every_core() -> None:
    program = built(DEEPSEEK_V3, Phase.TOKEN_GENERATION, 4096, tp_degree=64, seq_len=4096)
    assert program.bytes_of(BufferKind.KV) == 61 * 4096 * (512 + 64) * 2
    whole = built(DEEPSEEK_V3, Phase.TOKEN_GENERATION, 4096, tp_degree=1, seq_len=4096)
    assert whole.bytes_of(BufferKind.WEIGHT) == pytest.approx(671e9 * 2, rel=0.01)


def test_a_decode_step_reads_the_experts_its_tokens_can_choose() -> None:
    def read(phase: Phase, bucket: int) -> int:
        program = built(DEEPSEEK_V3, phase, bucket, seq_len=4096)
        found = [one for one, _ in program.operations() if one.kind == "expert_matmul"]
        return found[0].read_bytes[1] // (2 * 2048 * 7168 * 2)

    assert read(Phase.TOKEN_GENERATION, 128) == 8
    assert read(Phase.CONTEXT_ENCODING, 128) == 256


@pytest.mark.parametrize(
    ("phase", "batch", "bucket", "rows"),
    [
        (Phase.TOKEN_GENERATION, 31, 128, None),
        (Phase.TOKEN_GENERATION, 32, 128, 32 * 256),
        (Phase.TOKEN_GENERATION, 64, 128, 64 * 256),
        (Phase.CONTEXT_ENCODING, 1, 32, 32 * 256),
        (Phase.CONTEXT_ENCODING, 1, 64, None),
    ],
)
def test_every_expert_computes_every_token_where_tokens_can_choose_all_and_fill_no_block(
    phase: Phase, batch: int, bucket: int, rows: int | None
) -> None:
    program = built(DEEPSEEK_V3, phase, bucket, seq_len=128, batch_size=batch, ctx_batch_size=1)
    kinds = {one.attributes for one, _ in program.operations() if one.kind == "expert_matmul"}
    assert {kind.rows for kind in kinds if isinstance(kind, ExpertMatmul)} == {rows}


@pytest.mark.parametrize(
    ("phase", "batch", "rows"),
    [
        (Phase.CONTEXT_ENCODING, 1, 2048 * 256),
        (Phase.TOKEN_GENERATION, 1, None),
        (Phase.TOKEN_GENERATION, 31, None),
        (Phase.TOKEN_GENERATION, 32, 32 * 256),
        (Phase.TOKEN_GENERATION, 64, None),
    ],
)
def test_optimum_neuron_takes_one_prompt_for_a_decode_step_and_a_large_batch_for_a_prompt(
    phase: Phase, batch: int, rows: int | None
) -> None:
    config = NeuronConfig(seq_len=2048, batch_size=32)
    program = build_decoder(
        DEEPSEEK_V3, config, phase=phase, bucket=2048, rules=OPTIMUM_NEURON, batch=batch
    )
    kinds = {one.attributes for one, _ in program.operations() if one.kind == "expert_matmul"}
    assert {kind.rows for kind in kinds if isinstance(kind, ExpertMatmul)} == {rows}


@pytest.mark.parametrize(
    ("model_type", "settings", "parameters"),
    [
        ("gpt2", {"n_embd": 1600, "n_layer": 48, "n_head": 25, "vocab_size": 50257}, 1.56e9),
        (
            "opt",
            {
                "hidden_size": 7168,
                "num_hidden_layers": 48,
                "num_attention_heads": 56,
                "ffn_dim": 28672,
                "vocab_size": 50272,
            },
            30.0e9,
        ),
        (
            "gpt_neox",
            {
                "hidden_size": 6144,
                "num_hidden_layers": 44,
                "num_attention_heads": 64,
                "intermediate_size": 24576,
                "vocab_size": 50432,
                "rotary_pct": 0.25,
            },
            20.6e9,
        ),
        (
            "mixtral",
            {
                "hidden_size": 4096,
                "num_hidden_layers": 32,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "intermediate_size": 14336,
                "num_local_experts": 8,
                "num_experts_per_tok": 2,
                "vocab_size": 32000,
            },
            46.7e9,
        ),
    ],
)
def test_published_sizes_of_families_that_are_built_for_their_shapes(
    model_type: str, settings: dict[str, Any], parameters: float
) -> None:
    config = {"architectures": ["Other"], "model_type": model_type, **settings}
    program = built(config, Phase.TOKEN_GENERATION, 128)
    tied = model_type in ("gpt2", "opt")
    hidden = settings.get("hidden_size") or settings.get("n_embd")
    extra = settings["vocab_size"] * hidden if tied else 0
    weights = program.bytes_of(BufferKind.WEIGHT) / 2
    assert weights - extra == pytest.approx(parameters, rel=0.01)


def test_a_405b_program_is_built_in_milliseconds_and_without_torch() -> None:
    script = """
import sys, time
from ridgeline_backends.neuron.builders.build import build_decoder
from ridgeline_backends.neuron.builders.site import Phase
from ridgeline_backends.neuron.config import NeuronConfig
config = dict(architectures=["LlamaForCausalLM"], hidden_size=16384, num_hidden_layers=126,
    num_attention_heads=128, num_key_value_heads=8, intermediate_size=53248, vocab_size=128256,
    max_position_embeddings=131072, rms_norm_eps=1e-5, rope_theta=500000.0)
settings = NeuronConfig(tp_degree=64, seq_len=8192)
begin = time.process_time()
program = build_decoder(config, settings, phase=Phase.TOKEN_GENERATION, bucket=8192)
flops = program.flops
assert time.process_time() - begin < 0.05, time.process_time() - begin
assert len(program.sections) == 3 and program.sections[1].repeats == 126
assert "torch" not in sys.modules
"""
    done = run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_layers_that_alternate_are_one_pattern() -> None:
    gemma = {
        "architectures": ["Gemma3ForCausalLM"],
        "hidden_size": 64,
        "num_hidden_layers": 14,
        "intermediate_size": 128,
        "vocab_size": 256,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "sliding_window": 32,
    }
    program = built(gemma, Phase.TOKEN_GENERATION, 128)
    layers = [one for one in program.sections if one.name.startswith("layers")]
    assert [(one.repeats, one.period) for one in layers] == [(2, 6), (2, 1)]
    assert [layers[1].layers(repeat) for repeat in range(2)] == [(12,), (13,)]
    windows = [
        one.attributes.window  # type: ignore[attr-defined]
        for one, times in program.operations()
        for _ in range(times)
        if one.kind == "cached_attention"
    ]
    assert len(windows) == 14
    assert windows.count(None) == 2


def test_neuron_config_takes_the_names_of_nxd_inference() -> None:
    config = neuron_config(
        {
            "tp_degree": 8,
            "torch_dtype": "bfloat16",
            "seq_len": 1024,
            "buckets": [256, 1024],
            "on_device_sampling_config": {"do_sample": True, "global_topk": 64},
            "speculation_length": 0,
        }
    )
    assert config.context_buckets == config.generation_buckets == (256, 1024)
    assert (config.on_device_sampling, config.global_topk) == (True, 64)
    assert NeuronConfig(seq_len=600).context_buckets == (128, 256, 512, 600)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"tp_degre": 2}, "no field 'tp_degre'"),
        ({"tp_degree": "2"}, "tp_degree must be of type int"),
        ({"speculation_length": 4}, "speculation_length = 4 is not honoured"),
        ({"enable_fused_speculation": True}, "enable_fused_speculation = True is not honoured"),
        ({"is_prefix_caching": 1}, "is_prefix_caching = 1 is not honoured"),
        ({"seq_len": 128, "context_encoding_buckets": [64]}, "must end with 128"),
        ({"seq_len": 128, "max_context_length": 256}, "above seq_len 128"),
        ({"tp_degree": 0}, "at least 1"),
        ({"torch_dtype": "int4"}, "torch_dtype must be one of"),
    ],
)
def test_neuron_config_refuses_what_it_would_not_honour(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidNeuronConfig, match=said):
        neuron_config(given)
