"""Native code that recurses deeply, on a stack that is large enough for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import TypeVar

Result = TypeVar("Result")

_PAGE = 4096
_lock = Lock()


def on_own_stack(work: Callable[[], Result], stack_bytes: int) -> Result:
    """What ``work`` returns or raises, on a thread with so large a stack, of which only what is
    used takes memory. Raises RuntimeError where there is no room for it."""
    with ThreadPoolExecutor(1, thread_name_prefix="deep") as pool:
        with _lock:
            usual = threading.stack_size(-(-stack_bytes // _PAGE) * _PAGE)
            try:
                made = pool.submit(work)
            finally:
                threading.stack_size(usual)
        return made.result()
