"""What a replica tells the gateway beside its answer: what a request used, what it would have
taken on the device that the replica stands for, or that it was not begun.

Limits on tokens need to know the usage. The gateway asks by sending `USAGE_HEADER`. A whole answer
then has a header of that name; a stream, whose usage is known when it ends, has `USAGE_MARK` and
the same JSON behind its last byte, which the gateway takes off. Replicas that count no tokens say
nothing.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

USAGE_HEADER = "x-ridgeline-usage"

SIMULATED_HEADER = "x-ridgeline-simulated"
"""What an answer would have taken on the device that a replica stands for, as a JSON object; the
gateway passes it on."""

UNSERVED_HEADER = "x-ridgeline-unserved"
"""With a status of 503: nothing was done of the request, so another replica may be asked."""

USAGE_MARK = b"\x1e"
"""ASCII's record separator: JSON escapes it, so no answer of a language model's server has it."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one request; a prompt that several sequences share counts once."""

    prompt_tokens: int
    completion_tokens: int

    @property
    def total(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def encoded(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decoded(cls, raw: bytes | str) -> Usage | None:
        """None for what is no usage: it comes from a user's container where that is the replica."""
        try:
            fields = json.loads(raw)
            numbers = (fields["prompt_tokens"], fields["completion_tokens"])
        except (ValueError, LookupError, TypeError):
            return None
        if not all(type(number) is int and number >= 0 for number in numbers):
            return None
        return cls(*numbers)
