"""What arrives: seeded Poisson streams of requests, crowds, dialogues; and the bound on how much of it can be good."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

SHORT, LONG = 128, 4096  # prompt tokens, as in the evidence
SHORT_SHARE = 0.7
OUTPUT = 64
SHORT_LIMIT_S, LONG_LIMIT_S = 1.0, 3.0  # a first token within this time of the arrival is good
EVIDENCE_RATE = 37_000.0  # prompt tokens a second: what the evidence takes for its fluid bound
BLOCK = 16  # tokens of one block of the prefix cache


@dataclass(slots=True, eq=False)
class Request:
    """One request and what became of it. Times are seconds of the simulation; the second half is written by the arena."""

    at: float
    prompt: int = SHORT
    output: int = OUTPUT
    key: str = "key-1"
    priority: int = 1  # 0 high, 1 normal, 2 low
    streams: bool = True
    session: int | None = None  # the dialogue that it continues
    attempt: int = 1
    client: int | None = None  # a client that sends its next request when this one has ended

    outcome: str = "waiting"  # then served, or why not
    replica: int | None = None
    cached: int = 0  # prompt tokens that the engine had in its prefix cache
    started_at: float | None = None  # sent to an engine
    first_at: float | None = None
    ended_at: float | None = None
    retry_after_s: float | None = None
    ticket: object = field(default=None, repr=False)

    @property
    def limit_s(self) -> float:
        return LONG_LIMIT_S if self.prompt > 1024 else SHORT_LIMIT_S

    @property
    def is_good(self) -> bool:
        return self.first_at is not None and self.first_at - self.at <= self.limit_s

    @property
    def tokens(self) -> int:
        """What it takes of an engine."""
        return self.prompt - self.cached + self.output


def poisson(rate: float, seconds: float, rng: random.Random, start: float = 0.0) -> Iterator[float]:
    """The times of a Poisson process."""
    at = start + rng.expovariate(rate)
    while at < start + seconds:
        yield at
        at += rng.expovariate(rate)


def _length(rng: random.Random) -> int:
    return SHORT if rng.random() < SHORT_SHARE else LONG


def mixed(
    rate: float,
    seconds: float,
    seed: int,
    *,
    start: float = 0.0,
    key: str = "key-1",
    priority: int = 1,
    streams: bool = True,
) -> list[Request]:
    """The evidence's open loop: 70 % short prompts and 30 % long ones, by a Poisson process."""
    rng = random.Random(seed)
    times = poisson(rate, seconds, rng, start)
    return [Request(at, _length(rng), key=key, priority=priority, streams=streams) for at in times]


def exactly(count: int, seconds: float, seed: int) -> list[Request]:
    """The same mix, ``count`` requests at random times: a Poisson process of which the number is known."""
    rng = random.Random(seed)
    return [Request(at, _length(rng)) for at in sorted(rng.random() * seconds for _ in range(count))]


def crowds(size: int, every_s: float, seconds: float, seed: int, *, key: str) -> list[Request]:
    """``size`` requests at the same moment, again and again."""
    rng = random.Random(seed)
    times = [i * every_s for i in range(int(seconds / every_s))]
    return [Request(at, _length(rng), key=key) for at in times for _ in range(size)]


def dialogues(rate: float, seconds: float, seed: int, *, turns: int = 6, gap_s: float = 8.0) -> list[Request]:
    """``rate`` dialogues a second begin; each has ``turns`` questions, and each question brings the whole dialogue along."""
    rng = random.Random(seed)
    found: list[Request] = []
    for session, start in enumerate(poisson(rate, seconds, rng)):
        prompt, at = rng.randint(512, 2048), start
        for _ in range(turns):
            found.append(Request(at, prompt, session=session))
            prompt += OUTPUT + rng.randint(100, 500)
            at += gap_s * rng.uniform(0.5, 1.5)
    return merge(found)


def merge(*streams: Iterable[Request]) -> list[Request]:
    return sorted((request for stream in streams for request in stream), key=lambda request: request.at)


def evidence_cost_s(request: Request) -> float:
    """What the evidence's own bound takes a request to cost: its prompt, at 37,000 tokens a second."""
    return request.prompt / EVIDENCE_RATE


def fluid_bound(requests: Sequence[Request], seconds: float, cost_s: Callable[[Request], float]) -> float:
    """The most requests a second that can be good: the cheapest first, until the engine's time is used up.

    The evidence's bound ('all short requests, then as many long ones as the rest of the prefill rate carries') for any
    mix of lengths. It knows no waiting and no steps: nothing real reaches it.
    """
    left, good = seconds, 0.0
    for cost in sorted(cost_s(request) for request in requests):
        if cost > left:
            return (good + left / cost) / seconds
        left -= cost
        good += 1
    return good / seconds
