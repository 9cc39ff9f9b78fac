"""Limits of a key: requests and tokens a minute.

Each limit is a bucket that holds a minute's worth and refills evenly, so a key may burst up to its
limit and then goes on at its rate. A request is admitted while something is left; it is charged an
estimate of its tokens, and what it really used when that is known. So a key may overdraw by what it
has in flight, and waits accordingly longer. Counted in this process: a restart begins anew.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from ridgeline_service.errors import ThrottlingException
from ridgeline_service.gateway.auth import Caller
from ridgeline_service.gateway.http import Exchange
from ridgeline_service.gateway.metrics import Metrics
from ridgeline_service.replica_protocol import Usage
from ridgeline_service.snapshot import KeyLimits, Snapshot

_MINUTE = 60.0
_BYTES_PER_TOKEN = 4


class RateLimited(ThrottlingException):
    """A key is over one of its limits. ``what`` is ``requests`` or ``tokens``; ``current`` what of
    the limit is used up; ``reset_s`` the time until all of it is there again."""

    def __init__(
        self,
        what: str,
        key_id: str,
        *,
        limit: int,
        current: int,
        retry_after_s: float,
        reset_s: float,
    ) -> None:
        super().__init__(
            f"Rate limit reached for key {key_id}: {what} per minute. Limit {limit}, "
            f"current {current}. Try again in {duration(retry_after_s)}; all of it is there again "
            f"in {duration(reset_s)}.",
            retry_after_s=math.ceil(retry_after_s),
        )
        self.what = what
        self.limit = limit
        self.current = current
        self.reset_s = reset_s


@dataclass
class _Bucket:
    """``capacity`` a minute. ``level`` is what was left ``at`` that time; below 0 it is a debt."""

    what: str
    capacity: int
    at: float
    level: float = field(init=False)

    def __post_init__(self) -> None:
        self.level = float(self.capacity)

    def refill(self, now: float) -> None:
        self.level = min(
            float(self.capacity), self.level + (now - self.at) * self.capacity / _MINUTE
        )
        self.at = now

    def wait(self, amount: float) -> float:
        """Seconds until ``amount`` is there."""
        return max(0.0, (amount - self.level) * _MINUTE / self.capacity)

    def headers(self) -> list[tuple[str, str]]:
        """As OpenAI names them."""
        return [
            (f"x-ratelimit-limit-{self.what}", str(self.capacity)),
            (f"x-ratelimit-remaining-{self.what}", str(max(0, math.floor(self.level)))),
            (f"x-ratelimit-reset-{self.what}", duration(self.wait(self.capacity))),
        ]


class Meter:
    """One admitted request's account of tokens. ``settle`` it when its usage is known."""

    def __init__(self, bucket: _Bucket | None, charged: float, prompt: int) -> None:
        self._bucket = bucket
        self._charged = charged
        self._prompt = prompt

    @property
    def counts(self) -> bool:
        """Whether anybody wants to know the usage."""
        return self._bucket is not None

    def settle(self, usage: Usage | None) -> None:
        """Charge what was really used instead of the estimate; nothing, where nothing is known."""
        self._charge(0 if usage is None else usage.total)

    def broken_off(self, tokens: int) -> None:
        """Nobody will say what was used: about ``tokens`` were passed on before the end."""
        self._charge(max(self._charged, self._prompt + tokens))

    def _charge(self, tokens: float) -> None:
        if self._bucket is not None:
            self._bucket.level += self._charged - tokens
            self._charged = tokens


UNMETERED = Meter(None, 0, 0)


class Limiter:
    """The buckets of every key that has limits. ``clock`` is monotonic, in seconds."""

    def __init__(
        self, snapshot: Callable[[], Snapshot], metrics: Metrics, clock: Callable[[], float]
    ) -> None:
        self._snapshot = snapshot
        self._metrics = metrics
        self._clock = clock
        self._of: tuple[KeyLimits, ...] = ()
        self._keys: dict[str, _Key] = {}

    def admit(
        self, exchange: Exchange, caller: Caller, body: bytes, wanted_tokens: int = 0
    ) -> Meter:
        """Let a request of the caller's pass and charge it; its answer will say what is left.

        Raises RateLimited.
        """
        self._refresh()
        key = self._keys.get(caller.principal)
        if key is None:
            return UNMETERED
        try:
            return self._charge(key, len(body) // _BYTES_PER_TOKEN, max(0, wanted_tokens))
        finally:
            exchange.answer_headers += key.headers()

    def _charge(self, key: _Key, prompt: int, wanted: int) -> Meter:
        now = self._clock()
        charges: list[tuple[_Bucket, float]] = []
        if key.requests is not None:
            charges.append((key.requests, 1.0))
        if key.tokens is not None:
            # More than a minute's worth would never pass: it waits for a full bucket instead.
            charges.append((key.tokens, min(float(prompt + wanted), key.tokens.capacity)))
        for bucket, amount in charges:
            bucket.refill(now)
            if bucket.level < amount:
                self._metrics.rate_limited.labels(bucket.what).inc()
                raise RateLimited(
                    bucket.what,
                    key.key_id,
                    limit=bucket.capacity,
                    current=math.ceil(bucket.capacity - bucket.level),
                    retry_after_s=bucket.wait(amount),
                    reset_s=bucket.wait(bucket.capacity),
                )
        for bucket, amount in charges:
            bucket.level -= amount
        return UNMETERED if key.tokens is None else Meter(key.tokens, charges[-1][1], prompt)

    def _refresh(self) -> None:
        """Follow the snapshot: new keys start with all they have, the others go on."""
        limits = self._snapshot().limits
        if limits is self._of:
            return
        self._of = limits
        known = {key.key_id: key for key in self._keys.values()}
        self._keys = {}
        for limit in limits:
            key = known.get(limit.key_id) or _Key.of(limit, self._clock())
            self._keys[limit.key_id] = self._keys[limit.access_key_id] = key


@dataclass
class _Key:
    key_id: str
    requests: _Bucket | None
    tokens: _Bucket | None

    def headers(self) -> list[tuple[str, str]]:
        return [h for bucket in (self.requests, self.tokens) if bucket for h in bucket.headers()]

    @classmethod
    def of(cls, limit: KeyLimits, now: float) -> _Key:
        def bucket(what: str, capacity: int | None) -> _Bucket | None:
            return None if capacity is None else _Bucket(what, capacity, now)

        return cls(
            limit.key_id,
            bucket("requests", limit.requests_per_minute),
            bucket("tokens", limit.tokens_per_minute),
        )


def duration(seconds: float) -> str:
    """As OpenAI writes them: ``20ms``, ``1.5s``, ``6m0s``."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(math.ceil(seconds * 10) / 10, 60)
    return f"{int(minutes)}m{math.ceil(rest)}s" if minutes else f"{rest:g}s"
