"""The sandbox really entered, with every tool that works on this machine."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ridgeline.errors import Unsupported
from ridgeline_service.runtime import sandbox
from ridgeline_service.runtime.mounts import Mount
from ridgeline_service.runtime.sandbox import Capability, Sandbox, Tool
from ridgeline_service.runtime.shim import call

TOOLS: tuple[Tool, ...] = ("bubblewrap", "unshare")
PYTHON = Path(sys.executable)


def inside(tool: Tool, box: Sandbox, code: str, **environment: str) -> Any:
    """What ``code`` prints as JSON inside."""
    if reason := sandbox.try_tool(tool):
        pytest.skip(f"{tool}: {reason}")
    done = run(tool, box, ("-c", code), sandbox.environment(environment, python=box.python))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def run(
    tool: Tool, box: Sandbox, arguments: tuple[str, ...], environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Python inside, with these arguments."""
    started = call(sandbox.wrap((str(box.python), "-I", "-S", *arguments), box, tool), environment)
    try:
        return subprocess.run(
            started.argv,
            executable=started.program,
            env=started.environment,
            pass_fds=started.files,
            cwd="/",
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    finally:
        started.close()


def box(tmp_path: Path, **changes: Any) -> Sandbox:
    model = tmp_path / "staged"
    model.mkdir(exist_ok=True)
    (model / "weights").write_text("w")
    return Sandbox(python=PYTHON, scratch=tmp_path / "scratch", model_dir=model, **changes)


@pytest.mark.parametrize("tool", TOOLS)
def test_the_model_is_there_read_only_and_scratch_is_writable(tool: Tool, tmp_path: Path) -> None:
    seen = inside(
        tool,
        box(tmp_path),
        """
import json, os
def can_write(path):
    try:
        open(path, "w").close()
    except OSError:
        return False
    return True
places = ["/opt/ml/model/x", "/usr/x", "/etc/passwd", "/sys/x", "/opt/ml/x", "/tmp/x",
          os.path.expanduser("~/x"), "/dev/shm/x"]
print(json.dumps([open("/opt/ml/model/weights").read(), [can_write(p) for p in places]]))
""",
    )
    assert seen == ["w", [False, False, False, False, True, True, True, True]]
    assert (tmp_path / "scratch" / "tmp" / "x").exists()
    assert not (tmp_path / "staged" / "x").exists()


@pytest.mark.skipif(not os.path.islink("/lib"), reason="here /lib is a folder of the system's own")
@pytest.mark.parametrize("tool", TOOLS)
def test_a_library_that_is_copied_to_lib_is_found_and_stays_inside(
    tool: Tool, tmp_path: Path
) -> None:
    """As SageMaker's SDK v3 has it done before a model is loaded."""
    seen = inside(
        tool,
        box(tmp_path),
        """
import ctypes, json, os, shutil
shared = os.path.expanduser("~/shared_libs")
os.mkdir(shared)
with open("/proc/self/maps") as file:
    libc = next(line.split()[-1] for line in file if "/libc" in line)
shutil.copy(libc, shared + "/libofthemodel.so")
shutil.copytree(shared, "/lib", dirs_exist_ok=True)
ctypes.CDLL("libofthemodel.so")
system = [name for name in os.listdir("/usr/lib") if not os.path.lexists("/lib/" + name)]
print(json.dumps([os.path.exists("/usr/lib/libofthemodel.so"), system]))
""",
    )
    assert seen == [False, []]
    assert not os.path.exists("/lib/libofthemodel.so")


@pytest.mark.parametrize("tool", TOOLS)
def test_other_tenants_homes_and_secrets_do_not_exist_inside(tool: Tool, tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "replicas" / "other").mkdir(parents=True)
    (data / "root-key.json").write_text("secret")
    paths = [
        str(data),
        str(Path.home() / ".aws"),
        "/etc/shadow",
        "/root/.ssh",
        "/var/lib",
        __file__,
    ]
    code = f"import json, os; print(json.dumps([p for p in {paths!r} if os.path.exists(p)]))"
    assert inside(tool, box(tmp_path, hidden=(data,)), code) == []


@pytest.mark.parametrize("tool", TOOLS)
def test_a_data_directory_inside_a_visible_tree_is_emptied(tool: Tool, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    data = tree / "data"
    shown = data / "cache" / "overlay"
    shown.mkdir(parents=True)
    (shown / "package.py").touch()
    (data / "root-key.json").touch()
    (tree / "code.py").touch()
    seen = inside(
        tool,
        box(tmp_path, read_only=(shown, tree), hidden=(data,)),
        f"import json, os; print(json.dumps([sorted(os.listdir(p)) for p in "
        f"({str(tree)!r}, {str(data)!r}, {str(shown)!r})]))",
    )
    assert seen == [["code.py", "data"], ["cache"], ["package.py"]]


@pytest.mark.parametrize("tool", TOOLS)
def test_no_capability_and_only_its_own_processes(tool: Tool, tmp_path: Path) -> None:
    seen = inside(
        tool,
        box(tmp_path),
        """
import json, os
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines())
others = [int(p) for p in os.listdir("/proc") if p.isdigit()]
print(json.dumps([status["CapEff"], status["NoNewPrivs"], max(others) < 10, os.getppid()]))
""",
    )
    assert seen == ["0" * 16, "1", True, 1]


@pytest.mark.parametrize("tool", TOOLS)
def test_the_environment_is_clean(
    tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the service's")
    seen = inside(
        tool, box(tmp_path), "import json, os; print(json.dumps(dict(os.environ)))", GIVEN="yes"
    )
    assert seen["GIVEN"] == "yes"
    assert seen["HOME"] == sandbox.HOME
    assert not [name for name in seen if name.startswith("AWS_")]


@pytest.mark.parametrize("tool", TOOLS)
def test_without_network_there_is_a_loopback_of_its_own_only(tool: Tool, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as host:
        seen = inside(
            tool,
            box(tmp_path, network=False),
            f"""
import json, socket
own = socket.create_server(("127.0.0.1", 0))
socket.create_connection(own.getsockname(), 2).close()
failed = []
for place in (("127.0.0.1", {host.getsockname()[1]}), ("192.0.2.1", 80)):
    try:
        socket.create_connection(place, 2)
    except OSError:
        failed.append(True)
print(json.dumps(failed))
""",
        )
    assert seen == [True, True]


@pytest.mark.parametrize("tool", TOOLS)
def test_the_commands_exit_status_comes_out(tool: Tool, tmp_path: Path) -> None:
    if reason := sandbox.try_tool(tool):
        pytest.skip(f"{tool}: {reason}")
    for code, status in (("raise SystemExit(3)", 3), ("import os; os.kill(os.getpid(), 15)", 143)):
        done = run(tool, box(tmp_path), ("-c", code), {"PATH": os.environ["PATH"]})
        assert done.returncode == status


@pytest.mark.parametrize("tool", TOOLS)
def test_the_users_variables_reach_nothing_outside(tool: Tool, tmp_path: Path) -> None:
    """A sandbox tool runs outside: a library or a program that a variable makes it load would, too,
    with all that the service may do. What is shown inside lies outside under a name of its own."""
    if reason := sandbox.try_tool(tool):
        pytest.skip(f"{tool}: {reason}")
    ran, fakes = tmp_path / "ran", tmp_path / "fakes"
    fakes.mkdir()
    for name in ("bwrap", "unshare", "python3", PYTHON.name):
        (fakes / name).write_text(f"#!/bin/sh\ntouch {ran}\n")
        (fakes / name).chmod(0o755)
    evil = {"PATH": str(fakes), "LD_PRELOAD": f"{fakes}/none.so", "PYTHONPATH": str(fakes)}
    done = run(tool, box(tmp_path), ("-c", "import os; print(os.environ['PATH'])"), evil)
    assert done.stdout.strip() == str(fakes)
    assert not ran.exists()
    assert done.stderr.count("LD_PRELOAD") == 1, "of the one process inside"


@pytest.mark.parametrize("tool", TOOLS)
def test_what_is_the_machines_is_hidden_or_read_only(tool: Tool, tmp_path: Path) -> None:
    """Root without any capability may write what root owns: the kernel's settings are files."""
    code = """
import json, os
def writable(path):
    try:
        os.close(os.open(path, os.O_WRONLY))
    except OSError:
        return False
    return True
settings = [os.path.join(folder, name) for top in ("/proc/sys", "/proc/irq", "/proc/fs")
            for folder, _, names in os.walk(top) for name in names]
settings += [path for path in ["/proc/sysrq-trigger"] if os.path.isfile(path)]
print(json.dumps([len(settings) > 100, [path for path in settings if writable(path)]]))
"""
    assert inside(tool, box(tmp_path), code) == [True, []]


@pytest.mark.parametrize("tool", TOOLS)
def test_the_tool_itself_cannot_be_written(tool: Tool, tmp_path: Path) -> None:
    """It is the first process inside, and /proc leads to the file that it was executed from."""
    code = """
import json, os
try:
    os.close(os.open("/proc/1/exe", os.O_WRONLY))
    found = "writable"
except OSError as error:
    found = error.strerror
print(json.dumps([found, os.path.realpath("/proc/1/exe")]))
"""
    written, program = inside(tool, box(tmp_path), code)
    if tool == "bubblewrap" and os.getuid() == 0:
        # Its seal holds when nobody runs it any more; until then nobody can open it for writing.
        assert program.startswith("/memfd:")
    assert written != "writable"


@pytest.mark.skipif(os.getuid() != 0, reason="a user's sandbox tool is root's file")
def test_the_file_that_a_tool_is_executed_from_is_sealed(tmp_path: Path) -> None:
    started = call(sandbox.wrap(("true",), box(tmp_path), "bubblewrap"), {})
    try:
        for file in started.files:
            with pytest.raises(PermissionError):
                os.write(file, b"evil")
            with pytest.raises(PermissionError):
                os.truncate(file, 0)
    finally:
        started.close()


@pytest.mark.parametrize("tool", TOOLS)
def test_devices_can_be_written_whoever_runs_it(tool: Tool, tmp_path: Path) -> None:
    code = """
import json, os, stat
open("/dev/null", "w").close()
open("/dev/shm/x", "w").close()
print(json.dumps(stat.S_IMODE(os.stat("/dev/shm").st_mode)))
"""
    assert inside(tool, box(tmp_path), code) in (0o1777, 0o755)


@pytest.mark.parametrize("tool", TOOLS)
def test_the_command_line_tells_nothing_of_the_machine(tool: Tool, tmp_path: Path) -> None:
    """It can be read inside."""
    code = "import json; print(json.dumps(open('/proc/1/cmdline').read()))"
    assert str(tmp_path) not in inside(tool, box(tmp_path), code)


@pytest.mark.parametrize(
    "environment", [{"A": "b\0--bind\0/\0/mnt"}, {"A\0--bind": "b"}, {"": "b"}, {"A=B": "c"}]
)
def test_a_variable_is_never_an_option_of_the_tool(
    environment: dict[str, str], tmp_path: Path
) -> None:
    command = sandbox.wrap(("true",), box(tmp_path), "bubblewrap")
    with pytest.raises(ValueError, match=r"null byte|variable name"):
        call(command, environment)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("tool", TOOLS)
def test_it_works_for_an_ordinary_user_too(tool: Tool) -> None:
    system = Path("/usr/bin/python3")
    if not system.exists():
        pytest.skip("needs a system Python that every user can run")
    roots = [str(Path(sandbox.__file__).parents[2]), str(Path(sandbox.__file__).parents[3] / "sdk")]
    code = f"""
import sys
sys.path[:0] = {roots!r}
from ridgeline_service.runtime import sandbox
print(sandbox.try_tool({tool!r}))
"""
    done = subprocess.run(
        ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", str(system), "-c", code),
        env={"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if "PermissionError" in done.stderr or "ModuleNotFoundError" in done.stderr:
        pytest.skip("the sources cannot be read by another user")
    if sandbox.try_tool(tool) is not None:
        pytest.skip(f"{tool} does not work here at all")
    assert done.stdout.strip() == "None", done.stdout + done.stderr


def test_where_nothing_works_the_reasons_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Capability(tool=None, reasons={"bubblewrap": "not installed", "unshare": "EPERM"})
    monkeypatch.setattr(sandbox, "capability", lambda: broken)
    with pytest.raises(Unsupported) as caught:
        sandbox.require()
    assert "bubblewrap: not installed; unshare: EPERM" in caught.value.message
    assert "bubblewrap" in caught.value.hint


def test_a_missing_tool_is_a_reason_and_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert sandbox.try_tool("bubblewrap") == "bwrap is not installed"


def test_secrets_never_reach_the_command_line(tmp_path: Path) -> None:
    given = sandbox.environment({"HF_TOKEN": "hf_secret"}, python=PYTHON)
    command = sandbox.wrap(("python",), box(tmp_path), "bubblewrap")
    assert given["HF_TOKEN"] == "hf_secret"
    started = call(command, given)
    started.close()
    assert not any("hf_secret" in part for part in started.argv)
    assert started.environment == {}


def test_parents_are_mounted_before_what_lies_in_them(tmp_path: Path) -> None:
    deep, outer = tmp_path / "a" / "b", tmp_path / "a"
    deep.mkdir(parents=True)
    plan = sandbox.plan(box(tmp_path, read_only=(deep, outer), hidden=(outer,)))
    targets = [mount.target for mount in plan]
    assert targets.index(str(outer)) < targets.index(str(deep))
    assert Mount("read-only", str(outer), str(outer)) in plan
