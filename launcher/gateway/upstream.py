"""One connection to an engine: sends requests and reads the framing of the answers, without touching their bytes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from enum import Enum
from typing import Protocol

from launcher.gateway.framing import ChunkDecoder, FramingError, is_one_chunk, scan_chunks
from launcher.gateway.heads import ResponseHead
from launcher.gateway.known_heads import ResponseHeads
from launcher.gateway.refusal import BUG
from launcher.gateway.replicas import Replica

log = logging.getLogger("launcher.gateway")
_heads = ResponseHeads()
MAX_HEAD = 64 * 1024
MAX_CHUNK = 64 * 1024 * 1024  # a chunk of events is passed on whole, so this much may have to wait for its end


class Reading(Enum):
    """How the body that follows a head is to be given."""

    NOTHING = "there is no body"
    AS_IT_CAME = "with its framing, byte for byte"
    PAYLOAD = "without its framing"


class Receiver(Protocol):
    """Whoever an answer is for. After on_end or on_lost the connection is no longer its own.

    Bytes that pass as they came go straight to ``sink`` once the first have been given to on_bytes; how many those
    were is added to ``bytes_out`` at the end, and in how many pieces the body came to ``pieces``.
    """

    bytes_out: int
    pieces: int
    first_byte_at: float  # the loop's time of the body's first byte; written here

    @property
    def keep_pieces(self) -> Callable[[bytes], None] | None: ...  # is given all that is passed on; read after on_head
    @property
    def is_work(self) -> bool: ...
    @property
    def sink(self) -> Callable[[bytes], None]: ...

    def on_head(self, head: ResponseHead, more: bool) -> Reading: ...
    def on_first_byte(self) -> None: ...  # of a 200 answer's body: once, before that byte is passed on
    def on_bytes(self, data: bytes) -> None: ...
    def on_end(self) -> None: ...
    def on_lost(self, reason: str, got_bytes: bool) -> None: ...
    def crashed(self) -> None: ...


class Home(Protocol):
    """Where a connection goes between two answers."""

    def put(self, connection: EngineConnection) -> None: ...
    def forget(self, connection: EngineConnection) -> None: ...


class EngineConnection(asyncio.Protocol):
    """One connection to an engine, working for one receiver at a time."""

    __slots__ = (
        "_body",
        "_decoder",
        "_framed",
        "_held",
        "_is_ok",
        "_is_work",
        "_keep",
        "_keep_piece",
        "_left",
        "_needed",
        "_now",
        "_passed",
        "_paused",
        "_pieces",
        "_pool",
        "_sink",
        "address",
        "idle_since",
        "receiver",
        "replica",
        "transport",
        "uses",
    )

    transport: asyncio.Transport

    def __init__(self, pool: Home, replica: Replica, now: Callable[[], float]) -> None:
        self._pool, self.replica, self._now = pool, replica, now
        self.address = replica.address  # the replica may move to another one
        self.receiver: Receiver | None = None
        self.uses = 0
        self.idle_since = 0.0
        self._held = bytearray()  # a head or a chunk that is not complete
        self._needed = 0  # how long it will be; 0: not known
        self._body: Callable[[bytes], None] | None = None  # None: in the head
        self._framed: Callable[[bytes], None] | None = None  # the same, while its first byte has not come
        self._left = 0
        self._sink: Callable[[bytes], None] | None = None
        self._passed = 0  # bytes that went into the sink
        self._pieces = 0  # in which the body has come
        self._keep_piece: Callable[[bytes], None] | None = None
        self._keep = False
        self._is_ok = False  # the answer at hand has status 200
        self._is_work = False  # the body at hand is an engine's work: its bytes are a sign of life
        self._paused = False
        self._decoder: ChunkDecoder | None = None

    def send(self, receiver: Receiver, head: bytes, body: bytes) -> None:
        """Sends a request and gives its answer to ``receiver``."""
        self.receiver, self._body = receiver, None
        self.uses += 1
        if len(body) > 16384:
            self.transport.writelines((head, body))
        else:
            self.transport.write(head + body)

    def pause(self) -> None:
        """Reads no more for now, so that the engine has to wait."""
        if not self._paused:
            self._paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        if self._paused:
            self._paused = False
            self.transport.resume_reading()

    def leave(self) -> None:
        """The receiver wants no more: the connection is closed at once, so that the engine aborts its work."""
        self._take_receiver()
        self.transport.abort()

    def _take_receiver(self) -> Receiver | None:
        """The receiver, who is no longer told anything; it learns how many bytes and pieces went past it."""
        receiver, self.receiver, self._sink, self._keep_piece = self.receiver, None, None, None
        if receiver is not None:
            receiver.bytes_out += self._passed
            receiver.pieces += self._pieces
        self._passed = self._pieces = 0
        return receiver

    # What the transport tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        receiver = self.receiver
        try:
            if self._body is not None:
                self._pieces += 1
                if self._is_work:
                    self.replica.last_byte_at = self._now()
                self._body(data)
            elif receiver is None:  # nobody asked: whatever it is, it must not become the next one's answer
                self.transport.abort()
            else:
                self._read_head(receiver, data)
        except Exception:
            log.exception(BUG.message)
            self.leave()
            if receiver is not None:
                receiver.crashed()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._pool.forget(self)
        receiver, body, framed = self._take_receiver(), self._body, self._framed
        self._body = self._framed = None
        if receiver is None:
            return
        until_close = self._until_close
        if body is not None and until_close in (body, framed) and exc is None:
            receiver.on_end()
        else:
            why = "reset the connection" if exc is not None else "closed the connection"
            receiver.on_lost(f"The engine {why}", body is not None or bool(self._held))

    # The head.

    def _read_head(self, receiver: Receiver, data: bytes) -> None:
        if self._held:
            data = bytes(self._held) + data
            self._held.clear()
        while True:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                if len(data) > MAX_HEAD or not b"HTTP/1.".startswith(data[:7]):
                    self._fail("The engine's answer is not HTTP/1.1")
                else:
                    self._held += data
                return
            try:
                head = _heads.read(data[: end + 2])
            except ValueError as error:
                self._fail(f"The engine's answer cannot be read: {error}")
                return
            data = data[end + 4 :]
            if head.status >= 200:
                break
            if not data:  # an interim answer, such as 103; the real one follows
                return
        self._begin_body(receiver, head, data)

    def _begin_body(self, receiver: Receiver, head: ResponseHead, data: bytes) -> None:
        # Neither a head nor a refusal tells of the engine's core: vLLM's API server sends both while that is stuck.
        self._is_ok = head.status == 200
        self._is_work = self._is_ok and receiver.is_work
        self._keep = head.keep_alive
        self._body = self._until_close
        reading = receiver.on_head(head, bool(data))  # what comes with the head can be written with it
        if reading is Reading.NOTHING or (head.content_length == 0 and not head.chunked):
            self._end(not data)
            return
        self._keep_piece = receiver.keep_pieces
        if head.content_length == len(data):
            self._give_whole(receiver, data)
            return
        if head.chunked:
            self._decoder = ChunkDecoder() if reading is Reading.PAYLOAD else None
            self._body = self._chunks if self._decoder is None else self._decoded
        elif head.content_length is not None:
            self._left, self._body = head.content_length, self._counted
        else:
            self._keep = False
        self._framed, self._body = self._body, self._first
        if data:
            self._pieces = 1
            if self._is_work:
                self.replica.last_byte_at = self._now()
            self._body(data)
        if reading is Reading.AS_IT_CAME and self.receiver is receiver:
            self._sink = receiver.sink

    def _give_whole(self, receiver: Receiver, data: bytes) -> None:
        """A short answer, whose body came whole with its head: all that follows below, at less cost."""
        self._pieces = 1
        receiver.first_byte_at = now = self._now()
        if self._is_work:
            self.replica.last_byte_at = now
        if self._is_ok:
            receiver.on_first_byte()
        if self.receiver is receiver:
            if self._keep_piece is not None:
                self._keep_piece(data)
            receiver.on_bytes(data)
            self._end(True)

    def _first(self, data: bytes) -> None:
        """The body's first bytes: noted, then on as all that follow."""
        receiver, body, self._framed = self.receiver, self._framed, None
        if receiver is None or body is None:
            return
        self._body = body
        receiver.first_byte_at = self._now()
        if self._is_ok:
            receiver.on_first_byte()
        if self.receiver is receiver:
            body(data)

    # The body, in its four framings.

    def _pass(self, data: bytes) -> None:
        if self._keep_piece is not None:
            self._keep_piece(data)
        if self._sink is not None:
            self._passed += len(data)
            self._sink(data)
        elif self.receiver is not None:
            self.receiver.on_bytes(data)

    def _chunks(self, data: bytes) -> None:
        """Passes whole chunks on as they came, so that a stream which breaks can still be ended properly."""
        if self._sink is not None and not self._held and is_one_chunk(data):  # what nearly every piece is
            self._passed += len(data)
            if self._keep_piece is not None:
                self._keep_piece(data)
            self._sink(data)
            return
        if self.receiver is None:
            return
        if self._held:
            self._held += data
            if len(self._held) < self._needed:
                return
            data = bytes(self._held)
            self._held.clear()
        try:
            boundary, is_end, self._needed = scan_chunks(data)
        except FramingError as error:
            self._fail(f"The engine's answer is malformed: {error}")
            return
        if boundary:
            self._pass(data[:boundary])  # all of it, without a copy, where the boundary is at the end
            if self.receiver is None:  # who had enough
                return
        if is_end:
            self._end(boundary == len(data))
        elif boundary < len(data):
            self._held += data[boundary:]
            if self._needed > MAX_CHUNK:
                self._fail("The engine sent a chunk that is too large")

    def _counted(self, data: bytes) -> None:
        left = self._left - len(data)
        self._left = left
        self._pass(data if left >= 0 else data[:left])
        if left <= 0:
            self._end(left == 0)

    def _decoded(self, data: bytes) -> None:
        receiver, decoder = self.receiver, self._decoder
        if receiver is None or decoder is None:
            return
        try:
            pieces = decoder.feed(data)
        except FramingError as error:
            self._fail(f"The engine's answer is malformed: {error}")
            return
        if pieces:
            self._pass(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if decoder.ended and self.receiver is receiver:
            self._end(not decoder.rest)

    def _until_close(self, data: bytes) -> None:
        self._pass(data)

    def _end(self, clean: bool) -> None:
        """The answer is complete. The connection goes back to the pool first: the next request may want it at once."""
        receiver = self._take_receiver()
        self._body, self._framed, self._decoder = None, None, None
        self._held.clear()
        if clean and self._keep and not self.transport.get_write_buffer_size():
            self.resume()
            self._pool.put(self)
        else:
            self.transport.close()
        if receiver is not None:
            receiver.on_end()

    def _fail(self, reason: str) -> None:
        receiver = self._take_receiver()
        self.transport.abort()
        if receiver is not None:
            receiver.on_lost(reason, True)

    def __repr__(self) -> str:
        return f"<EngineConnection replica={self.replica.index} {'busy' if self.receiver else 'idle'} uses={self.uses}>"
