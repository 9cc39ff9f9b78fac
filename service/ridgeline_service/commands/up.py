"""``ridgeline up``: start the service of a data directory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ridgeline.errors import AlreadyExists, InvalidInput, RidgelineError, Unavailable
from ridgeline_backends.cpu.kernels.build import build_kernels, kernels_wait_for_build
from ridgeline_backends.errors import KernelBuildFailed
from ridgeline_service.objects.reach import check_store
from ridgeline_service.paths import DataDir
from ridgeline_service.settings import load_settings
from ridgeline_service.supervisor.directory import prepare_directory
from ridgeline_service.supervisor.supervisor import Supervisor


def up(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on. [default: 127.0.0.1]")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port; 0 takes any free one. [default: 8080]"),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Where everything is kept. [default: $RIDGELINE_HOME or ~/.ridgeline]"),
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return once the service is ready.")
    ] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Start the service and keep it running. Ctrl-C, or `ridgeline down`, stops all of it."""
    # Everything that this process and its children write is for its owner alone.
    os.umask(0o077)
    directory = DataDir.find(data_dir)
    prepare_directory(directory)
    settings = load_settings(directory)
    check_store(settings, directory)
    bind_host = host or settings.host
    bind_port = settings.port if port is None else port
    console = Console(stderr=True, highlight=False)
    _compile_kernels(console)
    if detach:
        state = _start_detached(directory, bind_host, bind_port)
        _announce(directory, state, detached=True, json_output=json_output)
        return
    supervisor = Supervisor(directory, bind_host, bind_port, log=lambda line: console.print(line))
    state = asdict(supervisor.start())
    _announce(directory, state, detached=False, json_output=json_output)
    supervisor.run()
    console.print("Stopped. Data is kept in " + str(directory.root))


def _compile_kernels(console: Console) -> None:
    """Now, so that the first replica does not wait for it; replicas may not even write here."""
    if not kernels_wait_for_build():
        return
    console.print("Compiling the CPU kernels, once for this machine ...")
    try:
        build_kernels()
    except KernelBuildFailed as error:
        console.print(f"Without them models run in plain torch: {error.message}", markup=False)


def _start_detached(directory: DataDir, host: str, port: int) -> dict[str, object]:
    read_end, write_end = os.pipe()
    with (directory.logs / "supervisor.log").open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "ridgeline_service.supervisor"]
            + ["--data-dir", str(directory.root), "--host", host, "--port", str(port)]
            + ["--report-fd", str(write_end)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[write_end],
            start_new_session=True,
        )
    os.close(write_end)
    with os.fdopen(read_end) as report:
        answer = report.read()
    if not answer:
        code = child.wait()
        raise Unavailable(
            f"The supervisor ended with code {code} before the service was ready.",
            hint=f"See {directory.logs / 'supervisor.log'}.",
        )
    result = json.loads(answer)
    if "state" not in result:
        raise _rebuild(result)
    child.returncode = 0  # it lives on; nobody waits for it here
    state: dict[str, object] = result["state"]
    return state


def _rebuild(raw: dict[str, str]) -> RidgelineError:
    known = {cls.code: cls for cls in (AlreadyExists, InvalidInput, Unavailable)}
    return known.get(raw["code"], RidgelineError)(raw["message"], hint=raw["hint"])


class _Unread(Console):
    """Whoever reads its lines may go (``| head``): what was started is kept running all the
    same."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _announce(
    directory: DataDir, state: dict[str, object], *, detached: bool, json_output: bool
) -> None:
    # Never wrapped: these lines are pasted into shells.
    console = _Unread(highlight=False, soft_wrap=True)
    if json_output:
        shown = {"url": state["url"], "data_dir": str(directory.root), **state}
        console.print(json.dumps(shown), markup=False)
        return
    console.print(f"[bold green]Ridgeline is ready[/] at [bold]{state['url']}[/]")
    console.print(f"  data   {directory.root}")
    console.print(f"  logs   {directory.logs}")
    named = "" if directory == DataDir.find() else f" --data-dir {directory.root}"
    console.print("Next:")
    console.print(f"  ridgeline deploy smollm2-135m-instruct{named}", markup=False)
    console.print(
        f'  eval "$(ridgeline env{named})"    # for boto3, the AWS CLI, openai', markup=False
    )
    console.print(
        f"  ridgeline down{named}" if detached else "  Ctrl-C stops it, endpoints included.",
        markup=False,
    )
