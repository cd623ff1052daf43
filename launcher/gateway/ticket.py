"""One request's place: waiting, or holding its part of a replica."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from launcher.gateway.modes import Priority, Rules
from launcher.gateway.order import Account, Ranked
from launcher.gateway.price import Price

if TYPE_CHECKING:
    from launcher.gateway.replicas import Replica


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
    TOO_LATE = "deadline_unreachable"
    NOT_READY = "not_ready"


class Ticket(Ranked):
    """One request's place: waiting, or holding its part of ``replica``. Written by the dispatcher alone."""

    place = Place.NEW
    replica: Replica | None = None
    avoid: Replica | None = None  # it failed this request
    is_prefilled = False
    kv_tokens = 0
    output_tokens = 0
    sequences = 1
    sent_at = 0.0
    first_due = 0.0  # when its prompt is probably done, if its answer will not show it
    in_hand = 0  # prompt tokens that its replica had when it was sent, its own among them
    deadline_at = 0.0
    rescue_by = 0.0  # until when it waits to be taken over from an engine that failed it; 0: none has
    passed_since = 0.0  # others that fit were started before it since then; 0: not so

    def __init__(
        self,
        price: Price,
        arrived_at: float = 0.0,
        *,
        account: Account | None = None,
        priority: int = Priority.NORMAL,
        rules: Rules | None = None,
    ) -> None:
        self.price, self.arrived_at, self.priority, self.lane = price, arrived_at, priority, 1 + priority
        if account is not None:  # else the one that all share who have no key
            self.account = account
        self.rules = rules  # None: those of the endpoint
