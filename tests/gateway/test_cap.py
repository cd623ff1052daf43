"""gateway.max_connections: who is let in, who has to go, who is told to come back."""

from __future__ import annotations

import asyncio

from tests.fakes.process import FakeEngine
from tests.gateway.harness import CHAT, chat, gateway_to, request_bytes

OK = request_bytes("GET", "/health")


async def test_one_more_closes_the_longest_unused_one(engine: FakeEngine) -> None:
    async with gateway_to(engine.url, max_connections=4) as desk:
        clients = []
        for _ in range(5):
            client = await desk.client()
            await client.send(OK)
            assert (await client.read()).status == 200
            clients.append(client)
            await asyncio.sleep(0.002)  # uvloop's clock has a tick a millisecond
        assert await clients[0].at_end()
        for client in clients[1:]:
            await client.send(OK)
            assert (await client.read()).status == 200


async def test_where_all_are_in_use_one_more_is_told_so(engine: FakeEngine) -> None:
    await engine.set(hold_after=0)
    async with gateway_to(engine.url, max_connections=3) as desk:
        clients = [await desk.client() for _ in range(3)]
        for client in clients:
            await client.post(CHAT, chat())
        await engine.wait("hold", 3)
        for _ in range(3):
            late = await desk.client()
            await late.post(CHAT, chat())
            answer = await late.read()
            assert (answer.status, answer.error["reason"]) == (503, "too_many_connections")
            assert answer.error["message"] == "All 3 connections are in use (gateway.max_connections)."
            assert answer.headers["retry-after"] == "1"
            assert answer.headers["connection"] == "close"
            assert await late.at_end()
            late.close()
        await engine.release(3)
        assert [(await client.read()).status for client in clients] == [200] * 3
        assert desk.gateway.metrics.refusals["too_many_connections"] == 3


async def test_those_that_are_told_are_bounded_too(engine: FakeEngine) -> None:
    await engine.set(hold_after=0)
    async with gateway_to(engine.url, max_connections=2) as desk:
        clients = [await desk.client() for _ in range(2)]
        for client in clients:
            await client.post(CHAT, chat())
        await engine.wait("hold", 2)
        crowd = [await desk.client() for _ in range(40)]  # told, and neither reading nor leaving
        assert await crowd[-1].at_end()
        assert len(desk.gateway.connections) <= 2 + 8
        await engine.release(2)
        assert [(await client.read()).status for client in clients] == [200] * 2
