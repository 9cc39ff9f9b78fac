"""Runs pip for runtimes: output line by line, the last lines kept for the error, settings carried
into the sandbox. Knows nothing of images, nor of where environments lie."""

from __future__ import annotations

import os
import shlex
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from configparser import Error as ConfigParserError
from configparser import RawConfigParser
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ridgeline.errors import DeployFailed
from ridgeline_service.placement.disk import NoRoom
from ridgeline_service.runtime.shim import Command, call

Progress = Callable[[str], None]

TAIL_LINES = 20
TIMEOUT_S = 3600.0
_LOOK_S = 0.05
"""Between two looks at the room. Even a gigabyte a second takes less than the reserve meanwhile."""
CARRIED = (
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
)
_PLACES = frozenset(
    f"PIP_{name}"
    for name in (
        "CACHE_DIR",
        "CONFIG_FILE",
        "LOG",
        "PREFIX",
        "PYTHON",
        "REQUIRE_VIRTUALENV",
        "ROOT",
        "TARGET",
        "USER",
    )
)


class InstallFailed(DeployFailed):
    """pip could not install packages. ``log_tail`` holds its last lines."""

    code = "InstallFailed"


def extra_arguments() -> tuple[str, ...]:
    """``RIDGELINE_PIP_ARGS``, split as a shell does: e.g. an index of CPU-only wheels."""
    return tuple(shlex.split(os.environ.get("RIDGELINE_PIP_ARGS", "")))


def run(
    command: Command,
    *,
    what: str,
    hint: str,
    progress: Progress,
    environment: Mapping[str, str],
    keep_open: int,
    check_room: Callable[[], None],
) -> None:
    """Run ``command`` to its end. Raises InstallFailed, whose message begins with ``what``.

    How much it writes is not known before. ``check_room`` is called before it starts, again and
    again while it runs, and when it has failed; the NoRoom that it raises ends the command.

    ``keep_open`` is the lock's file descriptor: the child holds it too, so a pip that outlives a
    killed service still keeps others away from the directory that it writes.
    """
    check_room()
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    started = call(command, environment)
    try:
        process = subprocess.Popen(
            started.argv,
            executable=started.program,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=started.environment,
            cwd="/",
            text=True,
            errors="replace",
            pass_fds=(keep_open, *started.files),
        )
    finally:
        started.close()
    timer = threading.Timer(TIMEOUT_S, process.kill)
    timer.start()
    try:
        assert process.stdout is not None
        with _ended_without_room(process, check_room):
            for line in process.stdout:
                if line.strip():
                    tail.append(line.rstrip())
                    progress(line.rstrip())
            code = process.wait()
    finally:
        timer.cancel()
        if process.poll() is None:
            process.kill()
            process.wait()
    if code != 0:
        check_room()
        errors = [line for line in tail if line.startswith("ERROR")]
        cause = errors[0].removeprefix("ERROR: ") if errors else (tail[-1] if tail else "no output")
        raise InstallFailed(f"{what}: {cause}", log_tail=tail, hint=hint)


@contextmanager
def _ended_without_room(
    process: subprocess.Popen[str], check_room: Callable[[], None]
) -> Iterator[None]:
    left = threading.Event()
    full: list[NoRoom] = []

    def look() -> None:
        while not left.wait(_LOOK_S):
            try:
                check_room()
            except NoRoom as error:
                full.append(error)
                process.kill()
                return

    looking = threading.Thread(target=look, name="room for pip")
    looking.start()
    try:
        yield
    finally:
        left.set()
        looking.join()
    if full:
        raise full[0]


def settings(prefix: Path) -> dict[str, str]:
    """This machine's pip settings (configuration files and PIP_* variables) as variables, so that
    pip behaves the same where those files cannot be seen. ``prefix`` is the environment of that
    pip. They are read as pip reads them (https://pip.pypa.io/en/stable/topics/configuration), for
    pip itself takes half a second."""
    values: dict[str, str] = {}
    options: dict[str, dict[str, str]] = {"global": {}, "install": {}}
    for file in _configuration_files(prefix):
        for section, found in _sections(file).items():
            options.get(section, {}).update(found)
    for found in options.values():
        values |= {f"PIP_{name.upper()}": " ".join(value.split()) for name, value in found.items()}
    values |= {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    values |= {name: os.environ[name] for name in CARRIED if name in os.environ}
    return values | {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INPUT": "1"}


def job_settings(prefix: Path) -> dict[str, str]:
    """Those of them with which a job's own pip finds packages. Where it puts them is the job's
    affair, and so is a configuration file that the job writes."""
    return {name: value for name, value in settings(prefix).items() if name not in _PLACES}


def _configuration_files(prefix: Path) -> list[Path]:
    """What a later one says wins."""
    named = os.environ.get("PIP_CONFIG_FILE", "")
    if named == os.devnull:
        return []
    home = Path(os.path.expanduser("~"))
    shared = os.environ.get("XDG_CONFIG_DIRS") or "/etc/xdg"
    own = os.environ.get("XDG_CONFIG_HOME") or home / ".config"
    files = [*(Path(folder, "pip") for folder in shared.split(os.pathsep)), Path("/etc")]
    if not os.path.exists(named):
        files += [home / ".pip", Path(own, "pip")]
    found = [folder / "pip.conf" for folder in (*files, prefix)]
    return [*found, Path(named)] if named else found


def _sections(file: Path) -> dict[str, dict[str, str]]:
    """Options by section, none where pip could not read the file either."""
    parser = RawConfigParser()
    try:
        parser.read(file, encoding="utf-8")
    except (ConfigParserError, UnicodeDecodeError):
        return {}
    return {
        section: {
            name.removeprefix("--").replace("-", "_"): value
            for name, value in parser.items(section)
        }
        for section in parser.sections()
    }


def named_paths(words: Sequence[str]) -> tuple[Path, ...]:
    """Local files and folders that settings or arguments name: wheel folders, certificates.

    Of a local index (``file:///mirror/simple``) the folder around it, where its links point.
    """
    found = []
    for word in " ".join(words).replace("=", " ").split():
        path = word
        if word.startswith("file://"):
            path = unquote(urlsplit(word).path).rstrip("/").removesuffix("/simple")
        if path.startswith("/") and path not in ("/", os.devnull) and os.path.exists(path):
            found.append(Path(path))
    return tuple(dict.fromkeys(found))
