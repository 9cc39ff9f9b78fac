"""What a call of an encoder gives back to the host: states, or a score for each of the words."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from single_rows import value

ROW: Mapping[str, object] = {
    "cat": "encoder", "model": "BAAI/bge-m3", "instance": "inf2.xlarge", "batch": 1, "seq_len": 128,
}  # fmt: skip
XLM_R: Mapping[str, object] = {
    "model_type": "xlm-roberta", "hidden_size": 1024, "num_hidden_layers": 24,
    "num_attention_heads": 16, "intermediate_size": 4096, "vocab_size": 250002,
}  # fmt: skip
TABLE = "Raw Output (AutoModel)"


def latency(name: str, task: str, config: Mapping[str, object] | None = None) -> float:
    return value(ROW, "lat_p50_ms", model=name, task=task, config=config)


@pytest.mark.parametrize("task", ["Feature Extraction", TABLE, ""])
@pytest.mark.parametrize("name", ["BAAI/bge-m3", "intfloat/multilingual-e5-large"])
def test_an_embedder_of_that_family_gives_states(name: str, task: str) -> None:
    own = {**XLM_R, "architectures": ["XLMRobertaModel"]}
    of_bert = {**own, "model_type": "bert", "architectures": ["BertModel"]}
    expected = latency("mine", task, of_bert)
    assert latency(name, task, own) == pytest.approx(expected)
    assert latency(name, task) == pytest.approx(expected)


@pytest.mark.parametrize("task", ["Raw Output (AutoModelForMaskedLM)", "Fill-Mask", TABLE, ""])
def test_a_masked_language_model_gives_a_score_for_each_word(task: str) -> None:
    own = {**XLM_R, "architectures": ["XLMRobertaForMaskedLM"]}
    states = latency("xlm-roberta-large", "Feature Extraction", own)
    assert latency("xlm-roberta-large", task, own) > 5 * states
    assert latency("mine", task, own) > 5 * states
    assert latency("xlm-roberta-large", task) > 5 * states
