"""Executes engine steps of a decoder on simulated cores: prompts one by one, decodes together.

What a step takes is what its compiled programs take: those of the next bucket and of the compiled
batch. What is computed here are the rows that belong to somebody: numbers do not depend on what
fills a bucket up, so that is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Self

import ridgeline_backends.cpu  # noqa: F401  before torch: it tells OpenMP not to spin

# isort: split
import torch
from torch import Tensor

from ridgeline_backends.base import (
    Artifact,
    Chunk,
    ModelRunner,
    RunnerLimits,
    SlotLayout,
    Step,
    StepResult,
)
from ridgeline_backends.models.config import decoder_config
from ridgeline_backends.models.decoder import read_decoder
from ridgeline_backends.models.reader import read_json
from ridgeline_backends.models.weights import Weights
from ridgeline_backends.neuron.buckets import FEWEST, bucket_of, executed
from ridgeline_backends.neuron.builders.architecture import dense
from ridgeline_backends.neuron.builders.decoder import decoder_program
from ridgeline_backends.neuron.builders.rules import NXDI
from ridgeline_backends.neuron.builders.site import Phase
from ridgeline_backends.neuron.execute.executor import LoadedProgram
from ridgeline_backends.neuron.hardware import NeuronHardware
from ridgeline_backends.neuron.program import Program
from ridgeline_backends.neuron.sharding import DecoderShards
from ridgeline_backends.sampling import Results, results, wanted_rows


class NeuronRunner(NeuronHardware, ModelRunner):
    """A decoder on simulated cores."""

    def _open(self, artifact: Artifact) -> None:
        neuron = self._neuron
        file = read_json(artifact.model_dir / "config.json")
        self._config = config = decoder_config(file, _generation(artifact))
        self._model = dense(config)
        self._programs: dict[tuple[Phase, int, int], Program] = {}
        self._loaded: dict[tuple[Phase, int, int], LoadedProgram] = {}
        longest = neuron.context_buckets[-1]
        with torch.inference_mode(), Weights(artifact.model_dir) as weights:
            shards = DecoderShards(config, neuron, NXDI, read_decoder(config, weights))
            whole = self._program(Phase.PROMPT_SCORING, 1, longest)
            self._memory.load([whole], shards)
        slots = neuron.decode_batch
        decode = self._program(Phase.TOKEN_GENERATION, slots, neuron.generation_buckets[-1])
        self._stand_for(file, decode, self._compiled())
        self._limits = RunnerLimits(
            max_model_len=artifact.plan.max_model_len,
            max_tokens=max(longest, slots),
            max_sequences=slots,
            kv_layout=SlotLayout(neuron.seq_len, slots),
            mixed_phases=False,
            chunked_prefill=False,
            batch_buckets=(slots,),
            sequence_buckets=neuron.context_buckets,
        )

    def _beside(self) -> Self:
        """The same in all but its KV."""
        other = super()._beside()
        other._memory, other._loaded = self._memory.beside(), {}
        return other

    @property
    def limits(self) -> RunnerLimits:
        return self._limits

    def _compiled(self) -> Iterator[Program]:
        """What a server has compiled."""
        neuron = self._neuron
        for bucket in neuron.context_buckets:
            yield self._program(Phase.CONTEXT_ENCODING, 1, bucket)
        for bucket in neuron.generation_buckets:
            yield self._program(Phase.TOKEN_GENERATION, neuron.decode_batch, bucket)

    @property
    def vocab_size(self) -> int:
        return self._config.vocab_size

    @property
    def eos_token_ids(self) -> frozenset[int]:
        return self._config.eos_token_ids

    def execute(self, step: Step) -> StepResult:
        begun = self._begin()
        found, programs = self._compute(partial(self._chosen, step))
        taken = self._end(begun, programs)
        return StepResult(tokens=found.tokens, scores=found.scores, device_time=taken)

    def _chosen(self, step: Step) -> tuple[Results, list[Program]]:
        logits, programs = self._forward(step.chunks)
        return results(step, logits), programs

    def logits(self, step: Step) -> Tensor:
        """Run the step; float32 logits [tokens in the step, vocabulary] of every token in it."""
        self._threads.adopt()
        with torch.inference_mode():
            parts = [
                self._score(chunk) if chunk.start == 0 else self._decode([chunk])
                for chunk in step.chunks
            ]
            return torch.cat(parts)

    def _forward(self, chunks: Sequence[Chunk]) -> tuple[Tensor, list[Program]]:
        """Logits of the wanted rows, and the compiled programs that gave them."""
        decodes = [chunk for chunk in chunks if chunk.start > 0]
        rows = iter(self._decode(decodes)) if decodes else iter(())
        programs: list[Program] = []
        if decodes:
            longest = max(chunk.start for chunk in decodes) + 1
            bucket = bucket_of(self._neuron.generation_buckets, longest)
            slots = self._neuron.decode_batch
            programs.append(self._program(Phase.TOKEN_GENERATION, slots, bucket))
        parts: list[Tensor] = []
        for chunk in chunks:
            wanted = wanted_rows(Step((chunk,)))
            if chunk.start > 0:
                row = next(rows)
                parts.extend(row[None] for _ in wanted)
                continue
            bucket = bucket_of(self._neuron.context_buckets, len(chunk.tokens))
            if wanted == [len(chunk.tokens) - 1]:
                parts.append(self._encode(chunk))
                programs.append(self._program(Phase.CONTEXT_ENCODING, 1, bucket))
            else:
                parts.append(self._score(chunk)[wanted])
                programs.append(self._program(Phase.PROMPT_SCORING, 1, bucket))
        return torch.cat(parts), programs

    def _decode(self, chunks: Sequence[Chunk]) -> Tensor:
        """Logits [chunks, vocabulary]."""
        size = executed(len(chunks), self._neuron.decode_batch, 1)
        spare = size - len(chunks)
        # A row of nobody writes nowhere.
        inputs = {
            "tokens": torch.tensor([*([one.tokens[0]] for one in chunks), *[[0]] * spare]),
            "positions": torch.tensor([*([one.start] for one in chunks), *[[-1]] * spare]),
            "slots": torch.tensor([*(one.blocks[0] for one in chunks), *[0] * spare]),
        }
        program = self._load(Phase.TOKEN_GENERATION, size, self._neuron.seq_len)
        return self._run(program, inputs)[: len(chunks), 0]

    def _encode(self, chunk: Chunk) -> Tensor:
        """Logits [1, vocabulary] of the last token."""
        inputs, size = self._prompt(chunk)
        inputs["last"] = torch.tensor([len(chunk.tokens) - 1])
        return self._run(self._load(Phase.CONTEXT_ENCODING, 1, size), inputs)[0]

    def _score(self, chunk: Chunk) -> Tensor:
        """Logits [tokens, vocabulary] of every token of a prompt."""
        inputs, size = self._prompt(chunk)
        logits = self._run(self._load(Phase.PROMPT_SCORING, 1, size), inputs)
        return logits[0, : len(chunk.tokens)]

    def _prompt(self, chunk: Chunk) -> tuple[dict[str, Tensor], int]:
        count = len(chunk.tokens)
        size = executed(count, self._neuron.context_buckets[-1], FEWEST)
        spare = size - count
        inputs = {
            "tokens": torch.tensor([[*chunk.tokens, *[0] * spare]]),
            "positions": torch.tensor([[*range(count), *[-1] * spare]]),
            "slots": torch.tensor([chunk.blocks[0]]),
        }
        return inputs, size

    def _run(self, program: LoadedProgram, inputs: dict[str, Tensor]) -> Tensor:
        parts = program.run(inputs)["logits"]
        if parts[0].shape[-1] < self._config.vocab_size:
            return torch.cat(parts, -1)[..., : self._config.vocab_size]
        return parts[0][..., : self._config.vocab_size]

    def _load(self, phase: Phase, batch: int, size: int) -> LoadedProgram:
        place = phase, batch, size
        if place not in self._loaded:
            program = self._program(phase, batch, size)
            self._loaded[place] = LoadedProgram(program, self._memory, outputs=("logits",))
        return self._loaded[place]

    def _program(self, phase: Phase, batch: int, bucket: int) -> Program:
        place = phase, batch, bucket
        if place not in self._programs:
            self._programs[place] = decoder_program(
                self._model, self._neuron, phase=phase, bucket=bucket, rules=NXDI, batch=batch
            )
        return self._programs[place]


def _generation(artifact: Artifact) -> dict[str, object] | None:
    """Its generation_config.json, if it has one."""
    path = artifact.model_dir / "generation_config.json"
    return read_json(path) if path.is_file() else None
