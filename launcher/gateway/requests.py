"""Takes requests off a client's stream of bytes, in whatever pieces it comes: strictly, within limits, without I/O or clock.

The head's parser is our own, not llhttp (httptools), on purpose. A head is split in C and each line looked up among
those known, so that a line seen before costs one look-up; httptools calls back into Python for each. On the 14 headers
of openai's client ours takes 7.4 µs with all its checks, httptools 6.6 µs before the first. What llhttp lets pass has
to be refused again anyway (repeated Host, Transfer-Encoding beside others), and its bytes would have to be put together
again for the engine, while ours pass on untouched. tests/gateway/test_parsing.py has llhttp read all that we accept and
compares.
"""

from __future__ import annotations

from collections.abc import Callable

from launcher.gateway.framing import ChunkDecoder, FramingError
from launcher.gateway.heads import RequestHead, malformed_since, parse_request_head
from launcher.gateway.refusal import Refusal, Refused, bad_head
from launcher.gateway.routes import Route
from launcher.profile.model import GatewaySection

SMALL = 4096  # bytes; smaller pieces of a body are put together: each object costs ten times what a few bytes do


class Request:
    """A request that has been read whole."""

    __slots__ = ("arrived_at", "body", "head", "route")

    def __init__(self, head: RequestHead, route: Route, body: bytes) -> None:
        self.head, self.route, self.body = head, route, body
        self.arrived_at = 0.0  # the loop's time when the body was in


class Body:
    """Collects one request's body, by its length or by its chunks."""

    __slots__ = ("_decoder", "_left", "_limit", "pieces", "rest", "size")

    def __init__(self, head: RequestHead, limit: int) -> None:
        self._decoder = ChunkDecoder() if head.chunked else None
        self._left, self._limit = head.content_length, limit
        self.pieces: list[bytes | bytearray] = []
        self.size = 0
        self.rest = b""  # what came after the end

    def feed(self, data: bytes) -> bool:
        """Whether it is whole now. Raises Refused."""
        if self._decoder is None:
            self._keep(data if len(data) <= self._left else data[: self._left])
            self.rest = data[self._left :]
            self._left -= len(data) - len(self.rest)
            return not self._left
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


class RequestReader:
    """One connection's requests, one after another."""

    __slots__ = ("_held", "_route", "_route_of", "_scanned", "_settings", "body", "head", "invites")

    def __init__(self, settings: GatewaySection, route_of: Callable[[RequestHead], Route]) -> None:
        self._settings, self._route_of = settings, route_of
        self._held = bytearray()  # bytes not looked at yet: a head that has begun, or pipelined requests
        self._scanned = 0  # how much of them is known to hold no end of a head
        self._route: Route | None = None
        self.head: RequestHead | None = None  # of the request at hand; None: not read yet
        self.body: Body | None = None  # None: not in a body
        self.invites = False  # the sender waits for 100 Continue

    @property
    def held(self) -> int:
        """How many bytes wait to be looked at."""
        return len(self._held)

    def keep(self, data: bytes) -> None:
        """Keeps bytes for later."""
        self._held += data

    def clear(self) -> None:
        """Nothing more will be read."""
        self._held.clear()
        self.body = None

    def read(self, data: bytes) -> Request | None:
        """The next request, if it is whole with ``data``. None: more is needed. Raises Refused."""
        if self.body is None:
            if not self._held and data:
                request = self._take_whole(data)
                if request is not None:
                    return request
            self._held += data
            if not self._cut_head():
                return None
            request = self._begin_body()
            if request is not None or not self._held:
                return request
            data = b""
        if self._held:
            data = bytes(self._held) + data
            self._held.clear()
        return self._read_body(data)

    def _take_whole(self, data: bytes) -> Request | None:
        """The usual case, at less cost: one request, whole, in one piece. None: it is another case, nothing is done."""
        settings = self._settings
        end = data.find(b"\r\n\r\n") + 4
        if end < 5 or end > settings.max_head or data.startswith(b"\r\n"):
            return None
        self.head = None
        self.head = head = parse_request_head(data[: end - 2])
        length = head.content_length
        if head.chunked or length != len(data) - end or length > settings.max_body:
            return None
        return Request(head, self._route_of(head), data[end:])

    def _cut_head(self) -> bool:
        """Takes one head off the bytes held. False: it is not complete. Raises Refused."""
        held, limit = self._held, self._settings.max_head
        while held.startswith(b"\r\n"):  # an empty line before a request is allowed
            del held[:2]
        self.head = None
        end = held.find(b"\r\n\r\n", self._scanned)
        if end < 0 or end + 4 > limit:
            if len(held) > limit:
                raise bad_head("head_too_large", f"The request's head is larger than {limit} bytes.", 431)
            if malformed_since(held, self._scanned):
                parse_request_head(bytes(held) + b"\r\n")  # says what is wrong
            self._scanned = max(0, len(held) - 3)
            return False
        raw = bytes(held[: end + 2])
        del held[: end + 4]
        self._scanned = 0
        self.head = parse_request_head(raw)
        return True

    def _begin_body(self) -> Request | None:
        """Refuses by the head alone where that is possible, else goes on to the body; a request without one is whole."""
        head, limit = self.head, self._settings.max_body
        assert head is not None
        route = self._route_of(head)
        if head.content_length > limit:
            raise too_large(limit)
        if not head.has_body:
            return Request(head, route, b"")
        self.body, self._route = Body(head, limit), route
        self.invites = head.expects_continue and not self._held
        return None

    def _read_body(self, data: bytes) -> Request | None:
        body, head, route = self.body, self.head, self._route
        assert body is not None
        assert head is not None
        assert route is not None
        if not body.feed(data):
            return None
        self.body = None
        self._held += body.rest
        return Request(head, route, bytes(body.pieces[0]) if len(body.pieces) == 1 else b"".join(body.pieces))


def too_large(limit: int) -> Refused:
    """413 for a body above gateway.max_body."""
    return Refused(Refusal(413, "body_too_large", f"The request's body is larger than {limit} bytes.", close=True))
