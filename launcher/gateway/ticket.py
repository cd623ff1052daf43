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
    PREPARING = "preparing"  # let in, but not ready to be sent: its pictures are being made smaller
    QUEUED = "queued"
    STARTED = "started"
    ENDED = "ended"


class Verdict(Enum):
    """What became of a ticket that was handed in."""

    STARTED = "started"
    QUEUED = "queued"
    PREPARING = "preparing"
    QUEUE_FULL = "queue_full"
    TOO_LATE = "deadline_unreachable"
    NOT_READY = "not_ready"


class Ticket(Ranked):
    """One request's place: waiting, or holding its part of ``replica``. Written by the dispatcher alone."""

    __slots__ = (
        "arrived_at", "avoid", "deadline_at", "first_due", "in_hand", "is_prefilled",
        "kv_tokens", "output_tokens", "passed_since", "place", "price", "priority", "replica",
        "rescue_by", "rules", "sent_at", "sequences",
    )  # fmt: skip

    def __init__(
        self,
        price: Price,
        arrived_at: float = 0.0,
        *,
        account: Account | None = None,
        priority: int = Priority.NORMAL,
        rules: Rules | None = None,
    ) -> None:
        super().__init__()
        self.place = Place.NEW
        self.replica: Replica | None = None
        self.avoid: Replica | None = None  # it failed this request
        self.is_prefilled = False
        self.kv_tokens = 0
        self.output_tokens = 0
        self.sequences = 1
        self.sent_at = 0.0
        self.first_due = 0.0  # when its prompt is probably done, if its answer will not show it
        self.in_hand = 0  # prompt tokens that its replica had when it was sent, its own among them
        self.deadline_at = 0.0
        self.rescue_by = 0.0  # until when it waits to be taken over from an engine that failed it; 0: none has
        self.passed_since = 0.0  # others that fit were started before it since then; 0: not so
        self.price, self.arrived_at, self.priority, self.lane = price, arrived_at, priority, 1 + priority
        if account is not None:  # else the one that all share who have no key
            self.account = account
        self.rules = rules  # None: those of the endpoint
