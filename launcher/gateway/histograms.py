"""Counts by bucket: what a request adds to is one look-up and one bisection. Decides nothing; no clock, no I/O."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate

Bounds = tuple[float, ...]

SECONDS: Bounds = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0, 300.0)
TTFT_S: Bounds = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 60.0, 120.0)
ITL_S: Bounds = (0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)
E2E_S: Bounds = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0)
QUEUE_S: Bounds = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0)

# Powers of 4: a request of the next group takes the engine about four times as long.
LENGTHS = (256, 1024, 4096, 16384)
LENGTH_GROUPS = ("<=256", "<=1k", "<=4k", "<=16k", ">16k")


def length_label(prompt_tokens: float) -> str:
    """The length group of a prompt, as its label in the metrics."""
    return LENGTH_GROUPS[bisect_left(LENGTHS, prompt_tokens)]


class Histogram:
    """How many values fell into each bucket, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Bounds = SECONDS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def cumulative(self) -> list[int]:
        """As Prometheus wants it: for each bound, and for +Inf, how many values were not above it."""
        return list(accumulate(self.counts))


class Series:
    """What is measured of the inference requests of one length group, mode and priority."""

    __slots__ = ("e2e", "itl", "queue", "ttft")

    def __init__(self) -> None:
        self.ttft = Histogram(TTFT_S)
        self.itl = Histogram(ITL_S)
        self.e2e = Histogram(E2E_S)
        self.queue = Histogram(QUEUE_S)
