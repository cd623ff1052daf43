"""The dispatcher alone (pure, with a made-up clock), and what clients see of it: order, caps, 429, 503, drain."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from launcher.gateway.dispatch import Dispatcher, Place, Priority, Ticket, Verdict
from launcher.gateway.ledger import Capacity
from launcher.gateway.modes import rules_of
from launcher.gateway.order import Account
from launcher.gateway.price import Price
from launcher.gateway.replicas import Endpoint, Replicas
from launcher.profile.model import AdmissionSection
from tests.fakes.process import FakeEngine, fake_engine
from tests.gateway.harness import CHAT, chat, events, gateway_to, request_bytes


def made(replicas: int = 1, sequences: int = 2, kv_tokens: int | None = None, **settings: Any) -> Dispatcher[Ticket]:
    """A dispatcher over ready replicas with a batch token budget of 1,000; no window unless it is asked for."""
    known = Replicas()
    for index in range(replicas):
        known.add(index, Endpoint(f"http://127.0.0.1:{8001 + index}"))
        known.ready(index)
    usual = {"deadline": 10.0, "deadline_per_1k": 0.0, "window_when": "never"}
    return Dispatcher(
        known, AdmissionSection().model_copy(update=usual | settings), Capacity(1000, sequences, kv_tokens)
    )


def ask(prompt: int = 10, output: int = 0, *, at: float = 0.0, **more: Any) -> Ticket:
    price = {key: more.pop(key) for key in ("sequences", "streams", "chain", "block_tokens") if key in more}
    return Ticket(Price(prompt, output, **price), at, **more)


def submit(dispatcher: Dispatcher[Ticket], *tickets: Ticket) -> list[Verdict]:
    """Hands tickets in at their times of arrival, as the gateway does."""
    verdicts = []
    for ticket in tickets:
        verdicts.append(dispatcher.submit(ticket, ticket.arrived_at))
        if verdicts[-1] is Verdict.QUEUED:
            dispatcher.pump(ticket.arrived_at)
    return verdicts


def teach(dispatcher: Dispatcher[Ticket], prefill_s: float, stay_s: float = 1.0) -> None:
    """Has the dispatcher learn an engine's pace: seconds a prompt token, seconds of a stay."""
    for replica in dispatcher.replicas.all:
        for _ in range(3):
            replica.pace.prefill.add(prefill_s)
            replica.pace.stay.add(stay_s)


def test_repr_tells_how_it_stands() -> None:
    dispatcher = made(replicas=4)
    submit(dispatcher, *(ask() for _ in range(10)))
    assert repr(dispatcher) == "<Dispatcher queue=2 inflight=8/8 prefill=80/4000>"


def test_least_work_goes_first_and_equals_take_turns() -> None:
    dispatcher = made(replicas=3, sequences=4)
    tickets = [ask() for _ in range(3)]
    submit(dispatcher, *tickets)
    assert sorted(t.replica.index for t in tickets if t.replica) == [0, 1, 2]
    heavy, light = ask(500), ask(10)
    submit(dispatcher, heavy, light)
    assert light.replica is not heavy.replica


def test_prompts_in_hand_are_capped_at_one_batch_token_budget() -> None:
    dispatcher = made(sequences=100)
    first, second, third = ask(600), ask(300), ask(200)
    assert submit(dispatcher, first, second, third) == [Verdict.STARTED, Verdict.STARTED, Verdict.QUEUED]
    assert dispatcher.first_token(second, 1.0) == [third]
    assert dispatcher.first_token(second, 1.0) == []
    assert dispatcher.replicas.all[0].ledger.prefill_tokens == 800


def test_a_prompt_above_the_cap_goes_alone() -> None:
    dispatcher = made(sequences=100)
    small, large = ask(10), ask(5000)
    assert submit(dispatcher, small, large) == [Verdict.STARTED, Verdict.QUEUED]
    assert dispatcher.first_token(small, 1.0) == [large]


def test_the_kv_cache_is_not_promised_twice() -> None:
    dispatcher = made(sequences=100, kv_tokens=1000)
    first, second = ask(100, 500), ask(100, 400)
    assert submit(dispatcher, first, second) == [Verdict.STARTED, Verdict.QUEUED]
    assert dispatcher.first_token(first, 1.0) == []
    assert dispatcher.release(first, 2.0) == [second]


def test_sequences_of_one_request_count_each() -> None:
    dispatcher = made(sequences=4)
    assert submit(dispatcher, ask(sequences=3), ask(sequences=2)) == [Verdict.STARTED, Verdict.QUEUED]


def test_cheapest_first_and_alike_in_the_order_they_came() -> None:
    dispatcher = made(sequences=1)
    running, long, short, alike = ask(), ask(900, at=0.0), ask(100, at=0.1), ask(90, at=0.2)
    submit(dispatcher, running, long, short, alike)
    order, ended = [], running
    for now in (1.0, 2.0, 3.0):
        (ended,) = dispatcher.release(ended, now)
        order.append(ended)
    assert order == [short, alike, long]


def test_a_long_one_ages_to_the_front() -> None:
    dispatcher = made(sequences=1, ageing=2.0)  # 500 tokens a second
    running, long = ask(), ask(900, at=0.0)
    submit(dispatcher, running, long)
    early, late = ask(100, at=1.5), ask(100, at=1.7)  # 900 - 100 tokens are 1.6 s
    submit(dispatcher, early, late)
    assert dispatcher.release(running, 2.0) == [early]
    assert dispatcher.release(early, 2.1) == [long]


def test_priority_goes_before_price() -> None:
    dispatcher = made(sequences=1)
    running, low, normal, high = (
        ask(),
        ask(10, priority=Priority.LOW),
        ask(100, priority=Priority.NORMAL),
        ask(900, priority=Priority.HIGH),
    )
    submit(dispatcher, running, low, normal, high)
    assert dispatcher.release(running, 1.0) == [high]
    assert dispatcher.release(high, 2.0) == [normal]
    assert dispatcher.release(normal, 3.0) == [low]


def test_a_key_that_was_given_more_waits_for_the_others() -> None:
    dispatcher = made(sequences=1, max_queued=100, max_queued_tokens=10**6)
    greedy, modest = Account("greedy"), Account("modest")
    running = ask()
    submit(dispatcher, running, *(ask(900, account=greedy) for _ in range(10)))
    submit(dispatcher, *(ask(900, at=0.1, account=modest) for _ in range(3)))
    given, ended = [], running
    for now in range(1, 8):
        (ended,) = dispatcher.release(ended, float(now))
        given.append(ended.account.name)
    assert given.count("modest") == 3
    assert given[:4].count("greedy") <= 3


def test_weights_share_as_they_say() -> None:
    dispatcher = made(sequences=1, max_queued=1000, max_queued_tokens=10**9, deadline=1e6)
    heavy, light = Account("heavy", weight=3.0), Account("light")
    ended = ask()
    submit(dispatcher, ended, *(ask(900, account=key) for key in (heavy, light) for _ in range(80)))
    given = []
    for now in range(1, 81):
        (ended,) = dispatcher.release(ended, float(now))
        given.append(ended.account.name)
    assert given.count("heavy") == pytest.approx(60, abs=3)


def test_who_comes_back_from_a_pause_has_saved_nothing_up() -> None:
    dispatcher = made(sequences=1, max_queued=100, max_queued_tokens=10**6)
    busy, idle = Account("busy"), Account("idle")
    for now in range(20):
        ticket = ask(900, at=float(now), account=busy)
        submit(dispatcher, ticket)
        if now < 19:
            dispatcher.release(ticket, now + 0.5)
    submit(dispatcher, *(ask(900, at=19.0, account=key) for key in (busy, idle) for _ in range(4)))
    given, ended = [], ticket
    for now in range(20, 28):
        (ended,) = dispatcher.release(ended, float(now))
        given.append(ended.account.name)
    assert given[:4].count("idle") <= 3


def test_a_new_key_starts_level_with_those_that_are_idle_for_a_moment() -> None:
    dispatcher = made(sequences=1, max_queued=100, max_queued_tokens=10**6)
    old, new = Account("old"), Account("new")
    for now in range(20):
        ticket = ask(900, at=float(now), account=old)
        submit(dispatcher, ticket)
        dispatcher.release(ticket, now + 0.5)
    first = ask(10, at=20.0, account=new)
    submit(dispatcher, first)
    dispatcher.release(first, 20.5)
    running = ask(10, at=21.0, account=new)
    submit(dispatcher, running, *(ask(900, at=21.0, account=key) for key in (new, old) for _ in range(4)))
    given, ended = [], running
    for now in range(22, 26):
        (ended,) = dispatcher.release(ended, float(now))
        given.append(ended.account.name)
    assert given.count("old") >= 1


def test_who_was_taken_over_once_has_its_full_time_again() -> None:
    dispatcher = made(replicas=2, sequences=8, restart_wait=10.0)
    ticket = ask()
    submit(dispatcher, ticket)
    assert dispatcher.reassign(ticket, 0.0) is Verdict.STARTED
    dispatcher.first_token(ticket, 1.0)
    assert ticket.replica is not None
    for replica in dispatcher.replicas.all:
        if replica is not ticket.replica:
            dispatcher.replicas.down(replica.index, "exited")
    assert dispatcher.reassign(ticket, 100.0) is Verdict.QUEUED
    assert ticket.deadline_at == 110.0


def test_a_deadline_grows_with_the_prompt_and_evicts() -> None:
    dispatcher = made(sequences=1, deadline=1.0, deadline_per_1k=2.0)
    running, short, long = ask(), ask(10, at=1.0), ask(1500, at=1.0)
    submit(dispatcher, running, short, long)
    assert dispatcher.next_wake() == 2.0
    assert dispatcher.wake(1.99) == ([], [])
    assert dispatcher.wake(2.0) == ([], [short])
    assert short.place is Place.ENDED
    assert dispatcher.wake(3.0) == ([], [long])
    assert dispatcher.next_wake() is None


def test_what_cannot_make_its_deadline_is_refused_at_once() -> None:
    dispatcher = made(sequences=100, deadline=1.0)
    teach(dispatcher, 0.001)
    running, waiting = ask(1000), ask(1000)
    assert submit(dispatcher, running, waiting) == [Verdict.STARTED, Verdict.QUEUED]
    late = ask(1000)
    assert submit(dispatcher, late) == [Verdict.TOO_LATE]
    assert dispatcher.expected_wait_s(late, 0.0) == pytest.approx(2.0)
    assert 2.0 <= dispatcher.retry_after_s(late, 0.0) <= 20.0  # what still comes goes before it too
    assert dispatcher.expected_wait_s(late, 0.4) == pytest.approx(1.6)  # the engine has been at it meanwhile


def test_only_who_is_before_it_delays_a_ticket() -> None:
    """Neither lower priorities nor longer requests take its place at the engine."""
    dispatcher = made(sequences=1, deadline=1000.0)
    teach(dispatcher, 0.0001, stay_s=3.0)
    submit(dispatcher, ask(), *(ask(priority=Priority.LOW) for _ in range(10)), *(ask(400) for _ in range(10)))
    high, short, last = ask(priority=Priority.HIGH), ask(), ask(priority=Priority.LOW)
    assert dispatcher.expected_wait_s(high, 0.0) == pytest.approx(3.0)
    assert dispatcher.expected_wait_s(short, 0.0) == pytest.approx(3.0)
    assert dispatcher.expected_wait_s(last, 0.0) == pytest.approx(63.0)


def test_the_queue_is_bounded_in_tokens_too() -> None:
    dispatcher = made(sequences=1, max_queued_tokens=500)
    assert submit(dispatcher, ask(), ask(400), ask(200)) == [Verdict.STARTED, Verdict.QUEUED, Verdict.QUEUE_FULL]


def test_retry_after_is_never_above_what_clients_honour() -> None:
    dispatcher = made(sequences=1, deadline=1e6, max_queued=2, max_queued_tokens=10**9)
    teach(dispatcher, 0.1)
    refused = ask(1000)
    assert submit(dispatcher, ask(1000), ask(1000), ask(1000), refused)[-1] is Verdict.QUEUE_FULL
    assert dispatcher.retry_after_s(refused, 0.0) == 120.0


def test_a_full_engine_collects_a_group_and_an_idle_one_does_not_wait() -> None:
    dispatcher = made(sequences=100, window_when="when_saturated", window=0.05)
    first, second, third = ask(600), ask(100, at=0.01), ask(100, at=0.02)
    assert submit(dispatcher, first, second, third) == [Verdict.STARTED, Verdict.QUEUED, Verdict.QUEUED]
    assert dispatcher.next_wake() == pytest.approx(0.05)
    assert dispatcher.wake(0.05) == ([second, third], [])
    fourth = ask(100, at=0.06)
    assert submit(dispatcher, fourth) == [Verdict.QUEUED]
    assert dispatcher.first_token(first, 0.07) == [fourth]  # not full any more: nobody is held


def test_prompts_of_whole_answers_are_worked_out() -> None:
    """No first token is seen of them: the time that they take is parted between prompt and answer."""
    dispatcher = made(sequences=100)
    dispatcher.replicas.all[0].pace.whole_stay.add(2.0)
    whole, waiting = ask(800, streams=False), ask(800)
    whole.price.output_tokens = 8  # takes about as long as 2,400 tokens of a prompt
    submit(dispatcher, whole, waiting)
    assert dispatcher.next_wake() == pytest.approx(0.5)
    assert dispatcher.wake(0.49) == ([], [])
    assert dispatcher.wake(0.5) == ([waiting], [])
    assert dispatcher.release(whole, 5.0) == []
    assert dispatcher.check()


def test_a_later_first_token_shows_that_earlier_prompts_are_done() -> None:
    dispatcher = made(sequences=100)
    dispatcher.replicas.all[0].pace.whole_stay.add(1000.0)
    whole, stream = ask(300, streams=False, at=0.0), ask(300, at=0.1)
    submit(dispatcher, whole, stream)
    dispatcher.first_token(stream, 0.2)
    assert dispatcher.replicas.all[0].ledger.prefill_tokens == 0


def test_what_is_cached_is_not_charged_and_draws_its_like() -> None:
    dispatcher = made(replicas=2, sequences=100)
    chain = (11, 22, 33)
    first = ask(400, chain=chain, block_tokens=100)
    submit(dispatcher, first)
    dispatcher.first_token(first, 0.1)
    second = ask(450, chain=(*chain, 44), block_tokens=100)
    submit(dispatcher, second)
    assert second.replica is first.replica
    assert second.prefill_tokens == 150
    busy = ask(900)
    submit(dispatcher, busy)
    assert busy.replica is not first.replica
    assert first.replica is not None
    dispatcher.replicas.down(first.replica.index, "exited")  # its cache is gone with it
    dispatcher.replicas.ready(first.replica.index)
    assert first.replica.cached_tokens(second.price) == 0


def test_a_failed_replica_is_avoided_for_a_while() -> None:
    dispatcher = made(replicas=2, sequences=8)
    ticket = ask()
    submit(dispatcher, ticket)
    failed = ticket.replica
    assert dispatcher.reassign(ticket, 0.0) is Verdict.STARTED
    assert ticket.replica is not failed
    others = [ask(at=0.5) for _ in range(3)]
    submit(dispatcher, *others)
    assert all(other.replica is not failed for other in others)
    late = ask(at=2.0)
    submit(dispatcher, late)
    assert late.replica is failed


def test_a_failed_request_comes_first_where_others_are_full() -> None:
    dispatcher = made(replicas=2, sequences=1)
    one, two, waiting = ask(500), ask(), ask(1, priority=Priority.HIGH)
    submit(dispatcher, one, two, waiting)
    assert dispatcher.reassign(one, 1.0) is Verdict.QUEUED
    assert list(dispatcher.queue) == [one, waiting]
    assert one.deadline_at == 121.0  # admission.restart_wait
    assert dispatcher.release(two, 1.5) == [one]


def test_where_there_is_one_replica_a_failed_request_waits_for_it() -> None:
    dispatcher = made()
    ticket = ask()
    submit(dispatcher, ticket)
    assert dispatcher.reassign(ticket, 1.0) is Verdict.QUEUED
    assert dispatcher.pump(1.5) == []
    assert dispatcher.pump(2.0) == [ticket]
    impatient = made(restart_wait=0.0)
    ticket = ask()
    submit(impatient, ticket)
    assert impatient.reassign(ticket, 1.0) is None


def test_a_mode_switches_the_caps_at_once() -> None:
    dispatcher = made(sequences=100)
    first, second = ask(800), ask(800)
    assert submit(dispatcher, first, second) == [Verdict.STARTED, Verdict.QUEUED]
    dispatcher.use(rules_of(dispatcher.admission, "high-throughput"))
    assert dispatcher.pump(1.0) == [second]


def test_books_that_are_wrong_are_found_and_put_right() -> None:
    dispatcher = made()
    submit(dispatcher, ask(100))
    ledger = dispatcher.replicas.all[0].ledger
    ledger.prefill_tokens += 7
    assert not dispatcher.check()
    assert (ledger.prefill_tokens, dispatcher.corrections) == (100, 1)
    assert dispatcher.check()


async def test_requests_are_started_in_the_order_they_came(engine: FakeEngine) -> None:
    await engine.set(hold_after=0)
    async with gateway_to(engine.url, max_in_flight=1) as desk:
        clients = []
        for number in range(5):
            client = await desk.client()
            await client.post(CHAT, chat(f"number {number}"))
            await desk.until(lambda number=number: len(desk.gateway.active) == number + 1)
            clients.append(client)
        assert (
            repr(desk.gateway.dispatcher)
            == "<Dispatcher queue=4 inflight=1/1 prefill=" + repr(desk.gateway.dispatcher).split("prefill=")[1]
        )
        await engine.release(5)
        for client in clients:
            assert (await client.read()).status == 200
        order = [json.loads(r["body"])["messages"][0]["content"] for r in (await engine.seen())["requests"]]
        assert order == [f"number {number}" for number in range(5)]
        assert await desk.metric("launcher_request_queue_time_seconds_count") == 5
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
        assert (busy.status, busy.error["reason"]) == (429, "deadline_passed")
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
            assert (
                repr(desk.gateway.dispatcher)
                == "<Dispatcher queue=0 inflight=4/4 prefill=" + repr(desk.gateway.dispatcher).split("prefill=")[1]
            )


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
