"""From nothing to a talking model: start a service, deploy, ask, measure, clean up.

Run it with ``make demo``. Everything lives in a temporary directory and on a free port.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from openai import OpenAI
from rich.console import Console
from rich.table import Table

from ridgeline import Session, ZooModel

MODEL = "smollm2-135m-instruct"
console = Console(highlight=False)


@contextmanager
def service(directory: Path) -> Iterator[dict[str, str]]:
    """A service on a free port; its connection details. Stopped at the end, whatever happens."""
    ridgeline = [str(Path(sys.executable).with_name("ridgeline"))]
    subprocess.run(
        [*ridgeline, "up", "--detach", "--port", "0", "--data-dir", str(directory)], check=True
    )
    try:
        env = subprocess.run(
            [*ridgeline, "env", "--json", "--data-dir", str(directory)],
            check=True,
            capture_output=True,
            text=True,
        )
        yield json.loads(env.stdout)
    finally:
        subprocess.run([*ridgeline, "down", "--data-dir", str(directory)], check=True)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="ridgeline-demo-") as name, service(Path(name)) as env:
        session = Session(data_dir=name)

        console.rule("Deploy")
        started = time.perf_counter()
        predictor = ZooModel(MODEL, sagemaker_session=session).deploy()
        deployed_s = time.perf_counter() - started

        console.rule("Ask: Ridgeline's SDK")
        question = "What is the capital of France?"
        started = time.perf_counter()
        console.print(f"[bold]{question}[/]\n{predictor.chat(question, temperature=0)}")
        first_answer_s = time.perf_counter() - started

        console.rule("Ask: unmodified boto3, InvokeEndpointWithResponseStream")
        ask_boto3(session, predictor.endpoint_name, "Name three colours of the rainbow.")

        console.rule("Ask: the openai client")
        tokens, seconds = ask_openai(env, predictor.endpoint_name, "Tell me a story about a river.")

        console.rule("Where the time went")
        show_stages(session, predictor.endpoint_name)
        console.print(
            f"Deploy to InService {deployed_s:.1f} s; first answer {first_answer_s:.2f} s; "
            f"{tokens / seconds:.0f} tokens/s to one client"
        )
        predictor.delete_endpoint()


def ask_boto3(session: Session, endpoint: str, question: str) -> None:
    body = {"messages": [{"role": "user", "content": question}], "stream": True, "max_tokens": 60}
    answer = session.sagemaker_runtime_client.invoke_endpoint_with_response_stream(
        EndpointName=endpoint,
        ContentType="application/json",
        Body=json.dumps(body | {"temperature": 0}),
    )
    console.print(f"[bold]{question}[/]")
    pending = b""
    for event in answer["Body"]:
        pending += event["PayloadPart"]["Bytes"]
        *lines, pending = pending.split(b"\n")
        for line in lines:
            if line.startswith(b"data: {"):
                for choice in json.loads(line[6:])["choices"]:
                    console.print(choice["delta"].get("content") or "", end="")
    console.print()


def ask_openai(env: dict[str, str], endpoint: str, question: str) -> tuple[int, float]:
    """Stream an answer; tokens after the first, and the seconds they took."""
    client = OpenAI(base_url=env["OPENAI_BASE_URL"], api_key=env["OPENAI_API_KEY"])
    stream = client.chat.completions.create(
        model=endpoint,
        messages=[{"role": "user", "content": question}],
        max_tokens=128,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    console.print(f"[bold]{question}[/]")
    first = last = 0.0
    tokens = 0
    for chunk in stream:
        if chunk.usage:
            tokens = chunk.usage.completion_tokens
        for choice in chunk.choices:
            if choice.delta.content:
                last = time.perf_counter()
                first = first or last
                console.print(choice.delta.content, end="")
    console.print()
    return tokens - 1, last - first


def show_stages(session: Session, endpoint: str) -> None:
    table = Table("stage", "seconds")
    for stage in session.api.get("endpoints", endpoint)["stages"]:
        table.add_row(stage["name"], f"{stage['seconds']:.2f}")
    console.print(table)


if __name__ == "__main__":
    main()
