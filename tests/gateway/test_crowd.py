"""Crowds: thousands of connects at once, hundreds of slow senders and readers; what each may hold, and that it ends."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import socket
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.fakes.process import FakeEngine
from tests.gateway.harness import CHAT, Desk, RawClient, chat, events, gateway_to, request_bytes

CROWD, SLOW = 2000, 300
OK = request_bytes("GET", "/health")
# What one open connection may hold of this process's memory when it has served a request and waits for the next.
IDLE_BYTES = 6 * 1024


@pytest.fixture(autouse=True)
def enough_files() -> Iterator[None]:
    """Both ends of each connection are in this process, and the gateway's own to the engine."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 3 * CROWD
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"this machine allows {hard} open files for a process, {wanted} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def connect_all(desk: Desk, count: int) -> list[socket.socket]:
    """So many connections, begun at once; the kernel completes them whether or not the gateway has come to them."""
    socks = [socket.socket() for _ in range(count)]
    for sock in socks:
        sock.setblocking(False)
        sock.connect_ex(desk.address)
    return socks


async def test_two_thousand_at_once_are_all_answered(engine: FakeEngine) -> None:
    await engine.set(tokens=3)
    statuses: Counter[int] = Counter()

    async def one(sock: socket.socket, number: int) -> None:
        client = RawClient(*await asyncio.open_connection(sock=sock))
        await client.post(CHAT, chat(f"number {number}", stream=bool(number % 2), max_tokens=3))
        async with asyncio.timeout(60):
            answer = await client._read(False)
        if number % 2:
            assert events(answer.body)[-1] == "[DONE]"
        else:
            assert answer.json()["choices"][0]["message"]["content"] == "w0 w1 w2"
        statuses[answer.status] += 1
        client.close()

    async with gateway_to(engine.url, max_in_flight=256, max_queued=CROWD, deadline=60) as desk:
        socks = connect_all(desk, CROWD)
        await asyncio.gather(*(one(sock, number) for number, sock in enumerate(socks)))
        assert statuses == {200: CROWD}
        await desk.at_rest()
        await deserted(desk)


async def test_more_than_may_wait_are_told_so(engine: FakeEngine) -> None:
    """Everybody gets an answer: what is served, or 429 with the time to come back."""
    statuses: Counter[int] = Counter()

    async def one(sock: socket.socket) -> None:
        client = RawClient(*await asyncio.open_connection(sock=sock))
        await client.post(CHAT, chat())
        async with asyncio.timeout(60):
            answer = await client._read(False)
        statuses[answer.status] += 1
        if answer.status == 429:
            assert int(answer.headers["retry-after"]) >= 1
        client.close()

    await engine.set(hold_after=0)
    async with gateway_to(engine.url, max_in_flight=4, max_queued=8, deadline=60) as desk:
        crowd = [asyncio.create_task(one(sock)) for sock in connect_all(desk, 500)]
        await desk.until(lambda: statuses[429] == 500 - 4 - 8)
        await engine.release(4 + 8)
        await asyncio.gather(*crowd)
        assert statuses == {200: 12, 429: 488}
        await desk.at_rest()


@pytest.mark.parametrize("begun", [b"POST / HTTP/1.1\r\nHost: g\r\nX: ", b""], ids=["a head", "nothing"])
async def test_slow_senders_of_heads_hold_little_and_end(engine: FakeEngine, begun: bytes) -> None:
    """Slowloris: hundreds of connections that send one byte after another. Their time counts from the first, not from the last."""
    async with gateway_to(engine.url, head_timeout=1) as desk:
        socks = connect_all(desk, SLOW)
        await desk.until(lambda: len(desk.gateway.connections) == SLOW + 1)
        for sock in socks:
            sock.send(begun)
        trickling = asyncio.create_task(trickle(socks, b"a" if begun else b"\r\n"))
        assert (await desk.post(chat())).status == 200
        assert all(connection.reader.held < 64 * 1024 for connection in desk.gateway.connections)
        await deserted(desk)
        trickling.cancel()
        answers = Counter(received(sock)[:12] for sock in socks)
        assert answers == ({b"HTTP/1.1 408": SLOW} if begun else {b"": SLOW})
        assert await desk.metric('launcher_refusals_total{reason="head_timeout"}') == (SLOW if begun else 0)


async def deserted(desk: Desk) -> None:
    """Waits until no client is connected but the one that asks."""
    desk.close()
    await desk.until(lambda: len(desk.gateway.connections) == 1)


async def trickle(socks: list[socket.socket], byte: bytes) -> None:
    while True:
        for sock in socks:
            try:
                sock.send(byte)
            except OSError:
                continue
        await asyncio.sleep(0.02)


def received(sock: socket.socket) -> bytes:
    data = b""
    try:
        while piece := sock.recv(65536):
            data += piece
    except OSError:
        pass
    sock.close()
    return data


async def test_slow_senders_of_bodies_end_and_hold_no_engine(engine: FakeEngine) -> None:
    async with gateway_to(engine.url, body_timeout=0.5, max_in_flight=1) as desk:
        socks = connect_all(desk, SLOW)
        await desk.until(lambda: len(desk.gateway.connections) == SLOW + 1)
        for sock in socks:
            sock.send(request_bytes("POST", CHAT, b"{" + b" " * 1000 + b"}")[:-500])
        assert (await desk.post(chat())).status == 200  # the only slot is free
        await deserted(desk)
        assert Counter(received(sock)[:12] for sock in socks) == {b"HTTP/1.1 408": SLOW}
        assert len((await engine.seen())["requests"]) == 1


async def test_slow_readers_hold_little(engine: FakeEngine) -> None:
    """Clients that read nothing, 64 MB for each: what waits here for all of them stays in bounds, and goes with them."""
    await engine.set(tokens=1000, chunk_bytes=65536)
    async with gateway_to(engine.url) as desk:
        socks = []
        for _ in range(8):
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**14)
            sock.connect(desk.address)
            sock.send(request_bytes("POST", CHAT, b'{"stream": true}'))
            socks.append(sock)
        await desk.until(lambda: sum(connection.write_paused for connection in desk.gateway.connections) == 8)
        waiting = sum(connection.transport.get_write_buffer_size() for connection in desk.gateway.connections)
        assert waiting < 8 * 2**19
        assert (await desk.get("/ready")).json()["ready"] is True
        for sock in socks:
            sock.close()
        await engine.wait("abort", 8)
        await desk.at_rest()
        await deserted(desk)


def resident_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")


async def test_what_an_idle_connection_holds(engine: FakeEngine) -> None:
    async with gateway_to(engine.url) as desk:
        held = [await idle_connections(desk, 500)]  # what is made once is made now
        before = resident_bytes()
        held.append(await idle_connections(desk, CROWD))
        gc.collect()
        assert (resident_bytes() - before) / CROWD < IDLE_BYTES
        for socks in held:
            for sock in socks:
                sock.close()
        await deserted(desk)


async def idle_connections(desk: Desk, count: int) -> list[socket.socket]:
    """Connections that were used once and stay."""
    socks = connect_all(desk, count)
    loop = asyncio.get_running_loop()
    for sock in socks:
        sock.send(OK)
    for sock in socks:
        assert (await loop.sock_recv(sock, 4096)).startswith(b"HTTP/1.1 200")
    return socks
