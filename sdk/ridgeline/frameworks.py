"""Estimators of frameworks: the same jobs, with the image chosen by framework and version."""

from __future__ import annotations

from typing import Any

from ridgeline.estimator import Estimator
from ridgeline.session import Session

_DEEP_LEARNING = "763104351884.dkr.ecr.{region}.amazonaws.com"
_SKLEARN = "683313688378.dkr.ecr.{region}.amazonaws.com"


class _Framework(Estimator):
    """A script for the image of a framework: ``image`` with {region} in it, unless ``image_uri``
    names another."""

    def __init__(
        self,
        image: str,
        entry_point: str,
        image_uri: str | None,
        sagemaker_session: Session | None,
        **options: Any,
    ) -> None:
        session = sagemaker_session or Session()
        super().__init__(
            image_uri or image.format(region=session.region),
            entry_point=entry_point,
            sagemaker_session=session,
            **options,
        )


class PyTorch(_Framework):
    """A PyTorch script. The version names the image; here the runtime's own version counts, which
    the documentation of the service lists."""

    def __init__(
        self,
        entry_point: str,
        framework_version: str = "2.8.0",
        py_version: str = "py312",
        image_uri: str | None = None,
        sagemaker_session: Session | None = None,
        **options: Any,
    ) -> None:
        image = f"{_DEEP_LEARNING}/pytorch-training:{framework_version}-cpu-{py_version}"
        super().__init__(image, entry_point, image_uri, sagemaker_session, **options)


class HuggingFace(_Framework):
    """A script with transformers, datasets, peft and trl."""

    def __init__(
        self,
        entry_point: str,
        transformers_version: str = "4.56.2",
        pytorch_version: str = "2.8.0",
        py_version: str = "py312",
        image_uri: str | None = None,
        sagemaker_session: Session | None = None,
        **options: Any,
    ) -> None:
        tag = f"{pytorch_version}-transformers{transformers_version}-cpu-{py_version}"
        image = f"{_DEEP_LEARNING}/huggingface-pytorch-training:{tag}"
        super().__init__(image, entry_point, image_uri, sagemaker_session, **options)


class SKLearn(_Framework):
    """A scikit-learn script."""

    def __init__(
        self,
        entry_point: str,
        framework_version: str = "1.2-1",
        py_version: str = "py3",
        image_uri: str | None = None,
        sagemaker_session: Session | None = None,
        **options: Any,
    ) -> None:
        image = f"{_SKLEARN}/sagemaker-scikit-learn:{framework_version}-cpu-{py_version}"
        super().__init__(image, entry_point, image_uri, sagemaker_session, **options)
