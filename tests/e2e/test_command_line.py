"""The command line against a running service, as scripts use it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from ridgeline_testing import Service

pytestmark = pytest.mark.e2e
ENDPOINT = "cli-tiny"


@pytest.fixture(scope="module")
def endpoint(service: Service) -> Iterator[str]:
    done = service.cli("deploy", "tiny-llama-seeded", "--name", ENDPOINT, check=False)
    assert done.returncode == 0, done.stderr
    yield ENDPOINT
    service.cli("delete", ENDPOINT, "--yes")


def test_ls_and_describe(service: Service, endpoint: str) -> None:
    listed = json.loads(service.cli("ls", "--json").stdout)
    assert endpoint in json.dumps(listed)
    described = json.loads(service.cli("describe", endpoint, "--json").stdout)
    assert "InService" in json.dumps(described)


def test_chat_invoke_and_logs(service: Service, endpoint: str) -> None:
    assert service.cli("chat", endpoint, "Hello there").returncode == 0
    body = json.dumps({"inputs": "Hello", "parameters": {"max_new_tokens": 4}})
    answer = json.loads(service.cli("invoke", endpoint, "--data", body).stdout)
    assert "generated_text" in answer
    assert service.cli("logs", endpoint).stdout.strip()


def test_an_unknown_model_fails_with_the_nearest_name(service: Service) -> None:
    answer = service.cli("deploy", "smolm2-135m-instruct", check=False)
    assert answer.returncode not in (0, 2)
    assert "smollm2-135m-instruct" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_an_unknown_endpoint(service: Service) -> None:
    for command in (("describe", "nope"), ("chat", "nope", "x"), ("delete", "nope", "--yes")):
        answer = service.cli(*command, check=False)
        assert answer.returncode == 4, command
        assert "nope" in answer.stderr


def test_zoo(service: Service) -> None:
    listed = service.cli("zoo", "ls").stdout
    assert "smollm2-135m-instruct" in listed
    shown = json.loads(service.cli("zoo", "show", "smollm2-135m-instruct", "--json").stdout)
    assert shown["licence"]


def test_keys_come_and_go(service: Service) -> None:
    made = json.loads(service.cli("keys", "create", "ci", "--json").stdout)
    import httpx2 as httpx

    def status() -> int:
        headers = {"Authorization": f"Bearer {made['api_key']}"}
        return httpx.get(f"{service.url}/v1/models", headers=headers).status_code

    assert status() == 200
    service.cli("keys", "rm", made["key_id"], check=True)
    assert status() in (401, 403)
