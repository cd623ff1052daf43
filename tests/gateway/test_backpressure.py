"""Clients that read slowly, or not at all: what is held for them is bounded in bytes and in time, and none is lost."""

from __future__ import annotations

import asyncio
import re
import socket

import pytest

from tests.fakes.process import FakeEngine
from tests.gateway.harness import CHAT, PATIENCE_S, Desk, chat, gateway_to, request_bytes

LENGTH = re.compile(rb"content-length: ([0-9]+)")
BIG = {"tokens": 1000, "chunk_bytes": 65536}  # 65 MB, more than all buffers on the way


def narrow(desk: Desk) -> socket.socket:
    """A connection that takes little unread."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**14)
    sock.connect(desk.address)
    return sock


def read_answers(sock: socket.socket, count: int) -> bytes:
    """Reads ``count`` answers with Content-Length, or to the end."""
    sock.settimeout(PATIENCE_S)
    data, position = bytearray(), 0
    while piece := sock.recv(2**20):
        data += piece
        while (end := data.find(b"\r\n\r\n", position)) >= 0:
            found = LENGTH.search(data, position, end)
            assert found is not None
            whole = end + 4 + int(found[1])
            if whole > len(data):
                break
            position, count = whole, count - 1
        if not count:
            break
    sock.close()
    return bytes(data)


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
    await engine.set(tokens=1, chunk_bytes=12_000_000, reasoning="hm")
    async with gateway_to(engine.url) as desk:
        sock = narrow(desk)
        # An answer that is changed as a whole: it leaves the engine before any of it is written here.
        sock.sendall(request_bytes("POST", CHAT, b'{"return_reasoning": true}', "Connection: close"))
        await desk.until(lambda: any(c.state.name == "LINGER" for c in desk.gateway.connections))
        loop = asyncio.get_running_loop()
        late = loop.time() + 0.3
        while loop.time() < late:  # well past the linger time
            await desk.get("/health")
        answer = await asyncio.to_thread(read_answers, sock, 1)
        assert len(answer) > 12_000_000


@pytest.mark.parametrize("path", ["/metrics", "/nowhere"])
async def test_pipelined_answers_that_nobody_reads_do_not_pile_up(desk: Desk, path: str) -> None:
    """Answers of our own are written at once, so it is the next request that has to wait."""
    sock = narrow(desk)
    count = 20_000 if path == "/nowhere" else 2_000
    sending = asyncio.create_task(asyncio.to_thread(sock.sendall, request_bytes("GET", path) * count))
    await desk.until(lambda: any(c.write_paused for c in desk.gateway.connections))
    for _ in range(20):
        await desk.get("/health")
    (stuck,) = [c for c in desk.gateway.connections if c.write_paused]
    assert stuck.transport.get_write_buffer_size() < 2**18
    assert stuck.reader.held < 2**19
    answers = await asyncio.to_thread(read_answers, sock, count)  # and all are answered once they are read
    assert answers.count(b"\r\nx-request-id: ") == count
    await sending


async def test_idle_connections_with_unread_bytes_end_too(engine: FakeEngine) -> None:
    await engine.set(tokens=1, chunk_bytes=12_000_000)
    async with gateway_to(engine.url, write_timeout=0.2, idle_timeout=0.1) as desk:
        sock = narrow(desk)
        sock.sendall(request_bytes("POST", CHAT, b"{}"))
        await engine.wait("request")
        await desk.at_rest()
        await desk.until(lambda: not [c for c in desk.gateway.connections if c.transport.get_write_buffer_size()])
        sock.close()
