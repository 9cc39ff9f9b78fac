"""The vLLM engine for real, where vLLM can be imported: a tiny random Llama in float32.

It needs pytest, boto3 and this repository's packages on PYTHONPATH beside vLLM's environment.
"""

from __future__ import annotations

import json
from pathlib import Path
from queue import SimpleQueue

import pytest

from ridgeline_backends.engine.api import EngineOutput, FinishReason, SamplingParams
from ridgeline_backends.errors import InvalidSampling, PromptTooLong, UnknownAdapter
from ridgeline_backends.vllm.engine import VllmEngine
from ridgeline_backends.vllm.opening import VllmSpec, is_installed, open_vllm

pytestmark = pytest.mark.skipif(not is_installed(), reason="vLLM is not installed here")

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "intermediate_size": 128,
    "vocab_size": 256,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "eos_token_id": 2,
    "bos_token_id": 1,
    "torch_dtype": "float32",
}


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Here: neither library is there where the module is skipped for want of vLLM.
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("llama")
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**CONFIG)).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


@pytest.fixture(scope="module")
def engine(model_dir: Path):  # type: ignore[no-untyped-def]
    spec = VllmSpec(
        dtype="fp32", max_model_len=128, max_num_seqs=4, max_live=16, kv_cache_bytes=64 << 20
    )
    engine = open_vllm(model_dir, spec, vocab_size=256, eos=frozenset({2}))
    engine.start()
    yield engine
    engine.stop()
    assert not engine.stats().alive


def take(engine: VllmEngine, name: str, prompt: list[int], **params: object) -> list[EngineOutput]:
    outputs: SimpleQueue[EngineOutput] = SimpleQueue()
    wanted = SamplingParams(**{"max_tokens": 12, "temperature": 0.0, "ignore_eos": True, **params})  # type: ignore[arg-type]
    engine.submit(name, prompt, wanted, outputs.put)
    found = [outputs.get(timeout=120)]
    while found[-1].finish_reason is None:
        found.append(outputs.get(timeout=120))
    return found


def test_greedy_text_is_that_of_transformers(engine: VllmEngine, model_dir: Path):
    import torch
    from transformers import AutoModelForCausalLM

    prompt = [5, 9, 100, 77, 3, 250]
    outputs = take(engine, "a", prompt, logprobs=2, prompt_logprobs=0)
    text = [token for output in outputs for token in output.token_ids]
    assert len(text) == 12
    assert outputs[-1].finish_reason is FinishReason.LENGTH
    assert (outputs[-1].prompt_tokens, outputs[-1].completion_tokens) == (6, 12)
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    with torch.inference_mode():
        logits = model(torch.tensor([prompt + text])).logits[0]
    assert logits[5:-1].argmax(-1).tolist() == text
    expected = logits.log_softmax(-1)
    reported = [entry for output in outputs for entry in output.logprobs or ()]
    assert [entry.token_id for entry in reported] == text
    for place, entry in enumerate(reported):
        assert len(entry.top) == 2
        assert entry.logprob == pytest.approx(float(expected[5 + place, entry.token_id]), abs=1e-3)
    known = outputs[0].prompt_logprobs
    assert known is not None
    assert [entry.token_id for entry in known] == prompt[1:]
    assert known[0].logprob == pytest.approx(float(expected[0, prompt[1]]), abs=1e-3)


def test_a_stop_token_ends_the_text_and_is_in_it(engine: VllmEngine):
    prompt = [5, 9, 100]
    text = [token for output in take(engine, "b", prompt) for token in output.token_ids]
    stop = text[4]
    cut = text[: text.index(stop) + 1]
    outputs = take(engine, "c", prompt, stop_token_ids=frozenset({stop}))
    assert [token for output in outputs for token in output.token_ids] == cut
    assert outputs[-1].finish_reason is FinishReason.STOP


def test_cancelled_and_late_sequences_end(engine: VllmEngine):
    outputs: SimpleQueue[EngineOutput] = SimpleQueue()
    params = SamplingParams(max_tokens=120, temperature=0, ignore_eos=True)
    engine.submit("d", [7], params, outputs.put)
    outputs.get(timeout=60)
    engine.cancel("d")
    engine.submit("e", [8], params, outputs.put, timeout_s=0.0)
    ends = {}
    while len(ends) < 2:
        output = outputs.get(timeout=60)
        if output.finish_reason is not None:
            ends[output.sequence_id] = output.finish_reason
    assert ends == {"d": FinishReason.CANCELLED, "e": FinishReason.TIMEOUT}


def test_what_cannot_be_is_refused(engine: VllmEngine):
    params = SamplingParams(max_tokens=4)
    with pytest.raises(PromptTooLong):
        engine.submit("f", [3] * 128, params, print)
    with pytest.raises(InvalidSampling, match="token ids below 256"):
        engine.submit("f", [256], params, print)
    with pytest.raises(UnknownAdapter):
        engine.submit("f", [3], params, print, adapter="nobody")
