"""The policies of the evidence's table, as they ran in its load generator: for comparison, and to check the paced engine."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable

from tests.simulation.arena import QUEUED, STARTED
from tests.simulation.workload import SHORT_LIMIT_S, Request

AGEING_TOKENS_S = 2048.0  # four seconds in the queue are worth a batch token budget: fitted to the two rows with ageing
Rank = Callable[[Request], float]


def waits_at_most(request: Request) -> float:
    """The evidence's deadlines: 0.8 s and 2.5 s."""
    return 0.8 if request.limit_s == SHORT_LIMIT_S else 2.5


def first_come(request: Request) -> float:
    return request.at


def shortest(request: Request) -> float:
    return float(request.prompt)


def shortest_with_ageing(request: Request) -> float:
    return request.prompt + AGEING_TOKENS_S * request.at


def earliest_deadline(request: Request) -> float:
    return request.at + waits_at_most(request)


class Nothing:
    """Every request goes straight to the engine."""

    def submit(self, request: Request, now: float) -> str:
        request.replica = 0
        return STARTED

    def after_queued(self, now: float) -> tuple[Iterable[Request], Iterable[Request]]:
        return (), ()

    def first_token(self, request: Request, now: float) -> Iterable[Request]:
        return ()

    def release(self, request: Request, now: float) -> Iterable[Request]:
        return ()

    def wake(self, now: float) -> tuple[Iterable[Request], Iterable[Request]]:
        return (), ()

    def next_wake(self) -> float | None:
        return None

    def retry_after_s(self, request: Request, now: float) -> float:
        return 1.0


class Capped(Nothing):
    """One queue in front of one engine: a cap on the prompt tokens sent whose first token has not come, an order, a deadline."""

    def __init__(self, rank: Rank, cap: int, has_deadline: bool) -> None:
        self.rank, self.cap, self.has_deadline = rank, cap, has_deadline
        self.queue: list[tuple[float, int, Request]] = []
        self.deadlines: list[tuple[float, int, Request]] = []
        self.in_hand: dict[Request, int] = {}
        self.prefill = 0
        self.count = 0

    def submit(self, request: Request, now: float) -> str:
        self._push(request)
        return STARTED if request in list(self._pump()) else QUEUED

    def first_token(self, request: Request, now: float) -> Iterable[Request]:
        self.prefill -= self.in_hand.pop(request)
        return list(self._pump())

    def wake(self, now: float) -> tuple[Iterable[Request], Iterable[Request]]:
        late = []
        while self.deadlines and self.deadlines[0][0] <= now:
            request = heapq.heappop(self.deadlines)[2]
            if request.outcome == "waiting" and request.replica is None:
                request.outcome = "evicted"
                late.append(request)
        return list(self._pump()), late

    def next_wake(self) -> float | None:
        while self.deadlines and self.deadlines[0][2].replica is not None:
            heapq.heappop(self.deadlines)
        return self.deadlines[0][0] if self.deadlines else None

    def _push(self, request: Request) -> None:
        self.count += 1
        heapq.heappush(self.queue, (self.rank(request), self.count, request))
        if self.has_deadline:
            heapq.heappush(self.deadlines, (request.at + waits_at_most(request), self.count, request))

    def _pump(self) -> Iterable[Request]:
        while self.queue:
            request = self.queue[0][2]
            if request.outcome == "waiting":
                if self.prefill and self.prefill + request.prompt > self.cap:
                    return
                self.prefill += request.prompt
                self.in_hand[request] = request.prompt
                request.replica = 0
                heapq.heappop(self.queue)
                yield request
            else:
                heapq.heappop(self.queue)


class Windows(Capped):
    """Collects for 50 ms, always; each window is sorted by length, and the windows are sent one after the other."""

    def __init__(self, cap: int, window_s: float = 0.05) -> None:
        super().__init__(first_come, cap, has_deadline=False)
        self.window_s = window_s
        self.collected: list[Request] = []
        self.opened_at = 0.0

    def submit(self, request: Request, now: float) -> str:
        if not self.collected:
            self.opened_at = now
        self.collected.append(request)
        return QUEUED

    def wake(self, now: float) -> tuple[Iterable[Request], Iterable[Request]]:
        for request in sorted(self.collected, key=shortest):
            self.count += 1
            heapq.heappush(self.queue, (self.count, self.count, request))
        self.collected = []
        return list(self._pump()), ()

    def next_wake(self) -> float | None:
        return self.opened_at + self.window_s if self.collected else None


BATCH = 8192
TABLE: dict[str, Callable[[], Nothing]] = {
    "nothing": Nothing,
    "FIFO, cap 2": lambda: Capped(first_come, 2 * BATCH, False),
    "windows that always hold, cap 2": lambda: Windows(2 * BATCH),
    "shortest first with ageing, cap 2": lambda: Capped(shortest_with_ageing, 2 * BATCH, False),
    "FIFO + deadline, cap 2": lambda: Capped(first_come, 2 * BATCH, True),
    "earliest deadline first + deadline, cap 1": lambda: Capped(earliest_deadline, BATCH, True),
    "shortest first + deadline, cap 1": lambda: Capped(shortest, BATCH, True),
    "shortest first + deadline, cap 2": lambda: Capped(shortest, 2 * BATCH, True),
    "shortest first with ageing + deadline, cap 1": lambda: Capped(shortest_with_ageing, BATCH, True),
}
