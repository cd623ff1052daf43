"""A fake clock: runs a workload through a policy into paced engines, and keeps what became of each request."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tests.simulation.pacing import H200, Pace, PacedEngine, Work
from tests.simulation.workload import Request

STARTED, QUEUED = "started", "queued"
Turn = tuple[Iterable[Request], Iterable[Request]]  # who starts, who has waited too long
Next = Callable[[Request, float], Request | None]  # what a client sends when its request has ended


class Policy(Protocol):
    """What stands in front of the engines. Each method decides at once; times are the arena's, in seconds."""

    def submit(self, request: Request, now: float) -> str:
        """STARTED (its replica is set), QUEUED, or why it is refused."""

    def after_queued(self, now: float) -> Turn: ...
    def first_token(self, request: Request, now: float) -> Iterable[Request]: ...
    def release(self, request: Request, now: float) -> Iterable[Request]: ...
    def wake(self, now: float) -> Turn: ...
    def next_wake(self) -> float | None: ...
    def retry_after_s(self, request: Request, now: float) -> float: ...


@dataclass(slots=True)
class Run:
    """What happened."""

    requests: list[Request]
    engines: list[PacedEngine]
    ended_at: float = 0.0
    idle: list[float] = field(default_factory=list)  # an engine had no prompt to compute then while a request waited
    queue: list[tuple[float, int]] = field(default_factory=list)  # how many waited since when


def run(
    policy: Policy,
    requests: Sequence[Request],
    paces: Sequence[Pace] = (H200,),
    *,
    comes_back: int = 0,
    then: Next | None = None,
    until: float = math.inf,
) -> Run:
    """Runs until nothing is left to do, or no request that comes later than ``until`` is taken.

    ``comes_back``: each so-many-th of those who are refused comes once more, after exactly the time that was named. ``then``: called at the end of
    each request, for clients that send one after the other.
    """
    return _Arena(policy, [PacedEngine(pace) for pace in paces], requests, comes_back, then, until).run()


class _Arena:
    def __init__(
        self,
        policy: Policy,
        engines: list[PacedEngine],
        requests: Sequence[Request],
        comes_back: int,
        then: Next | None,
        until: float,
    ) -> None:
        self.policy, self.engines = policy, engines
        self.comes_back, self.then, self.until = comes_back, then, until
        self.now = 0.0
        self.waiting: set[Request] = set()
        self.refused = 0
        self.result = Run([], engines, queue=[(0.0, 0)])
        self.coming: list[tuple[float, int, Request]] = []
        for request in requests:
            self._expect(request)

    def run(self) -> Run:
        while self._turn():
            waiting = len(self.waiting)
            if self.result.queue[-1][1] != waiting:
                self.result.queue.append((self.now, waiting))
            if waiting and any(engine.prompts == 0 for engine in self.engines):
                self.result.idle.append(self.now)
        self.result.ended_at = self.now
        return self.result

    def _turn(self) -> bool:
        """Does what comes next: a request arrives, an engine's step ends, or the policy wants to be woken. False: nothing."""
        wake = self.policy.next_wake()
        arrival = self.coming[0][0] if self.coming else math.inf
        at, engine = math.inf, None
        for candidate in self.engines:
            event = candidate.next_event()
            if event is not None and event < at:
                at, engine = event, candidate
        due = min(at, arrival, math.inf if wake is None else wake)
        if due == math.inf:
            return False
        self.now = max(self.now, due)  # a policy may ask to be woken for what is past
        if due == arrival:
            self._arrive(heapq.heappop(self.coming)[2])
        elif engine is not None and due == at:
            self._step(engine)
        else:
            self._apply(self.policy.wake(self.now))
            after = self.policy.next_wake()
            assert after is None or after > due, f"{self.policy!r} was woken at {due} and asks for {after}"
        return True

    def _expect(self, request: Request) -> None:
        if request.at <= self.until:
            heapq.heappush(self.coming, (request.at, len(self.result.requests), request))
            self.result.requests.append(request)

    def _arrive(self, request: Request) -> None:
        verdict = self.policy.submit(request, self.now)
        if verdict == STARTED:
            self._start([request])
        elif verdict == QUEUED:
            self.waiting.add(request)
            self._apply(self.policy.after_queued(self.now))
        else:
            self._refuse(request, verdict)

    def _apply(self, turn: Turn) -> None:
        started, late = turn
        self._start(started)
        for request in late:
            self.waiting.discard(request)
            self._refuse(request, "evicted")

    def _start(self, requests: Iterable[Request]) -> None:
        for request in requests:
            assert request.started_at is None, f"{request!r} is started twice"
            assert request.replica is not None
            self.waiting.discard(request)
            request.started_at = self.now
            work = Work(request, request.prompt, request.output, request.session)
            self.engines[request.replica].add(work, self.now)

    def _step(self, engine: PacedEngine) -> None:
        firsts, finished = engine.advance(self.now)
        for work in firsts:
            request = work.owner
            request.first_at, request.cached = self.now, work.cached
            if request.streams:
                self._start(self.policy.first_token(request, self.now))
        for work in finished:
            request = work.owner
            self._start(self.policy.release(request, self.now))
            self._end(request, "served")

    def _refuse(self, request: Request, outcome: str) -> None:
        request.retry_after_s = self.policy.retry_after_s(request, self.now)
        self._end(request, outcome)
        self.refused += 1
        if self.comes_back and request.attempt == 1 and self.refused % self.comes_back == 0:
            self._expect(again(request, self.now + request.retry_after_s))

    def _end(self, request: Request, outcome: str) -> None:
        request.outcome, request.ended_at = outcome, self.now
        if self.then is not None and (following := self.then(request, self.now)) is not None:
            self._expect(following)


def again(request: Request, at: float) -> Request:
    """The same request once more."""
    return Request(
        at, request.prompt, request.output, request.key, request.priority, request.streams, request.session,
        request.attempt + 1, request.client,
    )  # fmt: skip
