"""Settings that nobody looked at: a config.json of which one of them decides sizes is not the model
that it would be taken for. Imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping

from ridgeline_backends.errors import UnsupportedModel

_DECIDES = re.compile(
    r"expert|moe|(^|_)ffn|mlp_|inner_hidden|mamba|ssm|state_size|hybrid_|(^|_)lru_|linear_(num|key|value)"
    r"|altup|laurel|per_layer|per_stack|^swa_|global_(head|key)|_(config|configs|cfg)$"
)
"""Names of what makes a layer other than a plain one: experts, MLPs, states, sections of sizes."""

_HARMLESS = re.compile(
    r"loss|coef|jitter|factor|capacity|dropout|token|chunk|conv|dt_|dt$|time_step|scale|scaling"
    r"|multiplier|parallel|n_group|topk_group|kernel|seed|eps|bias|vision|audio|image|speech|video|projector"
    r"|quant|compression|generation|rope|lora|text_config|llm_config|language_config|codec|talker"
)
"""Of those, what changes no sizes, or is of another part of the model."""


class Noted(Mapping[str, object]):
    """Settings that remember which of them were looked at. `read`: names that count as looked at,
    since others can make them superfluous."""

    def __init__(self, settings: Mapping[str, object], *, read: Container[str]) -> None:
        self._settings = settings
        self._read = read
        self._seen: set[str] = set()

    def __getitem__(self, name: str) -> object:
        self._seen.add(name)
        return self._settings[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._settings)

    def __len__(self) -> int:
        return len(self._settings)

    def refuse_unread(self) -> None:
        """Raises `UnsupportedModel` for a setting of sizes that nobody looked at."""
        for name, value in self._settings.items():
            if name in self._seen or name in self._read:
                continue
            if _DECIDES.search(name) and not _HARMLESS.search(name) and _counts(value):
                raise UnsupportedModel(
                    f"{name} in config.json is not read, and it may decide the model's sizes.",
                    hint="Name the model, or give one of like sizes that has no such setting.",
                )


def _counts(value: object) -> bool:
    """Whether there is a number of things in it."""
    if isinstance(value, Mapping):
        return any(_counts(one) for one in value.values())
    if isinstance(value, list):
        return any(_counts(one) for one in value)
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
