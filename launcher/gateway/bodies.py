"""Collects a request's body: by its length, a large one straight from the socket into its place, or by its chunks."""

from __future__ import annotations

import asyncio
from io import BytesIO
from typing import Protocol

from launcher.gateway.framing import ChunkDecoder, FramingError
from launcher.gateway.refusal import Refusal, Refused, bad_head

SMALL = 4096  # bytes; smaller pieces of a body are put together: each object costs ten times what a few bytes do
LARGE = 128 * 1024  # bytes that are still to come, from which on they are read straight into their place
AHEAD = 8  # times what has come: so much room is made at most, whatever length the head has promised


class CountedBody:
    """A body whose length is known. ``rest`` is what came after its end."""

    __slots__ = ("_begun", "_length", "_place", "_view", "rest", "size")

    def __init__(self, length: int) -> None:
        self._length = length
        self.size = 0  # how much of it has come
        self._begun = bytearray()  # that, while it is fed
        self._place: BytesIO | None = None  # that and room for more, once room was asked for
        self._view: memoryview | None = None  # of the place
        self.rest = b""

    @property
    def left(self) -> int:
        """How many bytes are still to come."""
        return self._length - self.size

    @property
    def beginning(self) -> bytes:
        """What has been fed so far."""
        return bytes(self._begun)

    def feed(self, data: bytes) -> bool:
        """Whether it is whole now."""
        left = self._length - self.size
        if len(data) > left:
            data, self.rest = data[:left], data[left:]
        self._begun += data
        self.size += len(data)
        return self.size == self._length

    def room(self) -> memoryview:
        """Where the next bytes go. What is written there is told to ``grow``; ``feed`` is not to be used from then on."""
        view, size = self._view, self.size
        if view is None or len(view) == size:
            old = self._begun if view is None else view
            self._place = BytesIO(bytes(min(self._length, AHEAD * max(size, SMALL))))
            self._view = view = self._place.getbuffer()
            view[:size] = old
            self._begun = bytearray()
        return view[size:]

    def grow(self, count: int) -> bool:
        """``count`` bytes were written into the room. Whether it is whole now."""
        self.size += count
        return self.size == self._length

    def whole(self) -> bytes:
        """The body; without a copy, if nobody holds the room any more: that is how BytesIO gives away what it has."""
        self._view = None
        return bytes(self._begun) if self._place is None else self._place.getvalue()


class ChunkedBody:
    """A body in chunks, of ``limit`` bytes at most. ``rest`` is what came after its end."""

    __slots__ = ("_decoder", "_limit", "pieces", "rest", "size")
    left = 0  # of what is known to come

    def __init__(self, limit: int) -> None:
        self._decoder = ChunkDecoder()
        self._limit, self.size = limit, 0
        self.pieces: list[bytes | bytearray] = []
        self.rest = b""

    def feed(self, data: bytes) -> bool:
        """Whether it is whole now. Raises Refused."""
        try:
            pieces = self._decoder.feed(data)
        except FramingError as error:
            raise bad_head("chunk", f"The chunked body is malformed: {error}.") from None
        if pieces:
            self._keep(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if self.size > self._limit:
            raise too_large(self._limit)
        self.rest = self._decoder.rest
        return self._decoder.ended

    def _keep(self, piece: bytes) -> None:
        self.size += len(piece)
        if len(piece) >= SMALL:
            self.pieces.append(piece)
        elif self.pieces and isinstance(last := self.pieces[-1], bytearray):
            last += piece
        else:
            self.pieces.append(bytearray(piece))

    def whole(self) -> bytes:
        return bytes(self.pieces[0]) if len(self.pieces) == 1 else b"".join(self.pieces)


Body = CountedBody | ChunkedBody


class Reading(Protocol):
    """The connection whose body is read."""

    def body_grew(self, is_whole: bool) -> None: ...
    def eof_received(self) -> bool: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...
    def connection_lost(self, exc: Exception | None) -> None: ...


class BodyFiller(asyncio.BufferedProtocol):
    """Stands in for a connection while a large body is read.

    The kernel then writes each byte where it stays. Else it is copied from the loop's buffer into pieces, and once more
    when they are joined: a quarter of what a megabyte costs in all.
    """

    __slots__ = ("_body", "_connection")

    def __init__(self, connection: Reading, body: CountedBody) -> None:
        self._connection, self._body = connection, body

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._body.room()

    def buffer_updated(self, nbytes: int) -> None:
        self._connection.body_grew(self._body.grow(nbytes))

    def eof_received(self) -> bool:
        return self._connection.eof_received()

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.connection_lost(exc)


def too_large(limit: int) -> Refused:
    """413 for a body above gateway.max_body."""
    return Refused(Refusal(413, "body_too_large", f"The request's body is larger than {limit} bytes.", close=True))
