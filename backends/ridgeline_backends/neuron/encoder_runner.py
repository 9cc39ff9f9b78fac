"""Executes text encoders on simulated cores: vectors of texts, and scores of pairs.

What a call takes is what its compiled program takes: that of the next bucket, for one text or for a
whole batch. What is computed here are texts one by one, each filled up to a length that its own
decides: so a text gets the same bits in any company.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import ridgeline_backends.cpu  # noqa: F401  before torch: it tells OpenMP not to spin

# isort: split
import torch
from torch import Tensor

from ridgeline_backends.base import Artifact
from ridgeline_backends.device_time import DeviceTime, Encoded, MeteredHardware
from ridgeline_backends.encoding import EmbeddingRunner, RerankRunner, TokenPair
from ridgeline_backends.models.encoder import EncoderInput
from ridgeline_backends.models.encoder_config import encoder_config
from ridgeline_backends.models.encoder_weights import EncoderWeights
from ridgeline_backends.models.reader import read_json
from ridgeline_backends.models.sentence_files import last_function, read_pooling
from ridgeline_backends.models.weights import Weights
from ridgeline_backends.neuron.buckets import FEWEST, executed
from ridgeline_backends.neuron.builders.text_encoder import text_encoder_program
from ridgeline_backends.neuron.encoder_calls import calls_of
from ridgeline_backends.neuron.encoder_plan import encoder_programs
from ridgeline_backends.neuron.encoder_sharding import EncoderShards
from ridgeline_backends.neuron.execute.executor import LoadedProgram
from ridgeline_backends.neuron.hardware import NeuronHardware


class NeuronEncoder(NeuronHardware, MeteredHardware):
    """An encoder on simulated cores."""

    _output: str
    """What the program gives."""

    def _open(self, artifact: Artifact) -> None:
        config = read_json(artifact.model_dir / "config.json")
        self._config = encoder_config(config, artifact.plan.architecture)
        self._pooling = read_pooling(artifact.model_dir)
        self._longest = artifact.plan.max_model_len
        self._spent = self._times.of(())
        self._encoded = Encoded()
        programs = encoder_programs(self._config, self._neuron, self._pooling)
        self._programs = {(one.batch, one.bucket): one for one in programs}
        self._loaded: dict[int, LoadedProgram] = {}
        with torch.inference_mode(), Weights(artifact.model_dir) as weights:
            own = EncoderWeights(self._config, weights)
            self._shards = EncoderShards(self._config, self._neuron, own)
            self._load(executed(1, self._longest, FEWEST))
        self._stand_for(config, programs[-1], programs)

    @property
    def max_model_len(self) -> int:
        return self._longest

    @property
    def spent(self) -> DeviceTime:
        return self._spent

    @property
    def encoded(self) -> Encoded:
        return self._encoded

    def _each(self, inputs: Sequence[EncoderInput]) -> list[Tensor]:
        """What the program gives for each, in order. Raises `PromptTooLong`, `InvalidSampling`
        before anything is computed, and `NeuronRuntimeError`."""
        for one in inputs:
            one.check(vocab_size=self._config.vocab_size, max_model_len=self._longest)
        found: dict[int, Tensor] = {}
        lengths, neuron = [len(one.token_ids) for one in inputs], self._neuron
        for call in calls_of(lengths, neuron.context_buckets, neuron.batch_size, self._seconds):
            begun = self._begin()
            found |= self._compute(partial(self._run_all, inputs, call.places))
            taken = self._end(begun, [self._programs[call.batch, call.bucket]])
            self._spent = self._spent + taken
            tokens = sum(lengths[place] for place in call.places)
            self._encoded += Encoded(texts=len(call.places), tokens=tokens)
        return [found[place] for place in range(len(inputs))]

    def _seconds(self, bucket: int, batch: int) -> float:
        return self._times.of([self._programs[batch, bucket]]).seconds

    def _run_all(self, inputs: Sequence[EncoderInput], places: Sequence[int]) -> dict[int, Tensor]:
        return {place: self._run(inputs[place]) for place in places}

    def _run(self, one: EncoderInput) -> Tensor:
        count = len(one.token_ids)
        size = executed(count, self._longest, FEWEST)
        spare = (0, size - count)
        inputs = {
            "tokens": _filled(torch.tensor(one.token_ids), spare),
            "positions": _filled(one.places(self._config), spare),
            "lengths": torch.tensor([count]),
            "shares": _filled(torch.full((count,), 1 / count), spare)[None],
        }
        if self._config.token_types:
            inputs["types"] = _filled(one.kinds(self._config), spare)
        # Every core has the same: what follows the last sum is computed on all.
        return self._load(size).run(inputs)[self._output][0].flatten()

    def _load(self, size: int) -> LoadedProgram:
        if size not in self._loaded:
            program = text_encoder_program(
                self._config, self._neuron, pooling=self._pooling, bucket=size, batch=1
            )
            self._memory.load([program], self._shards)
            self._loaded[size] = LoadedProgram(program, self._memory)
        return self._loaded[size]


class NeuronEmbeddingRunner(NeuronEncoder, EmbeddingRunner):
    """An encoder with its pooling."""

    _output = "vectors"

    @property
    def dimensions(self) -> int:
        return self._config.hidden

    def embed(self, token_ids: Sequence[Sequence[int]]) -> list[list[float]]:
        return [one.tolist() for one in self._each([EncoderInput(ids) for ids in token_ids])]


class NeuronRerankRunner(NeuronEncoder, RerankRunner):
    """An encoder with a head for pairs; the last function is the host's."""

    _output = "scores"

    def _open(self, artifact: Artifact) -> None:
        self._finish = last_function(read_json(artifact.model_dir / "config.json"))
        super()._open(artifact)

    def score(self, pairs: Sequence[TokenPair]) -> list[float]:
        inputs = [EncoderInput(pair.token_ids, pair.type_ids) for pair in pairs]
        return [self._finish(float(one)) for one in self._each(inputs)]


def _filled(row: Tensor, spare: tuple[int, int]) -> Tensor:
    """[tokens] -> [1, size], zeros behind."""
    return torch.nn.functional.pad(row, spare)[None]
