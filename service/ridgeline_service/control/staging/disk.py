"""Stages a variant on this machine's disk: its environment, its model data, its packages."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ridgeline.errors import RidgelineError
from ridgeline_service.control.endpoints.planning import is_hub_id, model_id_of
from ridgeline_service.control.staging.base import (
    ENVIRONMENT_STAGE,
    Cancelled,
    Report,
    Staged,
    StagingCancelled,
    StagingFailed,
)
from ridgeline_service.control.staging.beside import lay_together, model_beside
from ridgeline_service.control.staging.cache import ModelCache
from ridgeline_service.control.staging.hub import HubCards
from ridgeline_service.control.staging.s3 import Counter, ModelBucket, name_of, split_uri
from ridgeline_service.control.staging.submitted import join, submitted_uri, with_code
from ridgeline_service.control.staging.weights import ZooWeights
from ridgeline_service.endings import sentences
from ridgeline_service.placement.disk import NoRoom, check_room, room_kept
from ridgeline_service.runtime import sandbox
from ridgeline_service.runtime.environments import Environment, Environments
from ridgeline_service.runtime.images import Runtime, runtime_named
from ridgeline_service.store.records import ContainerSpec, VariantSpec
from ridgeline_service.store.states import Reason
from ridgeline_zoo import Catalog
from ridgeline_zoo.archive import extract_archive

REQUIREMENTS = ("code/requirements.txt", "requirements.txt")


class DiskStager:
    """The stager of real services. Thread-safe: what is shared is locked on disk."""

    def __init__(
        self,
        *,
        bucket: ModelBucket,
        cache: ModelCache,
        weights: ZooWeights,
        hub: HubCards,
        environments: Environments,
        cards: Callable[[], Catalog],
    ) -> None:
        self._bucket = bucket
        self._cache = cache
        self._weights = weights
        self._hub = hub
        self._environments = environments
        self._cards = cards

    def stage(self, variant: VariantSpec, report: Report, cancelled: Cancelled) -> Staged:
        container = variant.container
        runtime = runtime_named(container.runtime)
        environment = self._environment(runtime, report, cancelled)
        model_dir = self._model(variant, runtime, report, cancelled)
        variables = dict(container.environment)
        if runtime.kind == "framework" and submitted_uri(variables):
            model_dir = self._with_code(submitted_uri(variables), model_dir, report, cancelled)
            variables = with_code(variables)
        overlays = self._overlays(runtime, model_dir, report, cancelled)
        isolated = runtime.kind == "framework" or sandbox.capability().tool is not None
        return Staged(
            runtime_name=runtime.name,
            kind=runtime.kind,
            python=environment.python,
            argv=environment.argv,
            environment=variables,
            model_dir=model_dir,
            overlays=overlays,
            read_only=environment.site_dirs,
            network=container.network,
            sandbox=isolated,
        )

    def _environment(self, runtime: Runtime, report: Report, cancelled: Cancelled) -> Environment:
        if runtime.kind == "framework":
            report(ENVIRONMENT_STAGE, 0, 0)
        with _install_failures():
            return self._environments.ensure(runtime, _cancellable(cancelled))

    def _overlays(
        self, runtime: Runtime, model_dir: Path | None, report: Report, cancelled: Cancelled
    ) -> tuple[Path, ...]:
        """The packages that the model's own requirements.txt asks for."""
        if runtime.kind != "framework" or model_dir is None:
            return ()
        wanted = next((model_dir / n for n in REQUIREMENTS if (model_dir / n).is_file()), None)
        if wanted is None:
            return ()
        report("packages", 0, 0)
        with _install_failures():
            text = wanted.read_bytes()
            return (self._environments.overlay(runtime, text, _cancellable(cancelled)),)

    def _model(
        self, variant: VariantSpec, runtime: Runtime, report: Report, cancelled: Cancelled
    ) -> Path | None:
        container = variant.container
        report("download", 0, 0)
        llm = runtime.kind == "llm"
        if variant.zoo_id and not (llm and container.data_kind == "archive"):
            return self._named(variant.zoo_id, report, cancelled)
        if container.data_uri:
            data = self._data(container, report, cancelled)
            return self._with_model(variant, data, report, cancelled) if llm else data
        model_id = model_id_of(container.environment)
        if model_id is None or not (model_id.startswith("s3://") or (llm and model_id[0] != "/")):
            return None
        return self._named(model_id, report, cancelled)

    def _named(self, model_id: str, report: Report, cancelled: Cancelled) -> Path:
        """A model that lies in S3, in the zoo or on the hub."""
        if model_id.startswith("s3://"):
            return self._prefix(model_id, report, cancelled)
        cards = self._cards()
        card = next((card for card in cards if card.id == model_id), None)
        card = card or cards.by_source(model_id)
        if card is not None:
            return self._weights.stage(card, report, cancelled)
        if not is_hub_id(model_id):
            raise StagingFailed(
                Reason.PREPARE_FAILED,
                f"The model id {model_id!r} is no model of the zoo, no hub id (org/name) and no S3 "
                "URI. Correct HF_MODEL_ID, or option.model_id in serving.properties.",
            )
        made = self._hub.card(model_id)
        return self._weights.stage(made, report, cancelled, (self._hub.folder,))

    def _with_model(
        self, variant: VariantSpec, data: Path, report: Report, cancelled: Cancelled
    ) -> Path:
        """The data, with the model that it goes with if it brings none itself."""
        model_id = model_beside(data, variant)
        if not model_id:
            return data
        model = self._named(model_id, report, cancelled)
        return self._cache.get(
            _joined(model.name, data.name), lambda into: lay_together(model, data, into), cancelled
        )

    def _with_code(
        self, uri: str, model_dir: Path | None, report: Report, cancelled: Cancelled
    ) -> Path:
        """The model with the code that was submitted apart from it."""
        code = self._archive(uri, report, cancelled)
        name = _joined(model_dir.name if model_dir is not None else "", code.name)
        return self._cache.get(name, lambda into: join(model_dir, code, into), cancelled)

    def _data(self, container: ContainerSpec, report: Report, cancelled: Cancelled) -> Path:
        if container.data_kind == "archive":
            return self._archive(container.data_uri, report, cancelled)
        if container.data_kind == "object":
            return self._object(container.data_uri, report, cancelled)
        return self._prefix(container.data_uri, report, cancelled)

    def _archive(self, uri: str, report: Report, cancelled: Cancelled) -> Path:
        item = self._bucket.head(uri)
        bucket, _ = split_uri(uri)

        def fill(into: Path) -> None:
            check_room(into, item.size, uri)
            packed = into / ".archive"
            counter = Counter(report, item.size)
            self._bucket.download(bucket, item, packed, counter, cancelled)
            report("extract", 0, 0)
            archive = packed.rename(into.parent / f"{into.name}.tar.gz")
            try:
                extract_archive(archive, into, took=room_kept(into, uri))
            except RidgelineError as error:
                said = sentences(error.message, error.hint)
                message = said.replace(str(archive), uri).replace(archive.name, uri)
                raise StagingFailed(Reason.MODEL_DATA_INVALID, message) from error
            finally:
                archive.unlink(missing_ok=True)

        return self._cache.get(name_of("archive", bucket, [item]), fill, cancelled)

    def _object(self, uri: str, report: Report, cancelled: Cancelled) -> Path:
        item = self._bucket.head(uri)
        bucket, key = split_uri(uri)

        def fill(into: Path) -> None:
            check_room(into, item.size, uri)
            target = into / Path(key).name
            self._bucket.download(bucket, item, target, Counter(report, item.size), cancelled)

        return self._cache.get(name_of("object", bucket, [item]), fill, cancelled)

    def _prefix(self, uri: str, report: Report, cancelled: Cancelled) -> Path:
        uri = uri if uri.endswith("/") else f"{uri}/"
        objects = self._bucket.list(uri)
        bucket, _ = split_uri(uri)
        return self._cache.get(
            name_of("prefix", bucket, objects),
            lambda into: self._bucket.download_all(uri, objects, into, report, cancelled),
            cancelled,
        )


def _joined(*parts: str) -> str:
    """A directory name for what some others hold together."""
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    return f"joined-{digest[:32]}"


def _cancellable(cancelled: Cancelled) -> Callable[[str], None]:
    """An install is ended at its next line of output when nobody wants it any more."""

    def progress(_line: str) -> None:
        if cancelled():
            raise StagingCancelled

    return progress


@contextmanager
def _install_failures() -> Iterator[None]:
    try:
        yield
    except NoRoom as error:
        raise StagingFailed(Reason.DISK_FULL, error.message) from error
    except RidgelineError as error:
        log: tuple[str, ...] = getattr(error, "log_tail", ())
        message = sentences(error.message, error.hint)
        raise StagingFailed(Reason.ENVIRONMENT_FAILED, message, log) from error
