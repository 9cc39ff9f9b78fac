"""The number of threads torch computes with, whichever thread asks it to."""

from __future__ import annotations

from threading import get_ident

import torch


class TorchThreads:
    """Remembers the number that was set where this object was made.

    OpenMP counts threads per calling thread, and a new one starts from its own default.
    """

    def __init__(self) -> None:
        self._count = torch.get_num_threads()
        self._adopted = get_ident()

    def adopt(self) -> None:
        """Give the calling thread the same number. Cheap where it has it already."""
        if get_ident() != self._adopted:
            torch.set_num_threads(self._count)
            self._adopted = get_ident()
