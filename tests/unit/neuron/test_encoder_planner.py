"""Plans of text encoders: which configs are read, what settings cost, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer import Typer
from typer.testing import CliRunner

from ridgeline.errors import InvalidInput
from ridgeline_backends.errors import UnsupportedModel
from ridgeline_backends.neuron.builders.text_encoder_configs import text_encoder
from ridgeline_backends.neuron.catalogue import entries, find_language_model
from ridgeline_backends.neuron.commands.plan import plan
from ridgeline_backends.neuron.encoder_calls import calls_of
from ridgeline_backends.neuron.encoder_planner import (
    EncoderOption,
    EncoderTarget,
    make_encoder_plan,
)
from ridgeline_backends.neuron.planning.comparison import encoder_rooflines
from ridgeline_backends.neuron.planning.ranking import Plan
from ridgeline_backends.neuron.serving.load import Lengths, Load
from ridgeline_backends.neuron.serving.requests import answer_each

BERT = {
    "model_type": "bert",
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "vocab_size": 30522,
    "max_position_embeddings": 512,
}
DISTILBERT = {
    "model_type": "distilbert",
    "dim": 768,
    "n_layers": 6,
    "n_heads": 12,
    "hidden_dim": 3072,
    "vocab_size": 30522,
    "max_position_embeddings": 512,
}


def config(**changes: Any) -> Any:
    found = text_encoder({**BERT, **changes})
    assert found is not None
    return found.config


@pytest.fixture(scope="module")
def minilm() -> Plan[EncoderOption]:
    found = text_encoder(find_language_model("sentence-transformers/all-MiniLM-L6-v2").config)
    assert found is not None
    return make_encoder_plan(found.config, EncoderTarget(latency_s=0.002))


@pytest.mark.parametrize(
    ("given", "stands"),
    [
        ({**BERT, "architectures": ["BertModel"]}, ""),
        (BERT, ""),
        ({**BERT, "architectures": ["BertForMaskedLM"]}, "BertForMaskedLM is taken as BertModel"),
        ({**BERT, "architectures": ["BertForSequenceClassification"]}, "without its own head"),
        (
            {**BERT, "architectures": ["BertForSequenceClassification"], "num_labels": 1},
            "",
        ),
        ({**DISTILBERT, "architectures": ["DistilBertModel"]}, ""),
        ({**BERT, "model_type": "camembert", "max_position_embeddings": 514}, ""),
        ({**BERT, "model_type": "mpnet", "architectures": ["MPNetForMaskedLM"]}, "MPNetModel"),
    ],
)
def test_configs_of_encoders_are_told_from_decoders(given: dict[str, Any], stands: str) -> None:
    found = text_encoder(given)
    assert found is not None
    assert stands in found.stands_for
    assert bool(stands) == bool(found.stands_for)
    assert found.config.layers == given.get("n_layers", 12)
    assert text_encoder(find_language_model("llama-3.1-8b").config) is None


def test_what_is_neither_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedModel, match="type albert are neither"):
        text_encoder(entries("encoders")["albert-base"])


def test_every_public_encoder_that_is_known_is_read() -> None:
    """Or is refused: none is taken for a decoder but the decoders among them."""
    for name, one in entries("encoders").items():
        try:
            found = text_encoder(one)
        except UnsupportedModel:
            continue
        if found is None:
            assert one["model_type"] in ("gpt2", "qwen3", "zuna"), name
        else:
            assert found.config.context_length in (512, 8192), name


def test_settings_are_ranked_by_the_cost_of_texts(minilm: Plan[EncoderOption]) -> None:
    costs = [one.usd_per_million for one in minilm.options if one.usd_per_million is not None]
    assert costs == sorted(costs)
    assert minilm.options[0].setting.instance.name == "inf2.xlarge"
    for one in minilm.options:
        price = one.setting.instance.price_usd_h
        if price is not None:
            assert one.usd_per_million == pytest.approx(price / 3600 / one.texts_s * 1e6)
        copies = one.setting.instance.cores(one.setting.lnc) // one.setting.tp
        assert one.texts_s == pytest.approx(copies * one.setting.batch / one.call.seconds)


def test_options_meet_the_target_and_the_others_say_what_they_miss(
    minilm: Plan[EncoderOption],
) -> None:
    assert all(one.call.seconds <= 0.002 for one in minilm.options)
    assert minilm.near
    assert all("a call" in one.misses[0] and "above 2 ms" in one.misses[0] for one in minilm.near)
    times = [one.call.seconds for one in minilm.front]
    assert times == sorted(times, reverse=True)


def test_a_rate_takes_instances_that_are_not_always_busy() -> None:
    target = EncoderTarget(rps=20_000.0, latency_s=0.05)
    found = make_encoder_plan(config(), target)
    best = found.options[0]
    assert best.loaded is not None
    assert best.instances * best.texts_s >= 20_000
    assert best.loaded.utilisation <= 0.95
    assert best.call.seconds <= best.loaded.latency_p90 <= 0.05
    price = best.setting.instance.price_usd_h
    assert price is not None
    assert best.usd_per_million == pytest.approx(price * best.instances / 3600 / 20_000 * 1e6)


def test_what_does_not_fit_is_left_out_with_its_reason() -> None:
    huge = config(hidden_size=12288, num_hidden_layers=96, intermediate_size=65536)
    found = make_encoder_plan(huge, EncoderTarget())
    assert "does not fit" in found.left_out["inf2.xlarge"]
    with pytest.raises(InvalidInput, match=r"600 tokens .* 512"):
        make_encoder_plan(config(), EncoderTarget(seq=600))


def test_data_sheets_bound_calls_by_their_peak() -> None:
    found = {one.name: one for one in encoder_rooflines(config(), 128)}
    assert found["g5.xlarge"].call_s > 32 * 2 * 85e6 * 128 / 70e12
    assert found["p5.48xlarge"].texts_s > found["p5.4xlarge"].texts_s


@given(
    seconds=st.floats(1e-4, 2.0),
    rate=st.none() | st.floats(0.1, 100.0),
    clients=st.integers(1, 6),
    requests=st.integers(1, 40),
)
def test_requests_are_answered_one_by_one_in_their_order(
    seconds: float, rate: float | None, clients: int, requests: int
) -> None:
    whose = {"rate": rate} if rate else {"clients": clients}
    load = Load(lengths=Lengths(prompt=1, answer=1), requests=requests, **whose)  # type: ignore[arg-type]
    found = answer_each(seconds, load)
    took = round(seconds * 1e9)
    assert len(found.answered) == requests
    free = 0
    for one in found.answered:
        assert one.done == max(one.sent, free) + took
        free = one.done
    if rate is None and requests > clients:
        assert found.latency(1.0) == pytest.approx(seconds * clients)
        assert found.requests_s == pytest.approx(1 / seconds)


@given(st.lists(st.integers(1, 512), max_size=40), st.integers(1, 16), st.floats(0.1, 1.0))
def test_every_text_is_in_one_call_that_holds_it(
    lengths: list[int], batch: int, gain: float
) -> None:
    def seconds(bucket: int, texts: int) -> float:
        return bucket * (texts if texts == 1 else texts * gain)

    calls = list(calls_of(lengths, (128, 256, 512), batch, seconds))
    places = [place for call in calls for place in call.places]
    assert sorted(places) == list(range(len(lengths)))
    for call in calls:
        assert len(call.places) <= call.batch
        assert all(call.bucket // 2 < max(65, lengths[p]) <= call.bucket for p in call.places)
    alone = sum(seconds(min(b for b in (128, 256, 512) if b >= one), 1) for one in lengths)
    assert sum(seconds(call.bucket, call.batch) for call in calls) <= alone * 1.0001


def command(*words: str) -> Any:
    app = Typer()
    app.command()(plan)
    return CliRunner().invoke(app, list(words))


def test_targets_of_the_other_kind_are_refused() -> None:
    for words, said in (
        (("bert-base", "--ttft", "20ms"), "--ttft is of decoders, and bert-base is an encoder"),
        (("bert-base", "--prompt", "9", "--answer", "9"), "--prompt and --answer are of decoders"),
        (("llama-3.1-8b", "--latency", "20ms"), "--latency is of encoders"),
        (("llama-3.1-8b", "--seq", "20"), "--seq is of encoders"),
    ):
        error = command(*words).exception
        assert isinstance(error, InvalidInput)
        assert said in error.message
        assert error.hint


def test_the_command_prints_tables_without_torch(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**BERT, "architectures": ["BertForMaskedLM"]}))
    code = (
        "import sys, typer; from ridgeline_backends.neuron.commands.plan import plan; "
        "app = typer.Typer(); app.command()(plan); "
        f"app(['{path}', '--draw', '--compare'], standalone_mode=False); "
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "USD/M TEXTS" in done.stdout
    assert "ms/call" in done.stdout
    assert "roofline" in done.stdout
    assert "BertForMaskedLM is taken as BertModel, without its own head" in done.stderr


def test_json_has_the_cost_of_texts_and_of_tokens() -> None:
    found = json.loads(command("all-minilm-l6-v2", "--seq", "64", "--json").stdout)
    best = found["options"][0]
    assert best["usd_per_million_texts"] == pytest.approx(64 * best["usd_per_million_tokens"])
    assert best["tokens_s"] == pytest.approx(64 * best["texts_s"])
    assert best["call_s"][0] < best["call_s"][1] < best["call_s"][2]


def test_texts_longer_than_an_endpoint_reads_by_itself_name_the_length() -> None:
    def named(seq: int) -> str | None:
        given = ("bge-m3", "--seq", str(seq), "--instance", "trn1.2xlarge", "--json")
        [best, *_] = json.loads(command(*given).stdout)["options"]
        found: str | None = best["environment"].get("OPTION_MAX_MODEL_LEN")
        return found

    assert (named(2048), named(4096)) == (None, "4096")
