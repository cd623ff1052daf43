"""Bars as SVG text, one for each name, with the spread of its rounds: the strategies side by side. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from loadtests.facts import cell
from loadtests.plots import COLOURS, axis_ticks

WIDTH, ROW, TOP, BOTTOM = 560, 22, 30, 40
LEFT, RIGHT = 150, 60  # for the names, and for the figure behind the longest bar


@dataclass(frozen=True)
class Bar:
    """A figure by its name, and the lowest and highest of the rounds behind it. ``is_reference``: the others are compared with it."""

    name: str
    value: float
    low: float
    high: float
    is_reference: bool = False


def bars(title: str, unit: str, rows: Sequence[Bar]) -> str:
    """An SVG element; a sentence in its place where there is nothing to draw."""
    if not rows:
        return f'<figure class="empty"><figcaption>{escape(title)}</figcaption><p>Nothing was measured for this.</p></figure>'
    height = TOP + ROW * len(rows) + BOTTOM
    most = max(row.high for row in rows) or 1.0
    bottom = height - BOTTOM
    parts = [f'<text x="8" y="16" class="title">{escape(title)}</text>']
    for tick in axis_ticks(0.0, most):
        x = _at(tick, most)
        parts.append(f'<path d="M{x} {TOP}V{bottom}" class="grid"/>')
        parts.append(f'<text x="{x}" y="{bottom + 16}" text-anchor="middle">{tick:g}</text>')
    parts += [part for index, row in enumerate(rows) for part in _drawn(row, TOP + ROW * index, most)]
    parts.append(f'<path d="M{LEFT} {TOP}V{bottom}" class="axis"/>')
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{height - 6}" text-anchor="middle">{escape(unit)}</text>')
    told = escape(f"{title}, {unit}: " + "; ".join(f"{row.name} {row.value:.3g}" for row in rows))
    inner = "\n".join(parts)
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{told}">\n{inner}\n</svg>'


def _at(value: float, most: float) -> float:
    return round(LEFT + value / most * (WIDTH - RIGHT - LEFT), 1)


def _drawn(row: Bar, top: float, most: float) -> list[str]:
    y, end = top + ROW / 2, _at(row.value, most)
    colour = COLOURS[2] if row.is_reference else COLOURS[0]
    parts = [
        f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{escape(row.name)}</text>',
        f'<rect x="{LEFT}" y="{top + 4}" width="{round(end - LEFT, 1)}" height="{ROW - 8}" fill="{colour}"/>',
    ]
    if row.low != row.high:
        parts.append(f'<path d="M{_at(row.low, most)} {y}H{_at(row.high, most)}" class="axis"/>')
    parts.append(f'<text x="{_at(row.high, most) + 5}" y="{y + 4}">{cell(row.value)}</text>')
    return parts
