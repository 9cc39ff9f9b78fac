"""The control plane in one value: its verbs, its reconcilers, their start and stop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache

from ridgeline_service.control.context import Context
from ridgeline_service.control.endpoint_configs import EndpointConfigs
from ridgeline_service.control.endpoints import Endpoints
from ridgeline_service.control.events import Events
from ridgeline_service.control.keys import Keys
from ridgeline_service.control.models import Models
from ridgeline_service.control.names import Clock, Ids, random_id, system_clock
from ridgeline_service.control.planning import Planner
from ridgeline_service.control.tags import Tags
from ridgeline_service.control.zoo import Zoo
from ridgeline_service.paths import DataDir
from ridgeline_service.placement.machine import Machine, this_machine
from ridgeline_service.settings import Settings
from ridgeline_service.store import Database
from ridgeline_zoo import Catalog, load_cards


class ControlPlane:
    """Verbs are synchronous and thread-safe. ``start`` runs the reconcilers until ``stop``."""

    def __init__(
        self,
        db: Database,
        settings: Settings,
        data_dir: DataDir,
        *,
        store_url: str = "",
        clock: Clock = system_clock,
        ids: Ids = random_id,
        machine: Machine | None = None,
        cards: Callable[[], Catalog] | None = None,
    ) -> None:
        self._wake = threading.Event()
        context = Context(db, settings, data_dir, clock, ids, self._changed)
        catalogue = cards or cache(load_cards)
        planner = Planner(settings, machine or this_machine(), catalogue)
        self.models = Models(context)
        self.endpoint_configs = EndpointConfigs(context)
        self.endpoints = Endpoints(context, planner)
        self.tags = Tags(context)
        self.zoo = Zoo(settings, catalogue)
        self.keys = Keys(context)
        self.events = Events(context)

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def _changed(self) -> None:
        self._wake.set()
