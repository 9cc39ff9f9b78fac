"""Replicas as real processes: started, logged, found again, stopped, killed in every way."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ridgeline.errors import InternalError, NotReady, Unsupported
from ridgeline_service.paths import DataDir
from ridgeline_service.runtime import launcher as launchers
from ridgeline_service.runtime import sandbox
from ridgeline_service.runtime.launcher import (
    PortPicker,
    ProcessLauncher,
    ProcessRecord,
    ReplicaSpec,
    log_file,
)

PYTHON = Path(sys.executable)
PAUSE = threading.Event()
GROUP = "/aws/sagemaker/Endpoints/e"


def until(what: Callable[[], Any], timeout_s: float = 20.0) -> Any:
    """Wait for another process to do something."""
    deadline = time.monotonic() + timeout_s
    while not (found := what()):
        assert time.monotonic() < deadline, "it never happened"
        PAUSE.wait(0.01)
    return found


class Bench:
    """A launcher over a temporary data directory."""

    def __init__(self, root: Path) -> None:
        self.data_dir = DataDir(root)
        self.launcher = ProcessLauncher(self.data_dir)
        self.started: list[ProcessRecord] = []

    def start(self, code: str, replica_id: str = "r-1", **changes: Any) -> ProcessRecord:
        values: dict[str, Any] = {
            "runtime_name": "pytorch-inference",
            "kind": "framework",
            "python": PYTHON,
            "argv": (str(PYTHON), "-I", "-S", "-c", code),
            "environment": {},
            "model_dir": None,
            "port": self.launcher.free_port(),
            "token": f"token-of-{replica_id}-{os.getpid()}-{id(self)}",
            "log_group": GROUP,
            "log_stream": f"AllTraffic/{replica_id}",
            **changes,
        }
        record = self.launcher.start(ReplicaSpec(replica_id=replica_id, **values))
        self.started.append(record)
        return record

    def log(self, replica_id: str = "r-1") -> list[str]:
        path = log_file(self.data_dir, GROUP, f"AllTraffic/{replica_id}")
        if not path.exists():
            return []
        text = path.read_text()
        return [json.loads(line)["m"] for line in text.splitlines() if line.endswith("}")]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "data")
    yield made
    for record in made.started:
        made.launcher.stop(record, 0)


@pytest.fixture(params=["bubblewrap", "unshare", "plain"])
def confined(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """Every way a server is started here: what to change in the spec."""
    if request.param == "plain":
        return {"sandbox": False}
    if reason := sandbox.try_tool(request.param):
        pytest.skip(f"{request.param}: {reason}")
    monkeypatch.setattr(sandbox, "require", lambda: request.param)
    return {"sandbox": True}


SLEEP = "import signal; print('up', flush=True); signal.pause()"
# os.write: the signal may come while the line before is still being printed.
POLITE = """
import os, signal, sys
def stop(*_):
    os.write(1, b"bye\\n")
    sys.exit(3)
signal.signal(signal.SIGTERM, stop)
os.write(1, b"up\\n")
while True:
    signal.pause()
"""
STUBBORN_FAMILY = """
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        print("grandchild", flush=True)
        signal.pause()
    signal.pause()
while True:
    signal.pause()
"""


def processes_with(token: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if token.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def test_a_server_gets_its_orders_by_environment(bench: Bench, confined: dict[str, bool]) -> None:
    overlay = bench.data_dir.cache / "overlays" / "o"
    overlay.mkdir(parents=True)
    mine = {"PYTHONPATH": "/mine", "USER_VALUE": "1"} if confined["sandbox"] else {}
    record = bench.start(
        "import json, os; print(json.dumps(dict(os.environ)))",
        environment={"OPTION_DTYPE": "fp32", "SAGEMAKER_BIND_TO_PORT": "8080", **mine},
        overlays=(overlay,),
        **confined,
    )
    seen = json.loads(until(bench.log)[0])
    assert seen["OPTION_DTYPE"] == "fp32"
    assert seen.get("USER_VALUE") == mine.get("USER_VALUE")
    assert seen["SAGEMAKER_BIND_TO_PORT"] == str(record.port)
    assert seen["RIDGELINE_REPLICA_ID"] == "r-1"
    assert seen["RIDGELINE_REPLICA_TOKEN"] == record.token
    assert seen["PYTHONPATH"].split(":") == [str(overlay), *(["/mine"] if mine else [])]


def test_outside_a_sandbox_settings_alone_reach_a_server(bench: Bench) -> None:
    """What others make it load would run as the service, which may read every key."""
    loads = ("LD_PRELOAD", "PYTHONPATH", "PATH", "HOME", "CC", "XDG_CACHE_HOME", "HF_HOME",
             "RIDGELINE_CACHE", "AWS_CONFIG_FILE", "OMP_TOOL_LIBRARIES")  # fmt: skip
    given = dict.fromkeys(loads, "/mine") | {"OPTION_MAX_MODEL_LEN": "512", "HF_MODEL_ID": "m"}
    code = "import json, os; print(json.dumps(dict(os.environ)))"
    bench.start(code, environment=given, sandbox=False)
    seen = json.loads(until(bench.log)[0])
    assert (seen["OPTION_MAX_MODEL_LEN"], seen["HF_MODEL_ID"]) == ("512", "m")
    assert [name for name in loads if "/mine" in seen.get(name, "")] == []
    assert seen["RIDGELINE_LEFT_OUT"].split(", ") == list(loads)


def test_the_kernel_takes_a_server_before_the_service(
    bench: Bench, confined: dict[str, bool]
) -> None:
    bench.start("print(open('/proc/self/oom_score_adj').read())", **confined)
    assert int(until(bench.log)[0]) > int(Path("/proc/self/oom_score_adj").read_text())


def test_a_server_that_native_code_ends_leaves_a_word_in_its_log(
    bench: Bench, confined: dict[str, bool]
) -> None:
    code = "import ctypes\ndef broken(): ctypes.string_at(0)\nbroken()"
    bench.start(code, argv=(str(PYTHON), "-S", "-c", code), **confined)
    until(lambda: bench.launcher.exit_status("r-1") is not None)
    log = "\n".join(until(bench.log))
    assert "Segmentation fault" in log
    assert "in broken" in log


def test_sigterm_reaches_the_server_and_its_answer_is_logged(
    bench: Bench, confined: dict[str, bool]
) -> None:
    record = bench.start(POLITE, **confined)
    until(lambda: "up" in bench.log())
    assert bench.launcher.alive(record)
    assert bench.launcher.exit_status("r-1") is None
    bench.launcher.stop(record, 20)
    assert not bench.launcher.alive(record)
    status = bench.launcher.exit_status("r-1")
    assert status is not None
    assert (status.code, status.signal) == (3, None)
    assert status.words == "exited with status 3"
    assert bench.log() == ["up", "bye"]


def test_what_will_not_stop_is_killed_with_all_its_descendants(
    bench: Bench, confined: dict[str, bool]
) -> None:
    record = bench.start(STUBBORN_FAMILY, **confined)
    until(lambda: "grandchild" in bench.log())
    assert processes_with(record.token)
    bench.launcher.stop(record, 0.05)
    assert not bench.launcher.alive(record)
    until(lambda: not processes_with(record.token))
    status = bench.launcher.exit_status("r-1")
    assert status is not None
    assert status.signal == signal.SIGKILL
    assert status.words == "was ended by SIGKILL"


def test_nothing_outlives_a_killed_shim(bench: Bench, confined: dict[str, bool]) -> None:
    record = bench.start(SLEEP, **confined)
    until(lambda: "up" in bench.log())
    os.kill(record.pid, signal.SIGKILL)
    until(lambda: not bench.launcher.alive(record))
    until(lambda: not processes_with(record.token))
    assert bench.launcher.exit_status("r-1") is None
    assert bench.launcher.records() == []


def test_strays_of_a_killed_shim_without_namespace_end_with_stop(bench: Bench) -> None:
    record = bench.start(STUBBORN_FAMILY, sandbox=False)
    until(lambda: "grandchild" in bench.log())
    os.kill(record.pid, signal.SIGKILL)
    until(lambda: not bench.launcher.alive(record))
    bench.launcher.stop(record, 0)
    until(lambda: not processes_with(record.token))


def test_a_crash_is_recorded_with_everything_that_was_said(
    bench: Bench, confined: dict[str, bool]
) -> None:
    bench.start(
        "import os, sys\n"
        "print('out'); sys.stdout.flush()\n"
        "sys.stderr.write('no newline at the end')\n"
        "sys.stderr.flush()\n"
        "os.kill(os.getpid(), 11)",
        **confined,
    )
    status = until(lambda: bench.launcher.exit_status("r-1"))
    assert status.signal == signal.SIGSEGV
    assert bench.log() == ["out", "no newline at the end"]


def test_no_line_of_a_torrent_is_lost(bench: Bench) -> None:
    bench.start("import sys\nfor i in range(20000): print('line', i)", sandbox=False)
    until(lambda: bench.launcher.exit_status("r-1"))
    assert bench.log() == [f"line {number}" for number in range(20000)]


def test_a_program_that_is_missing_is_said_in_the_log(
    bench: Bench, confined: dict[str, bool]
) -> None:
    bench.start("", argv=("/nonexistent/python",), **confined)
    status = until(lambda: bench.launcher.exit_status("r-1"))
    assert status.code
    assert "/nonexistent/python" in "".join(bench.log())


def test_another_launcher_finds_what_runs_and_only_that(bench: Bench) -> None:
    running = bench.start(SLEEP, "r-1", sandbox=False)
    ended = bench.start("pass", "r-2", sandbox=False)
    until(lambda: not bench.launcher.alive(ended))
    adopted = ProcessLauncher(bench.data_dir)
    assert adopted.records() == [running]
    adopted.stop(running, 0)
    assert adopted.records() == []


def test_a_reused_pid_is_not_taken_for_the_replica(bench: Bench) -> None:
    with subprocess.Popen(("sleep", "60")) as other:
        record = ProcessRecord("r-9", other.pid, start_time=1, token="t", port=1)
        assert not bench.launcher.alive(record)
        bench.launcher.stop(record, 0)
        assert other.poll() is None
        other.kill()


def test_a_server_outlives_the_process_that_launched_it(bench: Bench, tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from ridgeline_service.paths import DataDir
from ridgeline_service.runtime.launcher import ProcessLauncher, ReplicaSpec
launcher = ProcessLauncher(DataDir(Path({str(bench.data_dir.root)!r})))
python = Path({str(PYTHON)!r})
launcher.start(ReplicaSpec("r-1", "llm", "llm", python, (str(python), "-I", "-S", "-c", {SLEEP!r}),
    {{}}, None, launcher.free_port(), "token-of-an-orphan", {GROUP!r}, "AllTraffic/r-1",
    sandbox=False))
"""
    subprocess.run((str(PYTHON), "-c", code), check=True, timeout=30)
    [record] = bench.launcher.records()
    bench.started.append(record)
    until(lambda: "up" in bench.log())
    bench.launcher.stop(record, 0)
    assert bench.launcher.records() == []


@pytest.mark.parametrize("left", ["", "{", "[]", '{"id": 1}'])
def test_a_process_whose_record_was_damaged_is_found_and_stopped(bench: Bench, left: str) -> None:
    """As after a power cut: neither `down` nor the next start could go on."""
    record = bench.start(SLEEP)
    until(lambda: "up" in bench.log())
    folder = bench.data_dir.replicas / "r-1"
    (folder / "process.json").write_text(left)
    (folder / "exit.json").write_text(left)
    assert bench.launcher.exit_status("r-1") is None
    [found] = bench.launcher.records()
    assert found == record
    (folder / "exit.json").unlink()
    bench.launcher.stop(found, 5)
    assert bench.launcher.records() == []


def test_remove_refuses_what_runs_and_deletes_what_ended(bench: Bench) -> None:
    record = bench.start(
        "import os, signal; os.makedirs('locked/x'); os.chmod('locked', 0); "
        "print('up', flush=True); signal.pause()",
        sandbox=False,
    )
    until(lambda: "up" in bench.log())
    with pytest.raises(NotReady, match="r-1"):
        bench.launcher.remove("r-1")
    bench.launcher.stop(record, 0)
    bench.launcher.remove("r-1")
    assert list(bench.data_dir.replicas.iterdir()) == []
    assert bench.log() == ["up"]
    bench.launcher.remove("r-1")


def test_removing_never_follows_a_link_out_of_the_folder(bench: Bench, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o755)
    record = bench.start(f"import os; os.symlink({str(outside)!r}, 'link')", sandbox=False)
    until(lambda: not bench.launcher.alive(record))
    bench.launcher.remove("r-1")
    assert outside.stat().st_mode & 0o777 == 0o755


def test_an_id_is_used_once_and_cannot_leave_its_folder(bench: Bench) -> None:
    bench.start("pass", sandbox=False)
    with pytest.raises(InternalError, match="before"):
        bench.start("pass", sandbox=False)
    with pytest.raises(InternalError, match="cannot be the id"):
        bench.start("pass", "../r", sandbox=False)


def test_secrets_on_disk_are_private(bench: Bench) -> None:
    bench.start("pass", sandbox=False)
    folder = bench.data_dir.replicas / "r-1"
    assert folder.stat().st_mode & 0o777 == 0o700
    for name in ("spec.json", "process.json"):
        assert (folder / name).stat().st_mode & 0o777 == 0o600


def test_memory_over_the_limit_is_refused_to_the_process(
    bench: Bench, confined: dict[str, bool]
) -> None:
    bench.start(
        "try:\n    bytearray(1 << 29)\nexcept MemoryError:\n    print('no memory')",
        memory_bytes=1 << 28,
        **confined,
    )
    until(lambda: bench.launcher.exit_status("r-1"))
    assert bench.log() == ["no memory"]


def test_without_network_a_framework_server_is_handed_its_socket(bench: Bench) -> None:
    if sandbox.capability().tool is None:
        pytest.skip(sandbox.capability().summary)
    record = bench.start(
        "import os, socket\n"
        "listener = socket.socket(fileno=int(os.environ['RIDGELINE_LISTEN_FD']))\n"
        "listener.accept()[0].sendall(b'hello')\n",
        network=False,
    )

    def connect() -> socket.socket | None:
        try:
            return socket.create_connection(("127.0.0.1", record.port), timeout=10)
        except ConnectionRefusedError:
            return None

    with until(connect) as client:
        assert client.recv(5) == b"hello"


def test_where_no_namespace_can_be_made_nothing_is_started(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = sandbox.Capability(tool=None, reasons={"bubblewrap": "bwrap is not installed"})
    monkeypatch.setattr(sandbox, "capability", lambda: broken)
    with pytest.raises(Unsupported, match="bwrap is not installed"):
        bench.start("pass")
    assert bench.launcher.records() == []


def test_ports_are_free_different_and_outside_the_ephemeral_range() -> None:
    picker = PortPicker(start=lambda low, high: low)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        ports = [picker.pick() for _ in range(20)]
    assert len(set(ports)) == 20
    assert all(picker.low <= port < picker.high <= 32768 for port in ports)
    with socket.create_server(("127.0.0.1", ports[-1] + 1)):
        assert picker.pick() != ports[-1] + 1


def test_log_names_make_no_folders(tmp_path: Path) -> None:
    path = log_file(DataDir(tmp_path), "/aws/sagemaker/Endpoints/../x", "v/../../y")
    assert path.parent.parent == DataDir(tmp_path).log_groups
    assert launchers.GRACE_S > 30
