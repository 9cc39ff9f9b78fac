"""From a model directory to a model that answers: import, load, warm up.

Runs on a thread beside the server. This is the one module of the model server that speaks to a
backend; torch is imported by the backend and by nothing else, inside the `import` stage.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from ridgeline_backends.base import Backend, CopiedRunner, ModelRunner
from ridgeline_backends.device_time import SimulatedHardware
from ridgeline_backends.encoding import EmbeddingRunner, RerankRunner
from ridgeline_backends.engine import Engine
from ridgeline_backends.engine.data_parallel import DataParallelEngine
from ridgeline_backends.engine.draft_model import DraftModel
from ridgeline_backends.engine.drafting import PromptLookup
from ridgeline_backends.engine.llm_engine import LLMEngine
from ridgeline_backends.engine.speculation import Speculation
from ridgeline_backends.models.sentence_files import trained_length
from ridgeline_backends.registry import get_backend
from ridgeline_service.serving.llm.batches import Batches, Worker, metered
from ridgeline_service.serving.llm.compiling import compiled
from ridgeline_service.serving.llm.embedding import Embedder
from ridgeline_service.serving.llm.errors import InvalidSetting, LoadFailed
from ridgeline_service.serving.llm.generation import Mailbox
from ridgeline_service.serving.llm.grammar import GrammarCompiler
from ridgeline_service.serving.llm.model import (
    EmbeddingModel,
    Limits,
    Model,
    RerankModel,
    SamplingDefaults,
    Seams,
    TextModel,
)
from ridgeline_service.serving.llm.precompiled import as_compiled
from ridgeline_service.serving.llm.replica import Replica, State
from ridgeline_service.serving.llm.reranking import pair_tokens
from ridgeline_service.serving.llm.settings import ModelSettings
from ridgeline_service.serving.llm.text.tokenizer import (
    TextTokenizer,
    eos_token_ids,
    load_chat_template,
    load_tokenizer,
    read_json,
)
from ridgeline_service.serving.llm.vllm_loading import vllm_engine
from ridgeline_service.serving.llm.warming import warm_up

log = logging.getLogger(__name__)

R = TypeVar("R")

ADAPTERS = "adapters"
"""Folder of a model directory with LoRA adapters, as LMI has it."""

WAITING_PER_SEQUENCE = 8
"""Requests that may wait, for each that runs, before the answer is 429."""


def load_model(
    directory: Path, settings: ModelSettings, replica: Replica, mailbox: Mailbox, seams: Seams
) -> Model:
    """Load and warm up, noting each stage in ``replica``.

    Raises LoadFailed, InvalidSetting and the backend's errors (InvalidModel, DoesNotFit, ...).
    """
    settings = as_compiled(directory, settings)
    with replica.stage("import", State.LOADING):
        backend = None if settings.engine == "vllm" else _backend(settings)
    artifact = None
    if backend is not None and settings.instance is not None:
        with replica.stage("compile", State.LOADING):
            artifact = compiled(backend, directory, _config(directory), settings)
            replica.tell(artifact.made)
            log.info("compile: %s", artifact.made)
    with replica.stage("load", State.LOADING):
        config = _config(directory)
        tokenizer = load_tokenizer(directory)
        if backend is None:
            stops = _stops(directory, config, tokenizer)
            engine = vllm_engine(
                directory,
                config,
                settings,
                eos=stops,
                max_live=_max_waiting(settings) + settings.max_num_seqs,
            )
            model: Model = _text_model(
                directory, settings, engine, stops, tokenizer, mailbox, seams
            )
            _warm(replica, model)
            return model
        runner = backend.load(artifact or compiled(backend, directory, config, settings))
        if isinstance(runner, ModelRunner):
            model = _text_model(
                directory,
                settings,
                _own_engine(settings, runner, seams),
                runner.eos_token_ids | _stops(directory, config, tokenizer),
                tokenizer,
                mailbox,
                seams,
            )
        elif isinstance(runner, EmbeddingRunner):
            model = _embedding_model(directory, settings, runner, tokenizer, seams)
        else:
            model = _rerank_model(settings, runner, tokenizer, seams)
        if isinstance(runner, SimulatedHardware):
            model = replace(model, hardware=runner)
    _warm(replica, model)
    return model


def _config(directory: Path) -> Mapping[str, object]:
    if not directory.is_dir():
        raise LoadFailed(f"There is no model directory at {directory}.")
    config = read_json(directory / "config.json")
    if not config:
        raise LoadFailed(
            "The model directory has no config.json.",
            hint="Put a model in Hugging Face's layout there, or name one: in HF_MODEL_ID, or as "
            "option.model_id in serving.properties.",
        )
    return config


def _backend(settings: ModelSettings) -> Backend:
    backend = get_backend(settings.backend)
    report = backend.probe()
    if not report.usable:
        raise LoadFailed(f"Backend {settings.backend!r} is not usable: {report.reason}")
    return backend


def _warm(replica: Replica, model: Model) -> None:
    with replica.stage("warm-up", State.WARMING):
        warm_up(model)


def _own_engine(settings: ModelSettings, runner: ModelRunner, seams: Seams) -> Engine:
    engines = [
        LLMEngine(
            one,
            speculation=_speculation(settings, one),
            max_waiting=_max_waiting(settings),
            on_step=seams.on_step,
        )
        for one in _copies_of(runner)
    ]
    return engines[0] if len(engines) == 1 else DataParallelEngine(engines)


def _copies_of(runner: R) -> tuple[R, ...]:
    """A runner and its like on other devices."""
    return runner.copies if isinstance(runner, CopiedRunner) else (runner,)


def _max_waiting(settings: ModelSettings) -> int:
    return max(64, settings.max_num_seqs * WAITING_PER_SEQUENCE)


def _stops(
    directory: Path, config: Mapping[str, object], tokenizer: TextTokenizer
) -> frozenset[int]:
    """The tokens that end a text, as all of the model's files together say."""
    return eos_token_ids(
        config,
        read_json(directory / "generation_config.json"),
        read_json(directory / "tokenizer_config.json"),
        tokenizer,
    )


def _text_model(
    directory: Path,
    settings: ModelSettings,
    engine: Engine,
    stops: frozenset[int],
    tokenizer: TextTokenizer,
    mailbox: Mailbox,
    seams: Seams,
) -> TextModel:
    generation_config = read_json(directory / "generation_config.json")
    tokenizer_config = read_json(directory / "tokenizer_config.json")
    adapters = _load_adapters(engine, directory, settings)
    engine.start()
    longest = engine.max_model_len
    return TextModel(
        name=settings.name,
        tokenizer=tokenizer,
        limits=Limits(
            max_model_len=longest,
            max_input_tokens=min(settings.max_input_tokens or longest, longest - 1),
        ),
        seams=seams,
        engine=engine,
        mailbox=mailbox,
        template=load_chat_template(directory, tokenizer_config),
        eos_token_ids=stops,
        grammars=GrammarCompiler(tokenizer.to_json, stops),
        defaults=_sampling_defaults(generation_config),
        adapters=adapters,
    )


def _speculation(settings: ModelSettings, runner: ModelRunner) -> Speculation | None:
    """What guesses for the engine. Raises InvalidSetting for a draft model that does not match."""
    asked = settings.speculative
    if asked is None or not runner.limits.draft_tokens:
        return None
    most, directory = asked.num_speculative_tokens, asked.draft_directory
    if directory is None:
        lookup = PromptLookup(shortest=asked.shortest, longest=asked.prompt_lookup_max)
        return Speculation(lookup, most=most)
    if not (directory / "config.json").is_file():
        raise InvalidSetting(
            f"The draft model {directory} is not a model directory.",
            hint="Put one into the model's archive, and give its path under /opt/ml/model.",
        )
    backend = get_backend(settings.backend)
    small = replace(
        settings,
        max_adapters=0,
        max_model_len=runner.limits.max_model_len,
        tensor_parallel=1,
        data_parallel=1,
    )
    draft = backend.load(compiled(backend, directory, read_json(directory / "config.json"), small))
    if not isinstance(draft, ModelRunner) or draft.vocab_size != runner.vocab_size:
        raise InvalidSetting(
            f"The draft model {directory} has another vocabulary than the model.",
            hint="A draft model must share the model's tokenizer.",
        )
    return Speculation(DraftModel(draft), most=most)


def _load_adapters(engine: Engine, model_dir: Path, settings: ModelSettings) -> dict[str, str]:
    """Load the LoRA adapters that came with the model, each under its folder's name, and those
    that settings name. Where each came from, by name."""
    if not settings.max_adapters:
        return {}
    folder = model_dir / ADAPTERS
    named = {module.name: module.directory(model_dir) for module in settings.lora_modules}
    if settings.name in named:
        raise InvalidSetting(
            f"The adapter {settings.name!r} has the model's own name.", hint="Give it another."
        )
    found = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    # One that settings name is not loaded a second time for lying in the folder.
    others = [path for path in found if path not in named.values()]
    directories = {path.name: path for path in others} | named
    for name, directory in directories.items():
        engine.load_adapter(name, directory)
    return {name: str(directory) for name, directory in directories.items()}


def _embedding_model(
    directory: Path,
    settings: ModelSettings,
    runner: EmbeddingRunner,
    tokenizer: TextTokenizer,
    seams: Seams,
) -> EmbeddingModel:
    longest = min(runner.max_model_len, trained_length(directory) or runner.max_model_len)
    return EmbeddingModel(
        name=settings.name,
        tokenizer=tokenizer,
        limits=Limits(
            max_model_len=longest,
            max_input_tokens=min(settings.max_input_tokens or longest, longest),
        ),
        seams=seams,
        embedder=Embedder(_copies_of(runner), max_waiting=_max_waiting(settings)),
    )


def _rerank_model(
    settings: ModelSettings, runner: RerankRunner, tokenizer: TextTokenizer, seams: Seams
) -> RerankModel:
    longest = runner.max_model_len
    return RerankModel(
        name=settings.name,
        tokenizer=tokenizer,
        limits=Limits(
            max_model_len=longest,
            max_input_tokens=min(settings.max_input_tokens or longest, longest),
        ),
        seams=seams,
        judge=Batches(
            [Worker(one.score, metered(one)) for one in _copies_of(runner)],
            pair_tokens,
            max_waiting=_max_waiting(settings),
        ),
    )


def _sampling_defaults(generation_config: Mapping[str, object]) -> SamplingDefaults:
    """What the model's authors recommend; values out of range are left out."""

    def number(name: str, default: float, holds: Callable[[float], bool]) -> float:
        value = generation_config.get(name)
        usable = isinstance(value, (int, float)) and not isinstance(value, bool) and holds(value)
        return float(value) if usable else default  # type: ignore[arg-type]

    return SamplingDefaults(
        temperature=number("temperature", 1.0, lambda value: 0 <= value <= 100),
        top_k=int(number("top_k", 0, lambda value: value >= 0)),
        top_p=number("top_p", 1.0, lambda value: 0 < value <= 1),
        repetition_penalty=number("repetition_penalty", 1.0, lambda value: 0 < value <= 10),
    )
