"""What rows say of numbers, drafts, releases and machines: honoured in any spelling, or refused by
name, never passed over."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from single_rows import refusal, value

from ridgeline_backends.neuron.calibration.quantity import Quantity
from ridgeline_backends.neuron.calibration.rows import Row, newest
from ridgeline_backends.neuron.calibration.workloads import quantities
from ridgeline_backends.neuron.calibration.workloads.decode import decoder_of
from ridgeline_backends.neuron.timing.predict import calibration
from ridgeline_backends.neuron.timing.work import Part

LLAMA: Mapping[str, object] = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "vocab_size": 128256, "max_position_embeddings": 8192,
}  # fmt: skip
DECODE: Mapping[str, object] = {
    "cat": "llm_decode", "config": LLAMA, "instance": "trn2.48xlarge", "tp": 16, "batch": 1,
    "seq_len": 4096, "input_len": 1024, "framework": "NxD Inference",
}  # fmt: skip
ENCODER: Mapping[str, object] = {
    "cat": "encoder",
    "model": "bert-base",
    "instance": "inf2.xlarge",
    "batch": 8,
    "seq_len": 128,
}
COLLECTIVE: Mapping[str, object] = {
    "cat": "collective",
    "op": "allr",
    "bytes": 1 << 20,
    "dtype": "fp32",
    "ranks": 4,
}
T5 = {"model_type": "t5", "d_model": 512, "num_layers": 6, "num_heads": 8, "vocab_size": 32128}


@pytest.mark.parametrize("spec", [None, False, "none", "None", "off", 0, ""])
def test_a_row_that_says_no_draft_has_none(spec: object) -> None:
    assert value(DECODE, "tpot_p50_ms", spec=spec) == value(DECODE, "tpot_p50_ms")


def test_a_light_head_is_one_in_any_letters() -> None:
    plain = value(DECODE, "tpot_p50_ms")
    heads = {value(DECODE, "tpot_p50_ms", spec=one) for one in ("EAGLE", "eagle3", "Eagle-3")}
    assert list(heads) == [pytest.approx(plain / 1.7)]
    assert value(DECODE, "tpot_p50_ms", spec="fused, draft 1B") == pytest.approx(plain / 3.5)


@pytest.mark.parametrize("sdk", ["v2.17.0", "SDK 2.17.1", "2.17"])
def test_a_release_is_one_with_its_v(sdk: str) -> None:
    assert value(ENCODER, "inf_s", sdk=sdk) == value(ENCODER, "inf_s", sdk="2.17.0")
    assert value(ENCODER, "inf_s", sdk=sdk) != value(ENCODER, "inf_s", sdk="2.9.0")


@pytest.mark.parametrize("sdk", [2.2, 2.1, 2])
def test_a_release_that_yaml_read_as_a_number_is_refused(sdk: float) -> None:
    said = refusal(DECODE, sdk=sdk)
    assert f"X: sdk must be a text, not the number {sdk}" in said
    assert 'Quote it: sdk: "2.20"' in said
    # The rows beside it are still put in order.
    assert len(newest([Row({**DECODE, "id": "A", "sdk": sdk}), Row({**DECODE, "id": "B"})])) == 2


def test_a_number_that_one_release_alone_is_written_as_is_that() -> None:
    assert value(DECODE, "tpot_p50_ms", sdk=2.28) == value(DECODE, "tpot_p50_ms", sdk="2.28")


@pytest.mark.parametrize(
    "written", ["INT8", "s8", "f8e4m3", "fp8_e4m3", "FP8", "w8a16", "8bit", "fp8 (rescaled)"]
)
def test_eight_bits_are_eight_bits_however_written(written: str) -> None:
    wanted = value(DECODE, "tpot_p50_ms", weight_dtype="int8")
    assert value(DECODE, "tpot_p50_ms", weight_dtype=written) == wanted
    assert value(DECODE, "tpot_p50_ms", model_dtype=written) == wanted
    assert wanted < value(DECODE, "tpot_p50_ms", weight_dtype="bf16")


def test_weights_of_32_bits_are_twice_as_many_bytes_and_multiplied_as_such() -> None:
    whole = {one: value(DECODE, one, model_dtype="FP32") for one in ("tpot_p50_ms", "ttft_p50_ms")}
    assert whole["tpot_p50_ms"] > 1.2 * value(DECODE, "tpot_p50_ms")
    assert whole["ttft_p50_ms"] > 1.8 * value(DECODE, "ttft_p50_ms")
    cast = value(DECODE, "tpot_p50_ms", model_dtype="FP32", autocast="Matmult-BF16")
    assert cast == value(DECODE, "tpot_p50_ms")


def test_four_bits_are_half_of_eight_where_the_chip_has_them() -> None:
    def fetched(kind: str, instance: str) -> float:
        given = {**DECODE, "id": "X", "instance": instance, "tp": 4, "weight_dtype": kind}
        rows = decoder_of(Row(given)).step(1, 4096).rows
        layers = rows[:, Part.REPEATS] == 32
        return float(np.sum(rows[layers, Part.WEIGHTS]))

    assert fetched("mxfp4", "trn3.3xlarge") == pytest.approx(
        fetched("mxfp8", "trn3.3xlarge") / 2, rel=0.01
    )
    assert fetched("mxfp4", "trn2.3xlarge") == fetched("bf16", "trn2.3xlarge")


@pytest.mark.parametrize("field", ["weight_dtype", "model_dtype"])
@pytest.mark.parametrize("written", ["int4", "weird", "U22"])
def test_a_type_that_neuron_does_not_have_is_refused_by_name(field: str, written: str) -> None:
    assert f"X: {field} '{written}' is no type of numbers" in refusal(DECODE, **{field: written})


@pytest.mark.parametrize("dtype", ["FP32, BF16", '"FP32, BF16"', "fp32/matmult-bf16", "bf16", None])
def test_what_published_rows_write_is_multiplied_in_16_bits(dtype: str | None) -> None:
    plain = value(ENCODER, "lat_p50_ms")
    assert value(ENCODER, "lat_p50_ms", model_dtype=dtype) == plain
    assert value(ENCODER, "lat_p50_ms", model_dtype=dtype, autocast="Matmult-BF16") == plain


@pytest.mark.parametrize("model", ["bert-base", "vit-base-patch16-224", "Stable Diffusion 2.1"])
def test_products_are_made_in_fp32_where_nothing_is_cast(model: str) -> None:
    given = {**ENCODER, "model": model, "cat": "encoder" if "bert" in model else "vision"}
    whole = value(given, "lat_p50_ms", model_dtype="FP32", autocast="None", batch=1)
    assert whole > 1.5 * value(given, "lat_p50_ms", model_dtype="FP32", batch=1)
    assert value(given, "lat_p50_ms", model_dtype="BF16", autocast="None", batch=1) < whole


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"instance": "inf2.48xlarge", "tp": 48}, "tp 48 is more than the 24 cores"),
        ({"tp": 128, "lnc": 2}, "tp 128 is more than the 64 cores of trn2.48xlarge at LNC 2"),
        ({"lnc": 3}, "trn2.48xlarge has no LNC 3. It has: 1, 2."),
        (
            {"instance": "trn2.12xlarge"},
            "no instance type trn2.12xlarge. Of trn2 there are: trn2.3",
        ),
        ({"instance": "inf2.4xlarge"}, "there is no instance type inf2.4xlarge"),
        ({"instance": "trn3.48xlarge"}, "there is no instance type trn3.48xlarge"),
        ({"input_len": 5000}, "input_len 5000 is above seq_len 4096"),
        ({"config": {**LLAMA, "model_type": "bert"}}, "type bert, which is no decoder"),
        ({"config": T5}, "type t5, which is no decoder"),
        ({"config": {**LLAMA, "num_hidden_layers": 10**9}}, "num_hidden_layers 1000000000"),
        ({"config": ["llama"]}, "config must be a mapping, not ['llama']"),
    ],
)
def test_what_no_machine_can_run_is_refused_with_the_reason(
    fields: Mapping[str, object], said: str
) -> None:
    assert said in refusal(DECODE, **fields)


def test_a_group_that_fits_without_pairs_of_cores_runs_so() -> None:
    assert value(DECODE, "tpot_p50_ms", tp=128) == value(DECODE, "tpot_p50_ms", tp=128, lnc=1)


def test_a_family_is_its_largest_type_or_the_one_of_the_size_beside_it() -> None:
    def cores(written: str) -> int:
        return decoder_of(Row({**DECODE, "id": "X", "instance": written, "tp": 4})).machine.cores

    assert [cores(one) for one in ("trn2", "trn2 (3xlarge, TP4)", "trn3")] == [64, 4, 4]


def test_positions_beyond_the_models_own_are_timed() -> None:
    """Published rows have them: llama-2 at 8192."""
    assert value(DECODE, "tpot_p50_ms", seq_len=16384) > value(DECODE, "tpot_p50_ms")


def test_an_encoder_is_not_cut_over_more_cores_than_there_are() -> None:
    assert "tp 16 is more than the 2 cores of inf2.xlarge" in refusal(ENCODER, tp=16)
    assert value(ENCODER, "lat_p50_ms", tp=2) > 0


def test_a_collective_is_timed_on_the_chips_of_its_family() -> None:
    def time(**fields: object) -> float:
        return value(COLLECTIVE, "time_us", **fields)

    assert time(instance="trn2") == time(instance="trn2.48xlarge") != time(instance="trn1")
    assert time(instance="trn3") == time(instance="trn3.3xlarge") != time(instance="trn2")
    assert time(instance="trn1") == time()
    # There are 64 pairs of cores.
    assert time(ranks=128, instance="trn2.48xlarge") == time(ranks=128, instance="trn2", lnc=1)


def test_a_collective_is_called_by_its_name() -> None:
    (sent,) = quantities(Row({"id": "X", **COLLECTIVE, "op": "sendrecv", "ranks": 32}))
    (newer,) = quantities(Row({"id": "X", **COLLECTIVE, "op": "allgv", "ranks": 32}))
    assert isinstance(sent, Quantity)
    assert isinstance(newer, Quantity)
    # Its last letter is no sign of a table that times on the device.
    assert sent.predicted(calibration().coefficients) > 100
    assert newer.predicted(calibration().coefficients) < 100
    assert "no collective 'gather'. There are: allr" in refusal(COLLECTIVE, op="gather")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"ranks": 1}, "two ranks at least, not 1"),
        ({"ranks": 64, "instance": "trn1.32xlarge"}, "64 ranks are more than the 32 cores"),
        ({"instance": "p5.48xlarge"}, "'p5.48xlarge' has no Neuron devices"),
    ],
)
def test_ranks_that_no_machine_has_are_refused(fields: Mapping[str, object], said: str) -> None:
    assert said in refusal(COLLECTIVE, **fields)


def test_ranks_of_no_stated_machine_are_on_as_many_as_hold_them() -> None:
    times = [
        value(COLLECTIVE, "time_us", ranks=count) for count in (2, 32, 64, 128, 256, 512, 4096)
    ]
    assert times == sorted(times)


def test_ranks_of_two_machines_are_on_two() -> None:
    assert value(COLLECTIVE, "time_us", ranks=64, instance="trn1.32xlarge", nodes=2) > 0
