"""Rerank and score, by a cross-encoder and by an embedding model, in every client's schema."""

from __future__ import annotations

from typing import Any

import pytest

from ridgeline_service.serving.llm.text.tokenizer import TextTokenizer

DOCUMENTS = ["xyz", "abc", "abz"]


@pytest.fixture
def judge(of: Any) -> Any:
    return of(kind="rerank")


@pytest.fixture
def embedder(of: Any) -> Any:
    return of(kind="embedding")


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank", "/invocations"])
def test_documents_come_best_first(judge: Any, path: str):
    reply = judge.post(path, {"query": "abc", "documents": DOCUMENTS})
    assert reply.status == 200
    assert [one["index"] for one in reply.json["results"]] == [1, 2, 0]
    assert [one["relevance_score"] for one in reply.json["results"]] == [1.0, 2 / 3, 0.0]
    assert [one["document"]["text"] for one in reply.json["results"]] == ["abc", "abz", "xyz"]
    assert reply.json["scored_by"] == "cross-encoder"
    assert reply.json["model"] == "zoo-judge"
    # Each pair: three letters, three letters, and a special token after either.
    assert reply.json["usage"] == {"prompt_tokens": 24, "total_tokens": 24}


def test_only_what_was_asked_for_comes_back(judge: Any):
    body = {
        "model": "mine",
        "query": "abc",
        "documents": [{"text": text} for text in DOCUMENTS],
        "top_n": 1,
        "return_documents": False,
    }
    reply = judge.post("/v1/rerank", body)
    assert reply.json["model"] == "mine"
    assert reply.json["results"] == [{"index": 1, "relevance_score": 1.0}]


def test_equal_scores_keep_the_order_of_the_request(judge: Any):
    reply = judge.post("/v1/rerank", {"query": "a", "documents": ["a", "x", "a", "x"]})
    assert [one["index"] for one in reply.json["results"]] == [0, 2, 1, 3]


def test_invocations_speak_the_schema_of_text_embeddings_inference(judge: Any):
    reply = judge.post("/invocations", {"query": "abc", "texts": DOCUMENTS, "return_text": True})
    assert reply.json[0] == {"index": 1, "score": 1.0, "text": "abc"}
    assert "text" not in judge.post("/invocations", {"query": "a", "texts": ["a"]}).json[0]
    raw = judge.post("/invocations", {"query": "a", "texts": ["a"], "raw_scores": True})
    assert raw.status == 400
    assert "raw_scores" in raw.json["error"]["message"]


@pytest.mark.parametrize("path", ["/v1/score", "/score"])
def test_one_text_is_scored_against_several_in_their_order(judge: Any, path: str):
    reply = judge.post(path, {"text_1": "abc", "text_2": DOCUMENTS})
    assert [one["score"] for one in reply.json["data"]] == [0.0, 1.0, 2 / 3]
    assert reply.json["object"] == "list"


def test_two_lists_are_scored_side_by_side(judge: Any):
    reply = judge.post("/v1/score", {"text_1": ["a", "x"], "text_2": ["a", "a"]})
    assert [one["score"] for one in reply.json["data"]] == [1.0, 0.0]
    uneven = judge.post("/v1/score", {"text_1": ["a", "x"], "text_2": ["a", "a", "b"]})
    assert uneven.status == 400
    assert "2 texts" in uneven.json["error"]["message"]


def test_a_pair_that_is_too_long_is_refused_with_both_numbers_or_cut(judge: Any):
    body = {"query": "abc", "documents": ["a" * 40]}
    reply = judge.post("/v1/rerank", body)
    assert reply.status == 400
    assert "45" in reply.json["error"]["message"]
    assert "32" in reply.json["error"]["message"]
    cut = judge.post("/v1/rerank", {**body, "truncate": True})
    assert cut.json["usage"]["prompt_tokens"] == 32
    # A query that fills the room alone cannot be helped by cutting the document.
    long = judge.post("/v1/rerank", {"query": "a" * 40, "documents": ["a"], "truncate": True})
    assert long.status == 400


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"documents": []}, "documents"),
        ({"documents": None}, "documents"),
        ({"query": None}, "query"),
        ({"top_n": 0}, "top_n"),
        ({"max_tokens_per_doc": 100}, "max_tokens_per_doc"),
        ({"top_m": 3}, "top_m"),
    ],
)
def test_bad_requests_name_the_field(judge: Any, change: dict[str, object], named: str):
    reply = judge.post("/v1/rerank", {"query": "a", "documents": ["a"], **change})
    assert reply.status == 400
    assert named in reply.json["error"]["message"]


def test_an_embedding_model_compares_vectors_and_says_so(embedder: Any):
    # Its vectors are (length, 0.25, -1.5): the nearest in length is the nearest.
    body = {"query": "a" * 9, "documents": ["a", "a" * 10, "a" * 3]}
    reply = embedder.post("/v1/rerank", body)
    assert [one["index"] for one in reply.json["results"]] == [1, 2, 0]
    assert 0 < reply.json["results"][2]["relevance_score"] < 1
    assert reply.json["scored_by"] == "cosine similarity of embeddings"
    # The query is read once.
    assert reply.json["usage"]["prompt_tokens"] == 9 + 1 + 10 + 3
    same = embedder.post("/v1/score", {"text_1": "aa", "text_2": "aa"})
    assert same.json["data"][0]["score"] == pytest.approx(1.0)


def test_each_model_says_what_it_is_for(of: Any, judge: Any):
    text = of().post("/v1/rerank", {"query": "a", "documents": ["a"]})
    assert text.status == 400
    assert text.json["error"]["code"] == "wrong_task"
    for path, body in (
        ("/v1/embeddings", {"input": "a"}),
        ("/v1/completions", {"prompt": "a"}),
        ("/invocations", {"inputs": "a"}),
    ):
        reply = judge.post(path, body)
        assert reply.status == 400
        assert "scores texts" in reply.body.decode()
    assert judge.call("GET", "/ridgeline/identity").json["task"] == "text-ranking"


def test_both_texts_of_a_pair_are_told_apart(pairing: TextTokenizer):
    [pair] = pairing.encode_pairs([("ab", "c")])
    eos = pairing.id_of("<|im_end|>")
    assert [token == eos for token in pair.token_ids] == [False, False, True, False, True]
    assert list(pair.type_ids) == [0, 0, 0, 1, 1]
    [cut] = pairing.encode_pairs([("ab", "cdefg")], at_most=6)
    assert len(cut.token_ids) == 6
    assert pairing.decode(cut.token_ids) == "abcd"
