"""Where a card's memory is going: how fast it grows, and when it will be full. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

KEPT_S, RECENT_S = 600.0, 120.0
LEAST_SAMPLES, LEAST_S = 6, 20.0  # before anything is said of a trend
LEAST_FORECAST_S = 60.0  # before a forecast is made of it
LEAST_GROWTH_BYTES = 64 * 2**20  # in all: less is the allocator's breathing
WARN_WITHIN_S = 1800.0


class Sample(NamedTuple):
    """Seconds of any clock, and bytes in use."""

    at: float
    used_bytes: int


class Trend:
    """The samples of one card."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque()

    def note(self, at: float, used_bytes: int) -> None:
        self._samples.append(Sample(at, used_bytes))
        while self._samples[0].at < at - KEPT_S:
            self._samples.popleft()

    @property
    def recent(self) -> list[Sample]:
        """Those of the last RECENT_S, or the last few where looks are rare."""
        samples = list(self._samples)
        count = sum(sample.at >= samples[-1].at - RECENT_S for sample in samples)
        return samples[-max(count, LEAST_SAMPLES) :]

    @property
    def growth(self) -> float | None:
        """Bytes a second of late; None: too little was seen."""
        return growth(self.recent)

    def full_in_s(self, total_bytes: int) -> float | None:
        """Seconds until the card is full, if it goes on like this; None: it does not grow steadily, or too little was seen.

        All that is kept shows a leak that comes in steps, the recent samples one that began only now.
        """
        rates = [rate for samples in (list(self._samples), self.recent) if (rate := sustained(samples)) is not None]
        return max(0.0, (total_bytes - self._samples[-1].used_bytes) / max(rates)) if rates else None


def growth(samples: Sequence[Sample]) -> float | None:
    """Bytes a second; None: too little was seen."""
    if len(samples) < LEAST_SAMPLES or samples[-1].at - samples[0].at < LEAST_S:
        return None
    return slope(samples)


def sustained(samples: Sequence[Sample]) -> float | None:
    """Bytes a second if it grows all the time: each third at least half as fast as the whole. A model's load does not."""
    rate = growth(samples)
    if rate is None or (seconds := samples[-1].at - samples[0].at) < LEAST_FORECAST_S:
        return None
    count = len(samples)
    thirds = (samples[count * part // 3 : count * (part + 1) // 3] for part in range(3))
    if rate * seconds < LEAST_GROWTH_BYTES or min(map(slope, thirds)) < rate / 2:
        return None
    return rate


def slope(samples: Sequence[Sample]) -> float:
    """Bytes a second that the straight line nearest to the samples rises; two samples at least."""
    mean_at = sum(sample.at for sample in samples) / len(samples)
    mean_used = sum(sample.used_bytes for sample in samples) / len(samples)
    spread = sum((sample.at - mean_at) ** 2 for sample in samples)
    return sum((sample.at - mean_at) * (sample.used_bytes - mean_used) for sample in samples) / spread


def warning(name: str, full_in_s: float | None) -> str | None:
    """A sentence if the card will be full soon."""
    if full_in_s is None or full_in_s > WARN_WITHIN_S:
        return None
    return f"{name}: memory grows, and will be full in {max(1, round(full_in_s / 60))} min if it goes on like this."
