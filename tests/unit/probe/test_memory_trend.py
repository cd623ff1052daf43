"""When a card will be full: what grows, what only breathes, and what is not known yet."""

from __future__ import annotations

import random

import pytest

from launcher.probe.memory_trend import Trend, warning

GIB, MIB = 2**30, 2**20


def seen(*used: float, every_s: float = 10.0) -> Trend:
    trend = Trend()
    for number, bytes_ in enumerate(used):
        trend.note(number * every_s, round(bytes_))
    return trend


def test_a_steady_rise_is_told_with_its_end() -> None:
    trend = seen(*(20 * GIB + number * 100 * MIB for number in range(12)))
    assert trend.growth == pytest.approx(10 * MIB)
    full_in_s = trend.full_in_s(24 * GIB)
    assert full_in_s == pytest.approx((4 * GIB - 1100 * MIB) / (10 * MIB))
    assert warning("card 0", full_in_s) == "card 0: memory grows, and will be full in 5 min if it goes on like this."


def test_noise_is_no_trend() -> None:
    dice = random.Random(1)
    trend = seen(*(20 * GIB + dice.randrange(40 * MIB) for _ in range(60)))
    assert trend.full_in_s(24 * GIB) is None


LOADED = [GIB + min(second / 60, 1) * 20 * GIB for second in range(0, 600, 2)]  # in a minute, then flat
STEP = [GIB] * 40 + [21 * GIB] * 260


@pytest.mark.parametrize("used", [LOADED, STEP], ids=["load", "step"])
def test_a_model_load_is_no_leak(used: list[float]) -> None:
    trend = Trend()
    told = []
    for number, bytes_ in enumerate(used):
        trend.note(number * 2.0, round(bytes_))
        if trend.full_in_s(24 * GIB) is not None:
            told.append(number * 2)
    assert max(told, default=0) < 90  # while it loads from the first look on, who knows
    assert trend.growth == 0


def test_a_leak_after_long_quiet() -> None:
    trend = seen(*[GIB] * 240, *(GIB + number * 20 * MIB for number in range(60)), every_s=2.0)
    assert trend.full_in_s(24 * GIB) == pytest.approx((23 * GIB - 59 * 20 * MIB) / (10 * MIB), rel=0.05)


def test_a_leak_in_steps() -> None:
    trend = seen(*(GIB + number // 30 * GIB for number in range(300)), every_s=2.0)
    assert trend.full_in_s(12 * GIB) == pytest.approx(120, rel=0.2)


def test_old_samples_are_forgotten_by_their_age() -> None:
    trend = seen(*(GIB + number * MIB for number in range(1200)), every_s=0.2)
    assert trend.full_in_s(24 * GIB) == pytest.approx((23 * GIB - 1199 * MIB) / (5 * MIB))


@pytest.mark.parametrize("used", [[], [1.0] * 4, [3 * GIB, 2 * GIB, GIB, GIB, GIB, GIB]])
def test_too_little_or_less_and_less(used: list[float]) -> None:
    assert seen(*used).full_in_s(24 * GIB) is None


def test_a_short_look_says_nothing() -> None:
    assert seen(*(number * GIB for number in range(10)), every_s=1.0).growth is None


def test_far_away_is_no_warning() -> None:
    assert warning("card 0", None) is None
    assert warning("card 0", 7200) is None
    assert warning("card 0", 3) == "card 0: memory grows, and will be full in 1 min if it goes on like this."
