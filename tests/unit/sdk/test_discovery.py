"""Which service is found, and that no key goes where it does not belong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ridgeline._discovery import Keys, find_service
from ridgeline.errors import AccessDenied, InvalidInput, NotRunning, RidgelineError
from ridgeline.session import Session

AWS_ACCESS, AWS_SECRET = "AKIAREALAWSKEY", "real-aws-secret"


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three directories, each with a service of its own."""
    found = {}
    for name in ("named", "variable", "home"):
        root = tmp_path_factory.mktemp(name)
        found[name] = root
        data = root / ".ridgeline" if name == "home" else root
        (data / "run").mkdir(parents=True)
        url = f"http://127.0.0.1:1/{name}"
        (data / "run" / "supervisor.json").write_text(json.dumps({"url": url}))
        key = {"access_key_id": f"KEY-{name}", "secret_access_key": f"secret-{name}"}
        (data / "root-key.json").write_text(json.dumps(key))
    return found


@given(
    explicit=st.booleans(),
    named=st.booleans(),
    endpoint=st.booleans(),
    variable=st.booleans(),
    keys=st.booleans(),
    profile=st.booleans(),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_the_first_place_that_is_given_decides(
    places: dict[str, Path],
    explicit: bool,
    named: bool,
    endpoint: bool,
    variable: bool,
    keys: bool,
    profile: bool,
) -> None:
    environ: dict[str, str] = {}
    if endpoint:
        environ["AWS_ENDPOINT_URL"] = "http://127.0.0.1:1/environment"
    if variable:
        environ["RIDGELINE_HOME"] = str(places["variable"])
    if keys:
        environ |= {"AWS_ACCESS_KEY_ID": AWS_ACCESS, "AWS_SECRET_ACCESS_KEY": AWS_SECRET}
    if profile:
        environ |= {"AWS_PROFILE": "production", "AWS_SESSION_TOKEN": "token"}
    arguments: dict[str, Any] = {"environ": environ, "home": places["home"]}
    if explicit:
        arguments |= {"endpoint_url": "http://127.0.0.1:1/explicit", "keys": Keys("KEY-me", "x")}
    if named:
        arguments["data_dir"] = places["named"]

    if explicit and named:
        with pytest.raises(InvalidInput, match="two services"):
            find_service(**arguments)
        return
    if endpoint and not explicit and not named and not keys:
        with pytest.raises(AccessDenied, match="AWS_ACCESS_KEY_ID"):
            find_service(**arguments)
        return
    found = find_service(**arguments)

    order = [
        ("explicit", explicit),
        ("named", named),
        ("environment", endpoint),
        ("variable", variable),
        ("home", True),
    ]
    winner = next(name for name, is_given in order if is_given)
    assert found.url == f"http://127.0.0.1:1/{winner}"
    if winner == "environment":
        assert found.keys.access_key_id == AWS_ACCESS
        assert found.keys.session_token == ("token" if profile else None)
    else:
        wanted = "KEY-me" if winner == "explicit" else f"KEY-{winner}"
        assert found.keys.access_key_id == wanted
        assert AWS_SECRET not in found.keys.secret_access_key
        assert found.keys.session_token is None


@pytest.mark.parametrize("how", ["argument", "variable", "default"])
def test_a_directory_without_a_service_is_never_passed_over(tmp_path: Path, how: str) -> None:
    """Even with another service to be found further down the list."""
    environ = {"RIDGELINE_HOME": str(tmp_path)} if how == "variable" else {}
    data_dir = tmp_path / "mine" if how == "argument" else None
    with pytest.raises(NotRunning) as caught:
        find_service(data_dir=data_dir, environ=environ, home=tmp_path)
    where = {"argument": tmp_path / "mine", "variable": tmp_path, "default": tmp_path}[how]
    assert str(where) in str(caught.value)
    assert "ridgeline up" in caught.value.hint


def test_aws_is_not_reached_for_by_keys_alone(tmp_path: Path) -> None:
    environ = {"AWS_ACCESS_KEY_ID": AWS_ACCESS, "AWS_SECRET_ACCESS_KEY": AWS_SECRET}
    with pytest.raises(NotRunning):
        Session(environ=environ, home=tmp_path)


def test_half_a_pair_of_arguments_is_refused() -> None:
    with pytest.raises(InvalidInput, match="access_key_id"):
        Session(endpoint_url="http://127.0.0.1:1", environ={"AWS_ACCESS_KEY_ID": AWS_ACCESS})
    with pytest.raises(InvalidInput, match="together"):
        Session(endpoint_url="http://127.0.0.1:1", access_key_id="K")
    with pytest.raises(InvalidInput, match="endpoint_url"):
        Session(access_key_id="K", secret_access_key="S")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("run/supervisor.json", "{"),
        ("run/supervisor.json", "[]"),
        ("run/supervisor.json", "{}"),
        ("root-key.json", '{"access_key_id": "only"}'),
        ("settings.json", "nonsense"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, sdk_tools: Any, name: str, content: str) -> None:
    data_dir = sdk_tools.write_data_dir(tmp_path / "d", "http://127.0.0.1:1")
    (data_dir / name).write_text(content)
    with pytest.raises(InvalidInput) as caught:
        find_service(data_dir=data_dir)
    assert name in str(caught.value)


def test_a_missing_key_is_not_taken_from_elsewhere(tmp_path: Path, sdk_tools: Any) -> None:
    data_dir = sdk_tools.write_data_dir(tmp_path / "d", "http://127.0.0.1:1")
    (data_dir / "root-key.json").unlink()
    with pytest.raises(AccessDenied, match=r"root-key\.json"):
        find_service(data_dir=data_dir, environ={"AWS_ACCESS_KEY_ID": AWS_ACCESS})


def test_the_region_is_the_service_s_own(tmp_path: Path, sdk_tools: Any) -> None:
    data_dir = sdk_tools.write_data_dir(tmp_path / "d", "http://127.0.0.1:1")
    environ = {"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-west-2"}
    assert find_service(data_dir=data_dir, environ=environ).region == "us-east-1"
    (data_dir / "settings.json").write_text('{"region": "eu-central-1"}')
    assert find_service(data_dir=data_dir, environ=environ).region == "eu-central-1"


def test_secrets_are_not_shown(tmp_path: Path, sdk_tools: Any) -> None:
    data_dir = sdk_tools.write_data_dir(tmp_path / "d", "http://127.0.0.1:1")
    assert "s3cret" not in repr(find_service(data_dir=data_dir))
    assert "s3cret" not in repr(Session(data_dir=data_dir))


def test_keys_of_the_environment_never_reach_a_directory_s_service(
    fake: Any, tmp_path: Path, sdk_tools: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every client of the session, with all that AWS's tools would have looked at in place."""
    config = tmp_path / "aws-config"
    config.write_text(
        "[profile production]\n"
        f"aws_access_key_id = {AWS_ACCESS}\naws_secret_access_key = {AWS_SECRET}\n"
        "endpoint_url = http://127.0.0.1:9\n"
    )
    for name, value in {
        "AWS_ACCESS_KEY_ID": AWS_ACCESS,
        "AWS_SECRET_ACCESS_KEY": AWS_SECRET,
        "AWS_SESSION_TOKEN": "real-token",
        "AWS_PROFILE": "production",
        "AWS_CONFIG_FILE": str(config),
        "AWS_SHARED_CREDENTIALS_FILE": str(config),
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9",
        "AWS_USE_FIPS_ENDPOINT": "true",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "http_proxy": "http://127.0.0.1:9",
    }.items():
        monkeypatch.setenv(name, value)
    session = Session(data_dir=sdk_tools.write_data_dir(tmp_path / "d", fake.url))
    fake.on("ListEndpoints", sdk_tools.Reply({"Endpoints": []}))
    fake.on("DescribeLogStreams", sdk_tools.Reply({"logStreams": []}))
    fake.on("POST /endpoints/e/invocations", sdk_tools.Reply(b"{}"))
    session.sagemaker_client.list_endpoints()
    session.sagemaker_runtime_client.invoke_endpoint(EndpointName="e", Body=b"{}")
    session.logs_client.describe_log_streams(logGroupName="/g")
    session.upload_bytes(b"x", sdk_tools.bucket, "k")
    assert session.info["role_arn"] == sdk_tools.role

    assert len(fake.calls) == 5
    for call in fake.calls:
        assert f"Credential={sdk_tools.access_key}/" in call.headers["authorization"]
        assert "real" not in json.dumps(call.headers)
        assert AWS_ACCESS not in json.dumps(call.headers)


def test_aws_means_aws_even_with_an_endpoint_in_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    session = Session(aws=True, region="eu-west-1")
    assert session.url == "https://api.sagemaker.eu-west-1.amazonaws.com"
    assert session.is_aws
    with pytest.raises(RidgelineError, match="AWS"):
        _ = session.api


def test_contradictions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="aws=True"):
        Session(aws=True, endpoint_url="http://127.0.0.1:1")
    with pytest.raises(InvalidInput, match="brings its own keys"):
        Session(aws=True, data_dir=tmp_path)
