"""The schemas of LMI, TGI and TEI on /invocations."""

from __future__ import annotations

import math
from typing import Any

import pytest

from ridgeline_service.serving.llm.invocations import Flavour
from ridgeline_service.serving.llm.settings import ModelSettings


def invoke(served: Any, body: object) -> Any:
    return served.post("/invocations", body)


@pytest.fixture
def tgi(of: Any) -> Any:
    return of(flavour=Flavour.TGI)


def test_lmi_answers_an_object_greedily_with_thirty_tokens(served: Any) -> None:
    served.engine.script.text = "y" * 50
    reply = invoke(served, {"inputs": "x"})

    assert reply.json == {"generated_text": "y" * 30}
    [seen] = served.engine.submitted
    assert seen.params.temperature == 0
    assert seen.params.logprobs is None


def test_lmi_details_and_full_text(served: Any) -> None:
    parameters = {"details": True, "return_full_text": True, "max_new_tokens": 2}
    reply = invoke(served, {"inputs": "x: ", "parameters": parameters})

    ids = served.engine._tokenizer.encode("He", add_special_tokens=False)
    assert reply.json == {
        "generated_text": "x: He",
        "details": {
            "finish_reason": "length",
            "generated_tokens": 2,
            "inputs": "x: ",
            "tokens": [
                {"id": ids[0], "text": "H", "log_prob": -0.5},
                {"id": ids[1], "text": "e", "log_prob": -0.5},
            ],
        },
    }


@pytest.mark.parametrize(
    ("parameters", "lmi", "tgi"),
    [
        ({}, 0.0, 0.0),
        ({"do_sample": False, "temperature": 0.7}, 0.0, 0.7),
        ({"do_sample": True}, 1.0, 1.0),
        ({"do_sample": True, "temperature": 0.7}, 0.7, 0.7),
        ({"temperature": 0.7}, 0.7, 0.7),
        ({"temperature": 1.0}, 1.0, 0.0),
        ({"top_p": 0.9}, 0.0, 1.0),
        ({"top_p": 1.0, "top_k": -1}, 0.0, 0.0),
        ({"top_k": 5}, 0.0, 1.0),
    ],
)
def test_when_sampling_happens(
    of: Any, parameters: dict[str, object], lmi: float, tgi: float
) -> None:
    """LMI and TGI decide differently. 0: they do not sample."""
    for flavour, temperature in ((Flavour.DJL, lmi), (Flavour.TGI, tgi)):
        served = of(flavour=flavour)
        assert invoke(served, {"inputs": "x", "parameters": parameters}).status == 200
        [seen] = served.engine.submitted
        assert seen.params.temperature == temperature


def test_lmi_streams_json_lines(served: Any) -> None:
    served.engine.script.text = "a€"
    body = {"inputs": "x", "stream": True, "parameters": {"max_new_tokens": 9}}
    reply = invoke(served, body)

    assert reply.headers["content-type"] == "application/jsonlines"
    lines = reply.lines
    ids = [*served.engine._tokenizer.encode("a€", add_special_tokens=False), 256]
    assert [line["token"]["id"] for line in lines] == ids
    assert [line["token"]["text"] for line in lines] == ["a", "", "", "€", ""]
    assert all(line["token"]["log_prob"] == -0.5 for line in lines)
    assert [("generated_text" in line) for line in lines] == [False] * 4 + [True]
    assert lines[-1]["generated_text"] == "a€"
    assert lines[-1]["details"] == {
        "finish_reason": "eos_token",
        "generated_tokens": 5,
        "inputs": "x",
    }


def test_tgi_answers_a_list(tgi: Any) -> None:
    reply = invoke(tgi, {"inputs": "x", "parameters": {"details": True, "stop": ["lo"]}})

    [answer] = reply.json
    assert answer["generated_text"] == "Hello"
    details = answer["details"]
    assert (details["finish_reason"], details["generated_tokens"]) == ("stop_sequence", 5)
    assert (details["seed"], details["prefill"]) == (None, [])
    assert [token["text"] for token in details["tokens"]] == ["H", "e", "l", "l", "o"]
    assert {token["special"] for token in details["tokens"]} == {False}


@pytest.mark.parametrize(
    ("flavour", "include", "text"),
    [
        (Flavour.TGI, None, "Hello"),
        (Flavour.TGI, False, "Hel"),
        (Flavour.DJL, None, "Hel"),
        (Flavour.DJL, True, "Hello"),
    ],
)
def test_a_stop_sequence_is_cut_off_by_lmi_and_shown_by_tgi(
    of: Any, flavour: Flavour, include: bool | None, text: str
) -> None:
    """Tokens have their own text all the same, in a stream and in details."""
    parameters = {"details": True, "stop": ["lo"], "include_stop_str_in_output": include}
    served = of(flavour=flavour)
    whole = invoke(served, {"inputs": "x", "parameters": parameters}).json
    answer = whole[0] if flavour is Flavour.TGI else whole
    assert answer["generated_text"] == text
    assert "".join(token["text"] for token in answer["details"]["tokens"]) == "Hello"
    streamed = invoke(served, {"inputs": "x", "parameters": parameters, "stream": True})
    parts = streamed.events if flavour is Flavour.TGI else streamed.lines
    assert "".join(part["token"]["text"] for part in parts) == "Hello"
    assert parts[-1]["generated_text"] == text


def test_tgi_streams_events(tgi: Any) -> None:
    tgi.engine.script.text = "ab"
    reply = invoke(tgi, {"inputs": "xyz", "stream": True})

    assert reply.headers["content-type"].startswith("text/event-stream")
    first, second, last = reply.events
    assert first["index"] == 1
    assert first["token"] == {
        "id": tgi.engine._tokenizer.encode("a", add_special_tokens=False)[0],
        "text": "a",
        "logprob": -0.5,
        "special": False,
    }
    assert first["generated_text"] is None
    assert second["token"]["text"] == "b"
    assert last["token"] == {"id": 256, "text": "<|im_end|>", "logprob": -0.5, "special": True}
    assert last["generated_text"] == "ab"
    assert last["details"] == {
        "finish_reason": "eos_token",
        "generated_tokens": 3,
        "seed": None,
        "input_length": 3,
    }


def test_a_list_of_inputs_answers_a_list(served: Any) -> None:
    served.engine.script.text = "ok"
    reply = invoke(served, {"inputs": ["a", "b", "c"]})

    assert reply.json == [{"generated_text": "ok"}] * 3
    refused = invoke(served, {"inputs": ["a"], "stream": True})
    assert refused.status == 400


def test_other_bodies_are_openai_requests(served: Any) -> None:
    chat = invoke(served, {"messages": [{"role": "user", "content": "Hi"}]})
    assert chat.json["choices"][0]["message"]["content"] == "Hello there"
    assert chat.json["model"] == "zoo-model"
    completion = invoke(served, {"prompt": "x", "max_tokens": 5, "stream": True})
    assert completion.events[-1] == "[DONE]"
    assert completion.events[-2]["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({"decoder_input_details": True}, "parameters.decoder_input_details"),
        ({"repetition_penalty": 0}, "parameters.repetition_penalty"),
        ({"typical_p": 0.5}, "parameters.typical_p"),
        ({"grammar": {"type": "regex", "value": "a("}}, "parameters.grammar"),
        ({"grammar": {"type": "json", "value": {"not": {}}}}, "parameters.grammar"),
        ({"top_n_tokens": 21}, "parameters.top_n_tokens"),
        ({"max_new_tokens": 0}, "parameters.max_new_tokens"),
        ({"max_new_token": 5}, "parameters.max_new_token"),
        ({"temperature": -2}, "parameters.temperature"),
        ({"top_k": "many"}, "parameters.top_k"),
    ],
)
@pytest.mark.parametrize("flavour", [Flavour.DJL, Flavour.TGI, Flavour.VLLM])
def test_refusals_name_the_parameter_in_the_clients_own_form(
    of: Any, flavour: Flavour, parameters: dict[str, object], name: str
) -> None:
    reply = invoke(of(flavour=flavour), {"inputs": "x", "parameters": parameters})

    assert reply.status == 400
    if flavour is Flavour.VLLM:
        assert reply.json["error"]["param"] == name
    else:
        assert name in reply.json["error"]
        assert (reply.json.get("code"), reply.json.get("error_type")) in (
            (400, None),
            (None, "validation"),
        )


def test_a_failure_in_mid_stream_is_a_line_of_its_own(served: Any, tgi: Any) -> None:
    for replica in (served, tgi):
        replica.engine.script.error = "out of luck"
    lines = invoke(served, {"inputs": "x", "stream": True}).lines
    assert "out of luck" in lines[-1]["error"]
    events = invoke(tgi, {"inputs": "x", "stream": True}).events
    assert "out of luck" in events[-1]["error"]
    assert events[-1]["error_type"] == "generation"


def test_bodies_with_none_of_the_known_fields(served: Any) -> None:
    reply = invoke(served, {"text": "x"})

    assert reply.status == 400
    assert '{"inputs": ...}' in reply.json["error"]["message"]


def test_embedding_models_answer_vectors(of: Any) -> None:
    served = of("embedding")

    def unit(first: float) -> Any:
        """The embedder's vector for a text of so many tokens, with length 1."""
        length = math.hypot(first, 0.25, 1.5)
        return pytest.approx([first / length, 0.25 / length, -1.5 / length])

    assert invoke(served, {"inputs": "abc"}).json == [unit(3)]
    assert invoke(served, {"inputs": ["a", "bc"]}).json == [unit(1), unit(2)]
    cut = invoke(served, {"inputs": "x" * 99, "truncate": True})
    assert cut.json == [unit(32)]
    assert invoke(served, {"inputs": "x" * 99}).status == 400
    openai_form = invoke(served, {"input": "ab"}).json
    assert openai_form["data"][0]["embedding"] == [2.0, 0.25, -1.5]


def test_the_concurrency_cap_answers_429(start: Any) -> None:
    served = start(settings=ModelSettings(max_concurrent_requests=1))
    served.engine.script.hold_after = 1
    connection = served.connect()
    connection.request(
        "POST",
        "/invocations",
        b'{"inputs": "x", "stream": true}',
        {"X-Ridgeline-Token": "replica-secret"},
    )
    assert connection.getresponse().status == 200

    reply = invoke(served, {"inputs": "x"})

    assert reply.status == 429
    assert int(reply.headers["retry-after"]) >= 1
    assert "MAX_CONCURRENT_REQUESTS" in reply.json["error"]
    connection.close()


@pytest.mark.parametrize("flavour", [Flavour.DJL, Flavour.TGI])
def test_a_penalty_that_asks_for_nothing_is_taken(of: Any, flavour: Flavour) -> None:
    served = of(flavour=flavour)
    for value in (1.0, 1, None):
        reply = invoke(served, {"inputs": "x", "parameters": {"repetition_penalty": value}})
        assert reply.status == 200
    assert {seen.params.repetition_penalty for seen in served.engine.submitted} == {1.0}


def test_a_temperature_of_tgi_goes_above_openais(tgi: Any) -> None:
    reply = invoke(tgi, {"inputs": "x", "parameters": {"temperature": 3.5}})

    assert reply.status == 200
    zero = invoke(tgi, {"inputs": "x", "parameters": {"temperature": 0, "do_sample": True}})
    assert zero.status == 200, "0 is greedy"
