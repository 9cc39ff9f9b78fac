"""The container environment of the LLM images, and serving.properties, as one typed value.

LMI (``OPTION_X``, and ``option.x`` in serving.properties, which wins), vLLM (``SM_VLLM_X``) and TGI
(``MAX_TOTAL_TOKENS`` and others) name the same few things differently. What changes nothing here is
reported as ignored; what is wrong is refused by name. Reads no file but serving.properties.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from ridgeline_backends.vllm.opening import is_installed
from ridgeline_service.serving.llm.errors import InvalidSetting
from ridgeline_service.serving.llm.invocations import Flavour
from ridgeline_service.serving.llm.lora_modules import LoraModule, read_lora_modules
from ridgeline_service.serving.llm.properties import MODEL_ID, properties_in
from ridgeline_service.serving.llm.speculative import SpeculativeSettings, read_speculative

DtypeName = Literal["bf16", "fp32"]

_MAX_NUM_SEQS = 32
_BLOCK_SIZE = 16
_MAX_ADAPTERS = 8
_MAX_ADAPTER_RANK = 16
_LOOKED_UP = SpeculativeSettings()

DEFAULT_DTYPE: DtypeName = "bf16"
"""Of a model for which nobody chose."""

_DTYPES: Mapping[str, DtypeName | None] = {
    "auto": None,
    "bf16": "bf16",
    "bfloat16": "bf16",
    "fp16": "bf16",
    "float16": "bf16",
    "half": "bf16",
    "fp32": "fp32",
    "float32": "fp32",
    "float": "fp32",
}

_LMI = {
    "DTYPE": "dtype",
    "MAX_MODEL_LEN": "max_model_len",
    "N_POSITIONS": "max_model_len",
    "MAX_ROLLING_BATCH_SIZE": "max_num_seqs",
    "MAX_NUM_SEQS": "max_num_seqs",
    "MAX_ROLLING_BATCH_PREFILL_TOKENS": "max_tokens_per_step",
    "MAX_NUM_BATCHED_TOKENS": "max_tokens_per_step",
    "BLOCK_SIZE": "block_size",
    "TENSOR_PARALLEL_DEGREE": "tensor_parallel_degree",
    "TENSOR_PARALLEL_SIZE": "tensor_parallel_degree",
    "DATA_PARALLEL_SIZE": "data_parallel_size",
    "ROLLING_BATCH": "rolling_batch",
    "QUANTIZE": "quantize",
    "QUANTIZATION": "quantize",
    "TGI_COMPAT": "tgi_compat",
    "SERVED_MODEL_NAME": "name",
    "SPECULATIVE_CONFIG": "speculative",
    "ENABLE_LORA": "enable_lora",
    "LORA_MODULES": "lora_modules",
    "MAX_LORAS": "max_adapters",
    "MAX_LORA_RANK": "max_adapter_rank",
}
_TGI = {
    "DTYPE": "dtype",
    "QUANTIZE": "quantize",
    "HF_MODEL_QUANTIZE": "quantize",
    "SM_NUM_GPUS": "tensor_parallel_degree",
    "NUM_SHARD": "tensor_parallel_degree",
    "MAX_TOTAL_TOKENS": "max_model_len",
    "MAX_INPUT_LENGTH": "max_input_tokens",
    "MAX_INPUT_TOKENS": "max_input_tokens",
    "MAX_BATCH_SIZE": "max_num_seqs",
    "MAX_BATCH_PREFILL_TOKENS": "max_tokens_per_step",
    "MAX_CONCURRENT_REQUESTS": "max_concurrent_requests",
    "HF_NUM_CORES": "tensor_parallel_degree",
    "HF_BATCH_SIZE": "max_num_seqs",
    "HF_SEQUENCE_LENGTH": "max_model_len",
    "HF_AUTO_CAST_TYPE": "dtype",
}
_OWN = {
    # Weakest first, as the control plane chooses among them.
    "MODEL_ID": "model_id",
    "SM_VLLM_MODEL": "model_id",
    "OPTION_MODEL_ID": "model_id",
    "HF_MODEL_ID": "model_id",
    "VLLM_CPU_KVCACHE_SPACE": "kv_cache_gib",
    "RIDGELINE_BACKEND": "backend",
    "RIDGELINE_ENGINE": "engine",
    "RIDGELINE_IMAGE_FLAVOUR": "flavour",
    "RIDGELINE_THREADS": "threads",
    "RIDGELINE_INSTANCE_TYPE": "instance",
    "NEURON_LOGICAL_NC_CONFIG": "logical_nc_config",
    "NEURON_RT_NUM_CORES": "tensor_parallel_degree",
    "RIDGELINE_PACE": "pace",
}


_INT8 = ("int8", "w8a8", "static_int8")

Quantize = Literal["int8"] | None

EngineName = Literal["ridgeline", "vllm"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """How the model is to be served. None leaves the choice to the model or the backend.

    ``tensor_parallel`` None: over all devices. ``data_parallel``: copies of the model on devices of
    their own. ``instance``: what a simulated backend stands for, with cores of
    ``logical_nc_config`` physical ones; ``paced``: it answers when that would. ``notes`` are lines
    for the log: what was ignored, and what was replaced by what.
    """

    name: str = "model"
    backend: str = "cpu"
    engine: EngineName = "ridgeline"
    flavour: Flavour = Flavour.DJL
    dtype: DtypeName | None = None
    max_model_len: int | None = None
    max_input_tokens: int | None = None
    max_num_seqs: int = _MAX_NUM_SEQS
    exact_num_seqs: bool = False
    max_tokens_per_step: int | None = None
    max_concurrent_requests: int | None = None
    block_size: int = _BLOCK_SIZE
    kv_cache_bytes: int | None = None
    threads: int | None = None
    tensor_parallel: int | None = 1
    data_parallel: int = 1
    speculative: SpeculativeSettings | None = _LOOKED_UP
    max_adapters: int = 0
    max_adapter_rank: int = _MAX_ADAPTER_RANK
    lora_modules: tuple[LoraModule, ...] = ()
    quantize: Quantize = None
    instance: str | None = None
    logical_nc_config: int | None = None
    paced: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Setting:
    """One value and where it was written, for messages."""

    source: str
    value: str

    def integer(self, least: int = 1) -> int:
        try:
            number = int(self.value)
        except ValueError:
            number = least - 1
        if number < least:
            raise InvalidSetting(
                f"{self.source}={self.value} is not valid.",
                hint=f"Allowed: a whole number, at least {least}.",
            )
        return number

    def boolean(self) -> bool:
        lowered = self.value.lower()
        if lowered not in ("true", "false", "1", "0"):
            raise self.refused("true or false")
        return lowered in ("true", "1")

    def refused(self, allowed: str) -> InvalidSetting:
        return InvalidSetting(
            f"{self.source}={self.value} is not supported.", hint=f"Allowed: {allowed}."
        )


def model_dir(environment: Mapping[str, str]) -> Path:
    """Where the model lies: RIDGELINE_MODEL_DIR, else SageMaker's /opt/ml/model."""
    return Path(environment.get("RIDGELINE_MODEL_DIR") or "/opt/ml/model")


def read_settings(
    environment: Mapping[str, str],
    properties: str = "",
    *,
    has_vllm: Callable[[], bool] = is_installed,
) -> ModelSettings:
    """Merge the environment and the text of serving.properties. Raises InvalidSetting.

    RIDGELINE_ENGINE=vllm insists on vLLM; LMI's ROLLING_BATCH=vllm, which much code has for the
    images' sake, takes it where it is installed.
    """
    notes: list[str] = []
    found: dict[str, _Setting] = {}
    for target, setting in _collect(environment, properties, notes):
        found[target] = setting

    def integer(target: str, least: int = 1) -> int | None:
        return found[target].integer(least) if target in found else None

    engine = _engine(found, has_vllm, notes)
    backend = found["backend"].value if "backend" in found else "cpu"
    max_model_len, max_input = integer("max_model_len", 2), integer("max_input_tokens")
    if max_model_len is not None and max_input is not None and max_input >= max_model_len:
        raise InvalidSetting(
            f"{found['max_input_tokens'].source}={max_input} leaves no room for an answer within "
            f"{found['max_model_len'].source}={max_model_len}.",
            hint=f"Allowed: at most {max_model_len - 1}.",
        )
    gib = integer("kv_cache_gib")
    return ModelSettings(
        name=next((found[key].value for key in ("name", "model_id") if key in found), "model"),
        backend=backend,
        engine=engine,
        flavour=_flavour(found),
        dtype=_dtype(found.get("dtype"), notes),
        max_model_len=max_model_len,
        max_input_tokens=max_input,
        max_num_seqs=integer("max_num_seqs") or _MAX_NUM_SEQS,
        exact_num_seqs="max_num_seqs" in found,
        max_tokens_per_step=integer("max_tokens_per_step"),
        max_concurrent_requests=integer("max_concurrent_requests"),
        block_size=integer("block_size") or _BLOCK_SIZE,
        kv_cache_bytes=None if gib is None else gib * 2**30,
        threads=integer("threads"),
        tensor_parallel=_parallelism(
            found.get("tensor_parallel_degree"), engine if engine == "vllm" else backend, notes
        ),
        data_parallel=_copies(found.get("data_parallel_size"), engine, backend, notes),
        speculative=_speculative(found.get("speculative")),
        max_adapters=_max_adapters(found),
        max_adapter_rank=integer("max_adapter_rank") or _MAX_ADAPTER_RANK,
        lora_modules=_lora_modules(found),
        quantize=_quantize(found.get("quantize")),
        instance=found["instance"].value if "instance" in found else None,
        logical_nc_config=integer("logical_nc_config"),
        paced=_paced(found.get("pace")),
        notes=tuple(notes),
    )


def _collect(
    environment: Mapping[str, str], properties: str, notes: list[str]
) -> Iterator[tuple[str, _Setting]]:
    """Every setting that means something here, weakest source first."""
    present = {name: value.strip() for name, value in environment.items() if value.strip()}
    for table in (_TGI, _OWN):
        for name, target in table.items():
            if name in present:
                yield target, _Setting(name, present[name])
    for name in sorted(_LMI.keys() & present.keys() - _TGI.keys() - _OWN.keys()):
        notes.append(f"{name}={present[name]} is ignored: here it is called OPTION_{name}.")
    for prefix in ("SM_VLLM_", "OPTION_"):
        for name in sorted(present):
            if name.startswith(prefix):
                yield from _lmi(name.removeprefix(prefix), name, present[name], notes)
    for name, value in properties_in(properties):
        if name == MODEL_ID and value:
            yield "model_id", _Setting(name, value)
        elif name.startswith("option.") and value:
            key = name.removeprefix("option.").upper()
            yield from _lmi(key, f"serving.properties: {name}", value, notes)
        elif value:
            notes.append(f"serving.properties: {name}={value} is ignored.")


def _lmi(key: str, source: str, value: str, notes: list[str]) -> Iterator[tuple[str, _Setting]]:
    if key in _LMI:
        yield _LMI[key], _Setting(source, value)
    elif source not in _OWN:
        near = get_close_matches(key, _LMI, n=1, cutoff=0.8)
        meant = f" Did you mean {near[0]}?" if near else ""
        notes.append(f"{source}={value} is ignored: this server has no such option.{meant}")


def _dtype(setting: _Setting | None, notes: list[str]) -> DtypeName | None:
    if setting is None:
        return None
    asked = setting.value.lower()
    if asked not in _DTYPES:
        raise setting.refused(", ".join(_DTYPES))
    if _DTYPES[asked] == "bf16" and asked not in ("bf16", "bfloat16"):
        notes.append(f"{setting.source}={setting.value}: this backend runs it as bf16.")
    return _DTYPES[asked]


def _flavour(found: Mapping[str, _Setting]) -> Flavour:
    compat = found.get("tgi_compat")
    if compat is not None and compat.boolean():
        return Flavour.TGI
    setting = found.get("flavour")
    if setting is None:
        return Flavour.DJL
    try:
        return Flavour(setting.value.lower())
    except ValueError:
        raise setting.refused(", ".join(Flavour)) from None


def _speculative(setting: _Setting | None) -> SpeculativeSettings | None:
    return _LOOKED_UP if setting is None else read_speculative(setting.source, setting.value)


def _max_adapters(found: Mapping[str, _Setting]) -> int:
    """Room for LoRA adapters: none unless they are asked for."""
    enabled = found.get("enable_lora")
    if enabled is None or not enabled.boolean():
        return 0
    return found["max_adapters"].integer() if "max_adapters" in found else _MAX_ADAPTERS


def _lora_modules(found: Mapping[str, _Setting]) -> tuple[LoraModule, ...]:
    setting = found.get("lora_modules")
    if setting is None:
        return ()
    modules = read_lora_modules(setting.source, setting.value)
    room = _max_adapters(found)
    if len(modules) > room:
        raise InvalidSetting(
            f"{setting.source} names {len(modules)} adapters; there is room for {room}.",
            hint="Set OPTION_ENABLE_LORA to true, and OPTION_MAX_LORAS to at least as many.",
        )
    return modules


def _quantize(setting: _Setting | None) -> Quantize:
    """8-bit weights and activations, by the names that other servers have for them."""
    if setting is None or setting.value.lower() == "none":
        return None
    if setting.value.lower() not in _INT8:
        raise setting.refused(f"none or {' or '.join(_INT8)}")
    return "int8"


def _engine(
    found: Mapping[str, _Setting], has_vllm: Callable[[], bool], notes: list[str]
) -> EngineName:
    own, theirs = found.get("engine"), found.get("rolling_batch")
    if own is not None:
        if own.value.lower() == "vllm":
            return "vllm"
        if own.value.lower() != "ridgeline":
            raise own.refused("ridgeline or vllm")
        return "ridgeline"
    if theirs is None:
        return "ridgeline"
    if theirs.value.lower() == "vllm" and has_vllm():
        return "vllm"
    notes.append(f"{theirs.source}={theirs.value} is ignored: this server's own engine runs.")
    return "ridgeline"


def _parallelism(setting: _Setting | None, backend: str, notes: list[str]) -> int | None:
    """Over how many devices the model is split, None for all of them: of a simulated device, the
    cores of one."""
    if setting is None:
        return None if backend == "neuron" else 1
    everything = setting.value.lower() in ("max", "all")
    degree = None if everything else setting.integer()
    if backend != "cpu":
        return degree
    if degree is not None and degree > 1:
        notes.append(
            f"{setting.source}={degree}: this backend has one device, so the tensor-parallel "
            "degree is 1."
        )
    return 1


def _copies(setting: _Setting | None, engine: EngineName, backend: str, notes: list[str]) -> int:
    """How many copies of the model there are. Only simulated devices have several here: on this
    machine all of them would share its cores."""
    wanted = 1 if setting is None else setting.integer()
    if setting is None or wanted == 1 or (engine == "ridgeline" and backend == "neuron"):
        return wanted
    notes.append(
        f"{setting.source}={wanted}: only simulated devices have copies of a model, so there is "
        "one. More instances (InitialInstanceCount) are more copies."
    )
    return 1


def _paced(setting: _Setting | None) -> bool:
    """Whether a simulated device's answers come when the device would give them."""
    if setting is None or setting.value == "none":
        return False
    if setting.value != "real-time":
        raise setting.refused("real-time, none")
    return True
