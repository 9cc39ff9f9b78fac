"""Weights of one's own, deployed from where they lie: a folder or an archive, here or in S3.

What lies there decides who serves it. Hugging Face's layout is for the LLM image; code, or a
TorchScript file, for the image of a framework. Looks at names alone and leaves what is wrong with
the content to the model server.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import IO, Any

from ridgeline._names import clean_name, unique_name
from ridgeline._packing import files_below
from ridgeline.async_inference import split_s3
from ridgeline.errors import InvalidInput, NotFound, did_you_mean
from ridgeline.model import Model, prefix_source
from ridgeline.session import Session

_DEEP_LEARNING = "763104351884.dkr.ecr.{region}.amazonaws.com"
LLM_IMAGE = f"{_DEEP_LEARNING}/djl-inference:0.30.0-lmi12.0.0-cpu-full"
_FRAMEWORK_IMAGES = {
    "pytorch": f"{_DEEP_LEARNING}/pytorch-inference:2.8.0-cpu-py312",
    "huggingface": (
        f"{_DEEP_LEARNING}/huggingface-pytorch-inference:2.8.0-transformers4.56.2-cpu-py312"
    ),
    "sklearn": "683313688378.dkr.ecr.{region}.amazonaws.com/sagemaker-scikit-learn:1.2-1-cpu-py3",
}
_CODE = "code/inference.py"
_TORCHSCRIPT = frozenset({".pt", ".pth"})
_ARCHIVES = (".tar.gz", ".tgz", ".tar")
NO_GGUF = "GGUF files of your own are not served."
GGUF_HINT = "Deploy the model's safetensors, with config.json and tokenizer.json beside them."
_FOLDER_HINT = "Give a folder, or a model.tar.gz."
# What jobs call the place of a model: it tells nothing of the model.
_NAMELESS = frozenset({"output", "model", "/"})


class OwnModel(Model):
    """The model at ``place``: a folder or a model.tar.gz, as a path or an S3 URI.

    ``config.json``, safetensors and ``tokenizer.json`` at its top are served as a language model
    or an encoder. ``code/inference.py``, or a TorchScript file, is served by ``framework``:
    "pytorch", "huggingface" or "sklearn"; if it is not given, Hugging Face's where there is a
    ``config.json``, else PyTorch's. ``entry_point`` is a script to serve it that is not there yet.
    The attribute ``framework`` is empty for a language model.

    Raises NotFound where there is nothing, InvalidInput where nothing serves what is there.
    """

    def __init__(
        self,
        place: str | os.PathLike[str],
        role: str | None = None,
        env: Mapping[str, str] | None = None,
        name: str | None = None,
        sagemaker_session: Session | None = None,
        framework: str | None = None,
        entry_point: str | None = None,
    ) -> None:
        session = sagemaker_session or Session()
        if framework is not None and framework not in _FRAMEWORK_IMAGES:
            raise InvalidInput(
                f"framework {framework!r} is not known.",
                hint=did_you_mean(framework, _FRAMEWORK_IMAGES),
            )
        self.place = os.fspath(place)
        names = _names_at(self.place, session)
        if entry_point is not None:
            names |= {_CODE}
        if framework is None:
            self.framework = _framework_of(self.place, names)
        else:
            program = (env or {}).get("SAGEMAKER_PROGRAM", "inference.py")
            _check_serves(framework, self.place, names, f"code/{program}")
            self.framework = framework
        is_folder = not self.place.endswith(_ARCHIVES)
        if entry_point is not None and _is_s3(self.place) and is_folder:
            raise InvalidInput(
                f"{entry_point} cannot be added to the folder {self.place}.",
                hint=f"Put it there as {_CODE}, or give a model.tar.gz.",
            )
        image = _FRAMEWORK_IMAGES.get(self.framework, LLM_IMAGE)
        super().__init__(
            image_uri=image.format(region=session.region),
            model_data=_as_model_data(self.place),
            role=role,
            env=env,
            name=name,
            sagemaker_session=session,
            entry_point=entry_point,
        )

    def __repr__(self) -> str:
        return f"OwnModel({self.place!r})"

    def _create_endpoint(
        self,
        name: str,
        variant: dict[str, Any],
        config: dict[str, Any],
        tags: Sequence[Mapping[str, str]] | None,
    ) -> None:
        """As of any model; what would be refused in the end is refused before the upload."""
        if self._created is None and not _is_s3(self.place):
            self._check_instance_type(variant.get("InstanceType"))
            self._check_free(name)
        super()._create_endpoint(name, variant, config, tags)

    def _check_instance_type(self, given: str | None) -> None:
        """Raises InvalidInput for a size that a known family lacks; what a family may be, the
        service knows better."""
        known = _instance_types(self.sagemaker_session.sagemaker_client.meta.service_model)
        if given is None or given in known:
            return
        families = {_family(each) for each in known}
        if _family(given) in families or not given.startswith("ml."):
            raise InvalidInput(
                f"instance_type {given!r} is not known.", hint=_nearest_type(given, known)
            )

    def _model_data(self, name: str, environment: dict[str, str]) -> dict[str, Any]:
        """A folder of weights goes file by file: an archive would take its time and make none of
        it smaller."""
        folder = None if _is_s3(self.place) else _local(self.place)
        if folder is None or not folder.is_dir():
            return super()._model_data(name, environment)
        self._say_what_stays(folder)
        if self.framework:
            return super()._model_data(name, environment)
        return prefix_source(self._upload_folder(folder))

    def _say_what_stays(self, folder: Path) -> None:
        hidden = sorted(each.name for each in folder.iterdir() if each.name.startswith("."))
        if hidden:
            note = f"Hidden files are not uploaded: {_some(hidden)}"
            self.sagemaker_session.progress.note(note)

    def _upload_folder(self, folder: Path) -> str:
        session = self.sagemaker_session
        bucket = session.default_bucket()
        prefix = unique_name(self._base_name(), session.clock)
        session.progress.note(f"Uploading {folder} to s3://{bucket}/{prefix}/")
        for path in files_below(folder, hidden=False):
            key = f"{prefix}/{path.relative_to(folder).as_posix()}"
            self._uploaded.append((bucket, key))
            with path.open("rb") as file:
                self._upload_file(bucket, key, file)
        return f"s3://{bucket}/{prefix}/"

    def _base_name(self) -> str:
        return place_name(self.place)


def is_place(text: str) -> bool:
    """Whether it is written as a path or an S3 URI, and not as the name of a model."""
    return text in (".", "..") or text.startswith(("s3://", "./", "../", "/", "~"))


def place_name(place: str) -> str:
    """A name for what lies there: that of the folder, the archive, or the job that made it."""
    path = place.removeprefix("s3:/") if _is_s3(place) else _local(place).resolve().as_posix()
    for part in reversed(PurePosixPath(path).parts):
        end = next((end for end in _ARCHIVES if part.endswith(end)), "")
        if part.removesuffix(end) not in _NAMELESS:
            return clean_name(part.removesuffix(end))
    return "model"


def _instance_types(service: Any) -> frozenset[str]:
    """Those of endpoints and of jobs, as botocore's model of SageMaker has them."""
    names = (name for name in service.shape_names if name.endswith("InstanceType"))
    return frozenset(
        each for name in names for each in getattr(service.shape_for(name), "enum", ())
    )


def _family(instance_type: str) -> str:
    return instance_type.rpartition(".")[0]


def _nearest_type(given: str, known: frozenset[str]) -> str:
    if f"ml.{given}" in known:
        return f"Did you mean 'ml.{given}'?"
    near = get_close_matches(given, sorted(known), n=3) or ["ml.m5.large", "ml.m5.xlarge"]
    return f"Like {', '.join(near)}."


def _framework_of(place: str, names: frozenset[str]) -> str:
    """The framework whose image serves these files; empty for the LLM image."""
    if _CODE in names:
        return "huggingface" if "config.json" in names else "pytorch"
    at_top = {PurePosixPath(name).suffix for name in names if "/" not in name}
    if "config.json" in names and ".safetensors" in at_top:
        if "tokenizer.json" in names:
            return ""
        raise InvalidInput(
            f"{place} has no tokenizer.json.",
            hint="Make it with AutoTokenizer.from_pretrained(...).save_pretrained(folder).",
        )
    if at_top & _TORCHSCRIPT:
        return "pytorch"
    if "config.json" in names:
        raise InvalidInput(
            f"{place} has a config.json and no weights as safetensors.",
            hint="Make them with model.save_pretrained(folder, safe_serialization=True).",
        )
    if ".gguf" in at_top:
        raise InvalidInput(f"{place}: {_some(names)}: {NO_GGUF}", hint=GGUF_HINT)
    raise InvalidInput(
        f"Nothing serves what lies at {place}: {_some(names)}.",
        hint="What belongs at its top: config.json, *.safetensors and tokenizer.json of a language "
        f"model; or {_CODE}, for which --entry-point FILE adds a script of yours.",
    )


def _check_serves(framework: str, place: str, names: frozenset[str], code: str) -> None:
    """Raises InvalidInput where the framework's image would find nothing to serve."""
    at_top = {PurePosixPath(name).suffix for name in names if "/" not in name}
    without_code = {
        "huggingface": "config.json" in names,
        "pytorch": bool(at_top & _TORCHSCRIPT),
    }
    if code in names or without_code.get(framework):
        return
    hint = "--entry-point FILE adds a script of yours."
    if "config.json" in names and ".safetensors" in at_top:
        hint += " A language model is served without --framework."
    raise InvalidInput(
        f"--framework {framework}: there is no {code} at {place}: {_some(names)}.", hint=hint
    )


def _some(names: Iterable[str], most: int = 4) -> str:
    listed = sorted(names)
    return ", ".join(listed[:most]) + (", ..." if len(listed) > most else "")


def _names_at(place: str, session: Session) -> frozenset[str]:
    """The names of all files there, as paths from its top."""
    if _is_s3(place):
        names = _names_in_s3(place, session)
    elif (path := _local(place)).is_dir():
        files = files_below(path, hidden=False)
        names = frozenset(each.relative_to(path).as_posix() for each in files)
    elif path.is_file():
        if path.suffix == ".gguf":
            raise InvalidInput(f"{place}: {NO_GGUF}", hint=GGUF_HINT)
        with path.open("rb") as file:
            names = _names_in(place, file)
    else:
        raise NotFound(f"{place} does not exist.")
    if not names:
        raise NotFound(f"There are no files at {place}.", hint=_FOLDER_HINT)
    return names


def _names_in_s3(uri: str, session: Session) -> frozenset[str]:
    bucket, key = split_s3(uri)
    client = session.s3_client
    prefix = f"{key.rstrip('/')}/" if key else ""
    try:
        with session.call():
            if uri.endswith(_ARCHIVES):
                return _names_in(uri, client.get_object(Bucket=bucket, Key=key)["Body"])
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
            keys = [str(item["Key"]) for page in pages for item in page.get("Contents", ())]
    except NotFound as error:
        raise NotFound(f"{uri}: {error.message}", hint=_FOLDER_HINT) from None
    return frozenset(key.removeprefix(prefix) for key in keys if not key.endswith("/"))


def _names_in(place: str, archive: IO[bytes]) -> frozenset[str]:
    """Read as a stream, so that nothing of an archive in S3 is kept."""
    try:
        with tarfile.open(fileobj=archive, mode="r|*") as opened:
            return frozenset(each.name.removeprefix("./") for each in opened if each.isfile())
    except tarfile.TarError as error:
        raise InvalidInput(f"{place} is no tar archive: {error}.", hint=_FOLDER_HINT) from None


def _as_model_data(place: str) -> str:
    if not _is_s3(place):
        return str(_local(place))
    return place if place.endswith(_ARCHIVES) else f"{place.rstrip('/')}/"


def _is_s3(place: str) -> bool:
    return place.startswith("s3://")


def _local(place: str) -> Path:
    """Raises NotFound for the home of nobody."""
    try:
        return Path(place).expanduser()
    except RuntimeError as error:
        raise NotFound(f"{place} does not exist: {error}") from None
