"""The command line against a running service, as scripts use it."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

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


def test_a_folder_of_one_s_own_is_served(service: Service, tmp_path: Path) -> None:
    own = tmp_path / "own_model"
    prepare = [sys.executable, "-m", "ridgeline_zoo.prepare", "tiny-llama-seeded", "--out"]
    subprocess.run([*prepare, str(own)], check=True, capture_output=True, timeout=60)
    done = service.cli("deploy", str(own), check=False)
    try:
        assert (done.returncode, done.stdout) == (0, "own-model\n"), done.stderr
        step = done.stderr.splitlines()[-1].partition("ridgeline ")[2]
        assert "generated_text" in service.cli(*shlex.split(step)).stdout
    finally:
        service.cli("delete", "own-model", "--yes", check=False)


def test_a_deploy_that_failed_is_put_right_by_another(service: Service) -> None:
    wrong = service.cli(
        "deploy", "tiny-llama-seeded", "--name", "again", "--env", "OPTION_DTYPE=float7",
        check=False,
    )  # fmt: skip
    assert wrong.returncode == 1, wrong.stderr
    try:
        right = service.cli("deploy", "tiny-llama-seeded", "--name", "again", check=False)
        assert (right.returncode, right.stdout) == (0, "again\n"), right.stderr
        assert "'again' had failed" in right.stderr
        assert "its configuration again and its model tiny-llama-seeded-" in right.stderr
    finally:
        service.cli("delete", "again", "--yes", check=False)


def test_a_folder_of_links_is_served(service: Service, tmp_path: Path) -> None:
    real, own = tmp_path / "real", tmp_path / "linked"
    prepare = [sys.executable, "-m", "ridgeline_zoo.prepare", "tiny-llama-seeded", "--out"]
    subprocess.run([*prepare, str(real)], check=True, capture_output=True, timeout=60)
    own.mkdir()
    for each in real.iterdir():
        (own / each.name).symlink_to(Path("..") / "real" / each.name)
    done = service.cli("deploy", str(own), check=False)
    try:
        assert (done.returncode, done.stdout) == (0, "linked\n"), done.stderr
        again = service.cli("deploy", str(own), check=False)
        assert again.returncode == 6, again.stderr
        assert "Uploading" not in again.stderr
    finally:
        service.cli("delete", "linked", "--yes", check=False)


def test_a_refused_scale_changes_nothing(service: Service, endpoint: str) -> None:
    def shown() -> tuple[object, object]:
        told = json.loads(service.cli("scale", endpoint, "--json").stdout)
        return told["target"], [each["PolicyName"] for each in told["policies"]]

    wrong = service.cli(
        "scale", endpoint, "--min", "1", "--max", "2", "--concurrent", "0", check=False
    )
    assert (wrong.returncode, shown()) == (2, (None, []))
    service.cli("scale", endpoint, "--min", "1", "--max", "2", "--concurrent", "8")
    followed = shown()
    try:
        assert followed[0] is not None
        assert service.cli("scale", endpoint, "0", check=False).returncode == 2
        assert shown() == followed
    finally:
        service.cli("scale", endpoint, "--off")


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
