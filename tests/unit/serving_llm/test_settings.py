"""The container environment of three families of images."""

from __future__ import annotations

from pathlib import Path

import pytest

from ridgeline_service.serving.llm.errors import InvalidSetting
from ridgeline_service.serving.llm.invocations import Flavour
from ridgeline_service.serving.llm.settings import model_dir, read_settings


def test_nothing_set_is_enough() -> None:
    settings = read_settings({"PATH": "/bin"})

    assert (settings.dtype, settings.max_num_seqs, settings.flavour) == (None, 32, Flavour.DJL)
    assert settings.notes == ()


def test_lmi() -> None:
    settings = read_settings(
        {
            "HF_MODEL_ID": "smollm2-135m-instruct",
            "OPTION_DTYPE": "fp16",
            "OPTION_MAX_MODEL_LEN": "2048",
            "OPTION_MAX_ROLLING_BATCH_SIZE": "16",
            "OPTION_TENSOR_PARALLEL_DEGREE": "max",
            "OPTION_ROLLING_BATCH": "vllm",
            "OPTION_ENTRYPOINT": "",
            "RIDGELINE_THREADS": "2",
        }
    )

    assert settings.name == "smollm2-135m-instruct"
    assert (settings.dtype, settings.max_model_len, settings.max_num_seqs) == ("bf16", 2048, 16)
    assert settings.threads == 2
    replaced, ignored = sorted(settings.notes)
    assert "OPTION_DTYPE=fp16" in replaced
    assert "OPTION_ROLLING_BATCH=vllm is ignored" in ignored


def test_tgi() -> None:
    settings = read_settings(
        {
            "RIDGELINE_IMAGE_FLAVOUR": "tgi",
            "SM_NUM_GPUS": "4",
            "MAX_INPUT_LENGTH": "1024",
            "MAX_TOTAL_TOKENS": "1512",
            "MAX_CONCURRENT_REQUESTS": "8",
            "MESSAGES_API_ENABLED": "true",
        }
    )

    assert settings.flavour is Flavour.TGI
    assert (settings.max_input_tokens, settings.max_model_len) == (1024, 1512)
    assert settings.max_concurrent_requests == 8
    [note] = settings.notes
    assert "SM_NUM_GPUS=4" in note


def test_vllm() -> None:
    settings = read_settings(
        {
            "SM_VLLM_MAX_MODEL_LEN": "512",
            "SM_VLLM_DTYPE": "float32",
            "SM_VLLM_MAX_NUM_SEQS": "4",
            "SM_VLLM_SERVED_MODEL_NAME": "mine",
            "SM_VLLM_ENFORCE_EAGER": "true",
            "VLLM_CPU_KVCACHE_SPACE": "2",
        }
    )

    assert (settings.max_model_len, settings.dtype, settings.max_num_seqs) == (512, "fp32", 4)
    assert settings.name == "mine"
    assert settings.kv_cache_bytes == 2 * 2**30
    assert "SM_VLLM_ENFORCE_EAGER" in settings.notes[0]


def test_serving_properties_win_over_the_environment() -> None:
    text = "# LMI\nengine=Python\noption.dtype = fp32\noption.max_model_len=128\n\n"
    settings = read_settings({"OPTION_DTYPE": "bf16", "OPTION_MAX_MODEL_LEN": "64"}, text)

    assert (settings.dtype, settings.max_model_len) == ("fp32", 128)
    assert any("engine=Python" in note for note in settings.notes)


@pytest.mark.parametrize(
    ("environment", "properties", "name"),
    [
        ({"HF_MODEL_ID": "a", "OPTION_MODEL_ID": "b", "SM_VLLM_MODEL": "c"}, "", "a"),
        ({"OPTION_MODEL_ID": "b", "SM_VLLM_MODEL": "c", "MODEL_ID": "d"}, "", "b"),
        ({"SM_VLLM_MODEL": "c", "MODEL_ID": "d"}, "", "c"),
        ({"MODEL_ID": "d"}, "", "d"),
        ({"HF_MODEL_ID": "a"}, "option.model_id=e", "e"),
        ({"SM_VLLM_MODEL": "c", "SM_VLLM_SERVED_MODEL_NAME": "n"}, "option.model_id=e", "n"),
        ({}, "", "model"),
    ],
)
def test_a_model_answers_under_the_id_it_was_chosen_by(
    environment: dict[str, str], properties: str, name: str
) -> None:
    settings = read_settings(environment, properties)
    assert (settings.name, settings.notes) == (name, ())


@pytest.mark.parametrize(
    ("environment", "named", "allowed"),
    [
        ({"OPTION_DTYPE": "int3"}, "OPTION_DTYPE=int3", "bf16"),
        ({"SM_VLLM_DTYPE": "int8"}, "SM_VLLM_DTYPE=int8", "fp32"),
        ({"OPTION_MAX_MODEL_LEN": "long"}, "OPTION_MAX_MODEL_LEN=long", "at least 2"),
        ({"OPTION_MAX_ROLLING_BATCH_SIZE": "0"}, "OPTION_MAX_ROLLING_BATCH_SIZE=0", "at least 1"),
        ({"OPTION_QUANTIZE": "awq"}, "OPTION_QUANTIZE=awq", "none"),
        ({"OPTION_TGI_COMPAT": "yes please"}, "OPTION_TGI_COMPAT", "true or false"),
        ({"RIDGELINE_IMAGE_FLAVOUR": "ollama"}, "RIDGELINE_IMAGE_FLAVOUR", "djl, tgi, vllm"),
        ({"SM_NUM_GPUS": "some"}, "SM_NUM_GPUS=some", "at least 1"),
        ({"MAX_INPUT_TOKENS": "100", "MAX_TOTAL_TOKENS": "100"}, "MAX_INPUT_TOKENS=100", "99"),
    ],
)
def test_what_is_wrong_is_named_with_what_is_allowed(
    environment: dict[str, str], named: str, allowed: str
) -> None:
    with pytest.raises(InvalidSetting) as caught:
        read_settings(environment)

    assert named in caught.value.message
    assert allowed in caught.value.hint


def test_the_model_directory() -> None:
    assert str(model_dir({})) == "/opt/ml/model"
    assert str(model_dir({"RIDGELINE_MODEL_DIR": "/staged"})) == "/staged"


@pytest.mark.parametrize(
    "text",
    [
        '[{"name": "poet", "path": "adapters/poet"}, {"name": "cook", "path": "/else/cook"}]',
        "poet=adapters/poet cook=/else/cook",
    ],
)
def test_adapters_to_load_as_vllm_names_them(text: str) -> None:
    found = read_settings({"SM_VLLM_ENABLE_LORA": "true", "SM_VLLM_LORA_MODULES": text})
    directories = {one.name: str(one.directory(Path("/model"))) for one in found.lora_modules}
    assert directories == {"poet": "/model/adapters/poet", "cook": "/else/cook"}
    alone = {"OPTION_ENABLE_LORA": "true", "OPTION_LORA_MODULES": '{"name": "a", "path": "b"}'}
    assert len(read_settings(alone).lora_modules) == 1


@pytest.mark.parametrize(
    "text",
    ["poet", "=adapters/poet", '[{"name": "poet"}]', '["poet"]', "{", "a=b a=c", "a=b b=c c=d"],
)
def test_adapters_that_cannot_be_loaded_are_refused(text: str) -> None:
    enabled = {"SM_VLLM_ENABLE_LORA": "true", "SM_VLLM_MAX_LORAS": "2"}
    with pytest.raises(InvalidSetting, match="SM_VLLM_LORA_MODULES"):
        read_settings({**enabled, "SM_VLLM_LORA_MODULES": text})


def test_adapters_need_room() -> None:
    with pytest.raises(InvalidSetting, match="room for 0") as caught:
        read_settings({"SM_VLLM_LORA_MODULES": "poet=adapters/poet"})
    assert "ENABLE_LORA" in caught.value.hint


def test_speculation_as_vllm_has_it() -> None:
    assert read_settings({}).speculative is not None
    written = '{"method": "ngram", "num_speculative_tokens": 5, "prompt_lookup_max": 3}'
    found = read_settings({"SM_VLLM_SPECULATIVE_CONFIG": written}).speculative
    assert found is not None
    assert (found.num_speculative_tokens, found.shortest, found.prompt_lookup_max) == (5, 2, 3)
    assert found.draft_directory is None
    drafted = read_settings({"OPTION_SPECULATIVE_CONFIG": '{"model": "/opt/ml/model/draft"}'})
    assert drafted.speculative is not None
    assert str(drafted.speculative.draft_directory) == "/opt/ml/model/draft"
    assert read_settings({"OPTION_SPECULATIVE_CONFIG": "none"}).speculative is None


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "ngram",
        '{"method": "eagle"}',
        '{"method": "draft_model"}',
        '{"method": "ngram", "model": "x"}',
        '{"num_speculative_tokens": 0}',
        '{"num_speculative_token": 3}',
    ],
)
def test_speculation_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(InvalidSetting, match="SM_VLLM_SPECULATIVE_CONFIG"):
        read_settings({"SM_VLLM_SPECULATIVE_CONFIG": text})


def test_adapters_have_room_only_if_asked_for() -> None:
    assert read_settings({"OPTION_MAX_LORAS": "4"}).max_adapters == 0
    enabled = read_settings({"SM_VLLM_ENABLE_LORA": "true", "SM_VLLM_MAX_LORA_RANK": "32"})
    assert (enabled.max_adapters, enabled.max_adapter_rank) == (8, 32)
    two = {"OPTION_ENABLE_LORA": "true", "OPTION_MAX_LORAS": "2"}
    assert read_settings(two).max_adapters == 2


@pytest.mark.parametrize(
    ("environment", "installed", "engine"),
    [
        ({"RIDGELINE_ENGINE": "vllm"}, False, "vllm"),
        ({"RIDGELINE_ENGINE": "ridgeline", "OPTION_ROLLING_BATCH": "vllm"}, True, "ridgeline"),
        ({"OPTION_ROLLING_BATCH": "vllm"}, True, "vllm"),
        ({"OPTION_ROLLING_BATCH": "vllm"}, False, "ridgeline"),
        ({"OPTION_ROLLING_BATCH": "auto"}, True, "ridgeline"),
    ],
)
def test_engines(environment: dict[str, str], installed: bool, engine: str) -> None:
    assert read_settings(environment, has_vllm=lambda: installed).engine == engine


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(InvalidSetting, match="RIDGELINE_ENGINE=vlm"):
        read_settings({"RIDGELINE_ENGINE": "vlm"})


@pytest.mark.parametrize(("degree", "expected"), [("2", 2), ("max", None)])
def test_a_backend_with_several_devices_gets_the_degree(degree: str, expected: int | None) -> None:
    given = {"RIDGELINE_BACKEND": "cuda", "OPTION_TENSOR_PARALLEL_DEGREE": degree}
    settings = read_settings(given)
    assert settings.tensor_parallel == expected
    assert settings.notes == ()
    assert read_settings({"OPTION_TENSOR_PARALLEL_DEGREE": degree}).tensor_parallel == 1


def test_copies_are_for_simulated_devices() -> None:
    given = {"OPTION_DATA_PARALLEL_SIZE": "3"}
    there, here = read_settings({**given, "RIDGELINE_BACKEND": "neuron"}), read_settings(given)
    assert (there.data_parallel, there.notes) == (3, ())
    assert here.data_parallel == 1
    assert read_settings({"NEURON_LOGICAL_NC_CONFIG": "1"}).logical_nc_config == 1
    [note] = here.notes
    assert "OPTION_DATA_PARALLEL_SIZE=3" in note
    assert "InitialInstanceCount" in note
    with pytest.raises(InvalidSetting, match="DATA_PARALLEL_SIZE"):
        read_settings({"OPTION_DATA_PARALLEL_SIZE": "0", "RIDGELINE_BACKEND": "neuron"})


@pytest.mark.parametrize(
    "given",
    [
        {"OPTION_N_POSITIONS": "512", "OPTION_TENSOR_PARALLEL_DEGREE": "2",
         "OPTION_MAX_ROLLING_BATCH_SIZE": "4", "OPTION_QUANTIZE": "static_int8"},
        {"HF_SEQUENCE_LENGTH": "512", "HF_NUM_CORES": "2", "HF_BATCH_SIZE": "4",
         "HF_AUTO_CAST_TYPE": "bf16", "QUANTIZE": "int8"},
        {"OPTION_MAX_MODEL_LEN": "512", "NEURON_RT_NUM_CORES": "2", "OPTION_MAX_NUM_SEQS": "4",
         "OPTION_QUANTIZE": "int8"},
    ],
)  # fmt: skip
def test_what_neuron_containers_call_their_settings(given: dict[str, str]) -> None:
    found = read_settings({**given, "RIDGELINE_BACKEND": "neuron"})
    assert (found.max_model_len, found.tensor_parallel, found.max_num_seqs) == (512, 2, 4)
    assert (found.quantize, found.exact_num_seqs, found.notes) == ("int8", True, ())


def test_an_option_without_its_prefix_is_told_of() -> None:
    found = read_settings({"ENABLE_LORA": "true", "MAX_TOTAL_TOKENS": "64", "PATH": "/bin"})
    assert found.max_adapters == 0
    assert found.notes == ("ENABLE_LORA=true is ignored: here it is called OPTION_ENABLE_LORA.",)


def test_an_option_that_there_is_not_names_the_one_that_may_be_meant() -> None:
    [note] = read_settings({"OPTION_TENSOR_PARALLEL_DEGREES": "2"}).notes
    assert "Did you mean TENSOR_PARALLEL_DEGREE?" in note
    [note] = read_settings({"OPTION_ENTIRELY_NEW": "2"}).notes
    assert "mean" not in note
