"""What a request does to its logits before a token is chosen: penalties, bias, bans, grammars.

Each row is edited by its own request alone, element by element, so no row sees its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ridgeline_backends.base import SampleRequest
from ridgeline_backends.biases import Biases
from ridgeline_backends.history import Penalties


def is_edited(request: SampleRequest) -> bool:
    """Whether the request changes its logits at all."""
    return bool(request.banned or request.bias or request.penalties is not None or request.allowed)


def edit(rows: Tensor, requests: Sequence[SampleRequest]) -> None:
    """Change `rows` [rows, vocabulary] in float32 in place, each as its request wants.

    A token that cannot be chosen gets minus infinity. A grammar that leaves nothing but banned
    tokens is followed, for it alone can end its text.
    """
    for place, request in enumerate(requests):
        row = rows[place]
        if request.penalties is not None:
            _penalise(row, request.penalties)
        if request.bias:
            _add(row, request.bias)
        if request.allowed is not None:
            _keep_allowed(row, request.allowed(), request.banned)
        elif request.banned:
            row[_ids(row, [t for t in request.banned if 0 <= t < row.numel()])] = -torch.inf


def _add(row: Tensor, bias: Sequence[tuple[int, float]]) -> None:
    biases = bias if isinstance(bias, Biases) else Biases(bias)
    ids = torch.frombuffer(biases.ids, dtype=torch.int64).to(row.device)
    row.index_add_(0, ids, torch.frombuffer(biases.values, dtype=torch.float32).to(row.device))


def _penalise(row: Tensor, penalties: Penalties) -> None:
    history = penalties.history
    if not history.ids:
        return
    ids = torch.frombuffer(history.ids, dtype=torch.int64).to(row.device, copy=True)
    counts = torch.frombuffer(history.counts, dtype=torch.float64).to(row.device, copy=True)
    # In float64, so that the order of the steps leaves no trace in the last bits.
    values = row[ids].double()
    factor = penalties.repetition
    if factor != 1:
        values = torch.where(values > 0, values / factor, values * factor)
    values -= penalties.frequency * counts + penalties.presence * (counts > 0)
    row[ids] = values.float()


def _keep_allowed(
    row: Tensor, packed: bytes | bytearray | memoryview, banned: frozenset[int]
) -> None:
    packed_bits = np.frombuffer(packed, np.uint8)
    bits = np.unpackbits(packed_bits, count=row.numel(), bitorder="little").view(np.bool_)
    if banned:
        without = bits.copy()
        without[[token for token in banned if 0 <= token < len(bits)]] = False
        bits = without if without.any() else bits
    if row.device.type == "cpu":
        # In place and on this thread: torch would wake its threads for each of many short rows.
        np.copyto(row.numpy(), -np.inf, where=~bits)
    else:
        row.masked_fill_(torch.from_numpy(~bits).to(row.device), -torch.inf)


def _ids(row: Tensor, ids: Sequence[int]) -> Tensor:
    return torch.tensor(ids, dtype=torch.int64, device=row.device)
