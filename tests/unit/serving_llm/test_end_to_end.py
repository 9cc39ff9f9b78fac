"""The real process with the real engine: the tiny seeded model, over HTTP, to its last signal."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest

pytestmark = pytest.mark.e2e

TOKEN = "end-to-end"


@dataclass
class Running:
    process: subprocess.Popen[str]
    port: int

    def end(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=20)

    def client(self) -> openai.OpenAI:
        return openai.OpenAI(
            base_url=f"http://127.0.0.1:{self.port}/v1",
            api_key="unused",
            default_headers={"X-Ridgeline-Token": TOKEN},
            max_retries=0,
        )

    def get(self, path: str) -> Any:
        return self.request("GET", path, None)

    def request(self, method: str, path: str, body: object) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            raw = None if body is None else json.dumps(body).encode()
            connection.request(method, path, raw, {"X-Ridgeline-Token": TOKEN})
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()


def launch(model_dir: Path, **environment: str) -> Running:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "ridgeline_service.serving.llm"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={
            **os.environ,
            "SAGEMAKER_BIND_TO_PORT": str(port),
            "RIDGELINE_REPLICA_TOKEN": TOKEN,
            "RIDGELINE_REPLICA_ID": "replica-7",
            "RIDGELINE_MODEL_DIR": str(model_dir),
            "RIDGELINE_THREADS": "1",
            **environment,
        },
    )
    return Running(process, port)


def wait_ready(running: Running) -> None:
    assert running.process.stdout is not None
    said = []
    for line in running.process.stdout:
        said.append(line)
        if "Ready in " in line:
            return
    pytest.fail("the replica did not come up:\n" + "".join(said))


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("model") / "tiny"
    command = [sys.executable, "-m", "ridgeline_zoo.prepare", "tiny-llama-seeded"]
    command += ["--out", str(out)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return out


@pytest.fixture(scope="module")
def running(model_dir: Path) -> Iterator[Running]:
    made = launch(model_dir, OPTION_DTYPE="fp32", OPTION_MAX_MODEL_LEN="256")
    try:
        wait_ready(made)
        yield made
    finally:
        made.end()


def test_it_says_what_it_is(running: Running) -> None:
    identity = running.get("/ridgeline/identity")

    assert (identity["replica_id"], identity["state"]) == ("replica-7", "ready")
    assert [stage["name"] for stage in identity["stages"]] == ["import", "load", "warm-up"]
    assert all(stage["seconds"] > 0 for stage in identity["stages"])


def test_greedy_text_is_the_same_streamed_whole_and_through_invocations(running: Running) -> None:
    with running.client() as client:
        request: Any = {"model": "m", "prompt": "Once upon a time", "max_tokens": 24}
        request |= {"temperature": 0, "extra_body": {"ignore_eos": True}}
        whole = client.completions.create(**request)
        streamed = list(client.completions.create(**request, stream=True))
    invoked = running.request(
        "POST",
        "/invocations",
        {
            "inputs": "Once upon a time",
            "parameters": {"max_new_tokens": 24, "ignore_eos_token": True, "details": True},
        },
    )

    text = whole.choices[0].text
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 24
    assert "".join(chunk.choices[0].text for chunk in streamed) == text
    assert invoked["generated_text"] == text
    assert "".join(token["text"] for token in invoked["details"]["tokens"]) == text


def test_seeds_repeat_and_n_differs(running: Running) -> None:
    with running.client() as client:
        request: Any = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
        request |= {"seed": 5, "n": 3, "max_tokens": 12, "extra_body": {"ignore_eos": True}}
        first, second = (client.chat.completions.create(**request) for _ in range(2))

    texts = [choice.message.content for choice in first.choices]
    assert [choice.message.content for choice in second.choices] == texts
    assert len(set(texts)) == 3


def test_a_stop_string_ends_the_text_where_it_stood(running: Running) -> None:
    with running.client() as client:
        request: Any = {"model": "m", "prompt": "abc", "max_tokens": 24, "temperature": 0}
        request |= {"extra_body": {"ignore_eos": True}}
        text = client.completions.create(**request).choices[0].text
        stop = text[9:12]
        stopped = client.completions.create(**request, stop=stop).choices[0]

    assert stopped.text == text[: text.index(stop)]
    assert stopped.finish_reason == "stop"


def test_log_probabilities_are_those_of_the_chosen_tokens(running: Running) -> None:
    with running.client() as client:
        answer = client.chat.completions.create(
            model="m",
            messages=[{"role": "user", "content": "Hi"}],
            temperature=0,
            max_tokens=6,
            logprobs=True,
            top_logprobs=3,
            extra_body={"ignore_eos": True},
        )

    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert len(logprobs.content) == 6
    for entry in logprobs.content:
        values = [top.logprob for top in entry.top_logprobs]
        assert values == sorted(values, reverse=True)
        assert entry.logprob == values[0] <= 0


def test_a_prompt_beyond_the_context_is_refused_with_both_numbers(running: Running) -> None:
    with running.client() as client, pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="m", prompt=[5] * 300)

    assert "300 tokens" in str(caught.value)
    assert "at most 255" in str(caught.value)


def test_sigterm_lets_a_stream_finish_and_exits_0(running: Running) -> None:
    with running.client() as client:
        stream = client.completions.create(
            model="m",
            prompt="abc",
            max_tokens=200,
            stream=True,
            extra_body={"ignore_eos": True, "min_tokens": 200},
        )
        next(stream)
        running.process.send_signal(signal.SIGTERM)
        chunks = list(stream)

    assert chunks[-1].choices[0].finish_reason == "length"
    assert running.process.wait(30) == 0


def test_a_wrong_setting_is_named_on_stderr_and_ends_the_process(model_dir: Path) -> None:
    failing = launch(model_dir, OPTION_DTYPE="int3")
    assert failing.process.stdout is not None
    cause = next(line for line in failing.process.stdout if line.startswith("InvalidSetting"))
    # It lingers, so that the cause can be asked for too; nobody has to wait for the end of that.
    error = failing.get("/ridgeline/identity")["error"]
    failing.process.terminate()

    assert failing.process.wait(30) == 1
    failing.end()
    assert cause == (
        "InvalidSetting: OPTION_DTYPE=int3 is not supported. "
        "Allowed: auto, bf16, bfloat16, fp16, float16, half, fp32, float32, float.\n"
    )
    assert error["code"] == "InvalidSetting"
