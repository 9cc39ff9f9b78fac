"""Names, topologies and numbers of rows mean the same in any spelling; what cannot be read is
refused by name or labelled as a guess."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from single_rows import predicted, refusal, value

OPT: Mapping[str, object] = {
    "cat": "llm_decode", "model": "opt-13b", "instance": "inf2.48xlarge", "tp": 8, "batch": 16,
    "framework": "Transformers NeuronX", "sdk": "2.17.0", "seq_len": 2048,
}  # fmt: skip
OPT_TABLE = {**OPT, "origin": "neuron-docs", "sdk": "2.9.0", "framework": "PyTorch 1.13.0"}
LLAMA_2_13: Mapping[str, object] = {
    "cat": "llm_decode", "model": "Llama-2-13b", "instance": "inf2.48xlarge", "batch": 1,
    "framework": "Transformers Neuron", "seq_len": 2048,
}  # fmt: skip
GPT3: Mapping[str, object] = {
    "cat": "training", "model": "GPT3-23B pre-training", "instance": "trn1.32xlarge", "nodes": 32,
    "topology": "TP=8 DP=32 PP=4", "microbatch": 1, "global_batch": 1024, "seq_len": 2048,
    "train_dtype": "BF16+SR", "optimizer": "AdamW", "sdk": "2.20.0",
}  # fmt: skip
BERT: Mapping[str, object] = {
    "cat": "training", "model": "HuggingFace BERT-Large Ph2 pre-training", "nodes": 1,
    "instance": "trn1.32xlarge", "topology": "[32xNC(DP)]", "microbatch": 2, "sdk": "2.16.0",
    "global_batch": 16384, "train_dtype": "BF16+SR", "optimizer": "LAMB",
}  # fmt: skip
ALL_REDUCE: Mapping[str, object] = {
    "cat": "collective", "op": "allr", "bytes": 1 << 20, "ranks": 4,
}  # fmt: skip


def test_settings_of_an_opt_row_are_its_own() -> None:
    long, short = (value(OPT, "tpot_p50_ms", seq_len=length) for length in (2048, 128))
    assert long > 1.2 * short
    few, many = (
        value(OPT, "tpot_p50_ms", sdk="2.9.0", batch=batch, seq_len=256) for batch in (2, 256)
    )
    assert few < 0.5 * many


@pytest.mark.parametrize("row", [OPT, OPT_TABLE, {**OPT_TABLE, "sdk": "2.13.0"}])
@pytest.mark.parametrize("model", ["facebook/opt-13b", "OPT-13B", "opt-13B", "OPT 13B", "opt_13b"])
def test_an_opt_row_means_the_same_however_it_is_written(
    row: Mapping[str, object], model: str
) -> None:
    assert predicted(row, model=model).prediction == predicted(row).prediction


def test_batches_that_the_first_opt_tables_misprint_are_those_of_the_next() -> None:
    misprinted = value(OPT_TABLE, "lat_p50_ms", batch=5, seq_len=2048)
    assert misprinted == value(OPT_TABLE, "lat_p50_ms", batch=256, seq_len=128)


@pytest.mark.parametrize("model", ["opt-66b", "facebook/opt-66b"])
@pytest.mark.parametrize("sdk", ["2.9.0", "2.20.0"])
def test_whether_opt_fits_is_a_matter_of_what_its_row_says(model: str, sdk: str) -> None:
    row = {**OPT_TABLE, "cat": "memory", "model": model, "batch": 64, "sdk": sdk}
    assert predicted(row).prediction == {"fits": False}


@pytest.mark.parametrize(
    "written",
    ["tp=8 dp=32 pp=4", "TP8 DP32 PP4", "TP: 8, DP: 32, PP: 4", "TP=8DP=32PP=4", "pp4/tp8",
     "[8xNC(TP)x4(PP)] x 32Nodes(DP)", "[ 8 x nc(tp) x 4(pp) ]", "TP_degree=8 PP_degree=4",
     "8-way TP, 4-way PP", "8-way TP 4-way PP", "tp_size: 8; pp-size: 4"],
)  # fmt: skip
def test_a_topology_is_read_in_any_spelling(written: str) -> None:
    assert predicted(GPT3, topology=written).as_json() == predicted(GPT3).as_json()


@pytest.mark.parametrize(
    ("written", "printed"),
    [("Autocast: BF16 + FP32 Optimizer", "Autocast:BF16+FP32Optimizer"),
     ("bf16 + fp32_optimizer", "BF16+FP32Optimizer"), ("bf16 + sr ", "BF16+SR")],
)  # fmt: skip
def test_types_of_training_are_read_in_any_spelling(written: str, printed: str) -> None:
    rows = [predicted(GPT3, train_dtype=one) for one in (written, printed)]
    assert rows[0].as_json() == rows[1].as_json()


@pytest.mark.parametrize("instance", ["Trn1.32xlarge", "ml.trn1.32xlarge", "TRN1.32XLARGE"])
def test_an_instance_is_read_in_any_letters(instance: str) -> None:
    assert predicted(GPT3, instance=instance).as_json() == predicted(GPT3).as_json()


@pytest.mark.parametrize("written", ["nonsense", "TP=8 DP=32 PP=4 CP=2", "TP=eight", "", None])
def test_a_topology_that_is_not_read_is_a_guess(written: str | None) -> None:
    assert predicted(GPT3).label == "calibrated"
    assert predicted(GPT3, topology=written).label == "prior-only"


def test_a_topology_of_two_degrees_for_one_is_refused() -> None:
    assert "topology 'TP=8 TP=4' has two degrees of TP" in refusal(GPT3, topology="TP=8 TP=4")


@pytest.mark.parametrize(
    "model", ["bert-large ph2", "BERT-Large Phase 2", "bert-large-uncased PH2 Pretraining",
              "BERT-Large (phase-2) training"],
)  # fmt: skip
def test_the_second_phase_of_bert_has_longer_sequences(model: str) -> None:
    second, first = (value(BERT, "seq_per_s", model=one) for one in (model, "bert-large"))
    assert second == value(BERT, "seq_per_s")
    assert second < 0.5 * first


@pytest.mark.parametrize(
    "model", ["gpt3-23b", "GPT-3 23B", "GPT-3-23B pretraining", "nemo/gpt3-23B training"]
)
def test_a_recipe_is_its_models_however_that_is_written(model: str) -> None:
    assert predicted(GPT3, model=model).as_json() == predicted(GPT3).as_json()


def test_training_of_a_model_whose_sizes_are_guessed_is_a_guess() -> None:
    assert predicted(GPT3, model="Somebodys-22B").label == "prior-only"


@pytest.mark.parametrize(
    "library", ["transformers-neuronx", "transformers_neuronx", "TRANSFORMERS NEURONX 0.13"]
)
def test_a_library_may_be_called_by_its_package(library: str) -> None:
    assert predicted(OPT, framework=library).as_json() == predicted(OPT).as_json()


def test_a_library_that_nobody_knows_is_a_guess() -> None:
    assert predicted(OPT, framework="Foo").label == "prior-only"


def test_notes_on_weights_are_read_in_any_letters() -> None:
    glm = {**OPT, "model": "GLM-5.2 (FP8 experts)", "framework": "NxD Inference", "sdk": "2.28",
           "instance": "trn2.48xlarge", "tp": 64, "batch": 1}  # fmt: skip
    small = predicted(glm, model="zai-org/glm-5.2 (fp8 experts)")
    assert small.as_json() == predicted(glm).as_json()


@pytest.mark.parametrize("model", ["llama-2-13b", "meta-llama/Llama-2-13B", "llama2-13b"])
@pytest.mark.parametrize("sdk", ["2.13.1", "2.16.0", "2.18.0"])
def test_a_llama_row_means_the_same_however_it_is_written(model: str, sdk: str) -> None:
    row = {**LLAMA_2_13, "sdk": sdk}
    assert predicted(row, model=model).as_json() == predicted(row).as_json()


@pytest.mark.parametrize(
    ("name", "short"),
    [("all_reduce", "allr"), ("allreduce", "allr"), ("AllReduce", "allr"), ("all-reduce", "allr"),
     ("all_gather", "allg"), ("AllGather", "allg"), ("reduce_scatter", "redsct"),
     ("ReduceScatter", "redsct"), ("all-to-all", "alltoall"), ("send_recv", "sendrecv")],
)  # fmt: skip
def test_a_collective_has_its_long_name_too(name: str, short: str) -> None:
    assert value(ALL_REDUCE, "time_us", op=name) == value(ALL_REDUCE, "time_us", op=short)


@pytest.mark.parametrize(("written", "number"), [("8", 8), (" 8 ", 8), ("8.0", 8), ("1e1", 10)])
def test_a_number_may_be_a_text(written: str, number: int) -> None:
    assert predicted(OPT, batch=written).as_json() == predicted(OPT, batch=number).as_json()


@pytest.mark.parametrize("written", ["1MB", "1 MiB", "1024K", "1024 KiB", "1m", "1048576B"])
def test_bytes_may_have_a_unit(written: str) -> None:
    assert value(ALL_REDUCE, "time_us", bytes=written) == value(ALL_REDUCE, "time_us")


def test_no_bytes_are_refused() -> None:
    assert "bytes '0 MB' are none to send" in refusal(ALL_REDUCE, bytes="0 MB")
    assert "bytes must be a number, not '1 TB'" in refusal(ALL_REDUCE, bytes="1 TB")


@pytest.mark.parametrize("written", ["many", "8x", "", "nan", "1e999", "0x10", "1_6", "1,024"])
def test_a_text_that_is_no_number_is_refused(written: str) -> None:
    assert f"X: batch must be a number, not {written!r}" in refusal(OPT, batch=written)
