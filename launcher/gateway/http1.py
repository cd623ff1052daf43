"""One client connection: hands on its requests one at a time, writes the answers in turn, and keeps the time limits."""

from __future__ import annotations

import asyncio
import logging
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from launcher.gateway.bodies import LARGE, BodyFiller, CountedBody
from launcher.gateway.deadline import Deadline
from launcher.gateway.heads import RequestHead
from launcher.gateway.refusal import BUG, REASON_PHRASES, Refusal, Refused
from launcher.gateway.requests import Request, RequestReader

if TYPE_CHECKING:
    from launcher.gateway.routes import Route
    from launcher.profile.model import GatewaySection

log = logging.getLogger("launcher.gateway")
LINGER_S = 2.0  # how long a refused upload is read and thrown away, so that its sender sees the answer and not a reset
CROWDED_RETRY_S = 1.0
GLIMPSE = 2048  # bytes of a large body that tell whether the rest is worth reading
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
BODILESS = frozenset((204, 304))  # these end with their head, and name no length


class State(Enum):
    """What the connection is doing."""

    READING = "waiting for a request, or reading one"
    BUSY = "the request is being answered"
    LINGER = "our side is ended: what still comes is thrown away"
    CLOSED = "gone"


READING, BUSY, LINGER, CLOSED = State


class Answering(Protocol):
    """Whoever works on a connection's request, told what the connection meets meanwhile."""

    def client_gone(self) -> None: ...
    def client_full(self) -> None: ...
    def client_drained(self) -> None: ...
    def crashed(self) -> None: ...


class Server(Protocol):
    """What a connection needs of its gateway."""

    settings: GatewaySection
    connections: set[ClientConnection]

    def route(self, head: RequestHead) -> Route: ...
    def glimpse(self, head: RequestHead, route: Route, beginning: bytes) -> None: ...
    def handle(self, connection: ClientConnection, request: Request) -> None: ...
    def refused(self, refusal: Refusal, head: RequestHead | None) -> None: ...
    def stalled(self, connection: ClientConnection) -> None: ...
    def new_request_id(self) -> bytes: ...
    def disconnected(self, connection: ClientConnection) -> None: ...
    def make_room(self) -> bool: ...


class ClientConnection(asyncio.Protocol):
    """HTTP/1.1 as a server, over one transport. Its own state is written here only."""

    __slots__ = (
        "_advancing",
        "_begun",
        "_deadline",
        "_filler",
        "_reading_paused",
        "_receiving_since",
        "_unread",
        "_unread_bytes",
        "answering",
        "loop",
        "reader",
        "server",
        "state",
        "transport",
        "write_paused",
    )

    transport: asyncio.Transport

    def __init__(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        self.server, self.loop = server, loop
        self.state = READING
        self.reader = RequestReader(server.settings, server.route)
        self.answering: Answering | None = None
        self.write_paused = False
        self._advancing = False
        self._begun = False  # a head has begun: its time runs
        self._reading_paused = False
        self._filler: BodyFiller | None = None  # reads the body at hand
        self._receiving_since = 0.0  # when it began; 0: it came whole, or there is none
        self._deadline = Deadline(loop, self._too_late)
        self._unread: Deadline | None = None  # for the client to read what was written; made when it first lags
        self._unread_bytes = 0  # how much that was when last looked at

    # What the transport tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        server = self.server
        if len(server.connections) >= server.settings.max_connections and not server.make_room():
            self._turn_away()
            return
        server.connections.add(self)
        self._deadline.move(server.settings.head_timeout)

    def _turn_away(self) -> None:
        """Every connection is in use: the client is told so, unless so many are being told that these are too many too."""
        server = self.server
        most = server.settings.max_connections
        if len(server.connections) >= most + most // 8 + 8:
            self.transport.abort()
            return
        server.connections.add(self)
        message = f"All {most} connections are in use (gateway.max_connections)."
        refusal = Refusal(503, "too_many_connections", message, retry_after_s=CROWDED_RETRY_S, close=True)
        self._refuse_unserved(refusal, None)

    @property
    def idle_until(self) -> float | None:
        """When it would be closed for being unused; None: it is in use, or has not had its first request yet."""
        reader = self.reader
        is_idle = self.state is READING and reader.head is not None and reader.body is None and not reader.held
        return self._deadline.at if is_idle and not self.write_paused else None

    def data_received(self, data: bytes) -> None:
        if self.state is READING and not self.write_paused:
            self._advance(data)
        elif self.state is READING or self.state is BUSY:
            self.reader.keep(data)  # pipelined; kept within bounds, its turn comes
            if self.reader.held > self.server.settings.max_head:
                self._reading_paused = True
                self.transport.pause_reading()

    def eof_received(self) -> bool:
        """A client that sends no more has left, as for nginx and uvicorn: what it asked for is dropped."""
        if self.answering is not None:
            self.answering.client_gone()
        self._watch_unread()  # the transport closes itself once what was written is sent
        return False

    def pause_writing(self) -> None:
        self.write_paused = True
        self._watch_unread()
        if self.answering is not None:
            self.answering.client_full()

    def resume_writing(self) -> None:
        self.write_paused = False
        if self._unread is not None and self.state is not LINGER:
            self._unread.clear()
        if self.answering is not None:
            self.answering.client_drained()
        elif self.state is READING:
            self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self.state = CLOSED
        self.server.disconnected(self)
        self._deadline.cancel()
        if self._unread is not None:
            self._unread.cancel()
        if self.answering is not None:
            self.answering.client_gone()
            self.answering = None
        self.reader.clear()

    # Requests.

    def _advance(self, data: bytes = b"") -> None:
        """Takes requests from what has arrived, until one takes time, its answer is not read, or more bytes are needed."""
        if self._advancing:
            return  # an answer was given at once: the loop below goes on
        self._advancing = True
        reader = self.reader
        try:
            while True:
                try:
                    request = reader.read(data)
                    if request is None and reader.body is not None:
                        self._glimpse(reader)
                except Refused as refused:
                    unread = reader.head is not None and reader.head.has_body
                    self._refuse_unserved(refused.refusal, reader.head, unread)
                else:
                    if request is None:
                        self._await_more()
                        return
                    self._serve(request)
                if self.state is not READING or self.write_paused or not reader.held:
                    return
                data = b""
        finally:
            self._advancing = False

    def _glimpse(self, reader: RequestReader) -> None:
        """Has the beginning of a large body looked at, once: who is refused by it need not send the rest. Raises Refused."""
        body = reader.body
        if self._receiving_since or not isinstance(body, CountedBody) or body.left < LARGE:
            return
        if reader.invites or body.size >= GLIMPSE:
            assert reader.head is not None
            assert reader.route is not None
            self.server.glimpse(reader.head, reader.route, body.beginning)

    def _await_more(self) -> None:
        """Sets the time for the rest of the request."""
        reader, settings = self.reader, self.server.settings
        if reader.body is not None:
            self._deadline.move(settings.body_timeout)
            if reader.invites:
                reader.invites = False
                self.transport.write(CONTINUE)
            if reader.body.size < GLIMPSE and reader.body.left >= LARGE:
                return  # more of it will come at once, and then tells more
            if not self._receiving_since:
                self._receiving_since = self.loop.time()
            if reader.body.left >= LARGE and isinstance(reader.body, CountedBody):
                self._filler = BodyFiller(self, reader.body)
                self._read_with(self._filler)
        elif reader.held and not self._begun:
            self._begun = True
            self._deadline.move(settings.head_timeout)

    def body_grew(self, is_whole: bool) -> None:
        """Some of a large body was read into its place."""
        if is_whole:
            self.transport.pause_reading()
            self.loop.call_soon(self._body_is_in)  # the transport holds the place until it has told of it
        else:
            self._deadline.move(self.server.settings.body_timeout)

    def _body_is_in(self) -> None:
        if self.state is READING and self._filler is not None:
            self._end_filling()
            self._advance()

    def _end_filling(self) -> None:
        if self._filler is not None:
            self._filler = None
            self._read_with(self)

    def _read_with(self, protocol: asyncio.BaseProtocol) -> None:
        """From now on the transport tells ``protocol``; uvloop learns how that wants its bytes when reading begins."""
        self.transport.pause_reading()
        self.transport.set_protocol(protocol)
        self.transport.resume_reading()

    def _serve(self, request: Request) -> None:
        self.state = BUSY
        self._deadline.clear()
        request.arrived_at = self.loop.time()
        if self._receiving_since:
            request.receive_s = request.arrived_at - self._receiving_since
            self._receiving_since = 0.0
        try:
            self.server.handle(self, request)
        except Refused as refused:
            self._refuse_unserved(refused.refusal, request.head)
        except Exception:
            log.exception(BUG.message)
            if self.answering is not None:
                self.answering.crashed()
            elif self.state is BUSY:
                self._refuse_unserved(BUG, request.head)
            else:
                self.abort()  # an answer was written already

    def _await_request(self) -> None:
        """On to the next request, which may have arrived already."""
        self._begun = False
        self._deadline.move(self.server.settings.idle_timeout)
        if self.reader.held:
            if self._reading_paused:
                self._reading_paused = False
                self.transport.resume_reading()
            self._advance()

    # Answers.

    def answer(self, head: RequestHead | None, status: int, lines: list[bytes], body: bytes, close: bool) -> None:
        """Writes a whole answer of the gateway's own and ends it. ``head`` None: none was read."""
        keep = head is not None and head.keep_alive and not close
        identity = (head.request_id if head is not None else b"") or self.server.new_request_id()
        lines = [b"HTTP/1.1 %d %b" % (status, REASON_PHRASES[status]), *lines, b"x-request-id: " + identity]
        if status not in BODILESS:
            lines.append(b"content-length: %d" % len(body))
        lines += [*connection_line(head, keep), b"\r\n"]
        if head is not None and head.method == b"HEAD":
            body = b""
        self.transport.write(b"\r\n".join(lines) + body)
        self.end_response(keep, close)

    def refuse(self, refusal: Refusal, head: RequestHead | None, close: bool = False) -> None:
        """Answers with a refusal; ``close`` where a body was not read, or its end is not certain."""
        if self.state is CLOSED or self.transport.is_closing():
            return
        lines = [b"content-type: application/json", *refusal.lines()]
        self.answer(head, refusal.status, lines, refusal.body(), close or refusal.close)

    def _refuse_unserved(self, refusal: Refusal, head: RequestHead | None, close: bool = False) -> None:
        """Refuses what no route has seen."""
        self.server.refused(refusal, head)
        self.refuse(refusal, head, close)

    def end_response(self, keep: bool, unread: bool = False) -> None:
        """The answer is written whole: on to the next request, or to the connection's end."""
        self.answering = None
        if self.state is CLOSED:
            return
        if not keep:
            self._linger(unread)
            return
        self.state = READING
        if not self.write_paused:  # else the next one waits until this answer is read
            self._await_request()

    # The end.

    def _linger(self, unread: bool) -> None:
        """Ends our side, and throws away what comes until the client ends its own or LINGER_S has passed.

        ``unread``: the client may still be sending, and would see a reset instead of the answer if we just closed.
        """
        self.state = LINGER
        self.reader.clear()
        transport = self.transport
        can_end_alone = transport.can_write_eof()  # TLS ends both sides or none
        if transport.is_closing() or not (can_end_alone or unread):
            self.shut()
            return
        self._end_filling()
        if can_end_alone:
            transport.write_eof()
        if self._reading_paused:
            transport.resume_reading()
        self._deadline.move(LINGER_S)
        self._watch_unread()

    def shut(self) -> None:
        """Closes the connection once what was written is sent."""
        if not self.transport.is_closing():  # asyncio's TLS transport breaks when it is closed twice
            self.transport.close()
            self._watch_unread()

    def abort(self) -> None:
        """Ends the connection so that its client sees an incomplete answer."""
        self.transport.abort()

    def _too_late(self) -> None:
        """The deadline of what the connection is doing has passed."""
        settings = self.server.settings
        if self.state is LINGER:
            if self.transport.get_write_buffer_size():  # a slow client: as long as it reads, nothing is cut off
                self._deadline.move(LINGER_S)
            elif self.transport.can_write_eof():
                self.transport.abort()
            else:
                self.shut()  # with TLS our side is not ended yet
        elif self.write_paused:
            return  # it is the client's turn to read, and that has a deadline of its own
        elif self.reader.body is not None:
            message = f"No more of the body came for {settings.body_timeout:g} s."
            self._refuse_unserved(Refusal(408, "body_timeout", message, close=True), self.reader.head)
        elif self.reader.held:
            message = f"The head was not complete after {settings.head_timeout:g} s."
            self._refuse_unserved(Refusal(408, "head_timeout", message, close=True), None)
        else:
            self.shut()

    # Clients that do not read.

    def _watch_unread(self) -> None:
        """Gives the client write_timeout to read some of what waits for it."""
        self._unread_bytes = self.transport.get_write_buffer_size()
        if self._unread_bytes:
            if self._unread is None:
                self._unread = Deadline(self.loop, self._unread_too_long)
            self._unread.move(self.server.settings.write_timeout)

    def _unread_too_long(self) -> None:
        """It has read something, and gets as long again; or nothing, and is cut off, so that it holds no engine for ever."""
        if 0 < self.transport.get_write_buffer_size() < self._unread_bytes:
            self._watch_unread()
        elif self.transport.get_write_buffer_size():
            self.server.stalled(self)
            self.transport.abort()

    def __repr__(self) -> str:
        return f"<ClientConnection {self.state.name.lower()} held={self.reader.held}>"


def connection_line(head: RequestHead | None, keep: bool) -> list[bytes]:
    """The Connection header that an answer needs: none where HTTP/1.1 keeps the connection anyway."""
    if not keep:
        return [b"connection: close"]
    return [] if head is None or head.is_http11 else [b"connection: keep-alive"]
