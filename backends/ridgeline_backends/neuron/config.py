"""How a model is to be compiled: the field names of NxD Inference's `NeuronConfig`.

A field that this compiler knows and does not honour is refused by name; one that nobody knows is
refused with the nearest that there is. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Literal

from ridgeline_backends.errors import BackendError
from ridgeline_backends.neuron.program import ElementType


class InvalidNeuronConfig(BackendError):
    """A setting of `NeuronConfig` that is unknown, out of range or not honoured."""

    code = "InvalidNeuronConfig"
    http_status = 400


_DTYPES = {
    "bfloat16": ElementType.BF16,
    "bf16": ElementType.BF16,
    "float16": ElementType.FP16,
    "fp16": ElementType.FP16,
    "float32": ElementType.FP32,
    "fp32": ElementType.FP32,
}
_QUANTISED = {
    "int8": ElementType.INT8,
    "f8e4m3": ElementType.FP8_E4M3,
    "f8e5m2": ElementType.FP8_E5M2,
}
_NOT_HONOURED = {
    "speculation_length": "speculation needs a second model on the device",
    "enable_fused_speculation": "speculation needs a second model on the device",
    "enable_eagle_speculation": "speculation needs a second model on the device",
    "is_medusa": "Medusa heads are not compiled",
    "is_prefix_caching": "KV lies in one slot per sequence",
    "is_block_kv_layout": "KV lies in one slot per sequence",
    "chunked_prefill_config": "a prompt is encoded in one call",
    "lora_config": "adapters are not compiled",
    "pp_degree": "the layers of a model run on one group of cores",
    "cp_degree": "a prompt is encoded by one group of cores",
    "attention_dp_degree": "all cores attend for all sequences",
    "flash_decoding_enabled": "each KV head lies on one core as a whole",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NeuronConfig:
    """What the program is compiled for.

    `seq_len`: positions of a sequence, prompt and answer. `max_context_length`: of a prompt; None
    for `seq_len`. `ctx_batch_size`: prompts encoded at once, `tkg_batch_size`: sequences that
    decode at once; None: 1 and `batch_size`. Buckets: None for powers of two from 128 with
    `enable_bucketing`, else the longest alone. `on_device_sampling`: tokens are chosen on the
    device among its `global_topk` likeliest; without, logits go to the host. `logical_nc_config`:
    physical cores of a logical one; None for the chip's default.
    """

    tp_degree: int = 1
    batch_size: int = 1
    seq_len: int = 128
    max_context_length: int | None = None
    ctx_batch_size: int = 1
    tkg_batch_size: int | None = None
    is_continuous_batching: bool = False
    torch_dtype: ElementType = ElementType.BF16
    enable_bucketing: bool = True
    context_encoding_buckets: tuple[int, ...] | None = None
    token_generation_buckets: tuple[int, ...] | None = None
    on_device_sampling: bool = False
    global_topk: int = 256
    output_logits: bool = True
    async_mode: bool = False
    quantized: bool = False
    quantization_dtype: ElementType = ElementType.INT8
    quantization_type: Literal["per_tensor_symmetric", "per_channel_symmetric"] = (
        "per_channel_symmetric"
    )
    kv_cache_quant: bool = False
    logical_nc_config: int | None = None
    ep_degree: int = 1
    sequence_parallel_enabled: bool = False
    vocab_parallel: bool = False
    fused_qkv: bool = False
    attn_kernel_enabled: bool = False
    qkv_kernel_enabled: bool = False
    mlp_kernel_enabled: bool = False
    attn_tkg_nki_kernel_enabled: bool = False

    def __post_init__(self) -> None:
        for name in ("tp_degree", "batch_size", "seq_len", "ctx_batch_size", "ep_degree"):
            if getattr(self, name) < 1:
                raise InvalidNeuronConfig(f"{name} must be at least 1, not {getattr(self, name)}.")
        if self.context_limit > self.seq_len:
            raise InvalidNeuronConfig(
                f"max_context_length {self.max_context_length} is above seq_len {self.seq_len}.",
                hint="seq_len counts the prompt and the answer.",
            )
        if self.tp_degree % self.ep_degree:
            raise InvalidNeuronConfig(
                f"ep_degree {self.ep_degree} does not divide tp_degree {self.tp_degree}."
            )
        for name, longest in (
            ("context_encoding_buckets", self.context_limit),
            ("token_generation_buckets", self.seq_len),
        ):
            given = getattr(self, name)
            if given is not None and (not given or max(given) != longest or min(given) < 1):
                raise InvalidNeuronConfig(
                    f"{name} must end with {longest}, the longest there is to be, not {given}."
                )

    @property
    def context_limit(self) -> int:
        return self.max_context_length or self.seq_len

    @property
    def decode_batch(self) -> int:
        return self.tkg_batch_size or self.batch_size

    @property
    def context_buckets(self) -> tuple[int, ...]:
        """The compiled lengths of prompts, rising."""
        given = self.context_encoding_buckets
        return self._buckets(self.context_limit) if given is None else tuple(sorted(given))

    @property
    def generation_buckets(self) -> tuple[int, ...]:
        """The compiled lengths of KV that a decode step reads, rising."""
        given = self.token_generation_buckets
        return self._buckets(self.seq_len) if given is None else tuple(sorted(given))

    @property
    def weight_dtype(self) -> ElementType:
        """What the matrices of the layers are kept as."""
        return self.quantization_dtype if self.quantized else self.torch_dtype

    @property
    def kv_dtype(self) -> ElementType:
        return ElementType.FP8_E4M3 if self.kv_cache_quant else self.torch_dtype

    def _buckets(self, longest: int) -> tuple[int, ...]:
        if not self.enable_bucketing:
            return (longest,)
        sizes = []
        size = 128
        while size < longest:
            sizes.append(size)
            size *= 2
        return (*sizes, longest)


def neuron_config(given: Mapping[str, object]) -> NeuronConfig:
    """From NxD Inference's names and spellings. Raises `InvalidNeuronConfig`."""
    settings = dict(given)
    sampling = settings.pop("on_device_sampling_config", None)
    if isinstance(sampling, Mapping):
        settings["on_device_sampling"] = True
        if "global_topk" in sampling:
            settings["global_topk"] = sampling["global_topk"]
    elif sampling is not None:
        raise InvalidNeuronConfig(f"on_device_sampling_config must be an object, not {sampling!r}.")
    if "buckets" in settings:
        both = settings.pop("buckets")
        settings.setdefault("context_encoding_buckets", both)
        settings.setdefault("token_generation_buckets", both)
    if "max_batch_size" in settings:
        settings.setdefault("batch_size", settings.pop("max_batch_size"))
    known = {one.name: one for one in fields(NeuronConfig)}
    read: dict[str, object] = {}
    for name, value in settings.items():
        if name in _NOT_HONOURED:
            neutral = 1 if name.endswith("_degree") else 0
            if value and (isinstance(value, bool) or value != neutral):
                raise InvalidNeuronConfig(
                    f"{name} = {value!r} is not honoured: {_NOT_HONOURED[name]}.",
                    hint=f"Leave {name} out.",
                )
            continue
        if name not in known:
            close = get_close_matches(name, [*known, *_NOT_HONOURED], n=1, cutoff=0.5)
            hint = f"Did you mean {close[0]!r}?" if close else ""
            raise InvalidNeuronConfig(f"NeuronConfig has no field {name!r}.", hint=hint)
        read[name] = _read(name, value)
    return NeuronConfig(**read)  # type: ignore[arg-type]


def _read(name: str, value: object) -> object:
    if name in ("torch_dtype", "quantization_dtype"):
        kinds = _DTYPES if name == "torch_dtype" else _QUANTISED
        found = kinds.get(str(value).removeprefix("torch."))
        if found is None:
            raise InvalidNeuronConfig(f"{name} must be one of {', '.join(kinds)}, not {value!r}.")
        return found
    if name.endswith("_buckets") and value is not None:
        sizes = value if isinstance(value, list | tuple) else ()
        if not sizes or not all(type(size) is int for size in sizes):
            raise InvalidNeuronConfig(f"{name} must be a list of lengths, not {value!r}.")
        return tuple(sizes)
    if name == "quantization_type":
        if value not in ("per_tensor_symmetric", "per_channel_symmetric"):
            raise InvalidNeuronConfig(f"quantization_type {value!r} is not one there is.")
        return value
    wanted = bool if isinstance(getattr(_DEFAULTS, name), bool) else int
    if type(value) is not wanted and value is not None:
        raise InvalidNeuronConfig(f"{name} must be of type {wanted.__name__}, not {value!r}.")
    return value


_DEFAULTS = NeuronConfig()
