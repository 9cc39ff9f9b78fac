"""Plans: what fits, what it costs, and why the rest is left out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ridgeline.errors import InvalidInput, NotFound
from ridgeline_backends.neuron.catalogue import find
from ridgeline_backends.neuron.commands.plan import config_of, seconds_of
from ridgeline_backends.neuron.planner import Plan, Target, make_plan


@pytest.fixture(scope="module")
def plan() -> Plan:
    config = find("llama-3.1-70b", "decoders").config
    return make_plan(config, Target(ttft_s=2.0, tpot_s=0.06, rps=2.0))


def test_a_large_model_has_options_and_reasons(plan: Plan) -> None:
    assert plan.options
    assert {one.setting.instance.name for one in plan.options} & {
        "inf2.48xlarge",
        "trn1.32xlarge",
        "trn2.48xlarge",
    }
    assert "does not fit" in plan.left_out["inf2.xlarge"]


def test_options_meet_the_targets_and_the_rest_say_what_they_miss(plan: Plan) -> None:
    assert all(one.ttft.seconds <= 2.0 and one.tpot.seconds <= 0.06 for one in plan.options)
    assert all(one.misses for one in plan.near)


def test_options_are_ranked_by_cost_and_hold_the_rate(plan: Plan) -> None:
    costs = [one.usd_per_million for one in plan.options if one.usd_per_million is not None]
    assert costs == sorted(costs)
    assert all(one.tokens_s * one.instances >= 2.0 * 256 for one in plan.options)


def test_whatever_fits_fits_its_core(plan: Plan) -> None:
    for one in (*plan.options, *plan.near):
        s = one.setting
        assert one.core_bytes <= s.instance.core_memory_bytes(s.lnc)
        # Weights alone are more than this.
        assert one.core_bytes * s.tp > 70e9 * (1 if s.quantized else 2)


def test_times_are_read_with_their_unit() -> None:
    assert (seconds_of("500ms"), seconds_of("0.5s"), seconds_of("2"), seconds_of(None)) == (
        0.5,
        0.5,
        2.0,
        None,
    )
    with pytest.raises(InvalidInput, match="no time"):
        seconds_of("soon")


def test_a_config_comes_from_a_file_or_a_name(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(dict(find("llama-3-8b", "decoders").config)))
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
        "app(['smollm2-135m', '--tpot', '20ms'], standalone_mode=False); "
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "inf2.xlarge" in done.stdout
    assert "USD/M TOKENS" in done.stdout
