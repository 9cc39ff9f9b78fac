"""Code that lies apart from its model: SAGEMAKER_SUBMIT_DIRECTORY=s3://.../sourcedir.tar.gz.

It becomes the ``code`` folder of the model, in the place of one that the model may bring along, as
SageMaker's framework containers do. Files of the model are linked and not copied.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from ridgeline_service.runtime.sandbox import MODEL_DIR

VARIABLE = "SAGEMAKER_SUBMIT_DIRECTORY"
CODE = "code"


def submitted_uri(environment: Mapping[str, str]) -> str:
    """Where the code lies; empty where it lies in the model."""
    uri = environment.get(VARIABLE, "")
    return uri if uri.startswith("s3://") else ""


def with_code(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment once the code lies in the model."""
    if not submitted_uri(environment):
        return dict(environment)
    return {**environment, VARIABLE: f"{MODEL_DIR}/{CODE}"}


def join(model: Path | None, code: Path, into: Path) -> None:
    """Make ``into`` the model with the code. All three lie on one file system."""
    if model is not None:
        for item in model.iterdir():
            if item.is_dir() and item.name != CODE:
                shutil.copytree(item, into / item.name, copy_function=os.link)
            elif item.is_file():
                os.link(item, into / item.name)
    shutil.copytree(code, into / CODE, copy_function=os.link)
