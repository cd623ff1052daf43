"""Small plots as SVG text, for a report that is one file and asks nobody for anything. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 560, 300
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 30, 44
COLOURS = ("#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df", "#0a7ea4", "#bf3989")
TICKS = 5
HEADROOM = 1.18  # above the highest point, for the names of the lines

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """A named row of points; ``low`` and ``high`` are the spread around each, where there is one."""

    name: str
    points: Sequence[Point]
    spread: Sequence[tuple[float, float]] = ()


def plot(title: str, x_name: str, y_name: str, lines: Sequence[Line], *, x_log: bool = False) -> str:
    """An SVG element; a sentence in its place where there is nothing to draw."""
    lines = [line for line in lines if line.points]
    if not lines:
        return f'<figure class="empty"><figcaption>{escape(title)}</figcaption><p>Nothing was measured for this.</p></figure>'
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points] + [high for line in lines for _, high in line.spread]
    x_axis, y_axis = (
        _Axis(min(xs), max(xs), LEFT, WIDTH - RIGHT, x_log),
        _Axis(0.0, HEADROOM * max(ys), HEIGHT - BOTTOM, TOP),
    )
    parts = [*_frame(title, x_name, y_name, x_axis, y_axis)]
    for index, line in enumerate(lines):
        colour = COLOURS[index % len(COLOURS)]
        parts += _drawn(line, colour, x_axis, y_axis)
        parts.append(_legend(line.name, colour, index))
    inner = "\n".join(parts)
    told = escape(f"{title}: {y_name} over {x_name}; " + "; ".join(line.name for line in lines))
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{told}">\n{inner}\n</svg>'


class _Axis:
    """From a value to its place in pixels."""

    def __init__(self, low: float, high: float, start: float, end: float, is_log: bool = False) -> None:
        self.is_log = is_log and low > 0 and high > low
        self.low, self.high = low, high if high > low else low + 1
        self._start, self._end = start, end

    def at(self, value: float) -> float:
        if self.is_log:
            share = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return round(self._start + share * (self._end - self._start), 1)

    @property
    def ticks(self) -> list[float]:
        if self.is_log:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            found = [10.0**power * step for power in range(first, last + 1) for step in (1, 2, 5)]
            within = [tick for tick in found if self.low <= tick <= self.high]
            if len(within) > 1:
                return within
        step = _round_step((self.high - self.low) / TICKS)
        first = math.ceil(self.low / step)
        return [number * step for number in range(first, math.floor(self.high / step + 1e-9) + 1)]


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return power * next(step for step in (1, 2, 2.5, 5, 10) if rough <= step * power * 1.0001)


def _frame(title: str, x_name: str, y_name: str, x_axis: _Axis, y_axis: _Axis) -> list[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = [f'<text x="{LEFT}" y="16" class="title">{escape(title)}</text>']
    for tick in y_axis.ticks:
        y = y_axis.at(tick)
        parts.append(f'<path d="M{LEFT} {y}H{right}" class="grid"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{tick:g}</text>')
    parts += [
        f'<text x="{x_axis.at(tick)}" y="{bottom + 16}" text-anchor="middle">{tick:g}</text>' for tick in x_axis.ticks
    ]
    parts.append(f'<path d="M{LEFT} {TOP}V{bottom}H{right}" class="axis"/>')
    parts.append(f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x_name)}</text>')
    middle = (TOP + bottom) / 2
    parts.append(
        f'<text x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">{escape(y_name)}</text>'
    )
    return parts


def _drawn(line: Line, colour: str, x_axis: _Axis, y_axis: _Axis) -> list[str]:
    places = [(x_axis.at(x), y_axis.at(y)) for x, y in line.points]
    parts = [
        f'<path d="M{x} {y_axis.at(low)}V{y_axis.at(high)}" stroke="{colour}" class="spread"/>'
        for (x, _), (low, high) in zip(places, line.spread, strict=False)
    ]
    way = "L".join(f"{x} {y}" for x, y in places)
    parts.append(f'<path d="M{way}" stroke="{colour}" class="line"/>')
    if len(places) <= 40:
        parts += [f'<circle cx="{x}" cy="{y}" r="2.6" fill="{colour}"/>' for x, y in places]
    return parts


def _legend(name: str, colour: str, index: int) -> str:
    x, y = LEFT + 10 + 128 * (index % 4), TOP + 4 + 14 * (index // 4)
    return f'<path d="M{x} {y}h14" stroke="{colour}" class="line"/><text x="{x + 18}" y="{y + 4}">{escape(name)}</text>'
