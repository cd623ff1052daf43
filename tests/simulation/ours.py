"""The gateway's own dispatcher as a policy of the arena."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from launcher.gateway.dispatch import Dispatcher, Ticket, Verdict
from launcher.gateway.ledger import Capacity
from launcher.gateway.order import Account
from launcher.gateway.price import Price
from launcher.gateway.replicas import Endpoint, Replicas
from launcher.profile.model import AdmissionSection
from tests.simulation.arena import QUEUED, STARTED
from tests.simulation.workload import Request

CAPACITY = Capacity(batch_tokens=8192, sequences=1024, kv_tokens=2_529_248)
BLOCK_TOKENS = 256.0  # of one link of a price's chain
EVIDENCE_DEADLINES: dict[str, Any] = {
    "deadline": "800ms",
    "deadline_per_1k": "549ms",
}  # 0.8 s for 128 tokens, 2.5 s for 4,096


class Ours:
    """The real Dispatcher with real Replicas; only the engines behind it are paced."""

    def __init__(
        self,
        capacity: Capacity = CAPACITY,
        replicas: int = 1,
        weights: Mapping[str, float] | None = None,
        price: Callable[[Request], Price] | None = None,
        **admission: Any,
    ) -> None:
        known = Replicas()
        for index in range(replicas):
            known.add(index, Endpoint(f"http://127.0.0.1:{index + 1}"))
            known.ready(index)
        section = AdmissionSection.model_validate(admission)
        self.dispatcher: Dispatcher[Ticket] = Dispatcher(known, section, capacity)
        self._requests: dict[Ticket, Request] = {}
        self._accounts: dict[str, Account] = {}
        self.weights = weights or {}
        self.price = price or priced

    def submit(self, request: Request, now: float) -> str:
        account = self._accounts.get(request.key)
        if account is None:
            account = self._accounts[request.key] = Account(request.key, self.weights.get(request.key, 1.0))
        ticket = Ticket(self.price(request), now, account=account, priority=request.priority)
        self._requests[ticket], request.ticket = request, ticket
        verdict = self.dispatcher.submit(ticket, now)
        if verdict is Verdict.STARTED:
            self._sent([ticket])
            return STARTED
        return QUEUED if verdict is Verdict.QUEUED else verdict.value

    def after_queued(self, now: float) -> tuple[Iterable[Request], Iterable[Request]]:
        return self.wake(now)

    def first_token(self, request: Request, now: float) -> Iterable[Request]:
        return self._sent(self.dispatcher.first_token(_ticket(request), now))

    def release(self, request: Request, now: float) -> Iterable[Request]:
        return self._sent(self.dispatcher.release(_ticket(request), now, output_tokens=request.output))

    def wake(self, now: float) -> tuple[Iterable[Request], Iterable[Request]]:
        started, evicted = self.dispatcher.wake(now)
        return self._sent(started), [self._requests[ticket] for ticket in evicted]

    def next_wake(self) -> float | None:
        return self.dispatcher.next_wake()

    def retry_after_s(self, request: Request, now: float) -> float:
        return self.dispatcher.retry_after_s(_ticket(request), now)

    def _sent(self, tickets: list[Ticket]) -> list[Request]:
        for ticket in tickets:
            assert ticket.replica is not None
            self._requests[ticket].replica = ticket.replica.index
        return [self._requests[ticket] for ticket in tickets]

    def __repr__(self) -> str:
        return repr(self.dispatcher)


def priced(request: Request) -> Price:
    """The price of a request whose length is estimated right."""
    return Price(request.prompt, request.output, streams=request.streams)


def priced_with_prefix(request: Request) -> Price:
    """The same, with the chain of its dialogue: one link for each whole block of text."""
    blocks = int(request.prompt / BLOCK_TOKENS)
    chain = tuple(hash((request.session, block)) for block in range(blocks))
    return Price(request.prompt, request.output, streams=request.streams, chain=chain, block_tokens=BLOCK_TOKENS)


def _ticket(request: Request) -> Ticket:
    assert isinstance(request.ticket, Ticket)
    return request.ticket
