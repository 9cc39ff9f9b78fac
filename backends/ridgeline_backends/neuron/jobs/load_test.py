"""`python -m ridgeline_backends.neuron.jobs.load_test`: what settings bear, simulated.

Reads one order as JSON, writes one line of JSON: for each test the setting that answers a request
at the least cost, at the most users that keep the limits, or why there is none. Users send their
next request when the one before has been answered, against the scheduler that serves, on a virtual
clock. No endpoint is started, nothing is measured. Imports no torch.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Protocol

from ridgeline.errors import RidgelineError
from ridgeline_backends.errors import BackendError
from ridgeline_backends.neuron.builders.configs import context_length
from ridgeline_backends.neuron.builders.text_encoder_configs import text_encoder
from ridgeline_backends.neuron.encoder_planner import EncoderTarget, make_encoder_plan
from ridgeline_backends.neuron.jobs.served import Served, served_decoder, served_encoder
from ridgeline_backends.neuron.planner import Target, make_plan
from ridgeline_backends.neuron.planning.deployment import environment
from ridgeline_backends.neuron.planning.ranking import Candidate, Plan, Setting
from ridgeline_backends.neuron.serving.load import Lengths, Load
from ridgeline_backends.neuron.serving.outcome import Outcome

_PROMPT, _ANSWER, _TEXT = 512, 128, 128
"""Tokens of a request that nobody gave a sample of: of a prompt, its answer, or a text."""

_REQUESTS = 200
"""Of one level of users, at least: enough for a 95th percentile."""

_TRIED = 3
"""So many of the cheapest settings of an instance type, and the fastest, are put under load."""

_FLAT = 1.05
"""A rate that more users raise by less than this factor has become flat."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One instance type; None leaves a choice open: of `copies` of the model as many as there is
    room for, of `lnc` what endpoints have unless told otherwise, of `quantized` no unless only
    8-bit weights fit. `length`: positions of a sequence."""

    instance: str
    tp: int | None = None
    copies: int | None = None
    lnc: int | None = None
    batch: int | None = None
    quantized: bool | None = None
    length: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """`prompt` and `answer`: tokens, of an encoder those of each of its `texts`; None: not known.
    `levels`: users and for how many seconds, one after the other; none: users double until the
    rate is flat. A level counts while `share` of its requests take at most `limit_s`;
    `enough_per_minute` requests end a test, and so does a flat rate with `stop_when_flat`."""

    config: Mapping[str, object]
    tests: Sequence[Wanted]
    prompt: int | None = None
    answer: int | None = None
    texts: int = 1
    levels: Sequence[tuple[int, float]] = ()
    share: float = 0.95
    limit_s: float | None = None
    enough_per_minute: int | None = None
    stop_when_flat: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Borne:
    """What one instance bears: `users` at once, with `per_minute` requests answered. `environment`:
    of a model that is deployed so."""

    tp: int
    copies: int
    lnc: int
    batch: int
    quantized: bool
    users: int
    per_minute: float
    latency_s: float
    core_bytes: int
    core_bytes_available: int
    usd_per_hour: float | None
    label: str
    environment: Mapping[str, str]


class _Serve(Protocol):
    """How a setting serves a test."""

    def __call__(self, setting: Setting, length: int | None) -> Served: ...


def run(order: Order) -> list[Borne | str]:
    """For each test what is borne, or why nothing is. Raises `InvalidModel`, and `InvalidInput` for
    texts that the model does not read."""
    encoder = text_encoder(order.config)
    plan: Plan[Candidate]
    serve: _Serve
    if encoder is not None:
        model = encoder.config
        tokens = order.prompt or min(_TEXT, model.context_length)
        plan = make_encoder_plan(model, EncoderTarget(seq=tokens))
        serve = partial(served_encoder, model, [tokens] * order.texts)
    else:
        declared = context_length(order.config)
        asked = _lengths(order, declared)
        plan = make_plan(order.config, Target(prompt=asked.prompt, answer=asked.answer))

        def serve(setting: Setting, length: int | None) -> Served:
            lengths = _lengths(order, min(filter(None, (length, declared)), default=None))
            return served_decoder(order.config, lengths, setting, length)

    return [_tested(test, order, plan, serve) for test in order.tests]


def _lengths(order: Order, longest: int | None) -> Lengths:
    """Of requests: as the order has them, else as usual, if there are positions for so many."""
    usual = Lengths(prompt=_PROMPT, answer=_ANSWER)
    return usual.within(longest, prompt=order.prompt, answer=order.answer)


def _tested(test: Wanted, order: Order, plan: Plan[Candidate], serve: _Serve) -> Borne | str:
    settings = list(_settings(test, plan.options))
    if not settings:
        return plan.left_out.get(test.instance) or _no_setting(test, plan)
    found: list[Borne] = []
    refusal = ""
    for setting in settings:
        try:
            copies = test.copies or setting.copies
            found.append(_under_load(setting, copies, serve(setting, test.length), order))
        except _TooSlow as slow:
            refusal = refusal or str(slow)
        except BackendError as error:
            refusal = refusal or f"{error.message} {error.hint}".strip()
    if not found:
        return refusal
    return max(found, key=lambda one: one.per_minute)


def _settings(test: Wanted, options: Sequence[Candidate]) -> Iterator[Setting]:
    """The cheapest, and the fastest to answer alone."""
    kept = _shaped(test, options)
    eight_bit = test.quantized
    if eight_bit is None:
        eight_bit = all(one.setting.quantized for one in kept)
    kept = [one for one in kept if one.setting.quantized is eight_bit]
    fastest = sorted(kept, key=lambda one: one.alone_s)[:1]
    seen: set[Setting] = set()
    for one in chain(fastest, kept):
        setting = replace(one.setting, batch=test.batch or one.setting.batch)
        if setting not in seen and len(seen) <= _TRIED:
            seen.add(setting)
            yield setting


def _shaped(test: Wanted, options: Sequence[Candidate]) -> list[Candidate]:
    """With the cores and copies that are asked for, whatever the weights."""
    return [
        one
        for one in _own(test, options)
        if test.tp in (None, one.setting.tp) and (test.copies or 1) <= one.setting.copies
    ]


def _own(test: Wanted, options: Sequence[Candidate]) -> list[Candidate]:
    """Of the instance type, with the logical cores that an endpoint there has."""
    return [
        one
        for one in options
        if one.setting.instance.name == test.instance
        and one.setting.lnc == (test.lnc or one.setting.instance.chip.default_lnc)
    ]


def _no_setting(test: Wanted, plan: Plan[Candidate]) -> str:
    own = _own(test, plan.options)
    degrees = {one.setting.tp for one in own}
    if not own:
        if any(one.setting.instance.name == test.instance for one in plan.options):
            return f"its chip has no logical NeuronCore configuration {test.lnc}"
        return "only simulated Neuron instance types are predicted"
    if test.tp is not None and test.tp not in degrees:
        listed = ", ".join(map(str, sorted(degrees)))
        return f"it does not fit at tensor-parallel degree {test.tp}; it does at {listed}"
    most = max(one.setting.copies for one in own if test.tp in (None, one.setting.tp))
    if test.copies is not None and test.copies > most:
        return f"it has no room for {test.copies} copies of the model; it has for {most}"
    if test.quantized:
        return "the matrices of encoders are not quantised"
    return "it fits with 8-bit weights alone; OPTION_QUANTIZE=int8 asks for them"


class _TooSlow(Exception):
    """No number of users keeps the limit."""


def _under_load(setting: Setting, copies: int, served: Served, order: Order) -> Borne:
    users, per_minute, latency_s = _borne(served, copies, setting.batch, order)
    return Borne(
        tp=setting.tp,
        copies=copies,
        lnc=setting.lnc,
        batch=setting.batch,
        quantized=setting.quantized,
        users=users,
        per_minute=per_minute,
        latency_s=latency_s,
        core_bytes=served.core_bytes,
        core_bytes_available=setting.instance.core_memory_bytes(setting.lnc),
        usd_per_hour=setting.instance.price_usd_h,
        label=served.label,
        environment=environment(setting, copies=copies, length=served.positions),
    )


def _borne(served: Served, copies: int, batch: int, order: Order) -> tuple[int, float, float]:
    """Users, requests a minute and latency of the best level. Raises `_TooSlow`."""
    best: tuple[int, float, float] | None = None
    for users, seconds in order.levels or _doubling(copies * batch):
        rate, latency_s = _level(served, copies, users, seconds, order)
        if not rate:
            continue
        if order.limit_s is not None and latency_s > order.limit_s:
            if best is None:
                raise _TooSlow(
                    f"{order.share:.0%} of the requests of {users} users take "
                    f"{latency_s * 1e3:.0f} ms, the limit is {order.limit_s * 1e3:.0f} ms"
                )
            break
        flat = best is not None and users > best[0] and rate * 60 < best[1] * _FLAT
        if not flat and (best is None or rate * 60 > best[1]):
            best = users, rate * 60, latency_s
        enough = order.enough_per_minute is not None and rate * 60 >= order.enough_per_minute
        if enough or (flat and order.stop_when_flat):
            break
    if best is None:
        raise _TooSlow("no request is answered before the traffic ends")
    return best


def _level(
    served: Served, copies: int, users: int, seconds: float, order: Order
) -> tuple[float, float]:
    """Requests a second of all copies of the model, and the latency of the busiest: users are
    spread evenly. Both are 0 where none is answered in time."""
    few, more = divmod(users, copies)
    rate, busiest = 0.0, None
    for clients, times in ((few, copies - more), (few + 1, more)):
        if clients and times:
            busiest = _run(served, clients, seconds)
            rate += busiest.requests_s * times
    assert busiest is not None, "a level has at least one user"
    return rate, busiest.latency(order.share)


def _run(served: Served, clients: int, seconds: float) -> Outcome:
    requests = max(_REQUESTS, 4 * clients)
    lengths = served.lengths
    return served.run(Load(lengths=lengths, clients=clients, requests=requests, seconds=seconds))


def _doubling(full: int) -> Iterator[tuple[int, float]]:
    """From one user to twice as many as decode at once on an instance."""
    users = 1
    while users < 2 * full:
        yield users, 3600.0
        users *= 2
    yield 2 * full, 3600.0


def main() -> int:
    """Exit status 0 with a result, 1 with an error; both are printed."""
    given = json.load(sys.stdin)
    order = Order(**{**given, "tests": [Wanted(**one) for one in given["tests"]]})
    try:
        found = [one if isinstance(one, str) else _json(one) for one in run(order)]
        _say({"result": found})
    except RidgelineError as error:
        said = {"code": error.code, "message": error.message, "hint": error.hint or ""}
        _say({"error": said})
        return 1
    return 0


def _say(message: Mapping[str, object]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def _json(borne: Borne) -> dict[str, object]:
    return {name: getattr(borne, name) for name in Borne.__slots__}


if __name__ == "__main__":
    sys.exit(main())
