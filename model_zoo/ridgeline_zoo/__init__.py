"""Model zoo: cards that describe models, and what brings their weights into a model folder.

Public: ``load_cards``, ``Catalog``, ``Card``. ``ridgeline_zoo.prepare`` fetches, verifies and
converts (a command of its own, so that a download never runs inside a server);
``ridgeline_zoo.jumpstart`` renders the catalogue for AWS's SDKs; ``ridgeline_zoo.archive``
extracts archives that came from outside.
"""

from __future__ import annotations

from ridgeline_zoo.card import Card, ExamplePayload
from ridgeline_zoo.catalog import Catalog, load_cards

__all__ = ["Card", "Catalog", "ExamplePayload", "load_cards"]
