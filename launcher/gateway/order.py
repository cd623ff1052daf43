"""Who is served next: priority first, then each key's fair share, then the cheapest work, with ageing. Pure.

A ticket's rank is its work in tokens plus its arrival time in tokens (``ageing`` turns seconds into tokens), so ranks never
change while tickets wait: a queue is a sorted list. What is alike stands together and is sent together, nearly first come,
first served. A ticket is never overtaken, within its priority and key, by one that came more than ``work / ageing`` seconds
later. Length groups, powers of two, tell only how much of what length comes: as ranks they would tear requests of one length
apart whose estimates lie around a group's bound, and those above it would pay for it at the 99th percentile.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from heapq import merge
from operator import attrgetter
from typing import Final, Generic, TypeVar

SMALLEST_GROUP = 64  # tokens; to tell still smaller requests apart gains nothing: a step costs more than they do


def rank(work_tokens: int, arrived: float) -> float:
    """The place in the queue, lowest first; ``arrived`` in tokens."""
    return max(SMALLEST_GROUP, work_tokens) + arrived


def _step(rank: float) -> int:
    return int(rank // SMALLEST_GROUP)


def length_group(tokens: int) -> int:
    """The upper bound of a request's length group: 64, 128, 256, …"""
    return SMALLEST_GROUP if tokens <= SMALLEST_GROUP else 1 << (tokens - 1).bit_length()


class Account:
    """What one key was given: tokens served, divided by its weight. Written by the dispatcher alone.

    A virtual token counter (Sheng et al., Fairness in Serving Large Language Models, 2024): who has been given least is
    served first; who comes back after a pause starts level with the others, so that nobody saves up.
    """

    __slots__ = ("active", "name", "served", "weight")

    def __init__(self, name: str, weight: float = 1.0) -> None:
        self.name, self.weight = name, weight
        self.served = 0.0
        self.active = 0  # requests that wait or run

    def charge(self, tokens: float) -> None:
        self.served += tokens / self.weight

    def __repr__(self) -> str:
        return f"<Account {self.name!r} served={self.served:.0f} active={self.active}>"


NOBODY: Final = Account("")  # whose a ticket is before anybody has said


class Ranked:
    """What a queue needs to know of a ticket."""

    __slots__ = ("account", "lane", "number", "prefill_tokens", "rank", "work_tokens")

    def __init__(self) -> None:
        self.account = NOBODY  # the dispatcher gives it another one at the latest
        self.lane: int = 1  # the priority; tickets that were admitted once already come before all: lane 0
        self.rank = 0.0
        self.number = 0  # in order of arrival
        self.work_tokens = 0  # uncached prompt and expected answer
        self.prefill_tokens = 0


R = TypeVar("R", bound=Ranked)
LANES = 4
_by_rank = attrgetter("rank", "number")


class Waiting(Generic[R]):
    """The tickets that wait, each account's in a sorted list of its own in the lane of its priority."""

    def __init__(self, slack_tokens: float) -> None:
        self._lanes: list[dict[Account, list[R]]] = [{} for _ in range(LANES)]
        self._slack = slack_tokens  # how far a key may be ahead of the others before it has to wait for them
        self._ahead: list[dict[int, list[int]]] = [
            {} for _ in range(LANES)
        ]  # by step of the rank: prompt tokens, tickets
        self.count = 0
        self.tokens = 0

    def add(self, ticket: R) -> None:
        lane = self._lanes[ticket.lane]
        line = lane.get(ticket.account)
        if line is None:
            line = lane[ticket.account] = []
        insort(line, ticket, key=_by_rank)
        self._count(ticket, 1)

    def remove(self, ticket: R) -> None:
        lane = self._lanes[ticket.lane]
        line = lane[ticket.account]
        del line[bisect_left(line, _by_rank(ticket), key=_by_rank)]
        if not line:
            del lane[ticket.account]
        self._count(ticket, -1)

    def _count(self, ticket: R, sign: int) -> None:
        self.count += sign
        self.tokens += sign * ticket.work_tokens
        lane, step = self._ahead[ticket.lane], _step(ticket.rank)
        there = lane.setdefault(step, [0, 0])
        there[0] += sign * ticket.prefill_tokens
        there[1] += sign
        if not there[1]:
            del lane[step]

    def in_order(self) -> Iterator[R]:
        """The tickets as they are to be served. They may be removed, and their accounts charged, on the way."""
        for lane in self._lanes:
            if len(lane) == 1:
                yield from tuple(next(iter(lane.values())))
            elif lane:
                yield from self._shared(lane)

    def _shared(self, lane: dict[Account, list[R]]) -> Iterator[R]:
        """Accounts within the slack of the one that was given least, by rank; the others after them, by their share."""
        lines = {account: iter(tuple(line)) for account, line in lane.items()}
        heads = {account: next(line) for account, line in lines.items()}
        while heads:
            limit = min(account.served for account in heads) + self._slack
            due = [account for account in heads if account.served <= limit]
            account = min(due, key=lambda account: (heads[account].rank, heads[account].number))
            yield heads[account]
            following = next(lines[account], None)
            if following is None:
                del heads[account]
            else:
                heads[account] = following

    def ahead(self, ticket: R, rank: float) -> tuple[int, int]:
        """Prompt tokens and tickets that would be served before a ticket of this lane and key, were it queued with ``rank``.

        Where others' tickets wait too, no more than what its key's share of the engines leaves before it. Counted by steps of
        SMALLEST_GROUP: what is nearer than that counts as before it.
        """
        lane, step = self._lanes[ticket.lane], _step(rank)
        higher = [there for other in self._ahead[: ticket.lane] for there in other.values()]
        before = [there for other, there in self._ahead[ticket.lane].items() if other <= step]
        tokens, tickets = (sum(there[i] for there in before) for i in (0, 1))
        account = ticket.account
        if account is not NOBODY and len(lane) + (account not in lane) > 1:
            own = [other.prefill_tokens for other in lane.get(account, ()) if _step(other.rank) <= step]
            times = (sum(other.weight for other in lane) + (0 if account in lane else account.weight)) / account.weight
            tokens = min(tokens, round((sum(own) + ticket.prefill_tokens) * times) - ticket.prefill_tokens)
            tickets = min(tickets, round((len(own) + 1) * times) - 1)
        return tokens + sum(there[0] for there in higher), tickets + sum(there[1] for there in higher)

    def __iter__(self) -> Iterator[R]:
        """All of them, by rank within each lane; for looking at."""
        for lane in self._lanes:
            yield from merge(*lane.values(), key=_by_rank)

    def __len__(self) -> int:
        return self.count

    def __repr__(self) -> str:
        return f"<Waiting {self.count} tokens={self.tokens}>"
