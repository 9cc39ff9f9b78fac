"""What a compilation job's command makes of a folder, and how it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ridgeline_backends.cpu  # noqa: F401  before torch: it tells OpenMP not to spin

# isort: split
import torch
from random_models import save_random
from torch import Tensor, nn
from transformers import RobertaConfig, RobertaForMaskedLM, RobertaModel

from ridgeline.errors import RidgelineError
from ridgeline_backends.neuron.compile_cache import CACHE_VARIABLE
from ridgeline_backends.neuron.jobs.compile import main
from ridgeline_backends.neuron.jobs.options import InvalidOrder, read_order, smallest_placement


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.down(torch.relu(self.up(x)))
        return found


class Attention(nn.Module):
    """Reads its sizes of its input, as most code does."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        q, k, v = (f(x).view(b, t, 4, 4).transpose(1, 2) for f in (self.q, self.k, self.v))
        weights = torch.softmax(q @ k.transpose(-1, -2) / 2, -1)
        return (weights @ v).transpose(1, 2).reshape(b, t, d)


class ScriptedAttention(Attention):
    """The same in the words that TorchScript has."""

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        q = self.q(x).view(b, t, 4, 4).transpose(1, 2)
        k = self.k(x).view(b, t, 4, 4).transpose(1, 2)
        v = self.v(x).view(b, t, 4, 4).transpose(1, 2)
        weights = torch.softmax(q @ k.transpose(-1, -2) / 2, -1)
        return (weights @ v).transpose(1, 2).reshape(b, t, d)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.lstm = nn.Linear(16, 16), nn.LSTM(16, 8, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.lstm(self.linear(x))[0]
        return found


class Repeats(nn.Module):
    """A loop that the batch decides, with attention in it."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(x.size(0)):
            x = self.attention(x, x, x)[0]
        return x


class Looks(nn.Module):
    """A table, and a mask or features beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.linear = nn.Embedding(10, 16), nn.Linear(16, 4)

    def forward(self, beside: Tensor, ids: Tensor) -> Tensor:
        found: Tensor = self.linear(self.table(ids)) + self.linear(beside)
        return found


class Counts(nn.Module):
    """Adds to a buffer of its own."""

    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        self.total.add_(x.sum(0))
        return x * self.total


class Chooses(nn.Module):
    """Runs one of two, as the values decide."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) if bool(x.sum() > 0) else x


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    """The lines that the command printed; its exit status is right for the last."""
    status = main(list(arguments))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert status == ("error" in lines[-1])
    return lines


def test_a_model_folder_becomes_a_module_per_phase_and_bucket(
    make_llama: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a folder of the archive, as `tar` makes it; a second time nothing is compiled."""
    source, output = tmp_path / "source", tmp_path / "output"
    source.mkdir()
    (source / "model").symlink_to(make_llama())
    order = (str(source), str(output), "--target", "ml_inf2")
    shapes = ("--shapes", '{"input_ids": [2, 256]}')
    *progress, last = run(capsys, *order, *shapes)
    assert progress == [{"done": done, "total": 4} for done in (1, 2, 3, 4)]
    result = last["result"]
    found = [(one["phase"], one["bucket"]) for one in result["modules"]]
    phases = ("context_encoding", "token_generation")
    assert found == [(phase, size) for phase in phases for size in (128, 256)]
    assert (result["instance_type"], result["neuron_cores"]) == ("inf2.xlarge", 2)
    assert result["inputs"] == {"input_ids": [2, 256]}
    assert json.loads((output / "neuron" / "compiled.json").read_text()) == result
    assert (output / "config.json").is_file()
    assert list(output.glob("*.safetensors"))
    again = run(capsys, *order, *shapes)[-1]["result"]
    assert (result["cached"], again["cached"]) == (0, 4)


def test_a_text_encoder_becomes_a_module_per_bucket_and_batch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = tmp_path / "source", tmp_path / "output"
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 100}
    config = RobertaConfig(
        intermediate_size=64, max_position_embeddings=202, pad_token_id=1, **sizes
    )
    save_random(RobertaModel, config, source)
    order = (str(source), str(output), "--target", "ml_inf2")
    result = run(capsys, *order)[-1]["result"]
    # Positions start behind that of the padding token.
    found = [(one["phase"], one["batch"], one["bucket"]) for one in result["modules"]]
    assert found == [("encoding", 1, 128), ("encoding", 1, 200)]
    (source / "sentence_bert_config.json").write_text('{"max_seq_length": 150}')
    result = run(capsys, *order)[-1]["result"]
    assert [one["bucket"] for one in result["modules"]] == [128, 150], "texts are no longer"
    # Masks have the shape of the ids; a list of shapes has no names.
    for shapes in ('{"input_ids": [4, 128], "attention_mask": [4, 128]}', "[[4, 128], [4, 128]]"):
        result = run(capsys, *order, "--shapes", shapes)[-1]["result"]
        assert [one["batch"] for one in result["modules"]] == [1, 4]
        assert result["inputs"] == {"input_ids": [4, 128]}

    def said(*more: str) -> str:
        return str(run(capsys, *order, *more)[-1]["error"])

    assert "context length 200" in said("--shapes", '{"input_ids": [1, 201]}')
    assert "reads input_ids" in said("--shapes", '{"pixels": [1, 3]}')
    assert "not quantised" in said("--options", '{"quantized": true}')
    save_random(RobertaForMaskedLM, config, source)
    assert "'RobertaForMaskedLM' is not supported" in said()


def test_a_program_with_a_batch_left_open_is_compiled_for_the_jobs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    left_open = {"x": {0: torch.export.Dim("b")}}
    program = torch.export.export(Mlp(), (torch.zeros(4, 8),), dynamic_shapes=left_open)
    torch.export.save(program, source / "model.pt2")
    asked = [str(source), str(tmp_path / "out"), "--target", "ml_trn1"]
    refused = run(capsys, *asked)[-1]["error"]["message"]
    assert "leaves dimensions of x open, and DataInputConfig gives 0 shapes for 1" in refused
    result = run(capsys, *asked, "--shapes", '{"x": [6, 8]}')[-1]["result"]
    assert list(result["inputs"].values()) == [[6, 8]]
    [module] = result["modules"]
    assert module["flops"] >= 2 * 6 * (8 * 16 + 16 * 4)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("kind", ["exported", "scripted"])
def test_a_program_of_one_file_is_compiled_for_one_core(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    example = torch.zeros(3, 8)
    if kind == "exported":
        torch.export.save(torch.export.export(Mlp(), (example,)), source / "model.pt2")
    else:
        torch.jit.save(torch.jit.trace(Mlp(), example), str(source / "model.pth"))
    shapes = [] if kind == "exported" else ["--shapes", '{"x": [3, 8]}']
    asked = [str(source), str(tmp_path / "out"), "--target", "ml_trn1", *shapes]
    result = run(capsys, *asked)[-1]["result"]
    [module] = result["modules"]
    assert module["flops"] >= 2 * 3 * (8 * 16 + 16 * 4)
    assert result["neuron_cores"] == 1
    assert list(result["inputs"].values()) == [[3, 8]]
    assert (tmp_path / "out" / next(source.iterdir()).name).is_file()


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("kind", ["traced attention", "scripted attention", "traced LSTM"])
def test_torchscript_that_reads_shapes_has_those_of_the_job(
    kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    if kind == "scripted attention":
        script = torch.jit.script(ScriptedAttention().eval())
    else:
        module = Attention() if kind == "traced attention" else Recurrent()
        script = torch.jit.trace(module.eval(), torch.zeros(2, 5, 16))
    torch.jit.save(script, str(source / "model.pt"))
    order = (str(source), str(tmp_path / "out"), "--target", "ml_inf2", "--shapes")
    result = run(capfd, *order, '{"x": [2, 5, 16]}')[-1]["result"]
    assert list(result["inputs"].values()) == [[2, 5, 16]]
    assert main([*order, '{"x": [2, 5, 32]}']) == 1
    said = capfd.readouterr()
    assert "(10x32 and 16x" in json.loads(said.out.splitlines()[-1])["error"]["message"]
    assert not said.err


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize(
    ("script", "shapes", "flops"),
    [
        # Projections of two rounds.
        (lambda: torch.jit.script(Repeats().eval()), {"x": [2, 5, 16]}, 2 * 10 * 16 * 64 * 2),
        (lambda: torch.jit.script(nn.Sequential(nn.Embedding(10, 16))), {"ids": [2, 5]}, 0),
        (
            lambda: torch.jit.script(Looks()),
            {"beside": [2, 5, 16], "ids": [2, 5]},
            2 * 10 * 16 * 4 * 2,
        ),
        (
            lambda: torch.jit.trace(Counts(), torch.ones(3, 8), check_trace=False),
            {"x": [3, 8]},
            3 * 8,
        ),
    ],
    ids=["loop of attention", "ids", "features and ids", "writes a buffer"],
)
def test_torchscript_has_its_loops_and_its_types_from_what_it_runs_on(
    script: Callable[[], Any],
    shapes: dict[str, list[int]],
    flops: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    torch.jit.save(script(), str(source / "model.pt"))
    asked = (str(source), str(tmp_path / "out"), "--target", "ml_inf2")
    result = run(capsys, *asked, "--shapes", json.dumps(shapes))[-1]["result"]
    assert result["inputs"] == shapes
    assert result["modules"][0]["flops"] >= flops


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_torchscript_that_values_decide_is_refused_and_a_trace_has_what_ran(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    asked = (str(source), str(tmp_path / "out"), "--target", "ml_inf2", "--shapes", '{"x": [3, 8]}')
    torch.jit.save(torch.jit.script(Chooses()), str(source / "model.pt"))
    error = run(capsys, *asked)[-1]["error"]
    assert "data-dependent" in error["message"]
    assert "torch.where" in error["hint"]
    # On zeros the trace gave its input back, which takes no time.
    torch.jit.save(torch.jit.trace(Chooses(), torch.zeros(3, 8)), str(source / "model.pt"))
    [module] = run(capsys, *asked)[-1]["result"]["modules"]
    assert module["flops"] == 0
    torch.jit.save(torch.jit.script(nn.Sequential(nn.Embedding(9, 8))), str(source / "model.pt"))
    said = run(capsys, *asked[:-1], '{"x": [3, 8], "y": [3]}')[-1]["error"]["message"]
    assert "expected at most 2 argument(s) but received 3" in said


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_what_cannot_be_compiled_is_said_with_what_to_change(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source"
    source.mkdir()

    def said(*more: str) -> str:
        asked = (str(source), str(tmp_path / "out"), "--target", "ml_inf2", *more)
        return str(run(capsys, *asked)[-1]["error"])

    assert "it holds none" in said()
    (source / "config.json").write_text("{}")
    assert "neither model.safetensors" in said()
    (source / "config.json").unlink()
    torch.jit.save(torch.jit.trace(Mlp(), torch.zeros(3, 8)), str(source / "model.pt"))
    assert "DataInputConfig is empty" in said()
    assert "static" in said("--shapes", '{"x": [-1, 8]}')
    (source / "model.pt").write_bytes(b"no archive")
    assert "is no TorchScript" in said("--shapes", '{"x": [3, 8]}')
    (source / "model.pt").unlink()

    class Sorts(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.linalg.det(x)

    exported = torch.export.export(Sorts(), (torch.zeros(3, 3),))
    torch.export.save(exported, source / "model.pt2")
    assert "NCC_EUOC002" in said()


def test_options_are_an_object_or_the_flags_of_the_compiler() -> None:
    given = read_order("ml_trn2", "", '{"tp_degree": 8, "seq_len": 512}')
    assert given.settings == {"tp_degree": 8, "seq_len": 512}
    flags = read_order("ml_trn1", "", '"--verbose 1 --num-neuroncores=2 -O2 --auto-cast none"')
    assert flags.settings == {"tp_degree": 2}
    assert read_order("ml_inf2", "[1, 3, 8, 8]", "").shapes == {"input0": (1, 3, 8, 8)}
    assert smallest_placement(given).instance.name == "trn2.48xlarge"
    for target, options, words in [
        ("ml_c5", "", "Targets: ml_inf2"),
        ("ml_inf2", "--fast-math all", "--fast-math all is not one there is"),
        ("ml_inf2", "--lnc two", "takes a number"),
        ("ml_inf2", "--lnc ²", "takes a number, not '²'"),
        ("ml_inf2", "--target trn1", "contradicts"),
        ("ml_inf2", "--target 'inf2", "cannot be read as flags: No closing quotation."),
        ("ml_inf2", "{", "no JSON"),
        ("ml_inf2", "null", "must be a JSON object or the compiler's flags, not 'null'"),
        ("ml_inf2", "[1]", "must be a JSON object or the compiler's flags, not '[1]'"),
        ("ml_inf2", "--lnc", "--lnc has no value"),
    ]:
        with pytest.raises(InvalidOrder) as error:
            read_order(target, "", options)
        assert words in f"{error.value} {error.value.hint}"
    with pytest.raises(InvalidOrder, match=r"tp_degree 3 .* topology of ml_inf2"):
        smallest_placement(read_order("ml_inf2", "", '{"tp_degree": 3}'))


@pytest.mark.parametrize(
    ("target", "options", "words"),
    [
        ("ml_inf2", '{"tp_degree": "8"}', "tp_degree must be of type int, not '8'."),
        ("ml_inf2", '{"tp_degree": true}', "tp_degree must be of type int, not True."),
        ("ml_inf2", '{"tp_degree": 0}', "tp_degree must be at least 1, not 0."),
        ("ml_inf2", '{"tp_degree": -2}', "tp_degree must be at least 1, not -2."),
        ("ml_inf2", '{"tp_degree": null}', "tp_degree must be of type int, not None."),
        ("ml_inf2", '{"max_batch_size": null}', "batch_size must be of type int, not None."),
        ("ml_inf2", '{"tp_degre": 8}', "Did you mean 'tp_degree'?"),
        ("ml_inf2", '{"batch_size": 1.5}', "batch_size must be of type int, not 1.5."),
        ("ml_inf2", '{"max_context_length": "8"}', "max_context_length must be of type int"),
        ("ml_inf2", '{"tkg_batch_size": -1}', "tkg_batch_size must be at least 1, not -1."),
        ("ml_inf2", '{"token_generation_buckets": 128}', "must be a list of lengths"),
        ("ml_inf2", '{"pp_degree": 2}', "pp_degree = 2 is not honoured"),
        ("ml_inf2", '{"tp_degree": 3}', "tp_degree 3 is not one that the topology of ml_inf2"),
        ("ml_inf2", "--num-neuroncores 3", "tp_degree 3 is not one that the topology of ml_inf2"),
        ("ml_inf2", "--lnc 2", "has no logical NeuronCore configuration 2"),
        ("ml_inf2", '{"tp_degree": 8, "ep_degree": 3}', "ep_degree 3 does not divide tp_degree 8"),
        ("ml_inf2", '{"seq_len": 64, "max_context_length": 128}', "128 is above seq_len 64"),
    ],
)
def test_what_needs_no_model_is_refused_before_there_is_one(
    target: str, options: str, words: str
) -> None:
    with pytest.raises(RidgelineError) as error:
        read_order(target, "", options)
    assert words in f"{error.value.message} {error.value.hint}"


def test_what_a_models_length_decides_is_left_to_the_model() -> None:
    for options in (
        '{"max_context_length": 1024}',
        '{"context_encoding_buckets": [128, 1024]}',
        '{"buckets": [2048]}',
        '{"max_context_length": null, "lora_config": null}',
    ):
        assert read_order("ml_inf2", "", options).settings


@pytest.mark.parametrize("options", ['{"seq_len": 100000}', ""])
def test_sequences_above_the_models_positions_are_refused(
    options: str, make_llama: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = make_llama()
    positions = json.loads((source / "config.json").read_text())["max_position_embeddings"]
    shapes = [] if options else ["--shapes", '{"input_ids": [1, 100000]}']
    asked = [str(source), str(tmp_path / "out"), "--target", "ml_inf2", "--options", options]
    error = run(capsys, *asked, *shapes)[-1]["error"]
    above = f"seq_len 100000 is above the model's context length {positions}."
    assert error["message"].endswith(above)


def test_a_config_that_cannot_be_read_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for text, words in (("{", "config.json cannot be read"), ("[1]", "must hold a JSON object")):
        (tmp_path / "config.json").write_text(text)
        asked = (str(tmp_path), str(tmp_path / "out"), "--target", "ml_inf2")
        assert words in run(capsys, *asked)[-1]["error"]["message"]
