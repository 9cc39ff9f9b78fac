"""How settings are ranked: by what was tried at the wanted rate, by cost, and by cores where no
price is listed; without the times of any model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from hypothesis import given
from hypothesis import strategies as st

from ridgeline_backends.neuron.devices import instance
from ridgeline_backends.neuron.planning.ranking import Candidate, Plan, Setting, ranked
from ridgeline_backends.neuron.timing.predict import Prediction

PRICED, UNPRICED = instance("inf2.48xlarge"), instance("trn2.48xlarge")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed(Candidate):
    rate: float
    seconds: float
    held: bool = False

    @property
    def each_s(self) -> float:
        return self.rate

    @property
    def pace(self) -> Prediction:
        return Prediction(self.seconds, self.seconds, self.seconds, "calibrated")

    @property
    def alone_s(self) -> float:
        return self.seconds


@dataclass
class Sweep:
    """Of settings by batch: tokens a second, seconds of a token, and whether the rate is held;
    `grown`: instances under load."""

    settings: dict[int, tuple[float, float, bool]]
    bytes: dict[int, int] = field(default_factory=dict)
    grown: dict[int, int] = field(default_factory=dict)
    tried: list[int] = field(default_factory=list)

    def core_bytes(self, setting: Setting) -> int:
        return self.bytes.get(setting.batch, 1)

    def check(self, setting: Setting) -> None:
        pass

    def option(self, setting: Setting) -> Timed:
        rate, seconds, _ = self.settings[setting.batch]
        return Timed(
            setting=setting, core_bytes=1, instances=1, wanted=rate, misses=(), rate=rate,
            seconds=seconds,
        )  # fmt: skip

    def under_load(self, option: Timed, rps: float) -> Timed:
        batch = option.setting.batch
        self.tried.append(batch)
        if self.settings[batch][2]:
            return replace(option, held=True, instances=self.grown.get(batch, 1))
        return replace(option, misses=(f"at {rps:g} requests a second it misses its targets",))


def plan(sweep: Sweep, *, rps: float | None = None, priced: bool = True) -> Plan[Timed]:
    on = PRICED if priced else UNPRICED
    settings = [Setting(instance=on, lnc=1, tp=8, batch=batch) for batch in sweep.settings]
    return ranked(sweep, settings, rps)


def batches(options: Sequence[Timed]) -> list[int]:
    return [one.setting.batch for one in options]


def test_no_option_is_one_that_was_not_tried_at_the_rate() -> None:
    """The eight cheapest failed, and the ninth was called the cheapest that meets the targets."""
    sweep = Sweep({batch: (1000 - batch, 0.01, batch > 15) for batch in range(1, 21)})
    found = plan(sweep, rps=5)
    assert batches(found.options) == [16, 17, 18, 19, 20]
    assert all(one.held for one in found.options)
    assert batches(found.near) == list(range(1, 16))


def test_dearer_options_are_tried_for_their_speed() -> None:
    sweep = Sweep(
        {batch: (1000 - batch, 0.02 if batch < 30 else 0.01, True) for batch in range(1, 41)}
    )
    found = plan(sweep, rps=5)
    assert batches(found.options) == [1, 2, 3, 4, 5, 30]
    assert batches(found.front) == [1, 30]
    assert batches(found.untried) == [*range(6, 30), *range(31, 41)]
    assert not found.near


def test_what_grows_dearer_under_load_does_not_keep_cheaper_ones_from_a_try() -> None:
    sweep = Sweep({batch: (1000 - batch, 0.02, True) for batch in range(1, 9)})
    sweep.grown = dict.fromkeys(range(1, 6), 3)
    found = plan(sweep, rps=5)
    assert batches(found.options) == [6, 1, 2, 3, 4, 5]
    assert batches(found.untried) == [7, 8]


@given(
    st.lists(
        st.tuples(st.floats(1, 1000), st.floats(0.001, 0.1), st.booleans()), min_size=1, max_size=60
    ),
    st.booleans(),
    st.lists(st.integers(1, 3), min_size=60, max_size=60),
)
def test_every_setting_is_an_option_or_near_once(
    settings: list[tuple[float, float, bool]], priced: bool, grown: list[int]
) -> None:
    sweep = Sweep(dict(enumerate(settings, 1)), grown=dict(enumerate(grown, 1)))
    found = plan(sweep, rps=1.0, priced=priced)
    every = [*found.options, *found.near, *found.untried]
    assert sorted(batches(every)) == sorted(sweep.settings)
    assert all(one.held for one in found.options)
    assert all(one.misses for one in found.near)
    assert len(sweep.tried) == len(set(sweep.tried))
    if found.options and priced:
        cheapest = found.options[0].usd_per_million or 0
        assert all((one.usd_per_million or 0) >= cheapest for one in found.untried)


def test_of_equally_cheap_settings_the_fastest_is_the_cheapest() -> None:
    """One instance is paid for whole: at a low rate all of its settings cost the same."""
    found = plan(Sweep({2: (500, 0.03, True), 8: (500, 0.01, True), 9: (500, 0.02, True)}), rps=5)
    assert batches(found.options) == [8, 9, 2]
    assert batches(found.front) == [8]


def test_without_a_price_the_fewest_cores_for_a_token_come_first() -> None:
    """Not the name of the setting: the worst of an instance type was called the first."""
    found = plan(
        Sweep({1: (53, 0.02, True), 8: (314, 0.03, True), 32: (604, 0.05, True)}), priced=False
    )
    assert batches(found.options) == [32, 8, 1]


def test_what_is_left_out_says_how_close_it_comes() -> None:
    sweep = Sweep({1: (1, 1, True), 2: (1, 1, True)}, bytes={1: 90 << 30, 2: 20 << 30})
    assert "20.0 GiB a core of 16 at TP 8, batch 2" in plan(sweep).left_out["inf2.48xlarge"]
