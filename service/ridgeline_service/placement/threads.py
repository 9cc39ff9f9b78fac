"""How many threads a replica computes with, where several share the cores of this machine."""

from __future__ import annotations


def thread_share(cores: int, replicas: int) -> int | None:
    """Threads for one of ``replicas`` that are wanted on ``cores``; None leaves all cores to it.

    One replica has the machine to itself. Several get an equal share, rounded up, at least one:
    every parallel step waits for its slowest thread, so replicas that each start a thread for every
    core slow each other down by more than the share costs a replica whose neighbours are idle.
    """
    if replicas <= 1:
        return None
    return max(1, -(-cores // replicas))
