"""LoRA adapters that come and go on a real replica while others are asked: nobody is refused,
nobody's text changes, and no block is left behind."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import openai
import pytest
from openai import OpenAI
from random_adapters import tiny_model, write_adapter

pytestmark = pytest.mark.e2e

TOKEN = "adapters"
ROUNDS = 4
PROMPTS = ("Once upon a time", "The capital of France is", "def add(a, b):")
LENGTH = 80


@dataclass(frozen=True)
class Running:
    """A replica, and the folder of the adapter that comes and goes."""

    port: int
    guest: Path

    def client(self) -> OpenAI:
        return OpenAI(
            base_url=f"http://127.0.0.1:{self.port}/v1",
            api_key="unused",
            default_headers={"X-Ridgeline-Token": TOKEN},
            max_retries=0,
            timeout=60,
        )


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    model_dir = tiny_model(tmp_path_factory.mktemp("model") / "tiny")
    write_adapter(model_dir, model_dir / "adapters" / "resident", seed=1)
    write_adapter(model_dir, model_dir / "guests" / "guest", seed=2)
    write_adapter(model_dir, model_dir / "guests" / "named", seed=3)
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
            "RIDGELINE_MODEL_DIR": str(model_dir),
            "RIDGELINE_THREADS": "1",
            "OPTION_MAX_MODEL_LEN": "256",
            "SM_VLLM_ENABLE_LORA": "true",
            "SM_VLLM_MAX_LORAS": "3",
            "SM_VLLM_LORA_MODULES": '[{"name": "named", "path": "guests/named"}]',
        },
    )
    try:
        assert process.stdout is not None
        said = list(itertools.takewhile(lambda line: "Ready in " not in line, process.stdout))
        assert process.poll() is None, "".join(said)
        yield Running(port, model_dir / "guests" / "guest")
    finally:
        process.kill()
        process.communicate(timeout=20)


def text_of(client: OpenAI, model: str, prompt: str) -> str:
    """Greedy, and long enough to be in many steps."""
    answer = client.completions.create(
        model=model,
        prompt=prompt,
        max_tokens=LENGTH,
        temperature=0,
        extra_body={"ignore_eos": True},
    )
    return answer.choices[0].text


def test_adapters_come_and_go_and_nobody_notices(running: Running) -> None:
    with running.client() as client, ThreadPoolExecutor(8) as pool:
        steady = list(itertools.product(("base", "resident", "named"), PROMPTS))
        expected = {asked: text_of(client, *asked) for asked in steady}
        assert len(set(expected.values())) == len(steady), "adapters change what is said"
        load(client, "guest", running.guest)
        of_guest = {prompt: text_of(client, "guest", prompt) for prompt in PROMPTS}
        unload(client, "guest")

        done = Event()
        workers = [
            pool.submit(keep_asking, running, steady[place::3], expected, done)
            for place in range(3)
        ]
        for _ in range(ROUNDS):
            load(client, "guest", running.guest)
            streams = [stream(client, "guest", prompt) for prompt in PROMPTS]
            firsts = [next(one) for one in streams]
            # It waits for those under way, so it is asked beside them.
            going = pool.submit(unload, client, "guest")
            for prompt, first, rest in zip(PROMPTS, firsts, streams, strict=True):
                assert first + "".join(rest) == of_guest[prompt]
            going.result(60)
            with pytest.raises(openai.NotFoundError, match="guest"):
                text_of(client, "guest", PROMPTS[0])
        done.set()
        assert all(worker.result(60) > 0 for worker in workers)
    engine = idle_state(running)
    assert engine["failed"] == 0
    assert engine["free_blocks"] == engine["total_blocks"]
    assert sorted(engine["adapters"]) == ["named", "resident"]


def keep_asking(
    running: Running,
    steady: list[tuple[str, str]],
    expected: dict[tuple[str, str], str],
    done: Event,
) -> int:
    """Ask until told to stop; how many answers there were, each as it was when all was quiet."""
    answers = 0
    with running.client() as client:
        while not done.is_set():
            for asked in steady:
                assert text_of(client, *asked) == expected[asked]
                answers += 1
    return answers


def stream(client: OpenAI, model: str, prompt: str) -> Iterator[str]:
    chunks = client.completions.create(
        model=model,
        prompt=prompt,
        max_tokens=LENGTH,
        temperature=0,
        stream=True,
        extra_body={"ignore_eos": True},
    )
    return (chunk.choices[0].text for chunk in chunks)


def load(client: OpenAI, name: str, folder: Path) -> None:
    body = {"lora_name": name, "lora_path": str(folder)}
    client.post("/load_lora_adapter", body=body, cast_to=object)


def unload(client: OpenAI, name: str) -> None:
    client.post("/unload_lora_adapter", body={"lora_name": name}, cast_to=object)


def idle_state(running: Running) -> dict[str, Any]:
    with running.client() as client:
        url = f"http://127.0.0.1:{running.port}/ridgeline/metrics"
        state: Any = client.get(url, cast_to=object)
    found: dict[str, Any] = state["engine"]
    return found
