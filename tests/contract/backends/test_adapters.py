"""LoRA adapters against PEFT: each merged into its model and run by transformers, in float32.

Greedy text is compared by teacher forcing, as in `test_real_models`.
"""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from random_models import save_random
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from ridgeline_backends.base import LoadSpec
from ridgeline_backends.cpu.backend import CpuBackend
from ridgeline_backends.cpu.runner import CpuRunner
from ridgeline_backends.engine import EngineOutput, LLMEngine, SamplingParams
from ridgeline_backends.errors import InvalidAdapter
from ridgeline_backends.models.lora import CONFIG, WEIGHTS
from ridgeline_backends.models.reader import read_json

SIZES = {
    "vocab_size": 151,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "intermediate_size": 80,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
ALL = [*ATTENTION, "gate_proj", "up_proj", "down_proj"]

BASES = {
    "llama": (LlamaForCausalLM, LlamaConfig(**SIZES)),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(**SIZES)),
    "phi3": (Phi3ForCausalLM, Phi3Config(**SIZES)),
}
CASES = {
    "attention": ("llama", LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"])),
    "everything": ("llama", LoraConfig(r=8, lora_alpha=16, target_modules=ALL)),
    "rank-stabilised": (
        "llama",
        LoraConfig(r=6, lora_alpha=5, use_rslora=True, target_modules=ATTENTION),
    ),
    "patterns": (
        "llama",
        LoraConfig(
            r=4,
            lora_alpha=4,
            target_modules=ALL,
            rank_pattern={"layers.1.self_attn.q_proj": 9, "down_proj": 2},
            alpha_pattern={"^model.layers.0.mlp.up_proj": 12, "k_proj": 1},
        ),
    ),
    "some layers": (
        "llama",
        LoraConfig(r=4, target_modules=ATTENTION, layers_to_transform=[0, 2]),
    ),
    "biased model": ("qwen2", LoraConfig(r=4, target_modules=ALL)),
    "fused matrices": ("phi3", LoraConfig(r=4, target_modules=["qkv_proj", "gate_up_proj"])),
}


def _base(name: str, folder: Path) -> Path:
    kind, config = BASES[name]
    save_random(kind, config, folder)
    return folder


def save_adapter(model: PreTrainedModel, config: LoraConfig, folder: Path, seed: int) -> PeftModel:
    """Write an adapter whose B is not zero, as PEFT begins, and return it on its model."""
    peft = get_peft_model(model, config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in peft.named_parameters():
            if "lora_" in name:
                value.copy_(torch.randn(value.shape, generator=generator) * 0.2)
    peft.save_pretrained(folder)
    return peft


def runner_of(folder: Path, max_adapters: int = 4) -> CpuRunner:
    backend = CpuBackend()
    spec = LoadSpec(dtype="fp32", max_model_len=128, max_num_seqs=8, max_adapters=max_adapters)
    plan = backend.plan(read_json(folder / "config.json"), spec)
    runner = backend.load(backend.compile(folder, plan))
    assert isinstance(runner, CpuRunner)
    return runner


def answers(
    engine: LLMEngine, requests: dict[str, tuple[list[int], str | None]]
) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {name: [] for name in requests}

    def sink(output: EngineOutput) -> None:
        assert output.error is None
        found[output.sequence_id].extend(output.token_ids)

    params = SamplingParams(max_tokens=12, temperature=0, ignore_eos=True)
    for name, (prompt, adapter) in requests.items():
        engine.submit(name, prompt, params, sink, adapter=adapter)
    while engine.step():
        engine.check_integrity()
    return found


def prompt(length: int, seed: int = 0) -> list[int]:
    draw = random.Random(seed)
    return [draw.randrange(3, 151) for _ in range(length)]


@torch.inference_mode()
def assert_greedy(model: torch.nn.Module, prompt: list[int], answer: list[int]) -> None:
    """Each token is the likeliest by transformers, or as likely but for float32's last bits."""
    logits = model(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
    chosen = logits.gather(1, torch.tensor(answer)[:, None])[:, 0]
    assert torch.all(logits.amax(-1) - chosen < 1e-3)


@pytest.mark.parametrize("case", CASES)
def test_an_adapter_is_what_peft_merges(case: str, tmp_path: Path):
    name, config = CASES[case]
    folder = _base(name, tmp_path / "base")
    model = BASES[name][0].from_pretrained(folder, dtype=torch.float32)
    merged = save_adapter(model, config, tmp_path / "adapter", seed=1).merge_and_unload().eval()
    engine = LLMEngine(runner_of(folder))
    engine.load_adapter("one", tmp_path / "adapter")
    text = prompt(21)
    found = answers(engine, {"with": (text, "one"), "without": (text, None)})
    assert found["with"] != found["without"]
    assert_greedy(merged, text, found["with"])
    untouched = BASES[name][0].from_pretrained(folder, dtype=torch.float32).eval()
    assert_greedy(untouched, text, found["without"])


def test_several_adapters_in_one_batch_answer_as_each_alone(tmp_path: Path):
    folder = _base("llama", tmp_path / "base")
    for seed, (rank, targets) in enumerate([(3, ALL), (8, ATTENTION), (1, ["down_proj"])]):
        model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
        config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets)
        save_adapter(model, config, tmp_path / str(seed), seed)
    names = [None, "0", "1", "2"]
    requests = {
        f"{length} {name}": (prompt(length), name) for length in (5, 17, 40) for name in names
    }
    runner = runner_of(folder)

    def engine() -> LLMEngine:
        # On the same runner, whose adapters the former engine gave back.
        fresh = LLMEngine(runner)
        for name in names[1:]:
            assert name is not None
            fresh.load_adapter(name, tmp_path / name)
        return fresh

    def give_back(engine: LLMEngine) -> None:
        for name in engine.stats().adapters:
            engine.unload_adapter(name).result(0)

    alone: dict[str, list[int]] = {}
    for name, request in requests.items():
        single = engine()
        alone |= answers(single, {name: request})
        give_back(single)
    together = engine()
    assert answers(together, requests) == alone
    # Behind prefixes in memory, those of each adapter its own.
    hits = together.stats().prefix_hits
    assert answers(together, requests) == alone
    assert together.stats().prefix_hits > hits
    assert len({tuple(answer) for answer in alone.values()}) == len(requests)


REFUSED = {
    "use_dora": {"use_dora": True},
    "modules_to_save": {"modules_to_save": ["lm_head"]},
    "bias": {"bias": "all"},
    "init_lora_weights": {"init_lora_weights": "pissa"},
    "peft_type": {"peft_type": "IA3"},
    "regular expressions": {"alpha_pattern": {"(a+)+$": 3}},
    "rank 4": {"r": 5},
    "lora_alpha": {"lora_alpha": -1},
    "fan_in_fan_out": {"fan_in_fan_out": True},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[CpuRunner, Path]:
    """A runner, and a folder with an adapter for it."""
    folder = _base("llama", tmp_path_factory.mktemp("base"))
    adapter = tmp_path_factory.mktemp("adapter")
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    save_adapter(model, LoraConfig(r=4, target_modules=ALL), adapter, 0)
    return runner_of(folder), adapter


@pytest.mark.parametrize("word", REFUSED)
def test_what_is_not_applied_is_refused_by_name(
    word: str, made: tuple[CpuRunner, Path], tmp_path: Path
):
    runner, adapter = made
    config = json.loads((adapter / CONFIG).read_text())
    (tmp_path / CONFIG).write_text(json.dumps(config | REFUSED[word]))
    (tmp_path / WEIGHTS).write_bytes((adapter / WEIGHTS).read_bytes())
    with pytest.raises(InvalidAdapter, match=word) as caught:
        runner.read_adapter("mine", tmp_path)
    assert "mine" in str(caught.value)


def test_files_that_cannot_be_used_are_named(made: tuple[CpuRunner, Path], tmp_path: Path):
    runner, adapter = made
    with pytest.raises(InvalidAdapter, match=CONFIG):
        runner.read_adapter("mine", tmp_path)
    (tmp_path / CONFIG).write_bytes((adapter / CONFIG).read_bytes())
    with pytest.raises(InvalidAdapter, match="safetensors"):
        runner.read_adapter("mine", tmp_path)
    (tmp_path / WEIGHTS).write_bytes((adapter / WEIGHTS).read_bytes()[:-100])
    with pytest.raises(InvalidAdapter, match=WEIGHTS):
        runner.read_adapter("mine", tmp_path)


def test_an_adapter_of_another_model_or_of_too_high_a_rank_is_refused(tmp_path: Path):
    other = LlamaForCausalLM(LlamaConfig(**SIZES | {"intermediate_size": 96}))
    save_adapter(other, LoraConfig(r=4, target_modules=ALL), tmp_path / "other", 0)
    deep = LlamaForCausalLM(LlamaConfig(**SIZES | {"num_hidden_layers": 5}))
    save_adapter(deep, LoraConfig(r=4, target_modules=ALL), tmp_path / "deep", 0)
    wide = LlamaForCausalLM(LlamaConfig(**SIZES))
    save_adapter(wide, LoraConfig(r=17, target_modules=ALL), tmp_path / "wide", 0)
    head = LlamaForCausalLM(LlamaConfig(**SIZES))
    save_adapter(head, LoraConfig(r=4, target_modules=["lm_head"]), tmp_path / "head", 0)
    runner = runner_of(_base("llama", tmp_path / "base"))
    for name, word in (
        ("other", "another model"),
        ("deep", r"layers\.3"),
        ("wide", "OPTION_MAX_LORA_RANK"),
        ("head", "lm_head"),
    ):
        with pytest.raises(InvalidAdapter) as caught:
            runner.read_adapter("mine", tmp_path / name)
        assert re.search(word, f"{caught.value.message} {caught.value.hint}")
