"""How many users there are at each moment of a run. Pure: seconds in, users and spawn rate out; None ends the run."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

Tick = tuple[int, float]  # users, and how many may come or go a second


@dataclass(frozen=True)
class Ramp:
    """From so many users to so many, evenly, then held: 50 to 200 is how dynamic batching was first reported."""

    first: int = 50
    last: int = 200
    rise_s: float = 120.0
    hold_s: float = 60.0

    def at(self, seconds: float) -> Tick | None:
        if seconds >= self.rise_s + self.hold_s:
            return None
        share = min(1.0, seconds / self.rise_s) if self.rise_s else 1.0
        users = round(self.first + (self.last - self.first) * share)
        return users, max(1.0, float(self.first))


@dataclass(frozen=True)
class Steps:
    """So many more every so many seconds."""

    users: int = 10
    count: int = 5
    seconds: float = 30.0

    def at(self, seconds: float) -> Tick | None:
        step = int(seconds // self.seconds) if self.seconds else self.count
        return None if step >= self.count else (self.users * (step + 1), float(self.users))


@dataclass(frozen=True)
class Spike:
    """A base, then many times as many for a while, then the base again: how soon does it recover?"""

    base: int = 10
    times: int = 10
    before_s: float = 30.0
    spike_s: float = 20.0
    after_s: float = 60.0

    def at(self, seconds: float) -> Tick | None:
        peak = self.base * self.times
        if seconds < self.before_s:
            return self.base, float(self.base)
        if seconds < self.before_s + self.spike_s:
            return peak, float(peak)
        return (self.base, float(peak)) if seconds < self.before_s + self.spike_s + self.after_s else None


Shape = Ramp | Steps | Spike
SHAPES: dict[str, Callable[[], Shape]] = {"ramp": Ramp, "steps": Steps, "spike": Spike}


def parse_shape(text: str) -> Shape:
    """``ramp``, or with figures in the order of the class: ``ramp:50,200,120,60``. Raises ValueError with a sentence."""
    name, _, figures = text.partition(":")
    if name not in SHAPES:
        raise ValueError(f"--load-shape: {name!r} is no shape (there are: {', '.join(SHAPES)})")
    kinds = [
        float if field.endswith("_s") or field == "seconds" else int for field in SHAPES[name]().__dataclass_fields__
    ]  # type: ignore[union-attr]
    values = figures.split(",") if figures else []
    if len(values) > len(kinds):
        raise ValueError(f"--load-shape: {name} takes at most {len(kinds)} figures, not {len(values)}")
    try:
        numbers = [kind(value) for kind, value in zip(kinds, values, strict=False)]
        if not all(0 <= number < math.inf for number in numbers):
            raise ValueError
        return SHAPES[name](*numbers)
    except ValueError:
        raise ValueError(
            f"--load-shape: {text!r}: the figures of {name} are numbers, 0 or more, such as {name}:{_example(name)}"
        ) from None


def _example(name: str) -> str:
    return ",".join(f"{value:g}" for value in vars(SHAPES[name]()).values())
