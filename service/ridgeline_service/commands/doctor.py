"""``ridgeline doctor``: what this machine can do, what it cannot, and why."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ridgeline.errors import NotReady, RidgelineError
from ridgeline_backends.registry import probe_all
from ridgeline_service.objects.reach import check_store
from ridgeline_service.paths import DataDir
from ridgeline_service.runtime.sandbox import capability
from ridgeline_service.settings import load_settings
from ridgeline_service.supervisor.state import StateUnreadable, read_state

_LOW_DISK_BYTES = 2 * 2**30


_ROOT = (
    "root: scripts and models that it runs are root too, without capabilities, but with the kernel "
    "alone between them and this machine; an ordinary user is enough"
)


@dataclass(frozen=True)
class Finding:
    """One line of the report. ``needed`` marks what the service cannot work without."""

    subject: str
    ok: bool
    detail: str
    needed: bool = True


def doctor(
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Which service. [default: $RIDGELINE_HOME or ~/.ridgeline]"),
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check the machine: backends, sandbox, disk, and whether the service answers."""
    findings = examine(DataDir.find(data_dir))
    if json_output:
        sys.stdout.write(json.dumps([asdict(finding) for finding in findings], indent=2) + "\n")
    else:
        _show(findings)
    broken = [finding.subject for finding in findings if finding.needed and not finding.ok]
    if broken:
        raise NotReady(
            f"Not usable on this machine: {', '.join(broken)}.",
            hint="The reasons are in the table above.",
        )


def examine(directory: DataDir) -> list[Finding]:
    """Every finding, in the order in which a reader needs them."""
    findings = [
        Finding("python", True, f"{platform.python_version()} at {sys.executable}"),
        _memory(),
        _disk(directory),
    ]
    reports = probe_all()
    usable = any(report.usable for report in reports)
    for report in reports:
        notes = f" ({'; '.join(report.notes)})" if report.notes else ""
        threads = f", {report.threads} threads" if report.threads else ""
        detail = f"{report.device}{threads}{notes}"
        findings.append(
            Finding(
                f"backend {report.backend}",
                report.usable,
                detail if report.usable else report.reason,
                needed=not usable,
            )
        )
    sandbox = capability()
    findings.append(Finding("sandbox", sandbox.tool is not None, sandbox.summary))
    if os.getuid() == 0:
        findings.append(Finding("user", False, _ROOT, needed=False))
    findings += _store(directory)
    findings.append(_service(directory))
    return findings


def _memory() -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Finding("memory", True, f"{total / 2**30:.1f} GiB, {os.cpu_count()} cores")


def _disk(directory: DataDir) -> Finding:
    folder = directory.root
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    detail = f"{free / 2**30:.1f} GiB free for {directory.root}"
    if free < _LOW_DISK_BYTES:
        detail += "; models and runtimes need a few GiB: choose another --data-dir"
    return Finding("disk", free >= _LOW_DISK_BYTES, detail)


def _store(directory: DataDir) -> list[Finding]:
    """The S3 that the settings name; nothing where the service keeps its objects itself."""
    try:
        settings = load_settings(directory)
        check_store(settings, directory)
    except RidgelineError as error:
        return [Finding("settings", False, f"{error.message} {error.hint}")]
    if not settings.s3_endpoint:
        return []
    return [Finding("object store", True, f"answers at {settings.s3_endpoint}")]


def _service(directory: DataDir) -> Finding:
    named = "" if directory == DataDir.find() else f" --data-dir {directory.root}"
    start = f"ridgeline up{named}"
    try:
        state = read_state(directory)
    except StateUnreadable as error:
        return Finding("service", False, str(error), needed=False)
    if state is None:
        return Finding("service", False, f"not running; start it: {start}", needed=False)
    try:
        with urllib.request.urlopen(f"{state.url}/healthz", timeout=5):  # noqa: S310
            pass
    except (urllib.error.URLError, OSError) as error:
        return Finding("service", False, f"does not answer at {state.url}: {error}", needed=False)
    supervised = "" if state.supervisor.alive() else f"; its supervisor is gone: {start}"
    return Finding("service", not supervised, f"answers at {state.url}{supervised}", needed=False)


def _show(findings: list[Finding]) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    for finding in findings:
        mark = "[green]ok[/]" if finding.ok else "[red]no[/]" if finding.needed else "[yellow]-[/]"
        table.add_row(mark, finding.subject, finding.detail)
    Console(highlight=False).print(table)
