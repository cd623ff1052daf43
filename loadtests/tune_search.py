"""How the best setting and the highest rate it holds are looked for. Pure: what a trial shows is asked through functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

GROWTH = 1.3  # from one rate to the next, until one does not hold
MOST_UP, MOST_DOWN = 20, 8  # steps: to 190 times the first rate, and to an eighth of it
Settings = dict[str, str]  # the keys that differ from the profile's own


def highest_rate(holds: Callable[[float], bool], first: float, precision: float) -> float | None:
    """The highest rate seen to hold, with one at most ``precision`` (a share) above it that did not; None: no rate holds.

    Taken to be monotonic: where a rate holds, all below it do. Measured rates are not quite, so that a lucky round
    moves the result by some steps; whoever reports it measures it again.
    """
    bounds = _climbed(holds, first) if holds(first) else _descended(holds, first)
    if bounds is None:
        return None
    low, high = bounds
    while high / low > 1 + precision:
        rate = math.sqrt(low * high)
        low, high = (rate, high) if holds(rate) else (low, rate)
    return low


def _climbed(holds: Callable[[float], bool], held: float) -> tuple[float, float]:
    """The last rate that holds and the first that does not; both the same where none was too much."""
    for _ in range(MOST_UP):
        if not holds(held * GROWTH):
            return held, held * GROWTH
        held *= GROWTH
    return held, held


def _descended(holds: Callable[[float], bool], too_much: float) -> tuple[float, float] | None:
    """The same from above; None where no rate holds."""
    for _ in range(MOST_DOWN):
        if holds(too_much / GROWTH):
            return too_much / GROWTH, too_much
        too_much /= GROWTH
    return None


def best_setting(
    candidates: Mapping[str, Sequence[str]],
    rate_of: Callable[[Settings, float | None], float | None],
) -> tuple[Settings, float | None]:
    """Starting with the profile's own values, one key after the other is moved, until no move is better.

    ``rate_of(settings, to_beat)`` is the highest rate of a setting, or None where it does not beat ``to_beat``, for which
    one trial is enough.
    """
    best: Settings = {}
    rate = rate_of(best, None)
    seen, is_moving = [best], True
    while is_moving:
        is_moving = False
        for key, values in candidates.items():
            for settings in moves(best, key, values):
                if settings in seen:
                    continue
                seen.append(settings)
                found = rate_of(settings, rate)
                if found is not None and (rate is None or found > rate):
                    best, rate, is_moving = settings, found, True
    return best, rate


def moves(settings: Settings, key: str, values: Sequence[str]) -> list[Settings]:
    """The setting with each value of one key, the profile's own first."""
    others = {name: value for name, value in settings.items() if name != key}
    return [others, *({**others, key: value} for value in values)]
