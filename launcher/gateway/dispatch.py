"""Who gets which engine and who waits: first in, first out, with a cap for each replica. Decides only; no I/O, no clock."""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import Generic, TypeVar

from launcher.gateway.replicas import Replica, Replicas

MAX_RETRY_AFTER_S = 120.0  # openai's clients ignore a longer one and do not retry at all
NOT_READY_RETRY_S = 5.0  # nobody knows when an engine that is down comes back: ask again soon, but not at once
SUSPECT_S = 1.0  # how long a replica whose connection failed comes after the others


class Place(Enum):
    """Where a ticket is."""

    NEW = "new"
    QUEUED = "queued"
    STARTED = "started"
    ENDED = "ended"


class Verdict(Enum):
    """What became of a ticket that was handed in."""

    STARTED = "started"
    QUEUED = "queued"
    QUEUE_FULL = "queue_full"
    NOT_READY = "not_ready"


class Ticket:
    """One request's place: waiting, or holding a slot of ``replica``. Written by the dispatcher alone."""

    place = Place.NEW
    replica: Replica | None = None
    slot_since = 0.0

    def __init__(self, arrived_at: float = 0.0) -> None:
        self.arrived_at = arrived_at


T = TypeVar("T", bound=Ticket)


class Dispatcher(Generic[T]):
    """The queue and the slots. The one writer of both, and of each replica's ``in_flight``.

    Every method decides at once and returns what its caller has to start; times are the event loop's, in seconds.
    """

    def __init__(self, replicas: Replicas, *, max_in_flight: int, max_queued: int, queue_timeout_s: float) -> None:
        self.replicas = replicas
        self.max_in_flight = max_in_flight
        self.max_queued = max_queued
        self.queue_timeout_s = queue_timeout_s
        self.queue: deque[T] = deque()
        self.in_flight = 0
        self._slot_s = 1.0  # how long a slot is held, learnt: an exponential mean
        self._turn = 0  # where the search for a replica begins, so that equal ones take turns

    def submit(self, ticket: T, now: float) -> Verdict:
        """Starts the ticket if nobody waits and a replica has room, queues it if the queue has room, else refuses.

        While no replica is ready nothing new is queued: an engine's start takes minutes. What waits already goes on
        waiting, since a restart may be quicker than queue_timeout_s.
        """
        ticket.arrived_at = now
        if not self.queue and self._take(ticket, now):
            return Verdict.STARTED
        if not self.replicas.ready_ones or len(self.queue) >= self.max_queued:
            ticket.place = Place.ENDED
            return Verdict.QUEUE_FULL if self.replicas.ready_ones else Verdict.NOT_READY
        ticket.place = Place.QUEUED
        self.queue.append(ticket)
        return Verdict.QUEUED

    def release(self, ticket: T, now: float) -> list[T]:
        """Frees what the ticket holds, its slot or its place in the queue; again for an ended ticket does nothing.

        Returns the tickets that may start now; their ``replica`` is set.
        """
        if ticket.place is Place.STARTED:
            self._free(ticket)
            self._slot_s += 0.1 * (now - ticket.slot_since - self._slot_s)
        elif ticket.place is Place.QUEUED:
            self.queue.remove(ticket)
        ticket.place = Place.ENDED
        return self.pump(now) if self.queue else []

    def reassign(self, ticket: T, now: float) -> Verdict | None:
        """Moves a ticket whose replica failed it to another one, or back to its place in the queue. None: no other is ready.

        A ticket that holds no slot (its route needs none) just gets another replica.
        """
        failed = ticket.replica
        assert failed is not None
        failed.suspect_until = now + SUSPECT_S
        other = self.pick(now, avoid=failed)
        if other is None:
            return None
        if ticket.place is Place.NEW:
            ticket.replica = other
            return Verdict.STARTED
        self._free(ticket)
        if self._take(ticket, now, avoid=failed):
            return Verdict.STARTED
        ticket.place = Place.QUEUED
        older = sum(other.arrived_at < ticket.arrived_at for other in self.queue)
        self.queue.insert(older, ticket)
        return Verdict.QUEUED

    def pump(self, now: float) -> list[T]:
        """Starts waiting tickets while there is room; to be called when a replica becomes ready or is suspect no more."""
        started = []
        while self.queue and self._take(self.queue[0], now):
            started.append(self.queue.popleft())
        return started

    def expire(self, now: float) -> list[T]:
        """Takes the tickets out of the queue that have waited for queue_timeout_s; they are ended."""
        late = []
        while self.queue and self.queue[0].arrived_at + self.queue_timeout_s <= now:
            ticket = self.queue.popleft()
            ticket.place = Place.ENDED
            late.append(ticket)
        return late

    def next_expiry(self) -> float | None:
        """When expire has work to do."""
        return self.queue[0].arrived_at + self.queue_timeout_s if self.queue else None

    def retry_after_s(self) -> float:
        """When one more request would probably get a slot: what is ahead of it, at the pace of late."""
        ready = len(self.replicas.ready_ones)
        if not ready:
            return NOT_READY_RETRY_S
        ahead = len(self.queue) + 1
        return min(MAX_RETRY_AFTER_S, max(1.0, ahead * self._slot_s / (ready * self.max_in_flight)))

    def pick(self, now: float, avoid: Replica | None = None) -> Replica | None:
        """The ready replica with the least in flight, whether it has room or not.

        One whose connection failed within SUSPECT_S is only picked where there is no other: an engine that is gone
        fails at once, looks idle, and would otherwise draw all that waits.
        """
        ready = self.replicas.ready_ones
        if len(ready) == 1:
            return ready[0] if ready[0] is not avoid else None
        best, best_rank = None, (True, 0)
        self._turn += 1
        for offset in range(len(ready)):
            replica = ready[(self._turn + offset) % len(ready)]
            rank = (replica.suspect_until > now, replica.in_flight)
            if replica is not avoid and (best is None or rank < best_rank):
                best, best_rank = replica, rank
        return best

    def _take(self, ticket: T, now: float, avoid: Replica | None = None) -> bool:
        replica = self.pick(now, avoid)
        if replica is None or replica.in_flight >= self.max_in_flight:
            return False
        replica.in_flight += 1
        self.in_flight += 1
        ticket.replica, ticket.place, ticket.slot_since = replica, Place.STARTED, now
        return True

    def _free(self, ticket: T) -> None:
        assert ticket.replica is not None
        ticket.replica.in_flight -= 1
        self.in_flight -= 1

    def __repr__(self) -> str:
        capacity = len(self.replicas.ready_ones) * self.max_in_flight
        return f"<Dispatcher queue={len(self.queue)} inflight={self.in_flight}/{capacity}>"
