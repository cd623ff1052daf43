"""Who gets which engine, who waits and who is refused: the queue, the ledgers and the fair shares. Decides only; no I/O.

A request goes to a replica when its prompt fits into what that replica may have in hand before first tokens (about one
batch token budget), its sequences into max_num_seqs, and prompt and answer into the KV cache. Until then it waits, in
the order of `order`, no longer than its deadline. Three things together make this worth while (loadtests/RESULTS.md):
the cap on prompt work in hand, cheapest work first, and the deadline.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Generic, TypeVar

from launcher.gateway.forecast import Inflow, expected_wait_s, retry_after_s
from launcher.gateway.ledger import Capacity, Caps
from launcher.gateway.modes import Priority, Rules, rules_of
from launcher.gateway.order import Waiting, rank
from launcher.gateway.replicas import Replica, Replicas
from launcher.gateway.shares import Shares
from launcher.gateway.ticket import Place, Ticket, Verdict
from launcher.profile.model import AdmissionSection

SUSPECT_S = 1.0  # how long a replica whose connection failed comes after the others
MISSED = 1.25  # refused at arrival if the wait will probably be longer than this times the deadline: a guess is a guess
LOOK_AHEAD = 32  # how many tickets that do not fit are passed over in search of one that does
CREDIT_BUDGETS = 8  # batch token budgets that a key may be behind the one that was given most
SHARE_SLACK = (
    0.25  # batch token budgets by which a key may be ahead of others that wait; more: cheaper goes first for longer
)
PATIENCE = 0.5  # of ageing: a ticket that was passed over for so long is passed over no more
QUEUE_BUDGETS = 64  # max_queued_tokens, where it is not given, in caps of prompt work

__all__ = ["Dispatcher", "Place", "Priority", "Ticket", "Verdict"]


T = TypeVar("T", bound=Ticket)


class Dispatcher(Generic[T]):
    """The one writer of the queue, of each replica's ledger, caps and pace, and of the accounts.

    Every method decides at once and returns what its caller has to start; times are the event loop's, in seconds.
    """

    def __init__(self, replicas: Replicas, admission: AdmissionSection, capacity: Capacity) -> None:
        self.replicas, self.admission, self.capacity = replicas, admission, capacity
        self.shares = Shares(capacity.batch_tokens * CREDIT_BUDGETS)
        self.started: dict[T, None] = {}  # all that hold something, in the order in which they were sent
        self.preparing: dict[T, None] = {}  # let in, and not ready to be sent yet: they hold nothing
        self._preparing_tokens = 0
        self.limit_moves = 0  # of adaptive limits
        self.corrections = 0  # ledgers that were not the sum of what is on its way; a bug of ours, each time
        self.queue: Waiting[T] = Waiting(capacity.batch_tokens * SHARE_SLACK)
        self.inflow = Inflow()
        self._expiries: list[tuple[float, int, T]] = []
        self._numbers = 0
        self._pumped_at = 0.0  # a window that had ended by then holds nobody any more
        self._ageing = capacity.batch_tokens / admission.ageing  # tokens a second
        self._burst, self._adaptive = admission.burst, admission.adaptive
        self._affinity = admission.prefix_affinity
        self.gateways = 1  # in front of these replicas
        self.use(rules_of(admission))

    # Settings that move.

    def use(self, rules: Rules) -> None:
        """Takes over a mode's rules; what waits keeps the deadline that it was given."""
        self.rules = rules
        whole = self.admission.max_prefill or round(self.capacity.batch_tokens * rules.prefill_budgets)
        self.max_prefill = max(1, whole // self.gateways)
        self.max_sequences = max(1, (self.admission.max_in_flight or self.capacity.sequences) // self.gateways)
        self._has_window = rules.window_when != "never" and rules.window_s > 0
        self._bursts = self._burst > 1 and rules.window_when != "always"
        for replica in self.replicas.all:
            replica.caps = None

    def share_engines(self, gateways: int) -> None:
        """So many gateways, this one among them, are in front of the replicas: it takes its share of each cap.

        Shares are rounded down, and are at least 1. What runs already is not cut off: where the share has become
        smaller, nothing is started until enough has ended.
        """
        self.gateways = gateways
        self.use(self.rules)

    def caps(self, replica: Replica) -> Caps:
        """How much of each a replica gets."""
        caps = replica.caps
        if caps is None:
            kv_tokens = self.capacity.kv_tokens
            share = kv_tokens and max(1, kv_tokens // self.gateways)
            caps = replica.caps = Caps(self.max_prefill, self.max_sequences, share)
            caps.rescale(replica.limit.scale)
        return caps

    # Tickets.

    def submit(self, ticket: T, now: float) -> Verdict:
        """Starts the ticket if a replica has room and nobody is before it, queues it, or refuses it.

        While no replica is ready nothing new is queued, for an engine's start takes minutes, unless admission.hold says so.
        After QUEUED the caller pumps: the ticket may fit where those before it do not.
        """
        usable = self._usable(now)
        self._assess(ticket, usable)
        if not usable:
            verdict = self._may_be_held(ticket)
            if verdict is Verdict.QUEUED:
                self._line_up(ticket, ticket.arrived_at + self.admission.hold)
            else:
                ticket.place = Place.ENDED
            return verdict
        if not self.queue.count:
            self._settle(now)
            if self._start_somewhere(ticket, now, usable, is_first=True):
                return Verdict.STARTED
        ticket.lane = 1 + ticket.priority
        self.inflow.note(ticket, now)
        patience_s = self.patience_s(ticket)
        verdict = self._may_wait(ticket, now, patience_s)
        if verdict is Verdict.QUEUED:
            self._line_up(ticket, ticket.arrived_at + patience_s)
        else:
            ticket.place = Place.ENDED
        return verdict

    def prepare(self, ticket: T, now: float) -> Verdict:
        """Lets in, or refuses, a ticket that takes a while before it can be sent; then ``prepared`` hands it in.

        Until then it holds no room, so that no engine waits for it, and has no deadline: its sender is not to pay for
        our work, which has limits of its own.
        """
        verdict = self.foresee(ticket, now)
        if verdict is Verdict.QUEUED:
            ticket.place, verdict = Place.PREPARING, Verdict.PREPARING
            self.preparing[ticket] = None
            self._preparing_tokens += ticket.work_tokens
        else:
            ticket.place = Place.ENDED
        return verdict

    def prepared(self, ticket: T, now: float) -> Verdict:
        """The ticket can be sent: its deadline begins. After QUEUED the caller pumps, as after submit."""
        self._unprepare(ticket)
        usable = self._usable(now)
        self._assess(ticket, usable)
        if not self.queue.count:
            self._settle(now)
            if self._start_somewhere(ticket, now, usable, is_first=True):
                return Verdict.STARTED
        self.inflow.note(ticket, now)
        patience_s = self.patience_s(ticket)
        self._line_up(ticket, now + (patience_s if usable else max(patience_s, self.admission.hold)))
        return Verdict.QUEUED

    def foresee(self, ticket: T, now: float) -> Verdict:
        """What a ticket would be told now: QUEUED if it may come, at once or after a wait. Changes nothing but the ticket."""
        usable = self._usable(now)
        self._assess(ticket, usable)
        if not usable:
            return self._may_be_held(ticket)
        ticket.lane = 1 + ticket.priority
        has_room = not self.queue.count and self._has_room_beside_preparing(ticket, usable)
        return Verdict.QUEUED if has_room else self._may_wait(ticket, now, self.patience_s(ticket))

    def first_token(self, ticket: T, now: float) -> list[T]:
        """The ticket's first token has come: its prompt is no longer ahead of anybody. Returns who may start now."""
        if ticket.place is not Place.STARTED or ticket.is_prefilled:
            return []
        assert ticket.replica is not None
        replica = ticket.replica
        replica.pace.prefilled(ticket.prefill_tokens, now)
        self._prefilled(ticket)
        ticket.rescue_by = 0.0  # it has been taken over: another loss gets a time of its own
        if self._adaptive and replica.limit.first_token(ticket.prefill_tokens, self.queue.count > 0, now):
            self.limit_moves += 1
            self.caps(replica).rescale(replica.limit.scale)
        unseen = replica.unseen
        while unseen and unseen[0].sent_at < ticket.sent_at:  # an engine takes prompts in turn
            self._unseen_done(unseen.popleft(), replica)
        return self.pump(now) if self.queue.count else []

    def release(
        self,
        ticket: T,
        now: float,
        output_tokens: int | None = None,
        *,
        succeeded: bool = True,
        streamed: tuple[int, float] | None = None,
    ) -> list[T]:
        """Frees what the ticket holds, its room or its place in the queue; again for an ended ticket does nothing.

        ``output_tokens``: what the answer came to, where that is known; ``streamed``: how many pieces came after the
        first, in how many seconds. Returns the tickets that may start now.
        """
        if ticket.place is Place.STARTED:
            if succeeded:
                self._learn(ticket, now, streamed)
            self._free(ticket)
            if output_tokens is not None:
                ticket.account.charge(output_tokens - ticket.output_tokens)
        elif ticket.place is Place.QUEUED:
            self.queue.remove(ticket)
        else:
            if ticket.place is Place.PREPARING:
                self._unprepare(ticket)
            ticket.place = Place.ENDED
            return []
        self._end(ticket)
        return self.pump(now) if self.queue.count else []

    def reassign(self, ticket: T, now: float) -> Verdict | None:
        """Takes a ticket from a replica that failed it: to another one, or to the head of the queue for restart_wait.

        None: there is no other and restart_wait is 0. A ticket that holds nothing (its route needs no room) just gets
        another replica.
        """
        failed = ticket.replica
        assert failed is not None
        failed.suspect_until = now + SUSPECT_S
        ticket.avoid = failed
        ticket.rescue_by = ticket.rescue_by or now + self.admission.restart_wait
        if ticket.place is Place.NEW:
            ticket.replica = self.pick(now, avoid=failed)
            return Verdict.STARTED if ticket.replica is not None else None
        others = any(replica is not failed for replica in self.replicas.ready_ones)
        if not others and now >= ticket.rescue_by:
            return None
        self._free(ticket)
        ticket.account.charge(-ticket.work_tokens)
        if self._start_somewhere(ticket, now, self._usable(now)):
            return Verdict.STARTED
        ticket.lane, ticket.rank = 0, ticket.arrived_at
        self._queue(ticket, ticket.rescue_by)
        return Verdict.QUEUED

    def pump(self, now: float) -> list[T]:
        """Starts waiting tickets while there is room. To be called when a replica becomes ready or is suspect no more."""
        started: list[T] = []
        if not self.queue.count:
            return started
        self._pumped_at = now
        self._settle(now)
        open_ones = [r for r in self._usable(now) if not self.caps(r).is_full(r.ledger) and self._may_send(r, now)]
        passed = 0
        for ticket in self.queue.in_order() if open_ones else ():
            if self._start_somewhere(ticket, now, open_ones):
                started.append(ticket)
                open_ones = [replica for replica in open_ones if not self.caps(replica).is_full(replica.ledger)]
                if not open_ones:
                    break
                continue
            passed += 1
            if not ticket.passed_since:
                ticket.passed_since = now
            if passed >= LOOK_AHEAD or now - ticket.passed_since > PATIENCE * self.admission.ageing:
                break
        return started

    def wake(self, now: float) -> tuple[list[T], list[T]]:
        """What time has brought: who may start, and who has waited too long and is ended."""
        started = self.pump(now)
        late = []
        while self._expiries and self._expiries[0][0] <= now:
            due, _, ticket = heappop(self._expiries)
            if ticket.place is Place.QUEUED and ticket.deadline_at == due:
                self.queue.remove(ticket)
                self._end(ticket)
                late.append(ticket)
        return started, late

    def next_wake(self) -> float | None:
        """When wake has something to do: a deadline passes, a window ends, a prompt is done that does not show it."""
        expiries = self._expiries
        while expiries and (expiries[0][2].place is not Place.QUEUED or expiries[0][2].deadline_at != expiries[0][0]):
            heappop(expiries)
        if not expiries:
            return None
        due = expiries[0][0]
        for replica in self.replicas.ready_ones:
            if replica.unseen:
                due = min(due, replica.unseen[0].first_due)
            if (held := self._held_until(replica)) is not None and held > self._pumped_at:
                due = min(due, held)
        return due

    # Looked up.

    def rules_for(self, ticket: Ticket) -> Rules:
        """Those that it asked for, else those of the endpoint."""
        return ticket.rules or self.rules

    def patience_s(self, ticket: Ticket) -> float:
        """How long it may wait in the queue."""
        return self.rules_for(ticket).deadline_s(ticket.priority, ticket.prefill_tokens)

    def expected_wait_s(self, ticket: T, now: float) -> float | None:
        """How long the ticket would wait; see ``forecast``."""
        return expected_wait_s(self, ticket, now)

    def retry_after_s(self, ticket: T, now: float) -> float:
        """When a request such as this would probably be let in; see ``forecast``."""
        return retry_after_s(self, ticket, now)

    def pick(self, now: float, avoid: Replica | None = None) -> Replica | None:
        """The ready replica with the least work, whether it has room or not; a suspect one only if there is no other."""
        ready = [replica for replica in self.replicas.ready_ones if replica is not avoid]
        return min(ready, key=lambda r: (r.suspect_until > now, r.ledger.work, r.turn), default=None)

    @property
    def max_queued_tokens(self) -> int:
        """Most tokens that wait; a single request may be larger."""
        ready = max(1, len(self.replicas.ready_ones))
        return self.admission.max_queued_tokens or QUEUE_BUDGETS * self.max_prefill * ready

    # Within.

    def _usable(self, now: float) -> list[Replica]:
        """The ready replicas; those whose connection failed of late only where there is no other.

        An engine that is gone fails at once, looks idle, and would otherwise draw all that waits.
        """
        ready = self.replicas.ready_ones
        for replica in ready:
            if replica.suspect_until > now:
                return [r for r in ready if r.suspect_until <= now] or ready
        return ready

    def _assess(self, ticket: T, usable: list[Replica]) -> None:
        """What the ticket will take, where most of it is cached; at its start it is charged for what is not cached there."""
        price = ticket.price
        cached = max([r.cached_tokens(price) for r in usable], default=0) if price.chain else 0
        ticket.sequences, ticket.output_tokens = price.sequences, price.output_tokens
        ticket.prefill_tokens = max(1, price.prompt_tokens - cached)
        ticket.work_tokens = ticket.prefill_tokens + price.output_tokens
        ticket.kv_tokens = price.prompt_tokens + price.output_tokens

    @property
    def waiting(self) -> int:
        """How many wait: for an engine, or to be ready for one."""
        return self.queue.count + len(self.preparing)

    @property
    def waiting_tokens(self) -> int:
        """The work of these."""
        return self.queue.tokens + self._preparing_tokens

    def _may_be_held(self, ticket: T) -> Verdict:
        """While no replica is ready: QUEUED where the profile has requests wait for one, and there is room for it."""
        ticket.lane = 1 + ticket.priority
        if not self.admission.hold:
            return Verdict.NOT_READY
        return Verdict.QUEUE_FULL if self._is_queue_full(ticket) else Verdict.QUEUED

    def _is_queue_full(self, ticket: T) -> bool:
        waiting = self.waiting
        if waiting >= self.admission.max_queued:
            return True
        return bool(waiting) and self.waiting_tokens + ticket.work_tokens > self.max_queued_tokens

    def _may_wait(self, ticket: T, now: float, patience_s: float) -> Verdict:
        if self._is_queue_full(ticket):
            return Verdict.QUEUE_FULL
        wait = self.expected_wait_s(ticket, now)
        return Verdict.TOO_LATE if wait is not None and wait > MISSED * patience_s else Verdict.QUEUED

    def _has_room_beside_preparing(self, ticket: T, usable: list[Replica]) -> bool:
        """Whether the ticket would be started, were it and all that is preparing handed in now."""
        prefill_room, sequence_room, fits = 0.0, 0, False
        for replica in usable:
            ledger, caps = replica.ledger, self.caps(replica)
            prefill_room += max(0.0, self._burst * caps.prefill_tokens - ledger.prefill_tokens)
            sequence_room += max(0, caps.sequences - ledger.sequences)
            fits = fits or caps.fits(ledger, ticket.prefill_tokens, ticket.sequences, ticket.kv_tokens, self._burst)
        if not self.preparing:
            return fits
        prefill_room -= sum([other.prefill_tokens for other in self.preparing])
        sequence_room -= sum([other.sequences for other in self.preparing])
        return fits and prefill_room >= ticket.prefill_tokens and sequence_room >= ticket.sequences

    def _unprepare(self, ticket: T) -> None:
        del self.preparing[ticket]
        self._preparing_tokens -= ticket.work_tokens

    def _line_up(self, ticket: T, deadline_at: float) -> None:
        """Into the queue, by its lane, its length and its age."""
        self.shares.open(ticket)
        ticket.rank = self.rank(ticket, ticket.arrived_at)
        self._queue(ticket, deadline_at)

    def rank(self, ticket: T, at: float) -> float:
        """Its place in the queue, had it come then."""
        return rank(ticket.work_tokens, at * self._ageing)

    def _queue(self, ticket: T, deadline_at: float) -> None:
        ticket.place, ticket.deadline_at, ticket.passed_since = Place.QUEUED, deadline_at, 0.0
        self._numbers += 1
        ticket.number = self._numbers
        self.queue.add(ticket)
        heappush(self._expiries, (deadline_at, ticket.number, ticket))

    def _start_somewhere(self, ticket: T, now: float, among: list[Replica], is_first: bool = False) -> bool:
        """Sends the ticket where it fits and is done soonest: least work in hand, what it has cached taken off.

        ``is_first``: nobody waits, so that it may use admission.burst times the cap.
        """
        best: Replica | None = None
        best_cost, best_prefill, price = (0, 0), 0, ticket.price
        room, waits = (self._burst, not self._bursts) if is_first else (1.0, True)
        for replica in among:
            if replica is ticket.avoid and replica.suspect_until > now:
                continue
            cached = replica.cached_tokens(price) if price.chain else 0
            prefill_tokens = max(1, price.prompt_tokens - cached)
            if waits and not self._may_send(replica, now):
                continue
            ledger, caps = replica.ledger, replica.caps or self.caps(replica)
            if caps.fits(ledger, prefill_tokens, ticket.sequences, ticket.kv_tokens, room):
                cost = (ledger.work + (prefill_tokens if self._affinity else 0), replica.turn)
                if best is None or cost < best_cost:
                    best, best_cost, best_prefill = replica, cost, prefill_tokens
        if best is None:
            return False
        if ticket.place is Place.QUEUED:
            self.queue.remove(ticket)
        elif ticket.place is Place.NEW or ticket.place is Place.PREPARING:
            self.shares.open(ticket)
        self._start(ticket, best, best_prefill, now)
        return True

    def _start(self, ticket: T, replica: Replica, prefill_tokens: int, now: float) -> None:
        price, ledger, pace = ticket.price, replica.ledger, replica.pace
        ticket.prefill_tokens, ticket.is_prefilled = prefill_tokens, False
        ticket.work_tokens = prefill_tokens + ticket.output_tokens
        if not ledger.prefill_tokens:
            pace.began(now)
        ledger.take(ticket)
        ticket.account.charge(ticket.work_tokens)
        ticket.replica, ticket.place, ticket.sent_at, ticket.in_hand = (
            replica,
            Place.STARTED,
            now,
            ledger.prefill_tokens,
        )
        self.started[ticket] = None
        self._numbers += 1
        replica.turn, replica.group_at = self._numbers, now
        if not price.streams:
            done_s = pace.prompt_done_s(ledger.prefill_tokens, ticket.output_tokens)
            if done_s is not None:
                ticket.first_due = now + done_s
                replica.unseen.append(ticket)
        if price.chain:
            replica.remember(price)

    def _prefilled(self, ticket: Ticket) -> None:
        assert ticket.replica is not None
        ticket.is_prefilled = True
        ticket.replica.ledger.prefilled(ticket)

    def _settle(self, now: float) -> None:
        """Frees the prompt room of answers that come as a whole: their first token is not seen, only worked out."""
        for replica in self.replicas.ready_ones:
            unseen = replica.unseen
            while unseen and unseen[0].first_due <= now:
                self._unseen_done(unseen.popleft(), replica)

    def _unseen_done(self, ticket: Ticket, replica: Replica) -> None:
        if ticket.place is Place.STARTED and ticket.replica is replica and not ticket.is_prefilled:
            self._prefilled(ticket)

    def _learn(self, ticket: T, now: float, streamed: tuple[int, float] | None) -> None:
        assert ticket.replica is not None
        replica, stay = ticket.replica, now - ticket.sent_at
        replica.pace.stay.add(stay)
        if not ticket.price.streams:
            replica.pace.whole_stay.add(stay)
        elif streamed is not None and streamed[0] > 0:
            replica.pace.token.add(streamed[1], streamed[0])
            replica.limit.streamed(*streamed)

    def _free(self, ticket: T) -> None:
        assert ticket.replica is not None
        ticket.replica.ledger.free(ticket)
        self.started.pop(ticket, None)

    def _end(self, ticket: T) -> None:
        ticket.place = Place.ENDED
        self.shares.close(ticket)

    # The window.

    def _is_saturated(self, replica: Replica) -> bool:
        return 2 * replica.ledger.prefill_tokens >= self.caps(replica).prefill_tokens

    def _held_until(self, replica: Replica) -> float | None:
        """Until when a replica's next group is still collected; None: it may go at once."""
        if not self._has_window:
            return None
        rules = self.rules
        if rules.window_when == "when_saturated" and not self._is_saturated(replica):
            return None
        return replica.group_at + rules.window_s

    def _may_send(self, replica: Replica, now: float) -> bool:
        if not self._has_window:
            return True
        held = self._held_until(replica)
        return held is None or held <= now or replica.group_at == now

    # Seen from outside.

    @property
    def in_flight(self) -> int:
        return len(self.started)

    def check(self) -> bool:
        """Compares every ledger with the sum of what is on its way, and puts right what differs (a bug of ours)."""
        wrong = 0
        for replica in self.replicas.all:
            wrong += replica.ledger.differs([t for t in self.started if t.replica is replica])
        self.corrections += wrong
        return not wrong

    def __repr__(self) -> str:
        prefill = sum(replica.ledger.prefill_tokens for replica in self.replicas.all)
        ready = len(self.replicas.ready_ones)
        return (
            f"<Dispatcher queue={self.queue.count} inflight={len(self.started)}/{ready * self.max_sequences} "
            f"prefill={prefill}/{ready * self.max_prefill}>"
        )
