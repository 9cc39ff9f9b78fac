"""Executes engine steps by a model of the transformers library, one sequence at a time.

A prompt is one pass, each further token another, and no pass holds two sequences: so a sequence's
output cannot depend on its neighbours, whatever the model does. Computed again in one pass, what
was generated would have other last bits: so no sequence loses its memory to another.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ridgeline_backends.base import (
    Artifact,
    Chunk,
    Dtype,
    ModelRunner,
    RunnerLimits,
    SlotLayout,
    Step,
    StepResult,
)
from ridgeline_backends.device_time import DeviceTime
from ridgeline_backends.generic.describe import parse
from ridgeline_backends.generic.load import load_model
from ridgeline_backends.generic.passes import COMPUTED_WHOLE, MEMORIES, takes_positions
from ridgeline_backends.models.reader import Reader, read_json
from ridgeline_backends.sampling import results, wanted_rows
from ridgeline_backends.torch_threads import TorchThreads


@dataclass(frozen=True, slots=True)
class _Memory:
    """What a slot holds of a sequence. `name`: the argument under which the model takes `content`
    back; None if it remembers nothing, and has to be given all `tokens` again."""

    tokens: tuple[int, ...] = ()
    name: str | None = None
    content: Any = None  # a different class for every kind of model


_NOTHING = _Memory()


class GenericRunner(ModelRunner):
    """Any causal language model."""

    def __init__(
        self, artifact: Artifact, *, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        plan, folder = artifact.plan, artifact.model_dir
        self._clock = clock
        self._threads = TorchThreads()
        config = read_json(folder / "config.json")
        self._vocab_size = int(parse(config).get_text_config().vocab_size)
        self._eos = _stop_tokens(config)
        generation = folder / "generation_config.json"
        if generation.is_file():
            self._eos |= _stop_tokens(read_json(generation))
        dtype = torch.bfloat16 if plan.dtype is Dtype.BF16 else torch.float32
        self._model = load_model(folder, dtype)
        accepted = inspect.signature(self._model.forward).parameters
        self._picks_rows = "logits_to_keep" in accepted
        self._whole = plan.architecture in COMPUTED_WHOLE
        self._told_positions = takes_positions(self._model)
        self._slots: dict[int, _Memory] = {}
        self._limits = RunnerLimits(
            max_model_len=plan.max_model_len,
            # A prompt is computed whole, for in parts it would have other last bits.
            max_tokens=max(plan.spec.max_tokens_per_step, plan.max_model_len, plan.kv_blocks),
            max_sequences=plan.kv_blocks,
            kv_layout=SlotLayout(plan.max_model_len, plan.kv_blocks),
            chunked_prefill=False,
            preemptible=False,
        )

    @property
    def limits(self) -> RunnerLimits:
        return self._limits

    @property
    def vocab_size(self) -> int:
        return self._vocab_size

    @property
    def eos_token_ids(self) -> frozenset[int]:
        return self._eos

    def execute(self, step: Step) -> StepResult:
        begin = self._clock()
        self._threads.adopt()
        with torch.inference_mode():
            rows = [self._forward(chunk, wanted_rows(Step((chunk,)))) for chunk in step.chunks]
            found = results(step, torch.cat(rows))
        return StepResult(
            tokens=found.tokens,
            scores=found.scores,
            device_time=DeviceTime(seconds=self._clock() - begin),
        )

    def close(self) -> None:
        self._slots.clear()

    def _forward(self, chunk: Chunk, wanted: list[int]) -> Tensor:
        """Float32 logits [wanted rows, vocabulary] of one sequence."""
        [slot] = chunk.blocks
        memory = self._slots.pop(slot, _NOTHING) if chunk.start else _NOTHING
        if len(memory.tokens) != chunk.start:
            raise RuntimeError(f"slot {slot} does not hold the beginning of this sequence")
        text = memory.tokens + chunk.tokens
        arguments: dict[str, object] = {"use_cache": not self._whole}
        given = text
        if memory.name is not None:
            arguments[memory.name] = memory.content
            given = chunk.tokens
        if self._told_positions:
            arguments["position_ids"] = torch.arange(len(text) - len(given), len(text))[None]
        # Rows are counted from the first token that the model is given.
        rows = [row + len(given) - len(chunk.tokens) for row in wanted]
        if self._picks_rows:
            arguments["logits_to_keep"] = torch.tensor(rows)
        output = self._model(input_ids=torch.tensor([given]), **arguments)
        name = next((name for name in MEMORIES if output.get(name) is not None), None)
        self._slots[slot] = _Memory(text, name, output.get(name))
        logits: Tensor = output.logits[0]
        return (logits if self._picks_rows else logits[rows]).float()


def _stop_tokens(config: dict[str, object]) -> frozenset[int]:
    read = Reader(config)
    return read.token_ids("eos_token_id") | Reader(read.section("text_config")).token_ids(
        "eos_token_id"
    )
