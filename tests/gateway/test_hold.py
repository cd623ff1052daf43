"""Requests that come while no engine is ready: refused at once, or held for one (admission.hold), as the profile says."""

from __future__ import annotations

import asyncio

from launcher.gateway.dispatch import Place, Verdict
from launcher.gateway.ledger import Capacity
from tests.fakes.process import FakeEngine
from tests.gateway.harness import chat, gateway_to
from tests.gateway.test_dispatch import ask, made, submit


def test_held_until_one_is_ready_and_then_in_order() -> None:
    dispatcher = made(sequences=1, hold=60.0)
    dispatcher.replicas.down(0, "asleep")
    long, short = ask(500), ask(10)
    assert submit(dispatcher, long, short) == [Verdict.QUEUED, Verdict.QUEUED]
    assert dispatcher.next_wake() == 60.0
    dispatcher.replicas.ready(0)
    assert dispatcher.pump(30.0) == [short]
    assert dispatcher.release(short, 31.0) == [long]  # later than admission.deadline, 10 s here: it was held


def test_held_no_longer_than_that() -> None:
    dispatcher = made(hold=60.0)
    dispatcher.replicas.down(0, "asleep")
    ticket = ask()
    submit(dispatcher, ticket)
    assert dispatcher.wake(59.0) == ([], [])
    assert dispatcher.wake(60.0) == ([], [ticket])
    assert ticket.place is Place.ENDED


def test_no_more_are_held_than_may_wait() -> None:
    dispatcher = made(hold=60.0, max_queued=2)
    dispatcher.replicas.down(0, "asleep")
    assert submit(dispatcher, *(ask() for _ in range(3))) == [Verdict.QUEUED, Verdict.QUEUED, Verdict.QUEUE_FULL]


def test_what_takes_a_while_to_prepare_is_held_too() -> None:
    dispatcher = made(hold=60.0)
    dispatcher.replicas.down(0, "asleep")
    ticket = ask()
    assert dispatcher.prepare(ticket, 0.0) is Verdict.PREPARING
    assert dispatcher.prepared(ticket, 1.0) is Verdict.QUEUED
    assert ticket.deadline_at == 61.0


def test_refused_at_once_unless_asked_for() -> None:
    dispatcher = made()
    dispatcher.replicas.down(0, "asleep")
    assert submit(dispatcher, ask()) == [Verdict.NOT_READY]


async def test_a_client_waits_for_the_engine_that_is_woken(engine: FakeEngine) -> None:
    async with gateway_to(engine.url, ready=False, hold=60.0, capacity=Capacity(1000, 4)) as desk:
        asked = asyncio.create_task(desk.post(chat(max_tokens=3, stream=True)))
        await desk.until(lambda: desk.gateway.dispatcher.queue.count == 1)
        assert await desk.metric("launcher_queued ") == 1  # by which an autoscaler sees it
        desk.replicas.ready(0)
        assert (await asked).status == 200


async def test_who_was_held_in_vain_hears_why() -> None:
    async with gateway_to("http://127.0.0.1:9", ready=False, hold=0.05) as desk:
        response = await desk.post(chat())
        assert response.status == 503
        assert "retry-after" in response.headers
        assert "No engine is ready" in response.error["message"]
