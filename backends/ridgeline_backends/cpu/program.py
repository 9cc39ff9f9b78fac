"""What a runner on the CPU drives: a decoder with its KV memory, however it computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from ridgeline_backends.base import Chunk
from ridgeline_backends.models.lora import Adapter


class Program(Protocol):
    def forward(self, chunks: Sequence[Chunk], wanted: Sequence[int]) -> Tensor:
        """Write the KV of every token; float32 logits [len(wanted), vocabulary] of these rows of
        the flat step, in rising order. The next call may use the tensor's memory again."""

    def attach(self, adapter: Adapter) -> None:
        """Make a LoRA adapter usable by the chunks that name it."""

    def detach(self, name: str) -> None: ...
