"""Several copies of a model: sequences are spread over them, and each is answered as by one."""

from __future__ import annotations

import threading

import pytest

from ridgeline_backends.base import Step, StepResult
from ridgeline_backends.device_time import DeviceTime, SimulatedDevice
from ridgeline_backends.engine import EngineOutput, FinishReason, LLMEngine, SamplingParams
from ridgeline_backends.engine.data_parallel import DataParallelEngine
from ridgeline_backends.errors import DuplicateSequence, EngineStopped, QueueFull
from ridgeline_backends.testing import FakeRunner, next_token, paged_limits

GREEDY = SamplingParams(max_tokens=5, temperature=0, seed=3, ignore_eos=True)
VOCABULARY = 200
DEVICE = SimulatedDevice(
    instance_type="inf2.48xlarge",
    cores=8,
    copies=2,
    logical_neuroncore_config=1,
    usd_per_hour=3600.0,
    label="calibrated",
)


class Simulated(FakeRunner):
    """Each step is predicted to take 2 s."""

    @property
    def simulates(self) -> SimulatedDevice:
        return DEVICE

    def execute(self, step: Step) -> StepResult:
        found = super().execute(step)
        return StepResult(
            tokens=found.tokens, device_time=DeviceTime(seconds=2.0, low=1.0, high=4.0)
        )


class Copies:
    """An engine of two copies, which are stepped by hand unless they are started."""

    def __init__(self, **options: int) -> None:
        self.each = [
            LLMEngine(Simulated(paged_limits(), vocab_size=VOCABULARY), **options)  # type: ignore[arg-type]
            for _ in range(2)
        ]
        self.engine = DataParallelEngine(self.each)
        self.news: dict[str, list[EngineOutput]] = {}
        self.ended: dict[str, threading.Event] = {}

    def submit(self, name: str, *prompt: int, params: SamplingParams = GREEDY) -> None:
        news = self.news[name] = []
        ended = self.ended[name] = threading.Event()

        def hear(output: EngineOutput) -> None:
            news.append(output)
            if output.finish_reason is not None:
                ended.set()

        self.engine.submit(name, prompt, params, hear)

    def tokens(self, name: str) -> list[int]:
        return [token for one in self.news[name] for token in one.token_ids]

    def held(self) -> list[int]:
        return [one.stats().running + one.stats().waiting for one in self.each]


def expected(*prompt: int) -> list[int]:
    tokens = list(prompt)
    for _ in range(5):
        tokens.append(next_token(tokens, 3, VOCABULARY))
    return tokens[len(prompt) :]


def test_sequences_go_where_the_fewest_are() -> None:
    copies = Copies()
    for name in "abcd":
        copies.submit(name, ord(name))
    assert copies.held() == [2, 2]
    while copies.each[0].step():
        pass
    assert copies.held() == [0, 2]
    copies.submit("e", 1)
    copies.submit("f", 2)
    assert copies.held() == [2, 2]
    assert copies.tokens("a") == expected(ord("a"))


def test_all_copies_are_counted_together() -> None:
    copies = Copies(max_waiting=3)
    for name in "abc":
        copies.submit(name, ord(name))
    assert copies.engine.stats().waiting == 3
    assert copies.engine.stats().max_waiting == 6
    for one in copies.each:
        while one.step():
            pass
    found = copies.engine.stats()
    assert (found.finished, found.generated_tokens, found.steps) == (3, 15, 10)
    assert found.simulated == DeviceTime(seconds=20.0, low=10.0, high=40.0)
    # A copy has half of the instance, which costs a dollar a second.
    assert DEVICE.usd(20.0) == pytest.approx(10.0)


def test_a_sequence_waits_for_steps_of_its_own_copy_alone() -> None:
    copies = Copies()
    copies.submit("a", 1)
    copies.submit("b", 2)
    while copies.each[0].step():
        pass
    while copies.each[1].step():
        pass
    for name in "ab":
        last = copies.news[name][-1].simulated
        assert last is not None
        assert last.total.seconds == pytest.approx(10.0)


def test_cancelling_finds_the_copy() -> None:
    copies = Copies()
    copies.submit("a", 1)
    copies.submit("b", 2)
    copies.engine.cancel("b")
    for one in copies.each:
        while one.step():
            pass
    assert copies.news["b"][-1].finish_reason is FinishReason.CANCELLED
    assert copies.tokens("a") == expected(1)


def test_an_id_may_be_used_again_once_its_sequence_ended() -> None:
    copies = Copies()
    copies.submit("a", 1)
    with pytest.raises(DuplicateSequence):
        copies.submit("a", 2)
    while copies.each[0].step():
        pass
    copies.submit("a", 2)
    assert copies.held() == [1, 0]


def test_a_reader_that_raises_leaves_room() -> None:
    copies = Copies()

    def broken(output: EngineOutput) -> None:
        raise ValueError("a reader's bug")

    copies.engine.submit("a", (1,), GREEDY, broken)
    while copies.each[0].step():
        pass
    for name in "bc":
        copies.submit(name, 1)
    assert copies.held() == [1, 1]


def test_it_refuses_when_all_are_full() -> None:
    copies = Copies(max_waiting=1)
    copies.submit("a", 1)
    copies.submit("b", 2)
    for _ in range(2):
        with pytest.raises(QueueFull):
            copies.submit("c", 3)


def test_every_copy_works_on_a_thread_of_its_own_until_it_is_stopped() -> None:
    copies = Copies()
    copies.engine.start()
    names = [str(number) for number in range(12)]
    for name in names:
        copies.submit(name, int(name))
    for name in names:
        assert copies.ended[name].wait(20)
        assert copies.tokens(name) == expected(int(name))
    assert all(one.stats().finished for one in copies.each)
    copies.engine.stop()
    assert not copies.engine.stats().alive
    with pytest.raises(EngineStopped):
        copies.submit("late", 1)
