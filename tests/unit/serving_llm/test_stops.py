"""Stop strings are found however the text is cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ridgeline_service.serving.llm.text.stops import StopMatcher

SHORT = st.text(alphabet="abc", max_size=24)
STOPS = st.lists(st.text(alphabet="abc", min_size=1, max_size=4), max_size=4)


def run(parts: list[str], stops: list[str]) -> tuple[str, str | None]:
    matcher = StopMatcher(stops)
    shown = "".join(matcher.push(part) for part in parts)
    return shown + matcher.flush(), matcher.matched


@given(SHORT, STOPS, st.lists(st.integers(0, 5)))
def test_any_cut_gives_the_result_of_single_characters(
    text: str, stops: list[str], sizes: list[int]
) -> None:
    parts, start = [], 0
    for size in sizes:
        parts.append(text[start : start + size])
        start += size
    parts.append(text[start:])

    shown, matched = run(parts, stops)

    assert (shown, matched) == run(list(text), stops)
    if matched is None:
        assert shown == text
        assert not any(stop in text for stop in stops)
    else:
        assert text.startswith(shown + matched)
        assert not any(stop in shown for stop in stops)


@given(SHORT, STOPS)
def test_only_what_may_become_a_stop_string_is_held_back(text: str, stops: list[str]) -> None:
    matcher = StopMatcher(stops)
    shown = "".join(matcher.push(character) for character in text)

    if matcher.matched is None:
        held = text[len(shown) :]
        assert held == "" or any(stop.startswith(held) for stop in stops)


def test_the_stop_string_that_ends_first_wins() -> None:
    assert run(["xabcx"], ["abc", "b"]) == ("xa", "b")
    assert run(["xabx"], ["ab", "b"]) == ("x", "ab")


def test_nothing_follows_a_match() -> None:
    matcher = StopMatcher(["."])

    assert matcher.push("one. two") == "one"
    assert matcher.push("three") == ""
    assert matcher.flush() == ""


def test_a_stop_string_counts_if_it_ends_where_one_looks() -> None:
    matcher = StopMatcher(["ab", "abc"])
    shown = [matcher.push("xab", looking=False), matcher.push("ab", looking=False)]
    assert matcher.matched is None
    shown.append(matcher.push("c. "))
    assert ("".join(shown), matcher.matched) == ("xab", "abc")
    other = StopMatcher(["ab"])
    assert other.push("ab", looking=False) + other.push("!") == "ab!"
    assert other.push("a", looking=False) + other.push("b.") == ""
    assert other.matched == "ab"
