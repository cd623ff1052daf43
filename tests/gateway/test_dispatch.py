"""The dispatcher alone (pure, with a made-up clock), and what clients see of it: order, caps, 429, 503, drain."""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from launcher.gateway.dispatch import Dispatcher, Place, Ticket, Verdict
from launcher.gateway.replicas import Endpoint, Replicas
from tests.fakes.process import FakeEngine, fake_engine
from tests.gateway.harness import CHAT, chat, events, gateway_to, request_bytes


def made(replicas: int = 1, max_in_flight: int = 2, max_queued: int = 3, timeout_s: float = 10) -> Dispatcher[Ticket]:
    known = Replicas()
    for index in range(replicas):
        known.add(index, Endpoint(f"http://127.0.0.1:{8001 + index}"))
        known.ready(index)
    return Dispatcher(known, max_in_flight=max_in_flight, max_queued=max_queued, queue_timeout_s=timeout_s)


def test_repr_tells_how_it_stands() -> None:
    dispatcher = made(replicas=4)
    for _ in range(10):
        dispatcher.submit(Ticket(), 0.0)
    assert repr(dispatcher) == "<Dispatcher queue=2 inflight=8/8>"


def test_least_in_flight_goes_first_and_equals_take_turns() -> None:
    dispatcher = made(replicas=3, max_in_flight=2)
    tickets = [Ticket() for _ in range(6)]
    for ticket in tickets:
        dispatcher.submit(ticket, 0.0)
    assert sorted(t.replica.index for t in tickets[:3] if t.replica) == [0, 1, 2]
    freed = tickets[4].replica
    dispatcher.release(tickets[4], 1.0)
    late = Ticket()
    assert dispatcher.submit(late, 1.0) is Verdict.STARTED
    assert late.replica is freed


def test_first_in_first_out_and_released_once() -> None:
    dispatcher = made(max_in_flight=1)
    first, second, third = Ticket(), Ticket(), Ticket()
    verdicts = [dispatcher.submit(ticket, 0.0) for ticket in (first, second, third)]
    assert verdicts == [Verdict.STARTED, Verdict.QUEUED, Verdict.QUEUED]
    assert dispatcher.release(first, 1.0) == [second]
    assert dispatcher.release(first, 1.0) == []
    assert dispatcher.in_flight == 1
    assert dispatcher.release(second, 2.0) == [third]


def test_expiry_takes_the_late_ones_only() -> None:
    dispatcher = made(max_in_flight=1, timeout_s=10)
    tickets = [Ticket() for _ in range(3)]
    for now, ticket in enumerate(tickets):
        dispatcher.submit(ticket, float(now))
    assert dispatcher.next_expiry() == 11.0
    assert dispatcher.expire(10.9) == []
    assert dispatcher.expire(11.0) == [tickets[1]]
    assert tickets[1].place is Place.ENDED


@pytest.mark.parametrize(("held_s", "waiting", "told_s"), [(0.01, 0, 1.0), (60.0, 3, 60.0), (10_000.0, 3, 120.0)])
def test_retry_after_is_the_expected_wait_within_bounds(held_s: float, waiting: int, told_s: float) -> None:
    dispatcher, now = made(max_in_flight=4, max_queued=10), 0.0
    for _ in range(200):  # learn how long a slot is held
        ticket = Ticket()
        dispatcher.submit(ticket, now)
        now += held_s
        dispatcher.release(ticket, now)
    for _ in range(4 + waiting):
        dispatcher.submit(Ticket(), now)
    assert dispatcher.retry_after_s() == pytest.approx(told_s, rel=0.02)


def test_a_failed_replica_is_avoided_for_a_while() -> None:
    dispatcher = made(replicas=2, max_in_flight=8)
    ticket = Ticket()
    dispatcher.submit(ticket, 0.0)
    failed = ticket.replica
    assert dispatcher.reassign(ticket, 0.0) is Verdict.STARTED
    assert ticket.replica is not failed
    others = [Ticket() for _ in range(3)]
    for other in others:
        dispatcher.submit(other, 0.5)
    assert all(other.replica is not failed for other in others)
    late = Ticket()
    dispatcher.submit(late, 2.0)
    assert late.replica is failed


def test_a_failed_request_keeps_its_place_where_others_are_full() -> None:
    dispatcher = made(replicas=2, max_in_flight=1)
    one, two, waiting = Ticket(), Ticket(), Ticket()
    for ticket in (one, two, waiting):
        dispatcher.submit(ticket, 0.0)
    assert dispatcher.reassign(one, 1.0) is Verdict.QUEUED
    assert list(dispatcher.queue) == [one, waiting]


class Books(RuleBasedStateMachine):
    """Whatever happens, the books are right: no slot lost, none given twice, no order broken, no idle capacity."""

    live = Bundle("live")

    def __init__(self) -> None:
        super().__init__()
        self.dispatcher = made(replicas=3, max_in_flight=2, max_queued=5, timeout_s=5)
        self.now = 0.0
        self.started: list[Ticket] = []
        self.known: list[Ticket] = []

    @rule(target=live)
    def submit(self) -> Ticket:
        ticket = Ticket()
        self.known.append(ticket)
        self.dispatcher.submit(ticket, self.now)
        return ticket

    @rule(ticket=consumes(live))
    def end(self, ticket: Ticket) -> None:
        for started in self.dispatcher.release(ticket, self.now):
            assert started.place is Place.STARTED
        assert self.dispatcher.release(ticket, self.now) == []

    @rule(ticket=live)
    def fail(self, ticket: Ticket) -> None:
        if ticket.place is Place.STARTED:
            self.dispatcher.reassign(ticket, self.now)
            self.dispatcher.pump(self.now)

    @rule(index=st.integers(0, 2), ready=st.booleans())
    def health(self, index: int, ready: bool) -> None:
        if ready:
            self.dispatcher.replicas.ready(index)
        else:
            self.dispatcher.replicas.down(index, "exited")
        self.dispatcher.pump(self.now)

    @rule(seconds=st.floats(0, 6))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        for ticket in self.dispatcher.expire(self.now):
            assert ticket.place is Place.ENDED
        self.dispatcher.pump(self.now)

    @invariant()
    def books_agree(self) -> None:
        dispatcher, replicas = self.dispatcher, self.dispatcher.replicas.all
        holding = [ticket for ticket in self.known if ticket.place is Place.STARTED]
        assert dispatcher.in_flight == len(holding) == sum(replica.in_flight for replica in replicas)
        for replica in replicas:
            assert replica.in_flight == sum(ticket.replica is replica for ticket in holding) <= 2
        assert set(dispatcher.queue) == {ticket for ticket in self.known if ticket.place is Place.QUEUED}
        times = [ticket.arrived_at for ticket in dispatcher.queue]
        assert times == sorted(times)

    @invariant()
    def work_is_conserved(self) -> None:
        ready = self.dispatcher.replicas.ready_ones
        trusted = [replica for replica in ready if replica.suspect_until <= self.now] or ready
        room = any(replica.in_flight < 2 for replica in trusted)
        assert not (room and self.dispatcher.queue)


TestBooks = Books.TestCase


async def test_requests_are_started_in_the_order_they_came(engine: FakeEngine) -> None:
    await engine.set(hold_after=0)
    async with gateway_to(engine.url, max_in_flight=1) as desk:
        clients = []
        for number in range(5):
            client = await desk.client()
            await client.post(CHAT, chat(f"number {number}"))
            await desk.until(lambda number=number: len(desk.gateway.active) == number + 1)
            clients.append(client)
        assert repr(desk.gateway.dispatcher) == "<Dispatcher queue=4 inflight=1/1>"
        await engine.release(5)
        for client in clients:
            assert (await client.read()).status == 200
        order = [json.loads(r["body"])["messages"][0]["content"] for r in (await engine.seen())["requests"]]
        assert order == [f"number {number}" for number in range(5)]
        assert await desk.metric("launcher_queue_wait_seconds_count") == 4
        await desk.at_rest()


async def test_a_full_queue_is_429(engine: FakeEngine) -> None:
    await engine.set(hold_after=0)
    async with gateway_to(engine.url, max_in_flight=1, max_queued=1) as desk:
        clients = [await desk.client() for _ in range(2)]
        for client in clients:
            await client.post(CHAT, chat())
        await desk.until(lambda: desk.gateway.queued == 1)
        answer = await desk.post(chat())
        assert answer.status == 429
        assert answer.error == {
            "message": "Too many requests: 1 wait already (admission.max_queued 1).", "type": "rate_limit_error",
            "param": None, "code": 429, "reason": "queue_full", "src": "gateway",
        }  # fmt: skip
        assert 1 <= int(answer.headers["retry-after"]) <= 120
        assert 1000 <= int(answer.headers["retry-after-ms"]) <= 120_000
        assert "connection" not in answer.headers
        await engine.release(2)
        assert [(await client.read()).status for client in clients] == [200, 200]
        assert await desk.metric('launcher_refusals_total{reason="queue_full"}') == 1


async def test_too_long_a_wait_is_429_or_503(engine: FakeEngine) -> None:
    await engine.set(hold_after=0)
    async with gateway_to(engine.url, max_in_flight=1, deadline=0.1) as desk:
        running = await desk.client()
        await running.post(CHAT, chat())
        await engine.wait("hold")
        busy = await desk.post(chat())
        assert (busy.status, busy.error["reason"]) == (429, "queue_timeout")
        waiting = await desk.client()
        await waiting.post(CHAT, chat())
        await desk.until(lambda: desk.gateway.queued == 1)
        desk.replicas.down(0, "exited with code 0")
        gone = await waiting.read()
        assert (gone.status, gone.error["message"]) == (503, "No engine is ready: exited with code 0.")
        assert gone.headers["retry-after"] == "5"
        await engine.release()
        assert (await running.read()).status == 200
        await desk.at_rest()


@pytest.mark.parametrize("path", [CHAT, "/tokenize"])
async def test_without_a_ready_engine_it_is_503_at_once(engine: FakeEngine, path: str) -> None:
    async with gateway_to(engine.url, engine.url, ready=False) as desk:
        answer = await desk.post(chat(), path=path)
        assert answer.status == 503
        assert answer.error["message"] == "No engine is ready: replica 0: starting; replica 1: starting."
        assert (answer.headers["retry-after"], answer.headers["retry-after-ms"]) == ("5", "5000")
        ready = await desk.get("/ready")
        assert (ready.status, ready.json()["ready"]) == (503, False)
        assert (await desk.get("/health")).status == 200
        desk.replicas.ready(1)
        assert (await desk.post(chat(), path=path)).status == 200
        assert (await desk.get("/ready")).status == 200


async def test_who_waits_is_served_when_the_engine_comes_back(engine: FakeEngine) -> None:
    await engine.set(hold_after=0)
    async with gateway_to(engine.url, max_in_flight=1) as desk:
        running, waiting = await desk.client(), await desk.client()
        await running.post(CHAT, chat())
        await engine.wait("hold")
        await waiting.post(CHAT, chat())
        await desk.until(lambda: desk.gateway.queued == 1)
        desk.replicas.down(0, "exited")
        await engine.release(2)
        assert (await running.read()).status == 200
        assert desk.gateway.queued == 1
        desk.replicas.ready(0)
        assert (await waiting.read()).status == 200


async def test_two_replicas_share_the_work(engine: FakeEngine) -> None:
    with fake_engine() as other:
        await engine.set(hold_after=0)
        await other.set(hold_after=0)
        async with gateway_to(engine.url, other.url, max_in_flight=2) as desk:
            for _ in range(4):
                await (await desk.client()).post(CHAT, chat())
            await engine.wait("hold", 2)
            await other.wait("hold", 2)
            assert repr(desk.gateway.dispatcher) == "<Dispatcher queue=0 inflight=4/4>"


async def test_a_drain_loses_nothing(engine: FakeEngine) -> None:
    await engine.set(hold_after=1)
    async with gateway_to(engine.url, max_in_flight=1) as desk:
        running, waiting, idle = [await desk.client() for _ in range(3)]
        await running.post(CHAT, chat(stream=True))
        await engine.wait("hold")
        await waiting.post(CHAT, chat(stream=True))
        await desk.until(lambda: desk.gateway.queued == 1)
        desk.gateway.stop_admitting("the endpoint is stopping")
        await idle.post(CHAT, chat())
        refused = await idle.read()
        assert (refused.status, refused.headers["connection"]) == (503, "close")
        assert refused.error["message"] == "No new requests are taken: the endpoint is stopping."
        assert int(refused.headers["retry-after"]) >= 1
        assert (await desk.get("/ready")).json()["reason"] == "the endpoint is stopping"
        assert await desk.gateway.drained(0.01) == 2
        await engine.release(2)
        assert await desk.gateway.drained(10) == 0
        await desk.gateway.close()
        for client in (running, waiting):
            assert events((await client.read()).body)[-1] == "[DONE]"
            assert await client.at_end()


async def test_close_cuts_off_what_is_left(engine: FakeEngine) -> None:
    await engine.set(hold_after=1)
    async with gateway_to(engine.url, max_in_flight=2) as desk:
        stream, whole, waiting = [await desk.client() for _ in range(3)]
        await stream.post(CHAT, chat(stream=True))
        await engine.wait("hold")
        await whole.post(CHAT, chat())
        await engine.wait("hold", 2)
        await waiting.post(CHAT, chat())
        await desk.until(lambda: desk.gateway.queued == 1)
        await desk.gateway.close()
        seen = await engine.wait("abort", 2)
        assert seen["counts"]["request"] == 2  # who waited was not started in the last moment
        told = events((await stream.read()).body)
        assert told[-2]["error"]["message"] == "The request was cut off: the endpoint is stopping."
        assert told[-1] == "[DONE]"
        for client in (whole, waiting):
            answer = await client.read()
            assert (answer.status, answer.error["reason"]) == (503, "draining")
            assert await client.at_end()
        assert not desk.gateway.connections
        await desk.at_rest()


async def test_activity_tells_what_is_in_flight(engine: FakeEngine) -> None:
    await engine.set(hold_after=1)
    async with gateway_to(engine.url) as desk:
        assert desk.replicas.activity(0).last_byte_at is None
        client = await desk.client()
        for path in ("/v1/models", "/tokenize"):  # answered by the API server alone
            await (client.post(path, chat()) if path == "/tokenize" else client.send(request_bytes("GET", path)))
            assert (await client.read()).status == 200
        await client.post(CHAT, {"model": "other", "messages": []})
        assert (await client.read()).status == 404
        assert desk.replicas.activity(0).last_byte_at is None
        await client.post(CHAT, chat(stream=True))
        await client.read_head()
        await client.read_chunk()
        activity = desk.replicas.activity(0)
        assert activity.in_flight == 1
        now = asyncio.get_running_loop().time()
        assert activity.last_byte_at is not None
        assert now - 5 < activity.last_byte_at <= now
        await engine.release()
        await desk.at_rest()
        assert desk.replicas.activity(0).in_flight == 0


async def test_a_head_alone_is_no_sign_of_life(engine: FakeEngine) -> None:
    """vLLM's API server sends a stream's head before the engine's core has done anything."""
    await engine.set(fault="slow_head")
    async with gateway_to(engine.url) as desk:
        client = await desk.client()
        await client.post(CHAT, chat())
        await engine.wait("request")
        await desk.get("/v1/models")
        assert desk.replicas.activity(0).last_byte_at is None


def test_an_older_ticket_that_comes_back_is_the_next_to_expire() -> None:
    dispatcher = made(replicas=2, max_in_flight=1)
    tickets = [Ticket() for _ in range(3)]
    for now, ticket in enumerate(tickets):
        dispatcher.submit(ticket, now)
    assert dispatcher.next_expiry() == 12
    assert dispatcher.reassign(tickets[0], 5) is Verdict.QUEUED
    assert dispatcher.next_expiry() == 10


async def test_who_comes_back_into_the_queue_waits_no_longer_than_others(engine: FakeEngine) -> None:
    """The timer was set for a younger request: it has to be set anew."""
    await engine.set(hold_after=0)
    with fake_engine(hold_after=0) as other:
        async with gateway_to(engine.url, other.url, max_in_flight=1, deadline=3600) as desk:
            for count in (1, 2, 3):
                await (await desk.client()).post(CHAT, chat())
                await desk.until(lambda count=count: len(desk.gateway.active) == count)
            (younger,) = desk.gateway.dispatcher.queue
            oldest = next(e for e in desk.gateway.active if e.replica and e.replica.index == 0)
            oldest.arrived_at -= 1800
            await engine.call("/_fake/reset", {})  # drops its connections: the request goes back to its place
            await desk.until(lambda: desk.gateway.queued == 2 or younger.place is not Place.QUEUED)
            if desk.gateway.queued == 2:
                assert desk.gateway._expiry is not None
                assert desk.gateway._expiry.when() == pytest.approx(oldest.arrived_at + 3600)
