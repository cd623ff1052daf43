"""Clients that read slowly, or not at all: what is held for them is bounded in bytes and in time, and none is lost."""

from __future__ import annotations

import asyncio
import socket

import pytest

from tests.fakes.process import FakeEngine
from tests.gateway.harness import CHAT, Desk, RawClient, chat, gateway_to, request_bytes

BIG = {"tokens": 1000, "chunk_bytes": 65536}  # 65 MB, more than all buffers on the way


def narrow(desk: Desk) -> socket.socket:
    """A connection that takes little unread."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**14)
    sock.connect(desk.address)
    return sock


async def reader_of(sock: socket.socket) -> RawClient:
    sock.setblocking(False)
    return RawClient(*await asyncio.open_connection(sock=sock, limit=2**26))


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_stops_reading_loses_its_slot(engine: FakeEngine, stream: bool) -> None:
    await engine.set(**BIG)
    async with gateway_to(engine.url, max_in_flight=1, write_timeout=0.2) as desk:
        sock = narrow(desk)
        sock.sendall(request_bytes("POST", CHAT, b'{"stream": true}' if stream else b"{}"))
        await engine.wait("request")
        if stream:
            await engine.wait("abort")
        await desk.at_rest()
        await desk.until(lambda: not [c for c in desk.gateway.connections if c.write_paused])
        assert await desk.metric("launcher_client_stalls_total") == 1
        await engine.set(tokens=2, chunk_bytes=0)
        assert (await desk.post(chat())).status == 200  # the slot is free
        sock.close()


async def test_a_slow_client_that_goes_on_reading_is_served(engine: FakeEngine) -> None:
    """It takes several times write_timeout in all, but never stops for so long."""
    await engine.set(tokens=60, chunk_bytes=65536)
    async with gateway_to(engine.url, write_timeout=0.5) as desk:
        sock = narrow(desk)
        sock.sendall(request_bytes("POST", CHAT, b'{"stream": true}'))
        loop, last = asyncio.get_running_loop(), b""
        sock.setblocking(False)
        until = loop.time() + 1.5
        while not last.endswith(b"0\r\n\r\n"):
            piece = await loop.sock_recv(sock, 2**14)
            assert piece, "cut off"
            last = last[-5:] + piece
            if loop.time() < until:
                await desk.get("/health")
        assert await desk.metric("launcher_client_stalls_total") == 0
        sock.close()


async def test_the_end_of_a_last_answer_waits_for_a_slow_client(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`Connection: close` ends our side; what the client has not read by then must still come."""
    monkeypatch.setattr("launcher.gateway.http1.LINGER_S", 0.05)
    await engine.set(tokens=1, chunk_bytes=12_000_000)
    async with gateway_to(engine.url) as desk:
        sock = narrow(desk)
        sock.sendall(request_bytes("POST", CHAT, b"{}", "Connection: close"))
        await engine.wait("done")
        await desk.at_rest()
        loop = asyncio.get_running_loop()
        late = loop.time() + 0.3
        while loop.time() < late:  # well past the linger time
            await desk.get("/health")
        answer = await (await reader_of(sock)).read()
        assert len(answer.body) > 12_000_000


@pytest.mark.parametrize("path", ["/metrics", "/nowhere"])
async def test_pipelined_answers_that_nobody_reads_do_not_pile_up(desk: Desk, path: str) -> None:
    """Answers of our own are written at once, so it is the next request that has to wait."""
    sock = narrow(desk)
    client = await reader_of(sock)
    count = 5000
    client.writer.write(request_bytes("GET", path) * count)
    await desk.until(lambda: any(c.write_paused for c in desk.gateway.connections))
    for _ in range(20):
        await desk.get("/health")
    (stuck,) = [c for c in desk.gateway.connections if c.write_paused]
    assert stuck.transport.get_write_buffer_size() < 2**18
    assert len(stuck._arrived) < 2**19
    for _ in range(count):  # and all are answered once they are read
        assert (await client.read()).status in (200, 404)


async def test_idle_connections_with_unread_bytes_end_too(engine: FakeEngine) -> None:
    await engine.set(tokens=1, chunk_bytes=12_000_000)
    async with gateway_to(engine.url, write_timeout=0.2, idle_timeout=0.1) as desk:
        sock = narrow(desk)
        sock.sendall(request_bytes("POST", CHAT, b"{}"))
        await engine.wait("request")
        await desk.at_rest()
        await desk.until(lambda: not [c for c in desk.gateway.connections if c.transport.get_write_buffer_size()])
        sock.close()
