"""A compiled model as a replica to simulate: its limits, and what its steps take, predicted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ridgeline_backends.base import RunnerLimits, SlotLayout
from ridgeline_backends.errors import DoesNotFit
from ridgeline_backends.neuron.builders.architecture import DecoderArchitecture
from ridgeline_backends.neuron.builders.decoder import decoder_program
from ridgeline_backends.neuron.builders.rules import NXDI
from ridgeline_backends.neuron.builders.site import Phase
from ridgeline_backends.neuron.config import NeuronConfig
from ridgeline_backends.neuron.liveness import core_need
from ridgeline_backends.neuron.placement import Placement
from ridgeline_backends.neuron.plan import program_refusals
from ridgeline_backends.neuron.program import Program
from ridgeline_backends.neuron.serving.costs import StepCosts
from ridgeline_backends.neuron.serving.load import Load
from ridgeline_backends.neuron.serving.outcome import Outcome
from ridgeline_backends.neuron.serving.simulate import simulate
from ridgeline_backends.neuron.timing.predict import Label, Prediction, calibration, predict


@dataclass(frozen=True)
class Replica:
    """`prefill`: of one prompt by its bucket, `decode`: of a step over the whole batch, by the
    bucket of KV that it reads. `host_s`: a server's own work between two steps. `core_bytes`: what
    a core holds of all its programs."""

    config: NeuronConfig
    prefill: dict[int, Prediction]
    decode: dict[int, Prediction]
    host_s: float
    core_bytes: int

    @property
    def limits(self) -> RunnerLimits:
        """As `NeuronRunner` states them: prompts and decodes apart, a slot for each sequence."""
        config = self.config
        return RunnerLimits(
            max_model_len=config.seq_len,
            max_tokens=max(config.context_limit, config.decode_batch),
            max_sequences=config.decode_batch,
            kv_layout=SlotLayout(config.seq_len, config.decode_batch),
            mixed_phases=False,
            chunked_prefill=False,
            sequence_buckets=config.context_buckets,
        )

    @property
    def label(self) -> Label:
        return next(iter(self.decode.values())).label

    def run(self, load: Load) -> Outcome:
        """Under a load, with every step as long as predicted."""
        return self._run(load, lambda one: one.seconds)

    def bounds(self, load: Load) -> tuple[Outcome, Outcome]:
        """The same with every step as short, and as long, as its interval allows."""
        return self._run(load, lambda one: one.low), self._run(load, lambda one: one.high)

    def _run(self, load: Load, seconds: Callable[[Prediction], float]) -> Outcome:
        costs = StepCosts(
            prefill={size: seconds(one) + self.host_s for size, one in self.prefill.items()},
            decode={size: seconds(one) + self.host_s for size, one in self.decode.items()},
        )
        return simulate(self.limits, costs, load)


def replica_of(model: DecoderArchitecture, config: NeuronConfig, placement: Placement) -> Replica:
    """Raises `DoesNotFit` where a core cannot hold every program at once."""

    def built(phase: Phase, buckets: Sequence[int]) -> dict[int, Program]:
        batch = config.decode_batch if phase is Phase.TOKEN_GENERATION else 1
        return {
            size: decoder_program(model, config, phase=phase, bucket=size, rules=NXDI, batch=batch)
            for size in buckets
        }

    prompts = built(Phase.CONTEXT_ENCODING, config.context_buckets)
    steps = built(Phase.TOKEN_GENERATION, config.generation_buckets)
    programs = [*prompts.values(), *steps.values()]
    need = core_need(programs, placement.instance.chip)
    if refusals := program_refusals(programs, need, placement):
        raise DoesNotFit(refusals)
    return Replica(
        config=config,
        prefill={size: predict(one, placement.machine) for size, one in prompts.items()},
        decode={size: predict(one, placement.machine) for size, one in steps.items()},
        host_s=0.0 if config.async_mode else calibration().coefficients.host_step_ms * 1e-3,
        core_bytes=need.total,
    )
