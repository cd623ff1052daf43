"""Small plots as SVG text, for a report that is one file and asks nobody for anything. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 560, 300  # higher where the names of the lines take more than one row
LEFT, RIGHT, BOTTOM = 64, 14, 48
INSET = 10  # so that the first and the last point do not lie on the frame
NAMES_TOP, NAMES_ROW = 34, 18
CHARACTER = 8  # the widest that one of a name is on average, at the report's 13 px
# As far from white as from the dark scheme's paper.
COLOURS = ("#2878ee", "#dd3b40", "#218739", "#a06d00", "#8d5ee8", "#0b84ab", "#cc4595")
DASHES = ("none", "7 4", "3 3", "10 3 2 3")  # where two lines are the same, the one below shows through the one above
DOTS = (4.4, 3.2, 2.2)  # likewise: a ring of the one below
TICKS, MOST_TICKS = 5, 8
HEADROOM = 1.05

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """A named row of points, with the spread (lowest, highest) around each where there is one; not joined, they are dots alone."""

    name: str
    points: Sequence[Point]
    spread: Sequence[tuple[float, float]] = ()
    is_joined: bool = True


def plot(title: str, x_name: str, y_name: str, lines: Sequence[Line], *, x_log: bool = False) -> str:
    """An SVG element; a sentence in its place where there is nothing to draw."""
    lines = [line for line in lines if line.points]
    if not lines:
        return f'<figure class="empty"><figcaption>{escape(title)}</figcaption><p>Nothing was measured for this.</p></figure>'
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points] + [high for line in lines for _, high in line.spread]
    names = _name_places(lines)
    height = HEIGHT + names[-1][1] - NAMES_TOP
    beside = abs(xs[0]) / 2 if min(xs) == max(xs) else 0  # a single value stands in the middle
    x_axis = _Axis(min(xs) - beside, max(xs) + beside, LEFT + INSET, WIDTH - RIGHT - INSET, x_log)
    y_axis = _Axis(0.0, HEADROOM * max(ys), height - BOTTOM, names[-1][1] + 14)
    parts = [*_frame(title, x_name, y_name, x_axis, y_axis)]
    for index, (line, at) in enumerate(zip(lines, names, strict=True)):
        parts += [*_drawn(line, index, x_axis, y_axis), _named(line, index, at)]
    inner = "\n".join(parts)
    told = escape(f"{title}: {y_name} over {x_name}; " + "; ".join(line.name for line in lines))
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{told}">\n{inner}\n</svg>'


class _Axis:
    """From a value to its place in pixels."""

    def __init__(self, low: float, high: float, start: float, end: float, is_log: bool = False) -> None:
        self.is_log = is_log and low > 0 and high > low
        self.low, self.high = low, high if high > low else low + 1
        self.start, self.end = start, end

    def at(self, value: float) -> float:
        if self.is_log:
            share = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    @property
    def ticks(self) -> list[float]:
        if self.is_log:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            for steps in ((1, 2, 5), (1, 3), (1,)):
                found = [10.0**power * step for power in range(first, last + 1) for step in steps]
                within = [tick for tick in found if self.low <= tick <= self.high]
                if 2 < len(within) <= MOST_TICKS:
                    return within
        return axis_ticks(self.low, self.high)


def axis_ticks(low: float, high: float) -> list[float]:
    """Some five round numbers between the two."""
    step = _round_step((high - low) / TICKS)
    return [number * step for number in range(math.ceil(low / step), math.floor(high / step + 1e-9) + 1)]


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return power * next(step for step in (1, 2, 2.5, 5, 10) if rough <= step * power * 1.0001)


def _shown(tick: float) -> str:
    """Short enough to stand beside its neighbours."""
    if tick >= 1e6:
        return f"{tick / 1e6:g}M"
    return f"{tick / 1e3:g}k" if tick >= 1e4 else f"{tick:g}"


def _frame(title: str, x_name: str, y_name: str, x_axis: _Axis, y_axis: _Axis) -> list[str]:
    top, bottom, right = y_axis.end, y_axis.start, WIDTH - RIGHT
    parts = [f'<text x="{LEFT}" y="16" class="title">{escape(title)}</text>']
    for tick in y_axis.ticks:
        y = y_axis.at(tick)
        parts.append(f'<path d="M{LEFT} {y}H{right}" class="grid"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{_shown(tick)}</text>')
    parts += [
        f'<text x="{x_axis.at(tick)}" y="{bottom + 17}" text-anchor="middle">{_shown(tick)}</text>'
        for tick in x_axis.ticks
    ]
    parts.append(f'<path d="M{LEFT} {top}V{bottom}H{right}" class="axis"/>')
    parts.append(f'<text x="{(LEFT + right) / 2}" y="{bottom + 38}" text-anchor="middle">{escape(x_name)}</text>')
    middle = (top + bottom) / 2
    parts.append(
        f'<text x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">{escape(y_name)}</text>'
    )
    return parts


def _stroke(index: int) -> str:
    return f'stroke="{_colour(index)}" stroke-dasharray="{DASHES[index % len(DASHES)]}"'


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def _drawn(line: Line, index: int, x_axis: _Axis, y_axis: _Axis) -> list[str]:
    places = [(x_axis.at(x), y_axis.at(y)) for x, y in line.points]
    parts = [
        f'<path d="M{x} {y_axis.at(low)}V{y_axis.at(high)}" stroke="{_colour(index)}" class="spread"/>'
        for (x, _), (low, high) in zip(places, line.spread, strict=False)
    ]
    if line.is_joined:
        way = "L".join(f"{x} {y}" for x, y in places)
        parts.append(f'<path d="M{way}" {_stroke(index)} class="line"/>')
    if len(places) <= 40 or not line.is_joined:
        size = DOTS[min(index, len(DOTS) - 1)]
        parts += [f'<circle cx="{x}" cy="{y}" r="{size}" fill="{_colour(index)}"/>' for x, y in places]
    return parts


def _name_places(lines: Sequence[Line]) -> list[tuple[int, int]]:
    """Where each name begins: in rows above the plot, as many in each as have room."""
    places: list[tuple[int, int]] = []
    x, y = LEFT, NAMES_TOP
    for line in lines:
        width = 30 + CHARACTER * len(line.name)
        if places and x + width > WIDTH:
            x, y = LEFT, y + NAMES_ROW
        places.append((x, y))
        x += width + 12
    return places


def _named(line: Line, index: int, at: tuple[int, int]) -> str:
    x, y = at
    mark = f'<path d="M{x} {y}h24" {_stroke(index)} class="line"/>'
    if not line.is_joined:
        mark = f'<circle cx="{x + 12}" cy="{y}" r="{DOTS[min(index, len(DOTS) - 1)]}" fill="{_colour(index)}"/>'
    return f'{mark}<text x="{x + 30}" y="{y + 4}">{escape(line.name)}</text>'
