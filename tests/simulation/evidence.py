"""The rows of the evidence's two tables (one H200, vLLM 0.24, a 9B model), and the same rows on the paced engine."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from tests.simulation.arena import Policy, run
from tests.simulation.baselines import Nothing
from tests.simulation.measure import percentile, ttfts_ms
from tests.simulation.pacing import H200, Pace
from tests.simulation.workload import OUTPUT, SHORT, Request, exactly

TURNAROUND_S = 0.04  # of the load generator, from an answer's end to its next request: fitted, with the paced engine


class Closed(NamedTuple):
    """Users that send one request after the other, 384 tokens in and 64 out. Times in ms."""

    requests_s: float
    latency_p50: float
    latency_p99: float
    ttft_p50: float
    ttft_p99: float


class Open(NamedTuple):
    """The mix at a rate that nobody waits for. ``good`` in percent, ``goodput`` a second, times of short requests in ms."""

    served: float
    good: float
    goodput: float
    ttft_p50: float
    ttft_p99: float


CLOSED = {  # (max_num_seqs, users)
    (1, 50): Closed(2.3, 17_339, 22_153, 16_924, 21_738),
    (8, 200): Closed(16.5, 12_021, 12_188, 11_581, 11_756),
    (1024, 50): Closed(57.4, 861, 931, 340, 486),
    (1024, 100): Closed(91.4, 1069, 1110, 419, 598),
    (1024, 200): Closed(96.0, 2088, 2148, 798, 1207),
}

# The offered rates were 26, 40 and 80 a second; what arrived was this many requests in this many seconds (served, good
# and goodput of the rows give both), so this is what is simulated.
ARRIVED = {26: (344, 15.0), 40: (550, 15.0), 80: (903, 12.0)}

OPEN = {
    ("nothing", 26): Open(344, 98, 22.5, 552, 1083),
    ("windows that always hold, cap 2", 26): Open(344, 86, 19.7, 517, 1290),
    ("shortest first + deadline, cap 1", 26): Open(344, 100, 22.9, 145, 349),
    ("nothing", 40): Open(550, 25, 9.1, 2706, 7325),
    ("FIFO, cap 2", 40): Open(550, 21, 7.9, 4489, 10_503),
    ("windows that always hold, cap 2", 40): Open(550, 22, 8.0, 4268, 10_064),
    ("shortest first with ageing, cap 2", 40): Open(550, 25, 9.1, 2855, 9967),
    ("FIFO + deadline, cap 2", 40): Open(199, 34, 12.6, 580, 1062),
    ("earliest deadline first + deadline, cap 1", 40): Open(439, 80, 29.2, 697, 977),
    ("shortest first + deadline, cap 1", 40): Open(495, 90, 33.0, 152, 459),
    ("shortest first + deadline, cap 2", 40): Open(498, 90, 33.1, 364, 989),
    ("shortest first with ageing + deadline, cap 1", 40): Open(496, 90, 33.1, 148, 342),
    ("nothing", 80): Open(903, 8, 5.9, 10_810, 25_199),
    ("shortest first + deadline, cap 1", 80): Open(699, 77, 58.2, 154, 593),
}


def closed_loop(max_num_seqs: int, users: int, pace: Pace = H200, seconds: float = 30.0) -> Closed:
    """One row of the closed loop on the paced engine."""
    rng = random.Random(1)
    first = [Request(rng.uniform(0.0, 0.02), 384, OUTPUT, client=client) for client in range(users)]

    def then(ended: Request, now: float) -> Request:
        return Request(now + TURNAROUND_S * rng.uniform(0.5, 1.5), 384, OUTPUT, client=ended.client)

    done = run(Nothing(), first, [replace(pace, sequences=max_num_seqs)], then=then, until=seconds)
    ended = [r for r in done.requests if r.ended_at is not None and r.ended_at <= seconds]
    latency = [(r.ended_at - r.at) * 1000 for r in ended if r.ended_at is not None]
    ttft = ttfts_ms(ended)
    return Closed(
        len(ended) / seconds,
        percentile(latency, 50),
        percentile(latency, 99),
        percentile(ttft, 50),
        percentile(ttft, 99),
    )


def open_loop_row(policy: Callable[[], Policy], rate: int, pace: Pace = H200, seeds: int = 6) -> Open:
    """One row of the open loop on the paced engine: the mean over seeds, each as long as the evidence's one run."""
    count, seconds = ARRIVED[rate]
    rows = []
    for seed in range(seeds):
        done = run(policy(), exactly(count, seconds, seed), [pace])
        good = sum(request.is_good for request in done.requests)
        short = ttfts_ms(done.requests, SHORT)
        served = sum(request.outcome == "served" for request in done.requests)
        row = (served, 100 * good / count, good / seconds, percentile(short, 50), percentile(short, 99))
        rows.append(row)
    return Open(*(sum(column) / seeds for column in zip(*rows, strict=True)))
