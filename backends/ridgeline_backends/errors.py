"""The errors of this package: what is wrong, by name, and what to do next.

    BackendError                a `ridgeline.errors.RidgelineError`
    ├── UnknownBackend          no backend of that name is installed
    ├── BackendUnusable         the backend is installed and cannot be loaded
    ├── InvalidModel            a model directory cannot be read
    │   ├── UnsupportedModel    its architecture, or a setting of it, is not one we run
    │   ├── MissingTensor       the weights lack a tensor the architecture needs
    │   ├── MismatchedTensor    a tensor has another shape or type than config.json says
    │   └── InvalidAdapter      a LoRA adapter cannot be used with this model
    ├── DoesNotFit              the plan was refused; `refusals` says why
    └── EngineError
        ├── PromptTooLong       more prompt tokens than this engine takes
        ├── InvalidSampling     a sampling parameter is out of range
        ├── QueueFull           too many sequences wait; `retry_after_s` says when to come back
        ├── DuplicateSequence   that sequence id is in use
        ├── UnknownAdapter      no LoRA adapter of that name is loaded
        ├── AdapterExists       a LoRA adapter of that name is loaded already
        ├── TooManyAdapters     as many LoRA adapters are loaded as there is room for
        ├── AdaptersUnsupported this engine was not set up for LoRA adapters
        └── EngineStopped       the engine has been stopped

Every error carries `code`, `http_status` and `hint`, so a server can answer with them as they are.
This module imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Sequence

from ridgeline.errors import RidgelineError


class BackendError(RidgelineError):
    """Base of every error raised on purpose by this package."""

    code = "BackendError"


class UnknownBackend(BackendError):
    """No installed distribution registers a backend of this name."""

    code = "UnknownBackend"
    http_status = 400

    def __init__(self, name: str, known: Sequence[str], suggestion: str | None) -> None:
        hint = f"Did you mean {suggestion!r}? " if suggestion else ""
        listed = ", ".join(sorted(known)) or "none"
        super().__init__(f"There is no backend {name!r}.", hint=f"{hint}Installed: {listed}.")
        self.name = name
        self.suggestion = suggestion


class BackendUnusable(BackendError):
    """The backend is registered, but importing or constructing it failed."""

    code = "BackendUnusable"
    http_status = 503

    def __init__(self, name: str, reason: str, *, hint: str = "") -> None:
        super().__init__(f"Backend {name!r} cannot be loaded: {reason}", hint=hint)
        self.name = name
        self.reason = reason


class InvalidModel(BackendError):
    """A model directory that cannot be read: a missing file, or a bad value in one."""

    code = "InvalidModel"
    http_status = 400


class UnsupportedModel(InvalidModel):
    """A well-formed model of a kind that no code here runs."""

    code = "UnsupportedModel"


class MissingTensor(InvalidModel):
    """The weights do not contain tensors that config.json implies. The first few are named."""

    code = "MissingTensor"

    def __init__(self, *tensors: str, where: str) -> None:
        named = ", ".join(repr(tensor) for tensor in tensors[:3])
        if len(tensors) > 3:
            named += f" and {len(tensors) - 3} more"
        subject = f"Tensor {named} is" if len(tensors) == 1 else f"Tensors {named} are"
        super().__init__(
            f"{subject} missing from {where}.",
            hint="The download may be incomplete, or config.json belongs to another model.",
        )
        self.tensors = tensors


class MismatchedTensor(InvalidModel):
    """A tensor whose shape or type contradicts config.json."""

    code = "MismatchedTensor"

    def __init__(self, tensor: str, expected: str, found: str) -> None:
        super().__init__(
            f"Tensor {tensor!r} is {found}; config.json implies {expected}.",
            hint="config.json and the weights must come from the same model.",
        )
        self.tensor = tensor


class InvalidAdapter(InvalidModel):
    """A LoRA adapter that cannot be read, or that asks for what we do not apply."""

    code = "InvalidAdapter"

    def __init__(self, name: str, reason: str, *, hint: str = "") -> None:
        super().__init__(f"LoRA adapter {name!r}: {reason}", hint=hint)
        self.name = name


class KernelBuildFailed(BackendError):
    """The native kernels could not be compiled; models run in plain torch without them."""

    code = "KernelBuildFailed"
    http_status = 500


class DoesNotFit(BackendError):
    """A plan with refusals was compiled anyway."""

    code = "DoesNotFit"
    http_status = 400

    def __init__(self, refusals: Sequence[str], *, hint: str = "") -> None:
        super().__init__("The model cannot run as planned: " + " ".join(refusals), hint=hint)
        self.refusals = tuple(refusals)


class EngineError(BackendError):
    """Base of what an engine answers instead of generating."""

    code = "EngineError"


class PromptTooLong(EngineError):
    """The prompt leaves no room for a single new token."""

    code = "PromptTooLong"
    http_status = 400

    def __init__(self, prompt_tokens: int, limit: int) -> None:
        super().__init__(
            f"The prompt has {prompt_tokens} tokens; this model takes at most {limit}.",
            hint="Shorten the prompt, or deploy with a larger context length.",
        )
        self.prompt_tokens = prompt_tokens
        self.limit = limit


class InvalidSampling(EngineError):
    """One sampling parameter, or the prompt, has a value that cannot be used."""

    code = "InvalidSampling"
    http_status = 400

    def __init__(self, field: str, value: object, expected: str) -> None:
        super().__init__(f"{field} must be {expected}, not {value!r}.")
        self.field = field
        self.value = value


class QueueFull(EngineError):
    """The waiting queue is full, by the count of sequences or by that of their tokens."""

    code = "QueueFull"
    http_status = 429

    def __init__(self, waiting: int, waiting_tokens: int, retry_after_s: float) -> None:
        super().__init__(
            f"{waiting} sequences with {waiting_tokens} tokens are already waiting.",
            hint=f"Retry in {retry_after_s:.0f} s.",
        )
        self.waiting = waiting
        self.waiting_tokens = waiting_tokens
        self.retry_after_s = retry_after_s


class DuplicateSequence(EngineError):
    """Two live sequences may not have one id."""

    code = "DuplicateSequence"
    http_status = 409

    def __init__(self, sequence_id: str) -> None:
        super().__init__(f"Sequence {sequence_id!r} is already being generated.")
        self.sequence_id = sequence_id


class UnknownAdapter(EngineError):
    """No LoRA adapter of this name is loaded, or it is being unloaded."""

    code = "UnknownAdapter"
    http_status = 404

    def __init__(self, name: str, loaded: Sequence[str] | None) -> None:
        """``loaded`` None: the model is served without adapters."""
        listed = ", ".join(sorted(loaded or ())) or "none"
        hint = f"Loaded: {listed}."
        if loaded is None:
            hint = "LoRA adapters are off. Deploy the model with OPTION_ENABLE_LORA=true."
        super().__init__(f"No LoRA adapter {name!r} is loaded.", hint=hint)
        self.name = name


class AdapterExists(EngineError):
    """An adapter's name is taken until it is unloaded."""

    code = "AdapterExists"
    http_status = 409

    def __init__(self, name: str) -> None:
        super().__init__(
            f"A LoRA adapter {name!r} is loaded already.",
            hint="Unload it first, or choose another name.",
        )
        self.name = name


class TooManyAdapters(EngineError):
    """Memory was set aside for so many adapters and no more."""

    code = "TooManyAdapters"
    http_status = 409

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"{limit} LoRA adapters are loaded, which is the most.",
            hint="Unload one, or deploy with a larger OPTION_MAX_LORAS.",
        )
        self.limit = limit


class AdaptersUnsupported(EngineError):
    """The engine applies no LoRA adapters."""

    code = "AdaptersUnsupported"
    http_status = 400

    def __init__(self) -> None:
        super().__init__(
            "This model is served without LoRA adapters.",
            hint="Deploy it with OPTION_ENABLE_LORA=true.",
        )


class EngineStopped(EngineError):
    """The engine takes no more sequences."""

    code = "EngineStopped"
    http_status = 503

    def __init__(self) -> None:
        super().__init__("The engine has been stopped.", hint="Retry on another replica.")
