"""What a run came to: percentiles, goodput, shares."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tests.simulation.arena import Policy, run
from tests.simulation.pacing import H200, Pace
from tests.simulation.workload import SHORT, Request, evidence_cost_s, fluid_bound, mixed

WARM_UP_S, TAIL_S = 10.0, 5.0  # of a run, not counted: the engine is empty at first, and catches up at the end


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest rank: the smallest value that ``percent`` of all do not exceed. NaN of nothing."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def ttfts_ms(requests: Iterable[Request], prompt: int | None = None) -> list[float]:
    """Times from the arrival to the first token, of those that got one."""
    return [
        (request.first_at - request.at) * 1000
        for request in requests
        if request.first_at is not None and prompt in (None, request.prompt)
    ]


def between(requests: Iterable[Request], start: float, end: float) -> list[Request]:
    """Those that arrived in [start, end)."""
    return [request for request in requests if start <= request.at < end]


@dataclass(frozen=True, slots=True)
class Goodput:
    """One policy at one rate, in the steady state, over several seeds. Rates are requests a second."""

    served: float  # share of what arrived
    good: float  # share of what arrived
    goodput: float
    of_bound: float  # goodput / the fluid bound of the paced engine
    worst_of_bound: float  # of all seeds
    of_evidence_bound: float  # goodput / the bound at 37,000 prompt tokens a second
    bound: float
    short_p50_ms: float
    short_p99_ms: float
    idle_moments: int  # an engine had no prompt to compute while a request waited


def open_loop(
    policy: Callable[[], Policy],
    rate: float,
    *,
    seeds: Iterable[int] = range(3),
    seconds: float = 60.0,
    pace: Pace = H200,
    streams: bool = True,
) -> Goodput:
    """The evidence's mix at ``rate``; requests of the first WARM_UP_S and the last TAIL_S are not counted."""
    span = seconds - WARM_UP_S - TAIL_S
    counted: list[Request] = []
    shares: list[float] = []
    bounds: list[float] = []
    idle = runs = 0
    for seed in seeds:
        done = run(policy(), mixed(rate, seconds, seed, streams=streams), [pace])
        part = between(done.requests, WARM_UP_S, seconds - TAIL_S)
        bound = fluid_bound(part, span, pace.cost_s)
        shares.append(sum(request.is_good for request in part) / span / bound)
        bounds.append(bound)
        idle += len(done.idle)
        counted += part
        runs += 1
    good = sum(request.is_good for request in counted)
    served = sum(request.outcome == "served" for request in counted)
    short = ttfts_ms(counted, SHORT)
    by_evidence = fluid_bound(counted, span * runs, evidence_cost_s)
    return Goodput(
        served=served / len(counted),
        good=good / len(counted),
        goodput=good / span / runs,
        of_bound=sum(shares) / runs,
        worst_of_bound=min(shares),
        of_evidence_bound=good / span / runs / by_evidence,
        bound=sum(bounds) / runs,
        short_p50_ms=percentile(short, 50),
        short_p99_ms=percentile(short, 99),
        idle_moments=idle,
    )
