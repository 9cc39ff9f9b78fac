"""Plans: what fits, what it costs, and why the rest is left out."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
import typer
from typer.testing import CliRunner

from ridgeline.errors import InvalidInput, NotFound
from ridgeline_backends.neuron.builders.build import build_decoder
from ridgeline_backends.neuron.builders.configs import decoder_architecture
from ridgeline_backends.neuron.builders.site import Phase
from ridgeline_backends.neuron.catalogue import find
from ridgeline_backends.neuron.commands import plan as plan_command
from ridgeline_backends.neuron.commands.models import config_of
from ridgeline_backends.neuron.commands.plan import prices_of, seconds_of
from ridgeline_backends.neuron.config import NeuronConfig
from ridgeline_backends.neuron.devices import instances
from ridgeline_backends.neuron.liveness import core_need
from ridgeline_backends.neuron.planner import Option, Target, make_plan
from ridgeline_backends.neuron.planning.comparison import rooflines
from ridgeline_backends.neuron.planning.deployment import environment
from ridgeline_backends.neuron.planning.load import Wanted, under_load
from ridgeline_backends.neuron.planning.market import Market
from ridgeline_backends.neuron.planning.picture import Axes, Point, characters, svg
from ridgeline_backends.neuron.planning.ranking import Plan, Setting
from ridgeline_backends.neuron.serving.load import Lengths


@pytest.fixture(scope="module")
def plan() -> Plan[Option]:
    config = find("llama-3.1-70b", "decoders").config
    return make_plan(config, Target(ttft_s=2.0, tpot_s=0.06, rps=2.0))


def test_a_large_model_has_options_and_reasons(plan: Plan[Option]) -> None:
    assert plan.options
    assert {one.setting.instance.name for one in plan.options} & {
        "inf2.48xlarge",
        "trn1.32xlarge",
        "trn2.48xlarge",
    }
    assert "does not fit" in plan.left_out["inf2.xlarge"]


def test_options_meet_the_targets_and_the_rest_say_what_they_miss(plan: Plan[Option]) -> None:
    assert all(one.ttft.seconds <= 2.0 and one.tpot.seconds <= 0.06 for one in plan.options)
    assert all(one.misses for one in plan.near)


def test_options_are_ranked_by_cost_and_hold_the_rate(plan: Plan[Option]) -> None:
    costs = [one.usd_per_million for one in plan.options if one.usd_per_million is not None]
    assert costs == sorted(costs)
    assert all(one.tokens_s * one.instances >= 2.0 * 256 for one in plan.options)


def test_whatever_fits_fits_its_core(plan: Plan[Option]) -> None:
    for one in (*plan.options, *plan.near):
        s = one.setting
        assert one.core_bytes <= s.instance.core_memory_bytes(s.lnc)
        # Weights alone are more than this.
        assert one.core_bytes * s.tp > 70e9 * (1 if s.quantized else 2)


def test_both_logical_core_configurations_are_tried(plan: Plan[Option]) -> None:
    tried = {
        (one.setting.instance.name, one.setting.lnc, one.setting.quantized)
        for one in (*plan.options, *plan.near)
    }
    assert {("trn2.48xlarge", lnc, wide) for lnc in (1, 2) for wide in (False, True)} <= tried


def test_the_cheapest_are_simulated_at_the_wanted_rate(plan: Plan[Option]) -> None:
    loaded = plan.options[0].loaded
    assert loaded is not None
    assert loaded.instances == plan.options[0].instances
    assert loaded.ttft_p90 <= 2.0
    assert loaded.tpot <= 0.06


def test_the_front_trades_cost_for_speed(plan: Plan[Option]) -> None:
    front = plan.front
    costs = [one.usd_per_million or 0.0 for one in front]
    times = [one.tpot.seconds for one in front]
    assert costs == sorted(costs)
    assert times == sorted(times, reverse=True)
    assert times[-1] == min(one.tpot.seconds for one in plan.options if one.usd_per_million)


def test_a_load_that_nothing_keeps_is_said_to_be() -> None:
    wanted = Wanted(rps=1.0, prompt=100, answer=100, ttft_s=0.1, tpot_s=None)
    slow = under_load(wanted, prefill_s=0.2, step_s=0.01, batch=4, copies=1, at_least=1)
    assert slow is None
    easy = under_load(wanted, prefill_s=0.02, step_s=0.005, batch=4, copies=1, at_least=1)
    assert easy is not None
    assert (easy.instances, easy.ttft_p90 < 0.1) == (1, True)


def test_data_sheets_bound_what_they_are_compared_with() -> None:
    config = find("llama-3.1-70b", "decoders").config
    found = rooflines(decoder_architecture(config), 2048)
    names = [one.name for one in found]
    assert "p5.48xlarge" in names
    assert "g6.xlarge" not in names  # 24 GiB do not hold 140 GB
    by_name = {one.name: one for one in found}
    assert by_name["p5.48xlarge"].tpot_s > 70e9 * 2 / (8 * 3350e9)


def test_pictures_hold_every_point() -> None:
    points = [
        Point(1.0, 80.0, "inf2", "slow & cheap", best=True),
        Point(9.0, 10.0, "trn1", "fast", best=True),
        Point(9.0, 80.0, "trn1", "neither"),
        Point(2.0, 200.0, "trn1", "too slow", misses=True),
    ]
    root = ElementTree.fromstring(svg(points, "a < b", Axes()))
    titles = [one.text for one in root.iter("{http://www.w3.org/2000/svg}title")]
    assert sorted(map(str, titles)) == ["fast", "neither", "slow & cheap", "too slow"]
    assert "misses a target" in svg(points, "", Axes())
    assert "misses a target" not in svg(points[:2], "", Axes())
    drawn = characters(points, Axes("call", "texts"))
    assert [drawn.count(letter) for letter in ("A", "B")] == [1, 1]
    assert "USD/M texts" in drawn
    assert drawn.startswith("ms/call")


def test_times_are_read_with_their_unit() -> None:
    assert [seconds_of(one) for one in ("500ms", "0.5s", "2 S", None)] == [0.5, 0.5, 2.0, None]
    # A number alone could be of either.
    for wrong in ("soon", "500", "0ms", "-1s"):
        with pytest.raises(InvalidInput, match="no time with its unit"):
            seconds_of(wrong)


def test_prices_are_read_by_type() -> None:
    assert prices_of(["trn2.48xlarge=23.06", "inf2.xlarge=1"]) == {
        "trn2.48xlarge": 23.06,
        "inf2.xlarge": 1.0,
    }
    for wrong in ("trn2.48xlarge", "=3", "trn2.48xlarge=nan", "trn2.48xlarge=-1", "a=b"):
        with pytest.raises(InvalidInput, match="is no price"):
            prices_of([wrong])


def test_a_plan_is_of_the_types_and_prices_that_were_given() -> None:
    config = find("llama-3.1-8b", "decoders").config
    market = Market(only=("ml.trn2.48xlarge", "inf2.48xlarge"), prices={"trn2.48xlarge": 20.0})
    found = make_plan(config, Target(), market, quantized=(False,)).options
    assert {one.setting.instance.name for one in found} == {"trn2.48xlarge", "inf2.48xlarge"}
    assert all(one.priced and not one.setting.quantized for one in found)
    with pytest.raises(NotFound, match="Did you mean 'inf2"):
        make_plan(config, Target(), Market(only=("inf2.48xlarg",)))
    with pytest.raises(InvalidInput, match="NeuronCores-v1"):
        make_plan(config, Target(), Market(only=("inf1.xlarge",)))


def test_sequences_that_a_model_is_not_made_for_are_refused() -> None:
    config = find("smollm2-135m", "decoders").config
    with pytest.raises(InvalidInput, match="context length"):
        make_plan({**config, "max_position_embeddings": 2048}, Target(prompt=2000, answer=100))
    short = make_plan({**config, "max_position_embeddings": 1500}, Target(prompt=1200, answer=200))
    assert short.options


def test_a_config_comes_from_a_file_or_a_name(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    known = find("llama-3.1-8b", "decoders").config
    path.write_text(json.dumps({**known, "max_position_embeddings": 131072}))
    assert config_of(str(path)) == config_of("llama-3.1-8b")
    with pytest.raises(NotFound, match="not known"):
        config_of("nobodys-model")
    path.write_text("[]")
    with pytest.raises(InvalidInput, match="must hold an object"):
        config_of(str(path))


def test_the_command_prints_a_table_without_torch() -> None:
    code = (
        "import sys, typer; from ridgeline_backends.neuron.commands.plan import plan; "
        "app = typer.Typer(); app.command()(plan); "
        "app(['smollm2-135m', '--tpot', '20ms', '--draw', '--compare'], standalone_mode=False); "
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "inf2.xlarge" in done.stdout
    assert "USD/M TOKENS" in done.stdout
    assert (
        "as an endpoint: ridgeline deploy smollm2-135m --instance-type ml.inf2.xlarge "
        in done.stdout
    )
    assert "if it has no smollm2-135m: ORG/NAME of the hub" in done.stdout


def test_weights_that_are_planned_are_deployed_from_where_they_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own model").mkdir()
    (tmp_path / "own model" / "config.json").write_text(json.dumps(config_of("smollm2-135m")))
    monkeypatch.chdir(tmp_path)
    command = typer.Typer()
    command.command()(plan_command.plan)
    for model in ("own model", "own model/config.json"):
        said = CliRunner().invoke(command, [model, "--tpot", "20ms"]).stdout
        assert "ridgeline deploy './own model' --instance-type ml." in said
        assert "if it has no" not in said


def test_a_setting_names_the_environment_that_deploys_it() -> None:
    """Logical cores are named where an endpoint would choose others."""
    trn2 = Setting(instance=instances()["trn2.3xlarge"], lnc=1, tp=2, batch=4, quantized=True)
    assert environment(trn2, length=2048) == {
        "OPTION_TENSOR_PARALLEL_DEGREE": "2",
        "OPTION_DATA_PARALLEL_SIZE": "4",
        "OPTION_MAX_ROLLING_BATCH_SIZE": "4",
        "NEURON_LOGICAL_NC_CONFIG": "1",
        "OPTION_QUANTIZE": "int8",
        "OPTION_MAX_MODEL_LEN": "2048",
    }
    usual = environment(replace(trn2, lnc=2, quantized=False), copies=1)
    assert usual == {
        "OPTION_TENSOR_PARALLEL_DEGREE": "2",
        "OPTION_DATA_PARALLEL_SIZE": "1",
        "OPTION_MAX_ROLLING_BATCH_SIZE": "4",
    }


@pytest.mark.parametrize("name", ["llama-3.1-8b", "smollm2-135m"])
def test_an_option_has_room_for_all_that_an_endpoint_compiles(name: str) -> None:
    """Every bucket, and KV for the whole batch."""
    config = find(name, "decoders").config
    found = make_plan(config, Target(prompt=1000, answer=1000)).options
    for one in sample(found, 8):
        s = one.setting
        neuron = NeuronConfig(
            tp_degree=s.tp,
            batch_size=s.batch,
            seq_len=2048,
            is_continuous_batching=True,
            on_device_sampling=True,
            output_logits=False,
            fused_qkv=True,
            quantized=s.quantized,
        )
        buckets = [(Phase.CONTEXT_ENCODING, size) for size in neuron.context_buckets]
        buckets += [(Phase.TOKEN_GENERATION, size) for size in neuron.generation_buckets]
        programs = [build_decoder(config, neuron, phase=p, bucket=b) for p, b in buckets]
        need = core_need(programs, s.instance.chip)
        assert one.core_bytes == pytest.approx(need.total, rel=0.01)
        assert need.total <= s.instance.core_memory_bytes(s.lnc)


def sample(found: Sequence[Option], count: int) -> list[Option]:
    """Evenly from the cheapest to the dearest."""
    return [found[place * (len(found) - 1) // (count - 1)] for place in range(count)]


@pytest.mark.parametrize(
    ("longest", "prompt", "answer", "expected"),
    [
        (None, None, None, (1024, 256)),
        (8192, None, None, (1024, 256)),
        (1024, None, None, (819, 205)),
        (1024, 900, None, (900, 124)),
        (1024, None, 800, (224, 800)),
        # What was given is not changed, fit or not.
        (1024, 2000, None, (2000, 1)),
        (1024, 2000, 500, (2000, 500)),
        (None, 4000, None, (4000, 256)),
    ],
)
def test_lengths_that_nobody_gave_fit_the_model(
    longest: int | None, prompt: int | None, answer: int | None, expected: tuple[int, int]
) -> None:
    found = Lengths(prompt=1024, answer=256).within(longest, prompt=prompt, answer=answer)
    assert (found.prompt, found.answer) == expected
