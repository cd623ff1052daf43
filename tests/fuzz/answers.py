"""An engine's answers: EngineConnection fed with anything, as the gateway would read it, and llhttp's opinion of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httptools

from launcher.gateway.framing import ChunkDecoder
from launcher.gateway.heads import ResponseHead
from launcher.gateway.replicas import Endpoint, Replicas
from launcher.gateway.upstream import EngineConnection, Reading
from tests.fuzz.cuts import alike
from tests.fuzz.target import Target

ENGINES = Replicas()
ENGINES.add(0, Endpoint("http://127.0.0.1:1"))
(REPLICA,) = ENGINES.all
# What llhttp refuses and we do not: the same length twice (RFC 9110 lets it count as one), extensions of chunks that are
# malformed (they go on to the client as they came), an interim answer with "Connection: close", and what comes after a 101,
# which llhttp takes for another protocol and we for interim: engines are not asked to change it.
CHOOSIER = ("Duplicate Content-Length", "chunk extensions", "Data after", "Upgrade")


class Wire(asyncio.Transport):
    """A transport that leads nowhere."""

    ended = False

    def write(self, data: Any) -> None:
        assert not self.ended

    def close(self) -> None:
        self.ended = True

    abort = close

    def is_closing(self) -> bool:
        return self.ended

    def get_write_buffer_size(self) -> int:
        return 0


class Home:
    """Where connections go between answers."""

    def __init__(self) -> None:
        self.kept = False

    def put(self, connection: EngineConnection) -> None:
        self.kept = True

    def forget(self, connection: EngineConnection) -> None:
        self.kept = False


class Client:
    """Whoever the answer is for: notes what it is told, and that nothing comes after the end."""

    is_work = True
    bytes_out = 0
    pieces = 0
    first_byte_at = 0.0
    keep_pieces: Callable[[bytes], None] | None = None

    def __init__(self, as_it_came: bool) -> None:
        self._as_it_came = as_it_came
        self.head: ResponseHead | None = None
        self.body = b""
        self.outcome = ""

    @property
    def sink(self) -> Callable[[bytes], None]:
        return self.on_bytes

    def on_head(self, head: ResponseHead, more: bool) -> Reading:
        assert self.head is None
        assert not self.outcome
        self.head = head
        if head.status in (204, 304):
            return Reading.NOTHING
        framed = head.content_length is not None or head.chunked
        return Reading.AS_IT_CAME if framed and self._as_it_came else Reading.PAYLOAD

    def on_first_byte(self) -> None:
        assert not self.body

    def on_bytes(self, data: bytes) -> None:
        assert self.head is not None
        assert not self.outcome
        assert data
        self.body += data

    def on_end(self) -> None:
        assert not self.outcome
        assert self.head is not None
        self.outcome = "end"

    def on_lost(self, reason: str, got_bytes: bool) -> None:
        assert not self.outcome
        assert not reason.endswith(".")
        self.outcome = "lost"

    def crashed(self) -> None:
        raise AssertionError("the connection crashed; its log has the traceback")


def read(pieces: list[bytes], as_it_came: bool) -> tuple[Any, ...]:
    """Status, end-to-end lines, outcome, payload where it is whole, and whether the connection may be used again."""
    wire, home, client = Wire(), Home(), Client(as_it_came)
    connection = EngineConnection(home, REPLICA, lambda: 0.0)
    connection.connection_made(wire)
    connection.send(client, b"POST / HTTP/1.1\r\n\r\n", b"")
    for piece in pieces:
        if wire.ended:
            break
        if not client.outcome:
            assert len(connection._held) < 70_000
        connection.data_received(piece)
    usable = home.kept and not wire.ended
    connection.connection_lost(None)
    assert client.outcome, "nobody was told how it ended"
    head, body = client.head, client.body
    if head is not None and head.chunked and as_it_came and head.status not in (204, 304):
        decoder = ChunkDecoder()
        ended_whole = client.outcome == "end"
        body = b"".join(decoder.feed(body if ended_whole else body + b"0\r\n\r\n"))
        assert decoder.ended, "what was passed on are not whole chunks"
        assert not decoder.rest
    told = (head.status, head.lines) if head is not None else None
    return told, client.outcome, body if client.outcome == "end" else b"", usable


def answers(data: bytes) -> None:
    """However the bytes come and whichever way they are read, the answer is the same, and it ends exactly once."""
    decoded = alike(data, lambda pieces: read(pieces, False))
    passed = alike(data, lambda pieces: read(pieces, True))
    assert decoded == passed, f"decoded {decoded!r}, as it came {passed!r}"
    told, outcome, body, usable = decoded
    if b"chunked\t" in data.lower():
        return  # llhttp takes it for another coding; blanks at a value's end are none of it, and the gateway writes its own
    if outcome == "end" and usable and told is not None and told[0] >= 200:
        opinion = Opinion()
        opinion.parser = httptools.HttpResponseParser(opinion)
        try:
            opinion.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            return
        except httptools.HttpParserError as error:
            if any(reason in str(error) for reason in CHOOSIER):
                return
            raise
        assert opinion.bodies[-1] == (told[0], body), f"llhttp reads {opinion.bodies!r}, not {body!r}"


class Opinion:
    """What llhttp makes of it."""

    parser: httptools.HttpResponseParser

    def __init__(self) -> None:
        self.bodies: list[tuple[int, bytes]] = []

    def on_message_begin(self) -> None:
        self._body = b""

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self.bodies.append((self.parser.get_status_code(), self._body))


WORDS = tuple(
    b"HTTP/1.1 |HTTP/1.0 |200 OK\r\n|503 \r\n|100 Continue\r\n\r\n|204 No Content\r\n|304 \r\n|Content-Length: |5\r\n|\r\n\r\n|"
    b"Transfer-Encoding: chunked\r\n|Connection: close\r\n|Connection: keep-alive\r\n|Content-Type: text/event-stream\r\n|"
    b"Content-Encoding: gzip\r\n|Retry-After: 1\r\n|data: {}\n\n|5\r\nhello\r\n|0\r\n\r\n|0\r\nX: y\r\n\r\n|\r\n|a;b\r\n".split(b"|")
)  # fmt: skip
SEEDS = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: application/json\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/event-stream\r\n\r\nA\r\ndata: {}\n\n\r\n0\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\nuntil the end",
    b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n",
)
TARGETS = {"answers": Target(answers, SEEDS, WORDS)}
