"""A transformers pipeline without any code of the user's, on a tiny model made here."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import pytest

from ridgeline_service.serving.framework.errors import BadRequest, ContractError
from ridgeline_service.serving.framework.settings import HostingSettings
from ridgeline_service.serving.framework.toolkit import Request, load_model

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad"]
    vocabulary = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    vocabulary.write_text("\n".join(words))
    transformers.BertTokenizerFast(str(vocabulary)).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=16,
        id2label={0: "NO", 1: "YES"},
    )
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def settings(model: Path, **environment: str) -> HostingSettings:
    return HostingSettings.read(
        {
            "RIDGELINE_REPLICA_ID": "r",
            "RIDGELINE_REPLICA_TOKEN": "t",
            "RIDGELINE_RUNTIME": "huggingface-pytorch-inference",
            "RIDGELINE_MODEL_DIR": str(model),
            "RIDGELINE_THREADS": "1",
            "SAGEMAKER_PROGRAM": "",
            **environment,
        }
    )


def test_a_model_without_code_is_served_by_its_pipeline(classifier: Path) -> None:
    loaded = load_model(settings(classifier), lambda name: nullcontext())
    body = json.dumps({"inputs": ["good", "bad"], "parameters": {"top_k": 1}}).encode()
    made = loaded.invoke(Request(body, "application/json", "application/json"))
    assert isinstance(made.body, bytes)
    rows = json.loads(made.body)
    assert len(rows) == 2
    assert {row["label"] for [row] in rows} <= {"YES", "NO"}


def test_a_task_that_has_no_pipeline_is_refused_with_what_there_is(classifier: Path) -> None:
    with pytest.raises(ContractError, match="fill-mask"):
        load_model(settings(classifier, HF_TASK="mind-reading"), lambda name: nullcontext())


@pytest.mark.parametrize("body", [b'{"nonsense": 1}', b'{"inputs": 5}'])
def test_what_the_pipeline_cannot_read_is_the_clients_mistake(
    classifier: Path, body: bytes
) -> None:
    model = load_model(settings(classifier), lambda _name: nullcontext())
    with pytest.raises(BadRequest, match="The pipeline refused the request"):
        model.invoke(Request(body, "application/json", ""))
