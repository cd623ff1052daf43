"""Several gateways in front of the same engines: together they let in no more than one alone, and give no place away."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from hypothesis import given
from hypothesis import strategies as st

from launcher.gateway.dispatch import Verdict
from tests.fakes.process import FakeEngine
from tests.gateway.harness import Desk, chat, gateway_to
from tests.gateway.test_dispatch import ask, made, submit


@given(
    gateways=st.integers(1, 8), sequences=st.integers(1, 64), kv=st.integers(8, 5000), max_prefill=st.integers(8, 4000)
)
def test_shares_never_add_up_to_more_than_the_whole(gateways: int, sequences: int, kv: int, max_prefill: int) -> None:
    dispatcher = made(sequences=sequences, kv_tokens=kv, max_prefill=max_prefill)
    dispatcher.share_engines(gateways)
    caps = dispatcher.caps(dispatcher.replicas.all[0])
    assert gateways * caps.prefill_tokens <= max_prefill
    assert gateways * (caps.kv_tokens or 0) <= kv
    assert gateways * caps.sequences <= max(sequences, gateways)  # each lets in one at least


def test_a_smaller_share_cuts_nothing_off() -> None:
    dispatcher = made(sequences=4)
    running = [ask() for _ in range(4)]
    submit(dispatcher, *running)
    dispatcher.share_engines(2)
    waiting = ask()
    assert submit(dispatcher, waiting) == [Verdict.QUEUED]
    assert dispatcher.release(running[0], 1.0) == []
    assert dispatcher.release(running[1], 1.0) == []
    assert dispatcher.release(running[2], 1.0) == [waiting]


def test_a_larger_share_starts_who_waits() -> None:
    dispatcher = made(sequences=4)
    dispatcher.share_engines(4)
    first, second = ask(), ask()
    assert submit(dispatcher, first, second) == [Verdict.STARTED, Verdict.QUEUED]
    dispatcher.share_engines(1)
    assert dispatcher.pump(1.0) == [second]


def test_the_share_outlives_a_change_of_mode() -> None:
    dispatcher = made(sequences=8)
    dispatcher.share_engines(2)
    dispatcher.use(dispatcher.rules)
    assert dispatcher.max_sequences == 4


async def test_two_gateways_hold_an_engine_to_its_cap(engine: FakeEngine) -> None:
    """Real sockets: of eight streams through two gateways the engine has four at once, two from each."""
    await engine.set(hold_after=0)
    async with AsyncExitStack() as stack:
        desks = [
            await stack.enter_async_context(gateway_to(engine.url, max_in_flight=4, deadline=60.0)) for _ in range(2)
        ]
        for desk in desks:
            desk.gateway.share_engines(2)
        asked = [asyncio.create_task(desk.post(chat(max_tokens=2))) for desk in desks for _ in range(4)]
        for desk in desks:
            await desk.until(lambda desk=desk: waiting(desk) == 2)
        assert len((await engine.seen())["requests"]) == 4
        await engine.set(hold_after=-1)
        await engine.release(4)  # those that are held; who comes after them is not
        assert [response.status for response in await asyncio.gather(*asked)] == [200] * 8


def waiting(desk: Desk) -> int:
    return desk.gateway.dispatcher.queue.count
