"""What the receiver of an engine's answer is told of it: its first byte, its pieces, and those pieces where it keeps them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from launcher.gateway.heads import ResponseHead
from launcher.gateway.pool import Pool
from launcher.gateway.replicas import Endpoint, Replicas
from launcher.gateway.upstream import EngineConnection, Reading
from tests.gateway.harness import PATIENCE_S

CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
COUNTED = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n"


class Recorder:
    """A receiver that writes down what it is told, in order."""

    is_work = True

    def __init__(self, reading: Reading = Reading.AS_IT_CAME, keeps: bool = False) -> None:
        self.bytes_out = self.pieces = 0
        self.first_byte_at = 0.0
        self.kept: list[bytes] = []
        self.keep_pieces = self.kept.append if keeps else None
        self.told: list[str] = []
        self.passed: list[bytes] = []
        self.changed = asyncio.Event()
        self.leave_at_first = False
        self.connection: EngineConnection | None = None
        self._reading = reading

    def _tell(self, what: str) -> None:
        self.told.append(what)
        self.changed.set()

    def sink(self, data: bytes) -> None:
        self.passed.append(data)
        self._tell("bytes")

    def on_head(self, head: ResponseHead, more: bool) -> Reading:
        self._tell("head")
        return self._reading

    def on_first_byte(self) -> None:
        self._tell("first")
        if self.leave_at_first and self.connection is not None:
            self.connection.leave()

    def on_bytes(self, data: bytes) -> None:
        self.bytes_out += len(data)
        self.sink(data)

    def on_end(self) -> None:
        self._tell("end")

    def on_lost(self, reason: str, got_bytes: bool) -> None:
        self._tell("lost")

    def crashed(self) -> None:
        self._tell("crashed")

    async def until(self, what: str, count: int = 1) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while self.told.count(what) < count:
                self.changed.clear()
                await self.changed.wait()


@asynccontextmanager
async def engine_says(receiver: Recorder) -> AsyncIterator[Callable[[bytes], None]]:
    """A connection to an engine which has sent its request; what is yielded writes the engine's bytes."""
    accepted: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
    server = await asyncio.start_server(lambda _, writer: accepted.put_nowait(writer), "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    pool = Pool(asyncio.get_running_loop().time)
    replicas = Replicas()
    replicas.add(0, Endpoint(f"http://{host}:{port}"))
    connection = receiver.connection = await pool.dial(replicas.all[0])
    connection.send(receiver, b"POST / HTTP/1.1\r\n\r\n", b"")
    writer = await accepted.get()
    try:
        yield writer.write
    finally:
        writer.transport.abort()
        connection.transport.abort()
        server.close()


async def test_the_first_byte_is_told_once_and_before_it_passes() -> None:
    receiver = Recorder()
    async with engine_says(receiver) as say:
        say(CHUNKED)
        await receiver.until("head")
        assert receiver.told == ["head"]
        assert receiver.first_byte_at == 0.0
        began = asyncio.get_running_loop().time()
        for count in range(1, 4):
            say(b"3\r\nabc\r\n")
            await receiver.until("bytes", count)
        say(b"0\r\n\r\n")
        await receiver.until("end")
        assert receiver.told == ["head", "first", "bytes", "bytes", "bytes", "bytes", "end"]
        assert began <= receiver.first_byte_at <= asyncio.get_running_loop().time()
        assert receiver.pieces == 4
        assert receiver.bytes_out == len(b"".join(receiver.passed)) == 3 * 8 + 5


@pytest.mark.parametrize("reading", [Reading.AS_IT_CAME, Reading.PAYLOAD])
@pytest.mark.parametrize("answer", [COUNTED + b"abcdef", CHUNKED + b"6\r\nabcdef\r\n0\r\n\r\n"])
async def test_the_first_byte_may_come_with_the_head(answer: bytes, reading: Reading) -> None:
    receiver = Recorder(reading, keeps=True)
    async with engine_says(receiver) as say:
        say(answer)
        await receiver.until("end")
        assert receiver.told == ["head", "first", "bytes", "end"]
        assert receiver.pieces == 1
        assert receiver.first_byte_at > 0
        assert receiver.kept == receiver.passed


@pytest.mark.parametrize("status", [b"503 Service Unavailable", b"201 Created"])
async def test_an_answer_other_than_200_has_no_first_byte_to_tell_of(status: bytes) -> None:
    receiver = Recorder()
    async with engine_says(receiver) as say:
        say(b"HTTP/1.1 %b\r\ncontent-length: 2\r\n\r\n" % status)
        await receiver.until("head")
        say(b"no")
        await receiver.until("end")
        assert receiver.told == ["head", "bytes", "end"]
        assert receiver.first_byte_at > 0


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", CHUNKED])
async def test_an_answer_without_a_body_has_no_first_byte(answer: bytes) -> None:
    receiver = Recorder(Reading.NOTHING if answer == CHUNKED else Reading.AS_IT_CAME)
    async with engine_says(receiver) as say:
        say(answer)
        await receiver.until("end")
        assert receiver.told == ["head", "end"]
        assert (receiver.pieces, receiver.first_byte_at) == (0, 0.0)


async def test_kept_pieces_are_what_was_passed_on_and_whole_chunks() -> None:
    receiver = Recorder(keeps=True)
    async with engine_says(receiver) as say:
        say(CHUNKED + b"3\r\nabc\r\n3\r\nd")
        await receiver.until("bytes")
        say(b"ef\r\n")
        await receiver.until("bytes", 2)
        say(b"3\r\nghi\r\n3\r\njk")  # the last is never complete: not passed on, so not kept
        await receiver.until("bytes", 3)
        assert receiver.connection is not None
        receiver.connection.leave()
        assert receiver.kept == receiver.passed == [b"3\r\nabc\r\n", b"3\r\ndef\r\n", b"3\r\nghi\r\n"]
        assert receiver.pieces == 3
        assert receiver.bytes_out == 3 * 8


async def test_nothing_passes_once_the_receiver_has_left_at_its_first_byte() -> None:
    receiver = Recorder(keeps=True)
    receiver.leave_at_first = True
    async with engine_says(receiver) as say:
        say(COUNTED + b"abcdef")
        await receiver.until("first")
        assert receiver.told == ["head", "first"]
        assert receiver.kept == receiver.passed == []


async def test_an_answer_that_ends_with_its_connection_ends_well_even_without_a_byte() -> None:
    receiver = Recorder()
    async with engine_says(receiver) as say:
        say(b"HTTP/1.1 200 OK\r\n\r\n")
        await receiver.until("head")
        assert receiver.connection is not None
        receiver.connection.eof_received()
        receiver.connection.transport.close()
        await receiver.until("end")
        assert receiver.told == ["head", "end"]
