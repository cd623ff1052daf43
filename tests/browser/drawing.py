"""What a page draws, as the browser laid it out, and what a reader would find fault with."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy
from PIL import Image
from playwright.sync_api import Page

SMALLEST = (300, 50)  # CSS pixels: what a plot has on a phone, and bars of one strategy
SMALLEST_TEXT_PX = 8.0
# What WCAG asks for: of text, and of what is drawn.
TEXT_CONTRAST, MARK_CONTRAST = 4.5, 3.0
SEEN = 5  # pixels of a line's colour at least: also of one that lies below another

# Boxes are left, top, right, bottom within the page.
MEASURE = """
all => all.map(svg => {
  const box = one => { const b = one.getBoundingClientRect(); return [b.left + scrollX, b.top + scrollY, b.right + scrollX, b.bottom + scrollY] }
  const size = one => { const at = one.getScreenCTM(); return parseFloat(getComputedStyle(one).fontSize) * Math.hypot(at.a, at.b) }
  const whole = box(svg)
  const [axis] = [...svg.querySelectorAll('.axis')].map(box).sort((one, other) => other[3] - other[1] - one[3] + one[1])
  const ink = one => { const style = getComputedStyle(one); return style.stroke === 'none' ? style.fill : style.stroke }
  return {
    name: svg.getAttribute('aria-label').split(':')[0],
    box: whole,
    plotted: [whole[0], axis[1], whole[2], axis[3]],
    texts: [...svg.querySelectorAll('text')].map(one => ({name: one.textContent, box: box(one), ink: ink(one), px: size(one)})),
    marks: [...svg.querySelectorAll('path, circle, rect')].map(
      one => ({name: one.getAttribute('class') || one.tagName, box: box(one), ink: ink(one)})),
  }
})
"""

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Part:
    """A text or a mark; ``px`` is how high its letters are on the screen."""

    name: str
    box: Box
    ink: str
    px: float = 0.0


@dataclass(frozen=True)
class Drawing:
    """One SVG. ``plotted`` is the part beside its axis, without title and names."""

    name: str
    box: Box
    plotted: Box
    texts: Sequence[Part]
    marks: Sequence[Part]


def drawings(page: Page) -> list[Drawing]:
    found = page.locator("svg").evaluate_all(MEASURE)
    return [Drawing(**{**one, "texts": _parts(one["texts"]), "marks": _parts(one["marks"])}) for one in found]


def _parts(found: Sequence[dict[str, Any]]) -> list[Part]:
    return [Part(**one) for one in found]


def faults(drawing: Drawing, paper: str) -> list[str]:
    """Sentences: what is cut off, too small, covered or pale."""
    return [f"{drawing.name}: {fault}" for fault in (*_misplaced(drawing), *_unreadable(drawing, paper))]


def _misplaced(drawing: Drawing) -> Iterator[str]:
    left, top, right, bottom = drawing.box
    if right - left < SMALLEST[0] or bottom - top < SMALLEST[1]:
        yield f"it is only {right - left:.0f}x{bottom - top:.0f}"
    if not any(part.name in ("line", "circle", "rect") for part in drawing.marks):
        yield "nothing is drawn"
    for part in (*drawing.texts, *drawing.marks):
        if not is_within(part.box, drawing.box):
            yield f"{part.name!r} is cut off: {part.box} of {drawing.box}"
    for one, other in combinations(drawing.texts, 2):
        if is_over(one.box, other.box):
            yield f"{one.name!r} and {other.name!r} lie over each other"
    # The box of a curve is mostly empty; dots and level lines are where their boxes are.
    solid = [one for one in drawing.marks if one.name == "circle" or one.box[3] - one.box[1] < 1]
    for text in drawing.texts:
        if any(is_over(text.box, one.box) for one in solid):
            yield f"something goes through {text.name!r}"


def _unreadable(drawing: Drawing, paper: str) -> Iterator[str]:
    for text in drawing.texts:
        if text.px < SMALLEST_TEXT_PX:
            yield f"{text.name!r} is {text.px:.1f} px high"
    for parts, least in ((drawing.texts, TEXT_CONTRAST), (drawing.marks, MARK_CONTRAST)):
        for part in parts:
            if part.name != "grid" and (found := contrast(part.ink, paper)) < least:
                yield f"{part.name!r} in {part.ink} on {paper} has a contrast of {found:.1f}"


def is_within(inner: Box, outer: Box, slack: float = 0.5) -> bool:
    starts, ends = zip(inner[:2], outer[:2], strict=True), zip(inner[2:], outer[2:], strict=True)
    return all(a >= b - slack for a, b in starts) and all(a <= b + slack for a, b in ends)


def is_over(one: Box, other: Box, slack: float = 1.0) -> bool:
    """Whether they share more than an edge; a line without height may go through a box."""
    wide = min(one[2], other[2]) - max(one[0], other[0])
    level, high = max(one[1], other[1]), min(one[3], other[3])
    is_flat = min(one[3] - one[1], other[3] - other[1]) < slack
    return wide > slack and (high >= level if is_flat else high - level > slack)


def contrast(ink: str, paper: str) -> float:
    """The ratio of the two, as WCAG reckons it: 1 to 21."""
    dark, light = sorted(map(_luminance, (ink, paper)))
    return (light + 0.05) / (dark + 0.05)


def rgb(css: str) -> tuple[int, int, int]:
    red, green, blue = map(int, re.findall(r"\d+", css)[:3])
    return red, green, blue


def _luminance(css: str) -> float:
    parts = [value / 255 for value in rgb(css)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(part * share for part, share in zip(linear, (0.2126, 0.7152, 0.0722), strict=True))


def painted(page: Page) -> Image.Image:
    """The whole page as the browser painted it, a pixel for each of its pixels."""
    return Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")


def unseen(drawing: Drawing, picture: Image.Image) -> list[str]:
    """Sentences: the colours that are drawn, and yet not in the picture beside the axis."""
    left, top, right, bottom = map(round, drawing.plotted)
    pixels = numpy.asarray(picture.crop((left, top, right, bottom))).astype(int)
    inks = {part.ink for part in drawing.marks if part.name in ("line", "circle", "rect")}
    return [
        f"{drawing.name}: nothing in {ink} is seen"
        for ink in sorted(inks)
        if (abs(pixels - rgb(ink)).max(axis=2) < 40).sum() < SEEN
    ]
