"""The dispatcher under any sequence of events, with a made-up clock: nothing is lost, nobody starves, nothing idles."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule

from launcher.gateway.dispatch import Dispatcher, Place, Priority, Ticket, Verdict
from launcher.gateway.ledger import Capacity
from launcher.gateway.modes import MODES, rules_of
from launcher.gateway.order import Account
from launcher.gateway.price import Price
from launcher.gateway.replicas import Endpoint, Replicas
from launcher.profile.model import AdmissionSection

CAPACITY = Capacity(batch_tokens=1000, sequences=4, kv_tokens=6000)
SECONDS = st.floats(0, 3)
TOKENS = st.sampled_from([1, 50, 200, 900, 1500, 4000])
ENDED_AT_ONCE = (Verdict.QUEUE_FULL, Verdict.TOO_LATE, Verdict.NOT_READY)


class Traffic(RuleBasedStateMachine):
    """Requests of every kind come, begin, end, fail and wait, while replicas come, go and fail, and modes change."""

    live = Bundle("live")

    @initialize(
        window=st.sampled_from([0.0, 0.05, 1.0]),
        when=st.sampled_from(["never", "when_saturated", "always"]),
        replicas=st.integers(1, 3),
        restart_wait=st.sampled_from([0.0, 2.0]),
    )
    def begin(self, window: float, when: str, replicas: int, restart_wait: float) -> None:
        known = Replicas()
        for index in range(replicas):
            known.add(index, Endpoint(f"http://127.0.0.1:{8001 + index}"))
            known.ready(index)
        own = {"deadline": 2.0, "deadline_per_1k": 0.5, "window": window, "window_when": when, "max_queued": 6}
        self.admission = AdmissionSection().model_copy(update=own | {"restart_wait": restart_wait})
        self.dispatcher: Dispatcher[Ticket] = Dispatcher(known, self.admission, CAPACITY)
        self.accounts = {name: Account(name) for name in ("", "a", "b")}
        self.now = 100.0
        self.known: list[Ticket] = []
        self.ends: dict[Ticket, int] = {}

    def _begun(self, tickets: list[Ticket]) -> None:
        assert len(set(tickets)) == len(tickets)
        for ticket in tickets:
            assert ticket.place is Place.STARTED
            assert ticket.replica in self.dispatcher.replicas.ready_ones

    @rule(
        target=live,
        prompt=TOKENS,
        output=st.integers(0, 500),
        sequences=st.sampled_from([1, 1, 1, 3, 9]),
        streams=st.booleans(),
        priority=st.sampled_from(list(Priority)),
        key=st.sampled_from(["", "a", "b"]),
        chain=st.sampled_from([(), (1, 2), (1, 2, 3)]),
    )
    def come(
        self,
        prompt: int,
        output: int,
        sequences: int,
        streams: bool,
        priority: Priority,
        key: str,
        chain: tuple[int, ...],
    ) -> Ticket:
        price = Price(prompt, output, sequences=sequences, streams=streams, chain=chain, block_tokens=100)
        ticket = Ticket(price, self.now, account=self.accounts[key], priority=priority)
        self.known.append(ticket)
        verdict = self.dispatcher.submit(ticket, self.now)
        if verdict is Verdict.QUEUED:
            assert ticket.place is Place.QUEUED
            self._begun(self.dispatcher.pump(self.now))
        elif verdict is Verdict.STARTED:
            self._begun([ticket])
        else:
            assert verdict in ENDED_AT_ONCE
            assert ticket.place is Place.ENDED
            assert 0 < self.dispatcher.retry_after_s(ticket, self.now) <= 120
        return ticket

    @rule(
        target=live,
        prompt=TOKENS,
        priority=st.sampled_from(list(Priority)),
        key=st.sampled_from(["", "a", "b"]),
    )
    def come_with_a_picture(self, prompt: int, priority: Priority, key: str) -> Ticket:
        ticket = Ticket(Price(prompt, 50), self.now, account=self.accounts[key], priority=priority)
        self.known.append(ticket)
        verdict = self.dispatcher.prepare(ticket, self.now)
        if verdict is Verdict.PREPARING:
            assert ticket.place is Place.PREPARING
        else:
            assert verdict in ENDED_AT_ONCE
            assert ticket.place is Place.ENDED
        return ticket

    @rule(ticket=live)
    def the_picture_is_ready(self, ticket: Ticket) -> None:
        if ticket.place is Place.PREPARING:
            verdict = self.dispatcher.prepared(ticket, self.now)
            self._begun([ticket] if verdict is Verdict.STARTED else self.dispatcher.pump(self.now))
            assert ticket.place in (Place.STARTED, Place.QUEUED)
            assert ticket.place is Place.STARTED or ticket.deadline_at > self.now

    @rule(ticket=live)
    def begin_to_answer(self, ticket: Ticket) -> None:
        if ticket.place is Place.STARTED and ticket.price.streams:
            self._begun(self.dispatcher.first_token(ticket, self.now))
            assert ticket.is_prefilled
            assert self.dispatcher.first_token(ticket, self.now) == []

    @rule(ticket=consumes(live), output=st.none() | st.integers(0, 700), succeeded=st.booleans())
    def end(self, ticket: Ticket, output: int | None, succeeded: bool) -> None:
        was_open = ticket.place is not Place.ENDED
        self._begun(self.dispatcher.release(ticket, self.now, output, succeeded=succeeded))
        assert ticket.place is Place.ENDED
        assert self.dispatcher.release(ticket, self.now) == []
        self.ends[ticket] = self.ends.get(ticket, 0) + was_open

    @rule(ticket=live)
    def fail(self, ticket: Ticket) -> None:
        if ticket.place is Place.STARTED:
            failed = ticket.replica
            verdict = self.dispatcher.reassign(ticket, self.now)
            if verdict is None:
                assert self.now >= ticket.rescue_by, "it was to wait for a restart for restart_wait in all"
            elif verdict is Verdict.STARTED:
                assert ticket.replica is not failed
            self._begun(self.dispatcher.pump(self.now))

    @rule(index=st.integers(0, 2), change=st.sampled_from(["ready", "down", "drain", "undrain"]))
    def health(self, index: int, change: str) -> None:
        replicas = self.dispatcher.replicas
        if index < len(replicas.all):
            if change == "down":
                replicas.down(index, "exited")
            else:
                getattr(replicas, change)(index)
            self._begun(self.dispatcher.pump(self.now))

    @rule(mode=st.sampled_from(list(MODES)))
    def switch(self, mode: str) -> None:
        self.dispatcher.use(rules_of(self.admission, mode))
        self._begun(self.dispatcher.pump(self.now))

    @rule(seconds=SECONDS)
    def time_passes(self, seconds: float) -> None:
        """As the gateway does it: woken when there is something to do."""
        until = self.now + seconds
        for _ in range(1000):
            due = self.dispatcher.next_wake()
            if due is None or due > until:
                break
            assert due >= self.now or due <= self.now, "a time"
            self.now = max(self.now, due)
            self._wake()
        else:
            raise AssertionError(f"woken again and again at {self.now}")
        self.now = until
        self._wake()

    def _wake(self) -> None:
        waited_too_long = {t for t in self.dispatcher.queue if t.deadline_at <= self.now}
        started, late = self.dispatcher.wake(self.now)
        self._begun(started)
        assert waited_too_long == {*late, *(t for t in started if t in waited_too_long)}
        for ticket in late:
            assert ticket.place is Place.ENDED
            self.ends[ticket] = self.ends.get(ticket, 0) + 1

    @precondition(lambda self: self.known)
    @rule()
    def rest(self) -> None:
        """All that runs or waits ends: every book is empty."""
        for ticket in self.known:
            if ticket.place is not Place.ENDED:
                self.dispatcher.release(ticket, self.now)
                self.ends[ticket] = self.ends.get(ticket, 0) + 1
        for replica in self.dispatcher.replicas.all:
            assert replica.ledger.amounts() == (0, 0, 0, 0, 0)
        assert (self.dispatcher.waiting, self.dispatcher.waiting_tokens, self.dispatcher.in_flight) == (0, 0, 0)
        assert all(account.active == 0 for account in self.accounts.values())
        assert self.dispatcher.queue.ahead(Ticket(Price(10**6, 0), priority=Priority.LOW), 1e12) == (0, 0)

    @invariant()
    def every_ticket_is_in_one_place(self) -> None:
        if not hasattr(self, "dispatcher"):
            return
        assert all(count == 1 for count in self.ends.values() if count)
        started = {ticket for ticket in self.known if ticket.place is Place.STARTED}
        assert set(self.dispatcher.started) == started
        assert {id(ticket) for ticket in self.dispatcher.queue} == {
            id(ticket) for ticket in self.known if ticket.place is Place.QUEUED
        }
        assert set(self.dispatcher.preparing) == {t for t in self.known if t.place is Place.PREPARING}
        for account in self.accounts.values():
            held = [t for t in self.known if t.account is account and t.place in (Place.STARTED, Place.QUEUED)]
            assert account.active == len(held)

    @invariant()
    def ledgers_are_the_sum_of_what_is_on_its_way(self) -> None:
        if not hasattr(self, "dispatcher"):
            return
        assert self.dispatcher.check()
        assert self.dispatcher.corrections == 0
        for replica in self.dispatcher.replicas.all:
            assert min(replica.ledger.amounts()) >= 0

    @invariant()
    def nothing_idle_while_something_admissible_waits(self) -> None:
        if not hasattr(self, "dispatcher"):
            return
        dispatcher = self.dispatcher
        for replica in dispatcher._usable(self.now):
            if replica.ledger.requests == 0 and dispatcher.rules.window_when != "always":
                able = [t for t in dispatcher.queue if not (t.avoid is replica and replica.suspect_until > self.now)]
                assert not able, f"{replica} has nothing to do and {able} wait"

    @invariant()
    def nobody_of_lower_priority_has_room_that_a_higher_one_waits_for(self) -> None:
        """Of two that take the same, the lower is never started while the higher one waits and was there before."""
        if not hasattr(self, "dispatcher"):
            return
        for waiting in self.dispatcher.queue:
            for other in self.dispatcher.started:
                if other.sent_at == self.now and other.lane > waiting.lane > 0 and waiting.arrived_at < self.now:
                    same = (waiting.price.prompt_tokens, waiting.kv_tokens, waiting.sequences, waiting.price.chain)
                    theirs = (other.price.prompt_tokens, other.kv_tokens, other.sequences, other.price.chain)
                    assert same != theirs or waiting.avoid is not None or other.avoid is not None

    @invariant()
    def who_came_first_and_takes_no_more_is_served_first(self) -> None:
        if not hasattr(self, "dispatcher"):
            return
        for a in self.dispatcher.queue:
            for b in self.dispatcher.queue:
                alike = a.lane == b.lane > 0 and a.account is b.account
                if alike and a.work_tokens <= b.work_tokens and a.arrived_at < b.arrived_at:
                    assert a.rank < b.rank


TestTraffic = Traffic.TestCase
TestTraffic.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
