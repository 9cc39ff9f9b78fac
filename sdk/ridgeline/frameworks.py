"""Estimators of frameworks: the same jobs, with the image chosen by framework and version."""

from __future__ import annotations

from typing import Any

from ridgeline.estimator import Estimator
from ridgeline.session import Session

_DEEP_LEARNING = "763104351884.dkr.ecr.{region}.amazonaws.com"
_SKLEARN = "683313688378.dkr.ecr.{region}.amazonaws.com"


class PyTorch(Estimator):
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
        session = sagemaker_session or Session()
        registry = _DEEP_LEARNING.format(region=session.region)
        super().__init__(
            image_uri or f"{registry}/pytorch-training:{framework_version}-cpu-{py_version}",
            entry_point=entry_point,
            sagemaker_session=session,
            **options,
        )


class HuggingFace(Estimator):
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
        session = sagemaker_session or Session()
        registry = _DEEP_LEARNING.format(region=session.region)
        tag = f"{pytorch_version}-transformers{transformers_version}-cpu-{py_version}"
        super().__init__(
            image_uri or f"{registry}/huggingface-pytorch-training:{tag}",
            entry_point=entry_point,
            sagemaker_session=session,
            **options,
        )


class SKLearn(Estimator):
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
        session = sagemaker_session or Session()
        registry = _SKLEARN.format(region=session.region)
        tag = f"{framework_version}-cpu-{py_version}"
        super().__init__(
            image_uri or f"{registry}/sagemaker-scikit-learn:{tag}",
            entry_point=entry_point,
            sagemaker_session=session,
            **options,
        )
