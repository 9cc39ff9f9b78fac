"""A plan as a picture: time against cost, as SVG and in characters. Both axes are logarithmic.
Knows nothing but points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, log10
from xml.sax.saxutils import escape

_COLOURS = ("#4c72b0", "#dd8452", "#55a868", "#c44e52", "#8172b3", "#937860", "#da8bc3", "#8c8c8c")
_OPAQUE = {True: 1, False: 0.55}
_WIDTH, _HEIGHT = 720, 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 150, 28, 48


@dataclass(frozen=True, slots=True)
class Point:
    """`group`: what is drawn alike. `best`: nothing is both cheaper and faster; `misses`: it is
    not what was asked for."""

    cost: float
    milliseconds: float
    group: str
    label: str
    best: bool = False
    misses: bool = False


@dataclass(frozen=True, slots=True)
class Axes:
    """What the axes count: milliseconds of one `step`, and a million `things`."""

    step: str = "token"
    things: str = "tokens"


@dataclass(frozen=True, slots=True)
class _Axis:
    """From values to places between `begin` and `end`."""

    low: float
    high: float
    begin: float
    end: float

    def place(self, value: float) -> float:
        share = log10(value / self.low) / log10(self.high / self.low)
        return self.begin + share * (self.end - self.begin)

    def ticks(self) -> list[float]:
        """1, 2 and 5 times powers of ten."""
        first, last = floor(log10(self.low)), floor(log10(self.high)) + 1
        marks = [m * 10.0**power for power in range(first, last + 1) for m in (1, 2, 5)]
        return [mark for mark in marks if self.low <= mark <= self.high]


def svg(points: Sequence[Point], title: str, axes: Axes) -> str:
    """A page of its own. `points` must not be empty."""
    x = _axis([one.cost for one in points], _LEFT, _WIDTH - _RIGHT)
    y = _axis([one.milliseconds for one in points], _HEIGHT - _BOTTOM, _TOP)
    groups = sorted({one.group for one in points})
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<text x="{_LEFT}" y="16" font-size="13">{escape(title)}</text>',
        *_grid(x, y, axes),
        *_front(points, x, y),
    ]
    for one in sorted(points, key=lambda point: point.best):
        colour = _COLOURS[groups.index(one.group) % len(_COLOURS)]
        place = f'cx="{x.place(one.cost):.1f}" cy="{y.place(one.milliseconds):.1f}"'
        title = f"<title>{escape(one.label)}</title>"
        parts.append(f"<circle {place} {_look(one, colour)}>{title}</circle>")
    for row, group in enumerate(groups):
        colour, top = _COLOURS[row % len(_COLOURS)], _TOP + 8 + 16 * row
        left = _WIDTH - _RIGHT + 16
        parts.append(f'<circle cx="{left}" cy="{top}" r="4" fill="{colour}"/>')
        parts.append(f'<text x="{left + 10}" y="{top + 4}">{escape(group)}</text>')
    parts += _key(points, _TOP + 24 + 16 * len(groups))
    return "\n".join([*parts, "</svg>", ""])


def _look(point: Point, colour: str) -> str:
    if point.misses:
        return f'r="3" fill="none" stroke="{colour}" stroke-opacity="0.7"'
    return f'r="{5 if point.best else 3}" fill="{colour}" fill-opacity="{_OPAQUE[point.best]}"'


def _key(points: Sequence[Point], top: int) -> list[str]:
    """What the kinds of points mean, of those there are."""
    examples = {
        "cheapest at its speed": Point(0, 0, "", "", best=True),
        "another setting": Point(0, 0, "", ""),
        "misses a target": Point(0, 0, "", "", misses=True),
    }
    parts = []
    left = _WIDTH - _RIGHT + 16
    for words, example in examples.items():
        if any((one.best, one.misses) == (example.best, example.misses) for one in points):
            parts.append(f'<circle cx="{left}" cy="{top}" {_look(example, "#555")}/>')
            parts.append(f'<text x="{left + 10}" y="{top + 4}">{words}</text>')
            top += 16
    return parts


def characters(points: Sequence[Point], axes: Axes, *, width: int = 64, height: int = 16) -> str:
    """For a terminal: a letter for each group, capital where nothing is both cheaper and faster.
    `points` must not be empty."""
    x = _axis([one.cost for one in points], 0, width - 1)
    y = _axis([one.milliseconds for one in points], height - 1, 0)
    groups = sorted({one.group for one in points})
    rows = [[" "] * width for _ in range(height)]
    for one in sorted(points, key=lambda point: point.best):
        letter = chr(ord("a") + groups.index(one.group) % 26)
        place = round(y.place(one.milliseconds)), round(x.place(one.cost))
        rows[place[0]][place[1]] = letter.upper() if one.best else letter
    marks = {round(y.place(tick)): f"{tick:g}" for tick in y.ticks()}
    lines = [f"ms/{axes.step}"]
    lines += [f"{marks.get(row, ''):>8} |{''.join(cells)}" for row, cells in enumerate(rows)]
    lines.append(f"{'':>8} +{'-' * width}")
    foot = [" "] * (width + 8)
    for tick in x.ticks():
        text = f"{tick:g}"
        at = round(x.place(tick))
        if all(cell == " " for cell in foot[max(0, at - 1) : at + len(text) + 1]):
            foot[at : at + len(text)] = text
    lines.append(f"{'':>10}{''.join(foot).rstrip()}  USD/M {axes.things}")
    names = (f"{chr(ord('a') + place % 26)} {name}" for place, name in enumerate(groups))
    return "\n".join([*lines, "  ".join(names)])


def _axis(values: Sequence[float], begin: float, end: float) -> _Axis:
    return _Axis(min(values) / 1.15, max(values) * 1.15, begin, end)


def _grid(x: _Axis, y: _Axis, axes: Axes) -> list[str]:
    low, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts = []
    for tick in x.ticks():
        at = x.place(tick)
        parts.append(f'<path d="M{at:.1f} {_TOP}V{low}" stroke="#ddd"/>')
        parts.append(f'<text x="{at:.1f}" y="{low + 16}" text-anchor="middle">{tick:g}</text>')
    for tick in y.ticks():
        at = y.place(tick)
        parts.append(f'<path d="M{_LEFT} {at:.1f}H{right}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{tick:g}</text>')
    middle = (_LEFT + right) // 2
    parts.append(
        f'<text x="{middle}" y="{low + 36}" text-anchor="middle">'
        f"USD per million {axes.things}</text>"
    )
    half = (_TOP + low) // 2
    parts.append(
        f'<text x="16" y="{half}" text-anchor="middle" transform="rotate(-90 16 {half})">'
        f"ms per {axes.step}</text>"
    )
    return parts


def _front(points: Sequence[Point], x: _Axis, y: _Axis) -> list[str]:
    best = sorted((one.cost, one.milliseconds) for one in points if one.best)
    if len(best) < 2:
        return []
    line = " ".join(f"{x.place(cost):.1f},{y.place(time):.1f}" for cost, time in best)
    return [f'<polyline points="{line}" fill="none" stroke="#888" stroke-dasharray="4 3"/>']
