"""One client connection: reads requests strictly and within limits, one at a time, and writes the answers in turn."""

from __future__ import annotations

import asyncio
import logging
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from launcher.gateway.deadline import Deadline
from launcher.gateway.framing import ChunkDecoder, FramingError
from launcher.gateway.heads import RequestHead, malformed_so_far, parse_request_head
from launcher.gateway.refusal import REASON_PHRASES, Refusal, Refused, bad_head

if TYPE_CHECKING:
    from launcher.gateway.routes import Route
    from launcher.profile.model import GatewaySection

log = logging.getLogger("launcher.gateway")
LINGER_S = 2.0  # how long a refused upload is read and thrown away, so that its sender sees the answer and not a reset
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class State(Enum):
    """What the connection is doing."""

    HEAD = "waiting for a request, or reading its head"
    BODY = "reading its body"
    BUSY = "the request is being answered"
    LINGER = "refused: what still comes is thrown away"
    CLOSED = "gone"


HEAD, BODY, BUSY, LINGER, CLOSED = State


class Request:
    """A request that has been read whole."""

    __slots__ = ("arrived_at", "body", "head", "route")

    def __init__(self, head: RequestHead, route: Route, body: bytes, arrived_at: float) -> None:
        self.head, self.route, self.body = head, route, body
        self.arrived_at = arrived_at  # the loop's time when the body was in


class Answering(Protocol):
    """Whoever works on a connection's request, told what the connection meets meanwhile."""

    def client_gone(self) -> None: ...
    def client_full(self) -> None: ...
    def client_drained(self) -> None: ...


class Server(Protocol):
    """What a connection needs of its gateway."""

    settings: GatewaySection
    connections: set[ClientConnection]

    def route(self, head: RequestHead) -> Route: ...
    def handle(self, connection: ClientConnection, request: Request) -> None: ...
    def refused(self, refusal: Refusal, head: RequestHead | None) -> None: ...
    def new_request_id(self) -> bytes: ...
    def disconnected(self, connection: ClientConnection) -> None: ...


class ClientConnection(asyncio.Protocol):
    """HTTP/1.1 as a server, over one transport. Its own state is written here only."""

    __slots__ = (
        "_advancing",
        "_arrived",
        "_deadline",
        "_decoder",
        "_head",
        "_left",
        "_pieces",
        "_reading_paused",
        "_route",
        "_scanned",
        "answering",
        "loop",
        "server",
        "state",
        "transport",
        "write_paused",
    )

    transport: asyncio.Transport

    def __init__(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        self.server, self.loop = server, loop
        self.state = HEAD
        self.answering: Answering | None = None
        self.write_paused = False
        self._arrived = bytearray()  # bytes not looked at yet: a head that has begun, or pipelined requests
        self._scanned = 0  # how much of them is known to hold no end of a head
        self._advancing = False
        self._reading_paused = False
        self._head: RequestHead | None = None
        self._route: Route | None = None
        self._pieces: list[bytes] = []
        self._left = 0
        self._decoder: ChunkDecoder | None = None
        self._deadline = Deadline(loop, self._too_late)

    # What the transport tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.server.connections.add(self)
        self._deadline.move(self.server.settings.head_timeout)

    def data_received(self, data: bytes) -> None:
        if self.state is HEAD:
            self._advance(data)
        elif self.state is BODY:
            self._deadline.move(self.server.settings.body_timeout)
            self._take_body(data)
            self._advance()
        elif self.state is BUSY:
            self._arrived += data  # pipelined; kept within bounds, its turn comes
            if len(self._arrived) > self.server.settings.max_head:
                self._reading_paused = True
                self.transport.pause_reading()

    def eof_received(self) -> bool:
        """A client that sends no more has left, as for nginx and uvicorn: what it asked for is dropped."""
        if self.answering is not None:
            self.answering.client_gone()
        return False

    def pause_writing(self) -> None:
        self.write_paused = True
        if self.answering is not None:
            self.answering.client_full()

    def resume_writing(self) -> None:
        self.write_paused = False
        if self.answering is not None:
            self.answering.client_drained()

    def connection_lost(self, exc: Exception | None) -> None:
        self.state = CLOSED
        self.server.disconnected(self)
        self._deadline.cancel()
        if self.answering is not None:
            self.answering.client_gone()
            self.answering = None
        self._pieces.clear()

    # Reading.

    def _advance(self, data: bytes = b"") -> None:
        """Reads requests from what has arrived, until one is being answered or more bytes are needed."""
        if self._advancing or self.state is not HEAD:
            return
        self._advancing = True
        self._head = None
        try:
            if self._arrived or (data and not self._take_whole(data)):
                self._arrived += data
            while self._arrived and self.state is HEAD and self._cut_head():
                self._begin_body()
        except Refused as refused:
            self._refuse_unserved(refused.refusal, self._head)
        finally:
            self._advancing = False

    def _take_whole(self, data: bytes) -> bool:
        """The usual case, at less cost: one request, whole, in one piece. False: it is another case, nothing is done."""
        settings = self.server.settings
        end = data.find(b"\r\n\r\n") + 4
        if end < 5 or end > settings.max_head or data.startswith(b"\r\n"):
            return False
        self._head = head = parse_request_head(data[: end - 2])
        length = head.content_length
        if head.chunked or length != len(data) - end or length > settings.max_body:
            return False
        self._complete(head, self.server.route(head), data[end:])
        return True

    def _cut_head(self) -> bool:
        """Takes one head off the arrived bytes. False: it is not complete. Raises Refused."""
        arrived, limit = self._arrived, self.server.settings.max_head
        while arrived.startswith(b"\r\n"):  # an empty line before a request is allowed
            del arrived[:2]
        end = arrived.find(b"\r\n\r\n", self._scanned)
        self._head = None
        if end < 0 or end + 4 > limit:
            if len(arrived) > limit:
                raise bad_head("head_too_large", f"The request's head is larger than {limit} bytes.", 431)
            if malformed_so_far(arrived):
                parse_request_head(bytes(arrived))  # says what is wrong
            if not self._scanned and arrived:
                self._deadline.move(self.server.settings.head_timeout)
            self._scanned = max(0, len(arrived) - 3)
            return False
        raw = bytes(arrived[: end + 2])
        del arrived[: end + 4]
        self._scanned = 0
        self._head = parse_request_head(raw)
        return True

    def _begin_body(self) -> None:
        """Refuses by the head alone where that is possible, else goes on to the body."""
        head, settings = self._head, self.server.settings
        assert head is not None
        route = self.server.route(head)
        if head.content_length > settings.max_body:
            raise Refused(self._too_large())
        if not head.chunked and not head.content_length:
            self._complete(head, route, b"")
            return
        if head.expects_continue and not self._arrived:
            self.transport.write(CONTINUE)
        self.state, self._route, self._left = BODY, route, head.content_length
        self._decoder = ChunkDecoder() if head.chunked else None
        self._deadline.move(settings.body_timeout)
        data = bytes(self._arrived)
        self._arrived.clear()
        if data:
            self._take_body(data)

    def _take_body(self, data: bytes) -> None:
        decoder = self._decoder
        if decoder is None:
            self._pieces.append(data if len(data) <= self._left else data[: self._left])
            self._arrived += data[self._left :]
            self._left -= len(self._pieces[-1])
            if self._left:
                return
        else:
            try:
                pieces = decoder.feed(data)
            except FramingError as error:
                self._refuse_unserved(bad_head("chunk", f"The chunked body is malformed: {error}.").refusal, self._head)
                return
            self._pieces += pieces
            self._left += sum(map(len, pieces))  # here: bytes so far
            if self._left > self.server.settings.max_body:
                self._refuse_unserved(self._too_large(), self._head)
                return
            if not decoder.ended:
                return
            self._arrived += decoder.rest
        pieces, self._pieces, self._decoder = self._pieces, [], None
        head, route = self._head, self._route
        assert head is not None
        assert route is not None
        self._complete(head, route, pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def _complete(self, head: RequestHead, route: Route, body: bytes) -> None:
        self.state = BUSY
        self._deadline.clear()
        try:
            self.server.handle(self, Request(head, route, body, self.loop.time()))
        except Refused as refused:
            self._refuse_unserved(refused.refusal, head)
        except Exception:
            log.exception("a bug of the gateway's own")
            bug = Refusal(500, "internal_error", "The gateway failed: see its log.", close=True)
            self._refuse_unserved(bug, head)

    def _too_large(self) -> Refusal:
        limit = self.server.settings.max_body
        return Refusal(413, "body_too_large", f"The request's body is larger than {limit} bytes.", close=True)

    # Answering.

    def answer(self, head: RequestHead | None, status: int, lines: list[bytes], body: bytes, close: bool) -> None:
        """Writes a whole answer of the gateway's own and ends it. ``head`` None: none was read."""
        keep = head is not None and head.keep_alive and not close
        identity = (head.request_id if head is not None else b"") or self.server.new_request_id()
        lines = [b"HTTP/1.1 %d %b" % (status, REASON_PHRASES[status]), *lines, b"x-request-id: " + identity]
        lines += [b"content-length: %d" % len(body), *connection_line(head, keep), b"\r\n"]
        if head is not None and head.method == b"HEAD":
            body = b""
        self.transport.write(b"\r\n".join(lines) + body)
        self.end_response(keep)

    def refuse(self, refusal: Refusal, head: RequestHead | None) -> None:
        """Answers with a refusal. A body that was not read, or whose end is not certain, closes the connection."""
        if self.state is CLOSED or self.transport.is_closing():
            return
        begun = self.state is HEAD and head is not None and (head.chunked or head.content_length > 0)
        unread = begun or self.state is BODY
        self._pieces.clear()
        self._decoder = None
        lines = [b"content-type: application/json", *refusal.lines()]
        self.answer(head, refusal.status, lines, refusal.body(), refusal.close or unread)

    def _refuse_unserved(self, refusal: Refusal, head: RequestHead | None) -> None:
        """Refuses what no route has seen."""
        self.server.refused(refusal, head)
        self.refuse(refusal, head)

    def end_response(self, keep: bool) -> None:
        """The answer is written whole: on to the next request, or to the connection's end."""
        self.answering = None
        if self.state is CLOSED:
            return
        if not keep:
            self._linger()
            return
        self.state = HEAD
        self._deadline.move(self.server.settings.idle_timeout)
        if self._arrived:
            if self._reading_paused:
                self._reading_paused = False
                self.transport.resume_reading()
            self._advance()

    def _linger(self) -> None:
        """Ends our side, and throws away what comes until the client ends its own or LINGER_S has passed."""
        self.state = LINGER
        self._arrived.clear()
        if self.transport.can_write_eof() and not self.transport.is_closing():
            self.transport.write_eof()
            if self._reading_paused:
                self.transport.resume_reading()
            self._deadline.move(LINGER_S)
        else:
            self.transport.close()

    def shut(self) -> None:
        """Closes the connection once what was written is sent."""
        self.transport.close()

    def abort(self) -> None:
        """Ends the connection so that its client sees an incomplete answer."""
        self.transport.abort()

    def _too_late(self) -> None:
        """The deadline of what the connection is doing has passed."""
        settings = self.server.settings
        if self.state is BODY:
            message = f"No more of the body came for {settings.body_timeout:g} s."
            self._refuse_unserved(Refusal(408, "body_timeout", message, close=True), self._head)
        elif self.state is HEAD and self._arrived:
            message = f"The head was not complete after {settings.head_timeout:g} s."
            self._refuse_unserved(Refusal(408, "head_timeout", message, close=True), None)
        elif self.state is HEAD:
            self.transport.close()
        else:
            self.transport.abort()

    def __repr__(self) -> str:
        return f"<ClientConnection {self.state.name.lower()} arrived={len(self._arrived)}>"


def connection_line(head: RequestHead | None, keep: bool) -> list[bytes]:
    """The Connection header that an answer needs: none where HTTP/1.1 keeps the connection anyway."""
    if not keep:
        return [b"connection: close"]
    return [] if head is None or head.is_http11 else [b"connection: keep-alive"]
