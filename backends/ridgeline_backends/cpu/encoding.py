"""What embedding and reranking share: an encoder on the CPU, its limits, and batches of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from ridgeline_backends.base import Artifact
from ridgeline_backends.cpu.linear import choose_form
from ridgeline_backends.models.encoder import Encoder, EncoderInput, PairHead
from ridgeline_backends.models.encoder_config import encoder_config
from ridgeline_backends.models.reader import read_json
from ridgeline_backends.models.weights import Weights
from ridgeline_backends.torch_threads import TorchThreads

T = TypeVar("T")


class CpuEncoder:
    """Computes in float32 whatever the plan's dtype: results are compared by small distances."""

    def __init__(self, artifact: Artifact) -> None:
        plan = artifact.plan
        config = encoder_config(read_json(artifact.model_dir / "config.json"), plan.architecture)
        self._threads = TorchThreads()
        self._vocab_size = config.vocab_size
        self.dimensions = config.hidden
        self.max_model_len = plan.max_model_len
        self._max_tokens = max(plan.spec.max_tokens_per_step, plan.max_model_len)
        with torch.inference_mode(), Weights(artifact.model_dir) as weights:
            self.linear_form, form = choose_form(config.linear_shapes, torch.float32)
            self._model = Encoder(config, weights, form)
            self.head = PairHead(config, weights) if config.rerank else None

    def each(self, inputs: Sequence[EncoderInput], use: Callable[[Tensor], T]) -> list[T]:
        """`use` of every sequence's hidden states [tokens, hidden], in the order of `inputs`.

        Raises `PromptTooLong` and `InvalidSampling`, before anything is computed.
        """
        for one in inputs:
            one.check(vocab_size=self._vocab_size, max_model_len=self.max_model_len)
        self._threads.adopt()
        results: dict[int, T] = {}
        with torch.inference_mode():
            for batch in self._batches(inputs):
                hidden = self._model.forward([inputs[place] for place in batch])
                results.update(zip(batch, map(use, hidden), strict=True))
        return [results[place] for place in range(len(inputs))]

    def _batches(self, inputs: Sequence[EncoderInput]) -> list[list[int]]:
        """Places of sequences of like length, as many as a call may have tokens."""
        lengths = [len(one.token_ids) for one in inputs]
        batches: list[list[int]] = []
        room = 0
        for place in sorted(range(len(inputs)), key=lambda place: lengths[place]):
            if lengths[place] > room:
                batches.append([])
                room = self._max_tokens
            batches[-1].append(place)
            room -= lengths[place]
        return batches
