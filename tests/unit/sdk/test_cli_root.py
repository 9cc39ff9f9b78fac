"""The root of the command line: options before the command, contributed commands, last borders."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from ridgeline_testing import REPOSITORY
from typer.testing import CliRunner

import ridgeline
from ridgeline.cli import __main__ as console_script
from ridgeline.cli import _common, _contributed
from ridgeline.cli import app as cli_app
from ridgeline.errors import AccessDenied, Overloaded, Unsupported
from ridgeline_backends.errors import DoesNotFit

RIDGELINE = str(Path(sys.executable).with_name("ridgeline"))


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> CliRunner:
    for name in ("AWS_ENDPOINT_URL", "RIDGELINE_HOME", "RIDGELINE_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return CliRunner()


def greet(
    name: str,
    data_dir: Annotated[Path | None, typer.Option()] = None,
    json_output: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Greet somebody."""
    print(json.dumps([name, str(data_dir), json_output]))


def contribute(monkeypatch: pytest.MonkeyPatch, value: str, name: str = "greet") -> None:
    entry_point = EntryPoint(name=name, value=value, group="ridgeline.commands")
    monkeypatch.setattr(_contributed, "entry_points", lambda group: [entry_point])


def test_version(runner: CliRunner) -> None:
    assert runner.invoke(cli_app.app, ["--version"]).stdout == f"{ridgeline.__version__}\n"
    for arguments in (["--json", "--version"], ["--version", "--json"]):
        result = runner.invoke(cli_app.app, arguments)
        assert json.loads(result.stdout) == {"version": ridgeline.__version__}
        assert result.exit_code == 0


def test_options_without_a_command_are_a_usage_error(runner: CliRunner) -> None:
    result = runner.invoke(cli_app.app, ["--json"])
    assert result.exit_code == 2
    assert "Missing command" in result.stderr


def test_help_lists_commands_without_importing_them(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    contribute(monkeypatch, "no_such_package.at.all:up", name="up")
    text = runner.invoke(cli_app.app, ["--help"]).stdout
    assert "Start the service." in text
    assert "Exit codes" in text
    for command in ("deploy", "chat", "invoke", "ls", "describe", "logs", "delete", "zoo", "keys"):
        assert command in text


def test_a_contributed_command_gets_the_options_before_its_name(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "test_contribution", sys.modules[__name__])
    contribute(monkeypatch, "test_contribution:greet")
    result = runner.invoke(cli_app.app, ["--data-dir", "/d", "--json", "greet", "you"])
    assert json.loads(result.stdout) == ["you", "/d", True]
    result = runner.invoke(cli_app.app, ["--data-dir", "/d", "greet", "you", "--data-dir", "/e"])
    assert json.loads(result.stdout) == ["you", "/e", False]
    assert "Greet somebody." in runner.invoke(cli_app.app, ["greet", "--help"]).stdout


def test_a_missing_extra_is_answered_with_the_pip_line(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "needs_more.py").write_text("import fastapi_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    contribute(monkeypatch, "needs_more:up", name="up")
    for arguments in (["up"], ["up", "--help"], ["up", "--port", "1"]):
        result = runner.invoke(cli_app.app, arguments)
        assert result.exit_code == 1
        assert "pip install 'ridgeline[service]'" in result.stderr
        assert "fastapi_that_is_not_there" in result.stderr


def test_a_bug_in_a_contributed_command_is_not_called_a_missing_extra(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "has_bug.py").write_text("import ridgeline.no_such_module\n")
    monkeypatch.syspath_prepend(tmp_path)
    contribute(monkeypatch, "has_bug:up", name="up")
    result = runner.invoke(cli_app.app, ["up"])
    assert result.exit_code == 1
    assert "pip install" not in result.stderr
    assert "bug of Ridgeline" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_contributed_command_cannot_replace_one_of_the_client(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    contribute(monkeypatch, "no_such_package:ls", name="ls")
    assert "List the endpoints" in runner.invoke(cli_app.app, ["ls", "--help"]).stdout


def test_no_service_is_exit_code_3(runner: CliRunner, tmp_path: Path) -> None:
    result = runner.invoke(cli_app.app, ["ls"])
    assert result.exit_code == 3
    assert "ridgeline up" in result.stderr
    result = runner.invoke(cli_app.app, ["--data-dir", str(tmp_path / "x"), "zoo", "ls", "--json"])
    assert result.exit_code == 3
    assert str(tmp_path / "x") in json.loads(result.stderr)["error"]["message"]


def test_a_typo_is_exit_code_2_with_a_suggestion(runner: CliRunner) -> None:
    result = runner.invoke(cli_app.app, ["dploy"])
    assert result.exit_code == 2
    assert "deploy" in result.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (AccessDenied("no"), 5),
        (Overloaded("full"), 7),
        (Unsupported("not here"), 1),
        (DoesNotFit(["too large"]), 2),
        (KeyboardInterrupt(), 130),
        (RuntimeError("oops"), 1),
    ],
)
def test_every_error_has_an_exit_code_and_no_traceback(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    def fail(data_dir: object) -> None:
        raise error

    monkeypatch.setattr(_common, "open_session", fail)
    result = runner.invoke(cli_app.app, ["ls"])
    assert result.exit_code == code
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_debug_shows_the_traceback(runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIDGELINE_DEBUG", "1")
    assert "Traceback" in runner.invoke(cli_app.app, ["ls"]).stderr


def test_completion_offers_endpoints_and_is_quiet_without_a_service(
    runner: CliRunner, fake: Any, sdk_tools: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _common.complete_endpoint("") == []
    assert _common.complete_model("") == []
    monkeypatch.setenv("RIDGELINE_HOME", str(sdk_tools.write_data_dir(tmp_path / "d", fake.url)))
    times = {"CreationTime": 1, "LastModifiedTime": 1, "EndpointStatus": "InService"}
    items = [{"EndpointName": n, "EndpointArn": "a" * 20, **times} for n in ("alpha", "beta")]
    fake.on("ListEndpoints", sdk_tools.Reply({"Endpoints": items}))
    fake.rules["GET /api/zoo"] = sdk_tools.Reply({"models": [{"id": "tiny"}]})
    assert _common.complete_endpoint("al") == ["alpha"]
    assert _common.complete_model("t") == ["tiny"]


def test_a_reader_that_has_gone_is_no_error() -> None:
    """Like `ridgeline --help | true`: the write fails, nothing is said about it."""
    with subprocess.Popen(
        [RIDGELINE, "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""


def test_ctrl_c_while_it_imports_is_quiet(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupted:
        def find_spec(self, name: str, *rest: object) -> None:
            if name == "ridgeline.cli.app":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "ridgeline.cli.app")
    monkeypatch.delattr("ridgeline.cli.app")
    monkeypatch.setattr(sys, "meta_path", [Interrupted(), *sys.meta_path])
    with pytest.raises(SystemExit) as caught:
        console_script.main()
    assert caught.value.code == 130
    assert capsys.readouterr().err == ""


def test_what_the_console_script_imports_first_is_light() -> None:
    """So that there is next to no time in which Ctrl-C is not provided for."""
    scripts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, function = scripts["ridgeline"].partition(":")
    assert (module, function) == (console_script.__name__, "main")
    code = f"import sys, {module}; print('typer' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout == "False\n"


def test_ctrl_c_is_quiet(fake: Any, sdk_tools: Any, tmp_path: Path) -> None:
    fake.endpoint("e")
    fake.on("DescribeLogStreams", sdk_tools.Reply({"logStreams": [{"logStreamName": "b/1"}]}))
    events = [{"timestamp": 1, "message": "hello"}]
    last = sdk_tools.Reply({"events": [], "nextForwardToken": "t"})
    fake.on("GetLogEvents", sdk_tools.Reply({"events": events, "nextForwardToken": "t"}), last)
    data_dir = sdk_tools.write_data_dir(tmp_path / "d", fake.url)
    with subprocess.Popen(
        [RIDGELINE, "logs", "-f", "e", "--data-dir", str(data_dir)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"hello\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130
        assert process.stderr.read() == b""
