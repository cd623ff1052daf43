"""How long a request would wait, by what is before it and the pace of late: for refusals at arrival, and Retry-After. Pure."""

from __future__ import annotations

from math import exp
from typing import TYPE_CHECKING, Any

from launcher.gateway.order import length_group

if TYPE_CHECKING:
    from launcher.gateway.dispatch import Dispatcher
    from launcher.gateway.ticket import Ticket

MAX_RETRY_AFTER_S = 120.0  # openai's clients ignore a longer one and do not retry at all
MIN_RETRY_AFTER_S = 0.05
NOT_READY_RETRY_S = 5.0  # nobody knows when an engine that is down comes back: ask again soon, but not at once
UNKNOWN_PACE_S = 1.0  # nothing has been learnt yet
INFLOW_S = 5.0
LEAST_SPARE = 0.1  # where more comes than can be done, nobody knows when that ends: ten times the wait as it is now


def expected_wait_s(dispatcher: Dispatcher[Any], ticket: Ticket, now: float) -> float | None:
    """Seconds until there is room for the ticket: for its prompt, or for its sequences, whichever comes later.

    None: the pace is not known yet.
    """
    room, speed, free, turnover = 0.0, 0.0, 0, 0.0
    for replica in dispatcher.replicas.ready_ones:
        caps, ledger, pace = dispatcher.caps(replica), replica.ledger, replica.pace
        room += caps.prefill_tokens - ledger.prefill_tokens
        if (prefill_s := pace.prefill_s) is not None:
            speed += 1 / prefill_s
            room += min(ledger.prefill_tokens, pace.busy_s(now) / prefill_s)  # what must be done of it by now
        free += caps.sequences - ledger.sequences
        if stay := pace.stay.value:
            turnover += caps.sequences / stay
    if not speed:
        return None
    own = min(ticket.prefill_tokens, dispatcher.max_prefill)
    # As if it came now: who asks when to come back comes later than it did.
    tokens, tickets = dispatcher.queue.ahead(ticket, dispatcher.rank(ticket, now))
    by_prompts = (tokens + own - room) / speed
    lacking = tickets + ticket.sequences - free
    by_sequences = lacking / turnover if lacking > 0 and turnover else 0.0
    return max(0.0, by_prompts, by_sequences)


def retry_after_s(dispatcher: Dispatcher[Any], ticket: Ticket, now: float) -> float:
    """Seconds after which a request such as this would probably be let in.

    What is before it goes away only as fast as the engines are faster than what still comes to be before it.
    """
    if not dispatcher.replicas.ready_ones:
        return NOT_READY_RETRY_S
    wait = expected_wait_s(dispatcher, ticket, now)
    if wait is None:
        return UNKNOWN_PACE_S
    speed = sum(1 / prefill_s for r in dispatcher.replicas.ready_ones if (prefill_s := r.pace.prefill_s) is not None)
    spare = max(LEAST_SPARE, 1 - dispatcher.inflow.before(ticket, now) / speed)
    return min(MAX_RETRY_AFTER_S, max(MIN_RETRY_AFTER_S, wait / spare))


class Inflow:
    """How many prompt tokens a second come of late, by lane and length group; faded over INFLOW_S."""

    __slots__ = ("_came",)

    def __init__(self) -> None:
        self._came: dict[tuple[int, int], list[float]] = {}  # faded tokens, and when they were last faded

    def note(self, ticket: Ticket, now: float) -> None:
        came = self._came.setdefault((ticket.lane, length_group(ticket.work_tokens)), [0.0, now])
        came[0] = came[0] * exp((came[1] - now) / INFLOW_S) + ticket.prefill_tokens
        came[1] = now

    def before(self, ticket: Ticket, now: float) -> float:
        """Prompt tokens a second that come to be served before a ticket of this lane and length, or with it."""
        own = (ticket.lane, length_group(ticket.work_tokens))
        came = [
            tokens * exp((at - now) / INFLOW_S) for kind, (tokens, at) in self._came.items() if _is_before(kind, own)
        ]
        return sum(came) / INFLOW_S


def _is_before(kind: tuple[int, int], own: tuple[int, int]) -> bool:
    return kind[0] < own[0] or (kind[0] == own[0] and kind[1] <= own[1])
