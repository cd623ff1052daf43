"""Clients at their worst, many at once; afterwards nothing is in flight, queued, open or kept."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
from collections.abc import Awaitable, Callable

from tests.fakes.process import FakeEngine
from tests.gateway.harness import CHAT, Desk, RawClient, chat, events, gateway_to, request_bytes

GONE = (asyncio.IncompleteReadError, ConnectionError, TimeoutError)
Deed = Callable[[RawClient, random.Random], Awaitable[None]]


async def leave_somewhere(client: RawClient, chance: random.Random) -> None:
    """A stream, left before, within or after its answer."""
    await client.post(CHAT, chat(stream=True, max_tokens=chance.randrange(1, 30)))
    for _ in range(chance.choice([0, 1, 3, 10])):
        await client.reader.readuntil(b"\n")


async def leave_within_the_request(client: RawClient, chance: random.Random) -> None:
    data = request_bytes("POST", CHAT, b"{" + b" " * 1000 + b"}")
    await client.send(data[: chance.randrange(len(data))])


async def trickle(client: RawClient, chance: random.Random) -> None:
    """Slowloris: a byte now and then, until it is refused."""
    for byte in request_bytes("POST", CHAT, b"{}")[: chance.randrange(10, 60)]:
        await client.send(bytes([byte]))
        await asyncio.sleep(0.01)


async def talk_nonsense(client: RawClient, chance: random.Random) -> None:
    await client.send(chance.randbytes(chance.randrange(1, 5000)))
    await client.reader.read()


async def pipeline_and_leave(client: RawClient, chance: random.Random) -> None:
    one = request_bytes("POST", CHAT, b'{"stream": true}')
    await client.send((one + request_bytes("GET", "/nowhere")) * chance.randrange(1, 10))
    await client.reader.read(chance.randrange(1, 5000))


async def half_close(client: RawClient, chance: random.Random) -> None:
    await client.post(CHAT, chat(stream=chance.random() < 0.5))
    client.writer.write_eof()
    await client.reader.read()


async def never_read(client: RawClient, chance: random.Random) -> None:
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await client.send(request_bytes("GET", "/metrics") * 50)
    await asyncio.sleep(chance.random() * 0.2)


async def behave(client: RawClient, chance: random.Random) -> None:
    """A good client in between: it gets its whole answer, or a refusal that says why."""
    await client.post(CHAT, chat(stream=True, max_tokens=5))
    answer = await client.read()
    assert answer.status in (200, 429)
    if answer.status == 200:
        assert "".join(e["choices"][0]["delta"]["content"] for e in events(answer.body)[:-1]) == "w0 w1 w2 w3 w4"


DEEDS: tuple[Deed, ...] = (
    leave_somewhere, leave_somewhere, leave_within_the_request, trickle, talk_nonsense, pipeline_and_leave,
    half_close, never_read, behave,
)  # fmt: skip


async def wave(desk: Desk, clients: int, chance: random.Random) -> None:
    """So many clients at once, each with a deed of its own."""

    async def one(deed: Deed) -> None:
        client = RawClient(*await asyncio.open_connection(*desk.address))
        try:
            with contextlib.suppress(*(() if deed is behave else GONE)):
                async with asyncio.timeout(20):
                    await deed(client, chance)
        finally:
            client.close()

    await asyncio.gather(*(one(chance.choice(DEEDS)) for _ in range(clients)))
    await desk.at_rest()
    await desk.until(lambda: len(desk.gateway.connections) == 1)  # the one that asks
    gc.collect()


def resident_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")


async def test_nothing_is_left_of_abuse(engine: FakeEngine) -> None:
    await engine.set(inter_token_s=0.002)
    chance = random.Random(7)
    async with gateway_to(engine.url, max_in_flight=16, deadline=5, head_timeout=0.5, body_timeout=0.5) as desk:
        await wave(desk, 100, chance)  # what is made once is made now
        desk.gateway.pool.close()
        files, memory = len(os.listdir("/proc/self/fd")), resident_bytes()
        for _ in range(3):
            await wave(desk, 150, chance)
        desk.gateway.pool.close()
        await desk.until(lambda: len(os.listdir("/proc/self/fd")) <= files)
        assert resident_bytes() - memory < 16 * 2**20
        await desk.until(lambda: engine.call_now("/_fake/seen")["running"] == 0)
        assert not desk.gateway._tasks
