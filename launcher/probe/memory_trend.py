"""Where a card's memory is going: how fast it grows, and when it will be full. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

KEPT = 300  # samples; at one each 2 s: ten minutes
LEAST_SAMPLES, LEAST_S = 5, 20.0  # before anything is said of a trend
LEAST_GROWTH_BYTES = 64 * 2**20  # in all: less is the allocator's breathing
WARN_WITHIN_S = 1800.0


class Sample(NamedTuple):
    """Seconds of any clock, and bytes in use."""

    at: float
    used_bytes: int


class Trend:
    """The samples of one card."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque(maxlen=KEPT)

    def note(self, at: float, used_bytes: int) -> None:
        self._samples.append(Sample(at, used_bytes))

    @property
    def growth(self) -> float | None:
        """Bytes a second, by least squares; None: too little was seen."""
        return growth(self._samples)

    def full_in_s(self, total_bytes: int) -> float | None:
        """Seconds until the card is full, if it goes on like this; None: it does not grow, or too little was seen."""
        rate, samples = self.growth, self._samples
        if not rate or rate <= 0 or samples[-1].used_bytes - samples[0].used_bytes < LEAST_GROWTH_BYTES:
            return None
        return max(0.0, (total_bytes - samples[-1].used_bytes) / rate)


def growth(samples: Sequence[Sample]) -> float | None:
    """Bytes a second that the straight line nearest to the samples rises."""
    if len(samples) < LEAST_SAMPLES or samples[-1].at - samples[0].at < LEAST_S:
        return None
    mean_at = sum(sample.at for sample in samples) / len(samples)
    mean_used = sum(sample.used_bytes for sample in samples) / len(samples)
    spread = sum((sample.at - mean_at) ** 2 for sample in samples)
    return sum((sample.at - mean_at) * (sample.used_bytes - mean_used) for sample in samples) / spread


def warning(name: str, full_in_s: float | None) -> str | None:
    """A sentence if the card will be full soon."""
    if full_in_s is None or full_in_s > WARN_WITHIN_S:
        return None
    return f"{name}: memory grows, and will be full in {max(1, round(full_in_s / 60))} min if it goes on like this."
