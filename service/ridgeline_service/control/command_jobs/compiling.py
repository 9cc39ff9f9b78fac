"""The work of a compilation job: model.tar.gz from S3, the compiler in a sandbox, the artifact.

A model file is its user's, and reading some of them runs what is in it: so the compiler runs as
user code does, without keys and without a network.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ridgeline.errors import RidgelineError
from ridgeline_service.control.children import ending_with_parent
from ridgeline_service.control.command_jobs.archives import unpack
from ridgeline_service.control.command_jobs.compilation import order_of
from ridgeline_service.control.command_jobs.following import followed
from ridgeline_service.control.command_jobs.life import Cancelled, CommandFailed, checking
from ridgeline_service.endings import sentences
from ridgeline_service.objects.reading import S3Failed, S3Reader, parse_uri
from ridgeline_service.runtime import sandbox as sandboxes
from ridgeline_service.runtime.environments import Environments
from ridgeline_service.runtime.images import resolve
from ridgeline_service.runtime.shim import call
from ridgeline_service.store.command_jobs import CommandJob

_IMAGE = "763104351884.dkr.ecr.{region}.amazonaws.com/djl-inference:0.29.0-neuronx-sdk2.19.1"

_COMMAND = ending_with_parent("ridgeline_backends.neuron.jobs.compile")


class Compiling:
    """``rooms`` is where a job's files lie while it runs; ``client`` makes an S3 client."""

    def __init__(
        self, rooms: Path, client: Callable[[], Any], environments: Environments, region: str
    ) -> None:
        self._rooms = rooms
        self._client = client
        self._environments = environments
        self._region = region

    def __call__(self, job: CommandJob, cancelled: Cancelled) -> Mapping[str, Any]:
        """The result of a job, uploaded. Raises CommandFailed and CommandCancelled."""
        room = self._rooms / job.id
        shutil.rmtree(room, ignore_errors=True)
        room.mkdir(parents=True)
        try:
            reader = S3Reader(self._client())
            reader.check_bucket(job.request["OutputConfig"]["S3OutputLocation"])
            source = self._fetched(job, reader, room, checking(cancelled))
            compiled, output = self._compiled(job, source, room, cancelled)
            packed = _packed(output, room, checking(cancelled))
            return self._kept(job, reader, compiled, packed)
        except S3Failed as error:
            raise CommandFailed(f"ClientError: {error.message}") from error
        except RidgelineError as error:
            raise CommandFailed(sentences(error.message, error.hint or "")) from error
        finally:
            shutil.rmtree(room, ignore_errors=True)

    def _fetched(
        self, job: CommandJob, reader: S3Reader, room: Path, check: Callable[[], None]
    ) -> Path:
        uri = job.request["InputConfig"]["S3Uri"]
        bucket, key = parse_uri(uri)
        reader.head(uri)
        archive, source = room / "model.tar.gz", room / "source"
        reader.download(bucket, key, archive, lambda _: check())
        source.mkdir()
        unpack(archive, source, uri, "a model", check)
        archive.unlink()
        return source

    def _compiled(
        self, job: CommandJob, source: Path, room: Path, cancelled: Cancelled
    ) -> tuple[Mapping[str, Any], Path]:
        order = order_of(job.request)
        request = job.request
        environment = self._environments.ensure(resolve(_IMAGE.format(region=self._region)))
        scratch = room / "scratch"
        inside = sandboxes.Sandbox(
            python=environment.python,
            scratch=scratch,
            model_dir=source,
            read_only=environment.site_dirs,
            network=False,
        )
        command = [
            str(environment.python), *_COMMAND, sandboxes.MODEL_DIR, f"{sandboxes.TMP}/output",
            "--target", order.target,
            "--shapes", request["InputConfig"].get("DataInputConfig", ""),
            "--options", request["OutputConfig"].get("CompilerOptions", ""),
        ]  # fmt: skip
        wanted = {"NEURON_COMPILE_CACHE_URL": f"{sandboxes.TMP}/cache"}
        compiler = call(
            sandboxes.wrap(command, inside, sandboxes.require()),
            sandboxes.environment(wanted, python=environment.python),
        )
        with subprocess.Popen(
            compiler.argv,
            executable=compiler.program,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=compiler.environment,
            pass_fds=compiler.files,
        ) as process:
            compiler.close()
            try:
                return followed(process, cancelled), scratch / "tmp" / "output"
            finally:
                if process.poll() is None:
                    process.kill()

    def _kept(
        self, job: CommandJob, reader: S3Reader, compiled: Mapping[str, Any], packed: _Packed
    ) -> Mapping[str, Any]:
        """Uploaded, beside the name of what was compiled as AWS makes it."""
        stem = Path(job.request["InputConfig"]["S3Uri"]).name.removesuffix(".tar.gz")
        folder = job.request["OutputConfig"]["S3OutputLocation"].rstrip("/")
        uri = f"{folder}/{stem}-{compiled['target']}.tar.gz"
        with packed.path.open("rb") as file:
            reader.upload(file, uri)
        return {
            "artifacts": uri,
            "digest": packed.digest,
            "inputs": json.dumps(compiled["inputs"]),
            "image": _IMAGE.format(region=self._region) if packed.whole else "",
            "modules": compiled["modules"],
        }


@dataclass(frozen=True)
class _Packed:
    """An archive and its SHA-256. ``whole``: it holds a model that can be served."""

    path: Path
    digest: str
    whole: bool


def _packed(output: Path, room: Path, check: Callable[[], None]) -> _Packed:
    path = room / "compiled.tar.gz"

    def checked(member: tarfile.TarInfo) -> tarfile.TarInfo:
        check()
        return member

    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        archive.add(output, arcname=".", filter=checked)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            check()
            digest.update(part)
    return _Packed(path, digest.hexdigest(), (output / "config.json").is_file())
