"""A model with the artifact of a compilation job beside it: served as it was compiled."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ridgeline_service.serving.llm.errors import InvalidSetting, LoadFailed
from ridgeline_service.serving.llm.precompiled import FILE, as_compiled
from ridgeline_service.serving.llm.settings import read_settings

MADE = {
    "target": "ml_inf2",
    "instance_type": "inf2.xlarge",
    "neuron_cores": 1,
    "logical_neuroncore_config": 1,
    "inputs": {"input_ids": [3, 512]},
    "torch_dtype": "bf16",
    "quantized": False,
    "quantization_dtype": "int8",
    "kv_cache_quant": False,
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / FILE).parent.mkdir()
    (tmp_path / FILE).write_text(json.dumps(MADE))
    return tmp_path


def asked(instance: str | None = "ml.inf2.xlarge", **environment: str) -> Any:
    given = {"RIDGELINE_BACKEND": "neuron", "RIDGELINE_INSTANCE_TYPE": instance}
    return read_settings({**(given if instance else {}), **environment})


def test_shapes_are_those_it_was_compiled_for(model: Path, tmp_path_factory: Any) -> None:
    found = as_compiled(model, asked())
    assert (found.tensor_parallel, found.max_num_seqs, found.max_model_len) == (1, 3, 512)
    assert found.exact_num_seqs
    assert as_compiled(model, asked(OPTION_MAX_MODEL_LEN="512")) == found
    # Both have the same NeuronCores.
    there = as_compiled(model, asked("ml.trn1.2xlarge"))
    assert replace(there, instance=found.instance) == found
    assert as_compiled(tmp_path_factory.mktemp("plain"), asked()) == asked()
    # What was compiled for Neuron runs on a processor as if it was not.
    assert as_compiled(model, asked(None)) == asked(None)


@pytest.mark.parametrize(
    "environment",
    [
        {"OPTION_TENSOR_PARALLEL_DEGREE": "2"},
        {"OPTION_MAX_ROLLING_BATCH_SIZE": "4"},
        {"OPTION_MAX_MODEL_LEN": "1024"},
        {"NEURON_LOGICAL_NC_CONFIG": "2"},
        {"OPTION_QUANTIZE": "int8"},
        {"OPTION_DTYPE": "fp32"},
    ],
)
def test_settings_that_contradict_them_are_refused(
    model: Path, environment: dict[str, str]
) -> None:
    [(name, value)] = environment.items()
    with pytest.raises(InvalidSetting, match=f"{name}={value}, and the model was compiled"):
        as_compiled(model, asked(**environment))


def test_numbers_are_those_it_was_compiled_with(model: Path) -> None:
    def compiled(**numbers: object) -> Any:
        (model / FILE).write_text(json.dumps({**MADE, **numbers}))
        return as_compiled(model, asked())

    assert (compiled().dtype, compiled().quantize) == ("bf16", None)
    eight = compiled(torch_dtype="fp32", quantized=True)
    assert (eight.dtype, eight.quantize) == ("fp32", "int8")
    with pytest.raises(LoadFailed, match="with weights of fp8_e4m3, which endpoints do not have"):
        compiled(quantized=True, quantization_dtype="fp8_e4m3")
    with pytest.raises(LoadFailed, match="with its KV in 8 bits, which endpoints do not have"):
        compiled(kv_cache_quant=True)


def test_another_chip_is_refused(model: Path) -> None:
    with pytest.raises(LoadFailed, match=r"compiled for ml_inf2 .NeuronCore-v2.* NeuronCore-v3"):
        as_compiled(model, asked("ml.trn2.48xlarge"))


def test_a_file_that_no_job_wrote_is_named(model: Path) -> None:
    for text in ("{", "[" * 100_000, "[]", "{}", json.dumps({**MADE, "inputs": {}})):
        (model / FILE).write_text(text)
        with pytest.raises(LoadFailed, match=r"compiled\.json is not what a compilation job"):
            as_compiled(model, asked())
        # It does not matter where nothing is taken from it.
        assert as_compiled(model, asked(None)) == asked(None)
