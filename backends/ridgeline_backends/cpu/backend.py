"""The CPU backend: any model family of this package, in bf16 or fp32, on the machine's cores.

bf16 is how weights and KV are kept; where the processor cannot multiply bfloat16 the matrices are
widened to float32 at load, and the plan counts them so.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import ClassVar

import torch

from ridgeline_backends.base import (
    Artifact,
    Backend,
    DeviceReport,
    Dtype,
    LoadSpec,
    MemoryNeed,
    ModelRunner,
    Plan,
)
from ridgeline_backends.cpu.embedding import CpuEmbeddingRunner
from ridgeline_backends.cpu.kernels.library import library
from ridgeline_backends.cpu.linear import has_bf16
from ridgeline_backends.cpu.memory import DecoderForm, decoder_need, encoder_need, machine_memory
from ridgeline_backends.cpu.native import supports
from ridgeline_backends.cpu.rerank import CpuRerankRunner
from ridgeline_backends.cpu.runner import CpuRunner
from ridgeline_backends.encoding import EmbeddingRunner, RerankRunner
from ridgeline_backends.errors import DoesNotFit, UnsupportedModel
from ridgeline_backends.models.config import DecoderConfig, architecture, decoder_config
from ridgeline_backends.models.encoder_config import (
    ENCODER_ARCHITECTURES,
    EncoderConfig,
    encoder_config,
)
from ridgeline_backends.models.encoder_families import RERANK_FAMILIES
from ridgeline_backends.models.reader import read_json
from ridgeline_backends.models.weights import weight_files

_NO_KERNELS = (
    "There are no native kernels, so models run in plain torch, at a quarter of the speed or less: "
    'install gcc or clang, or a wheel that carries them; unset RIDGELINE_KERNELS if it is "off".'
)
_NOT_THIS_SHAPE = (
    "The native kernels do not run a model of this shape (more than 48 query heads per KV head, "
    "heads above 512, or blocks that are no multiple of 16 tokens), so it runs in plain torch."
)
_WIDENED = (
    "This processor has no bfloat16 instructions: bf16 weights are widened to float32 at load, "
    "which doubles their memory and changes no value."
)


class CpuBackend(Backend):
    """Found as "cpu" in the entry-point group `ridgeline.backends`."""

    name: ClassVar[str] = "cpu"

    def probe(self) -> DeviceReport:
        kernels = library()
        capability = torch.backends.cpu.get_cpu_capability()
        return DeviceReport(
            backend=self.name,
            usable=True,
            device=f"{platform.machine()} {kernels.variant if kernels else capability}",
            memory_bytes=machine_memory(),
            threads=torch.get_num_threads(),
            notes=() if kernels else (_NO_KERNELS,),
        )

    def plan(self, config: Mapping[str, object], spec: LoadSpec) -> Plan:
        dtype = _dtype(spec)
        try:
            return self._native_plan(config, spec, dtype)
        except UnsupportedModel as refused:
            return self._generic_plan(config, spec, dtype, refused)

    def _native_plan(self, config: Mapping[str, object], spec: LoadSpec, dtype: Dtype) -> Plan:
        name = architecture(config)
        available = machine_memory()
        model = (
            encoder_config(config, name)
            if name in ENCODER_ARCHITECTURES
            else decoder_config(config)
        )
        context = model.context_length
        max_len = spec.max_model_len or context
        refusals = []
        if max_len > context:
            refusals.append(
                f"max_model_len {max_len} is above the model's context length {context}."
            )
        notes: tuple[str, ...] = ()
        memory: MemoryNeed
        blocks = 0
        if isinstance(model, EncoderConfig):
            memory = encoder_need(model, spec)
        else:
            form, why = _form(model, spec, dtype)
            notes = why + _notes(model, max_len)
            if spec.quantize and form.gathers_keys:
                refusals.append(f"quantize {spec.quantize!r} needs the native kernels. {why[0]}")
            need = decoder_need(model, spec, form, max_model_len=max_len, available=available)
            memory, blocks = need.memory, need.kv_blocks
            if spec.max_tokens_per_step < spec.max_num_seqs:
                refusals.append(
                    f"max_tokens_per_step {spec.max_tokens_per_step} is below "
                    f"max_num_seqs {spec.max_num_seqs}."
                )
            if blocks * spec.block_size < max_len:
                refusals.append(
                    f"KV memory of {memory.kv} bytes holds less than one sequence of {max_len} "
                    f"tokens, which takes {need.sequence_kv}."
                )
        if memory.total > available:
            refusals.append(f"It needs {memory.total} bytes of memory; there are {available}.")
        return Plan(
            backend=self.name,
            architecture=name,
            dtype=dtype,
            spec=spec,
            max_model_len=max_len,
            kv_blocks=blocks,
            memory=memory,
            available_bytes=available,
            refusals=tuple(refusals),
            notes=notes,
        )

    def _generic_plan(
        self,
        config: Mapping[str, object],
        spec: LoadSpec,
        dtype: Dtype,
        refused: UnsupportedModel,
    ) -> Plan:
        try:
            # Here, because it takes seconds to import and may not be installed.
            from ridgeline_backends.generic.plan import generic_plan
        except ImportError as missing:
            hint = "The transformers library may run it: pip install 'ridgeline[generic]'."
            raise UnsupportedModel(
                refused.message, hint=f"{refused.hint} {hint}".strip()
            ) from missing
        try:
            return generic_plan(
                config,
                spec,
                backend=self.name,
                dtype=dtype if has_bf16() else Dtype.FP32,
                available=machine_memory(),
                reason=refused.message,
            )
        except UnsupportedModel as unknown:
            hint = f"{refused.hint} {unknown.message} {unknown.hint}".strip()
            raise UnsupportedModel(refused.message, hint=hint) from unknown

    def compile(self, model_dir: Path, plan: Plan) -> Artifact:
        """Nothing is compiled: the artifact is the model directory itself. Its key covers the
        plan, the config and the names and sizes of the weight files."""
        if not plan.fits:
            raise DoesNotFit(plan.refusals, hint=plan.hint)
        digest = sha256(json.dumps(asdict(plan.spec), sort_keys=True).encode())
        digest.update(json.dumps(read_json(model_dir / "config.json"), sort_keys=True).encode())
        for path in weight_files(model_dir):
            digest.update(f"{path.name}:{path.stat().st_size}".encode())
        return Artifact(model_dir, plan, digest.hexdigest())

    def load(self, artifact: Artifact) -> ModelRunner | EmbeddingRunner | RerankRunner:
        threads = artifact.plan.spec.threads
        if threads is not None:
            torch.set_num_threads(threads)
        if artifact.plan.generic:
            # Here for the same reason as in `_generic_plan`.
            from ridgeline_backends.generic.runner import GenericRunner

            return GenericRunner(artifact)
        if artifact.plan.architecture in RERANK_FAMILIES:
            return CpuRerankRunner(artifact)
        if artifact.plan.architecture in ENCODER_ARCHITECTURES:
            return CpuEmbeddingRunner(artifact)
        return CpuRunner(artifact)


def _notes(model: DecoderConfig, max_len: int) -> tuple[str, ...]:
    originals = [rope.original_context for rope in model.ropes if rope.kind == "longrope"]
    if not originals or max_len <= originals[0]:
        return ()
    return (
        f"The context length {max_len} is above the {originals[0]} tokens the model was first "
        "trained for, so all texts, short ones too, are read with its factors for long ones; "
        f"with a context length of {originals[0]} the factors for short ones are used.",
    )


def _form(
    model: DecoderConfig, spec: LoadSpec, dtype: Dtype
) -> tuple[DecoderForm, tuple[str, ...]]:
    """How the model will be held, and where that is not the best, why."""
    if library() is not None and supports(model, spec):
        matrix_bytes = 1 if spec.quantize else dtype.bytes
        shares = not spec.quantize
        form = DecoderForm(
            stored=dtype, matrix_bytes=matrix_bytes, shares_table=shares, gathers_keys=False
        )
        return form, ()
    widened = dtype is Dtype.BF16 and not has_bf16()
    reason = _NO_KERNELS if library() is None else _NOT_THIS_SHAPE
    form = DecoderForm(
        stored=dtype,
        matrix_bytes=4 if widened else dtype.bytes,
        shares_table=False,
        gathers_keys=True,
    )
    return form, (reason, _WIDENED) if widened else (reason,)


def _dtype(spec: LoadSpec) -> Dtype:
    try:
        return Dtype(spec.dtype)
    except ValueError as error:
        raise UnsupportedModel(
            f"dtype {spec.dtype!r} is not supported by the cpu backend.", hint="Use bf16 or fp32."
        ) from error
