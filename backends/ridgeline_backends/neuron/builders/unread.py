"""Settings that nobody looked at: a config.json of which one of them decides sizes is not the model
that it would be taken for. Imports no torch.

What is not known to decide sizes is passed over: configs are full of what trainers, quantisers and
servers keep in them.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping

from ridgeline_backends.errors import UnsupportedModel

_OTHER_LAYERS = (
    "block_configs", "hidden_size_per_layer_input", "hybrid_override_pattern", "linear_attn_config",
    "mamba_d_ssm", "mamba_d_state", "mamba_num_heads", "mlp_hidden_size",
    "num_key_value_heads_per_layer",
)  # fmt: skip
"""Layers unlike each other, or that keep a state."""

_OF_EXPERTS = re.compile(r"expert|(^|_)moe_")
_OF_THEIR_ROUTES = re.compile(r"group|zero|capacity|parallel|degree|factor|coef|dropout")
"""What decides where tokens go, not how many experts there are or how wide."""


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
            found = name if name in _OTHER_LAYERS and value else _experts(name, value)
            if found:
                raise UnsupportedModel(
                    f"{found} in config.json is not read, and it may decide the model's sizes.",
                    hint="Name the model, or give one of like sizes that has no such setting.",
                )


def _experts(name: str, value: object) -> str:
    """The setting's name, or that of one in its section, which says how many experts there are or
    how wide; else ""."""
    if isinstance(value, Mapping):
        inner = (_experts(str(one), within) for one, within in value.items())
        return next((f"{name}.{one}" for one in inner if one), "")
    named = _OF_EXPERTS.search(name) and not _OF_THEIR_ROUTES.search(name)
    values = value if isinstance(value, list) else [value]
    several = any(type(one) is int and one > 1 for one in values)
    return name if named and several else ""
