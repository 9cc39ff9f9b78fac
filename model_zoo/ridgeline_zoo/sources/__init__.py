"""Where weights come from: one module per scheme, found through ``get_source``."""

from __future__ import annotations

from ridgeline_zoo.sources.base import FetchRequest, Source
from ridgeline_zoo.sources.registry import get_source

__all__ = ["FetchRequest", "Source", "get_source"]
