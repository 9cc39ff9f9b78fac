"""Modules of AWS's inference toolkits that users' inference.py files import: the parts that are
about content types. They are put in place only where the real packages are not installed.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from ridgeline_service.serving.framework import errors, formats
from ridgeline_service.serving.framework.pipelines import decode_for_pipeline

_CONTENT_TYPES = {
    "JSON": formats.JSON,
    "CSV": formats.CSV,
    "NPY": formats.NPY,
    "OCTET_STREAM": formats.BYTES,
    "ANY": formats.ANY,
    "UTF8_TYPES": [formats.JSON, formats.CSV],
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "TIFF": "image/tiff",
    "BMP": "image/bmp",
    "GIF": "image/gif",
    "WEBP": "image/webp",
    "FLAC": "audio/x-flac",
    "MP3": "audio/mpeg",
    "WAV": "audio/wave",
    "OGG": "audio/ogg",
}


def install() -> None:
    """Make the modules importable where nothing else provides them."""
    content_types = _CONTENT_TYPES
    failures = {
        "UnsupportedFormatError": errors.UnsupportedContentType,
        "BaseInferenceToolkitError": errors.HostingError,
        "ClientError": errors.BadRequest,
    }
    _provide(
        "sagemaker_inference",
        {
            "content_types": content_types,
            "encoder": {"encode": encode},
            "decoder": {"decode": formats.decode},
            "errors": failures,
        },
    )
    _provide(
        "sagemaker_huggingface_inference_toolkit",
        {
            "content_types": content_types,
            "decoder_encoder": {"encode": encode, "decode": decode_for_pipeline},
        },
    )


def encode(value: Any, content_type: str = formats.JSON) -> str | bytes:
    """As ``formats.encode``, but text types as text, as the toolkits give them."""
    raw = formats.encode(value, formats.media_type(content_type))
    return raw.decode() if formats.media_type(content_type) in formats.UTF8_TYPES else raw


def _provide(package: str, modules: Mapping[str, Mapping[str, Any]]) -> None:
    if package in sys.modules or importlib.util.find_spec(package) is not None:
        return
    parent = ModuleType(package)
    parent.__path__ = []
    sys.modules[package] = parent
    for name, values in modules.items():
        module = ModuleType(f"{package}.{name}")
        vars(module).update(values)
        setattr(parent, name, module)
        sys.modules[module.__name__] = module
