"""Weights of one's own, deployed from where they lie: a folder or an archive, here or in S3.

What lies there decides who serves it. Hugging Face's layout is for the LLM image; code, or a
TorchScript file, for the image of a framework. Looks at names alone and leaves what is wrong with
the content to the model server.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import IO

from ridgeline._names import clean_name, unique_name
from ridgeline._packing import files_below
from ridgeline.async_inference import split_s3
from ridgeline.errors import InvalidInput, NotFound, did_you_mean
from ridgeline.model import Model
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
_ARCHIVES = (".tar.gz", ".tgz", ".tar")
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
        self.framework = framework or _framework_of(self.place, names)
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

    def create(self, tags: Sequence[Mapping[str, str]] | None = None) -> str:
        """As of any model. A folder of weights is uploaded file by file before, and once: an
        archive would take its time and make none of it smaller."""
        if not self.framework and not _is_s3(self.place) and _local(self.place).is_dir():
            self.model_data = self._upload_folder(_local(self.place))
        return super().create(tags)

    def _upload_folder(self, folder: Path) -> str:
        data = self.model_data
        if isinstance(data, str) and _is_s3(data):
            return data
        session = self.sagemaker_session
        bucket = session.default_bucket()
        prefix = unique_name(self._base_name(), session.clock)
        session.progress.note(f"Uploading {folder} to s3://{bucket}/{prefix}/")
        for path in files_below(folder):
            key = f"{prefix}/{path.relative_to(folder).as_posix()}"
            with session.call(), path.open("rb") as file:
                session.s3_client.upload_fileobj(file, bucket, key)
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
    if at_top & {".pt", ".pth"}:
        return "pytorch"
    if "config.json" in names:
        raise InvalidInput(
            f"{place} has a config.json and no weights as safetensors.",
            hint="Make them with model.save_pretrained(folder, safe_serialization=True).",
        )
    raise InvalidInput(
        f"Nothing serves what lies at {place}: {_some(names)}.",
        hint="What belongs at its top: config.json, *.safetensors and tokenizer.json of a language "
        f"model; or {_CODE}, for which --entry-point FILE adds a script of yours.",
    )


def _some(names: frozenset[str], most: int = 4) -> str:
    listed = sorted(names)
    return ", ".join(listed[:most]) + (", ..." if len(listed) > most else "")


def _names_at(place: str, session: Session) -> frozenset[str]:
    """The names of all files there, as paths from its top."""
    if _is_s3(place):
        names = _names_in_s3(place, session)
    elif (path := _local(place)).is_dir():
        names = frozenset(each.relative_to(path).as_posix() for each in files_below(path))
    elif path.is_file():
        with path.open("rb") as file:
            names = _names_in(place, file)
    else:
        raise NotFound(f"{place} does not exist.")
    if not names:
        raise NotFound(f"There are no files at {place}.")
    return names


def _names_in_s3(uri: str, session: Session) -> frozenset[str]:
    bucket, key = split_s3(uri)
    client = session.s3_client
    with session.call():
        if uri.endswith(_ARCHIVES):
            return _names_in(uri, client.get_object(Bucket=bucket, Key=key)["Body"])
        prefix = f"{key.rstrip('/')}/" if key else ""
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        keys = [str(item["Key"]) for page in pages for item in page.get("Contents", ())]
    return frozenset(key.removeprefix(prefix) for key in keys if not key.endswith("/"))


def _names_in(place: str, archive: IO[bytes]) -> frozenset[str]:
    """Read as a stream, so that nothing of an archive in S3 is kept."""
    try:
        with tarfile.open(fileobj=archive, mode="r|*") as opened:
            return frozenset(each.name.removeprefix("./") for each in opened if each.isfile())
    except tarfile.TarError as error:
        raise InvalidInput(
            f"{place} is no tar archive: {error}.", hint="Give a folder or a model.tar.gz."
        ) from None


def _as_model_data(place: str) -> str:
    if not _is_s3(place):
        return str(_local(place))
    return place if place.endswith(_ARCHIVES) else f"{place.rstrip('/')}/"


def _is_s3(place: str) -> bool:
    return place.startswith("s3://")


def _local(place: str) -> Path:
    return Path(place).expanduser()
