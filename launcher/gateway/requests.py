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

from launcher.gateway.bodies import Body, ChunkedBody, CountedBody, too_large
from launcher.gateway.heads import RequestHead, malformed_since, parse_request_head
from launcher.gateway.known_heads import RequestHeads
from launcher.gateway.refusal import bad_head
from launcher.gateway.routes import Route
from launcher.profile.model import GatewaySection


class Request:
    """A request that has been read whole."""

    __slots__ = ("arrived_at", "body", "head", "receive_s", "route")

    def __init__(self, head: RequestHead, route: Route, body: bytes) -> None:
        self.head, self.route, self.body = head, route, body
        self.arrived_at = 0.0  # the loop's time when the body was in
        self.receive_s = -1.0  # how long its body was on its way; less than 0: it came with the head


class RequestReader:
    """One connection's requests, one after another."""

    __slots__ = (
        "_heads", "_held", "_max_body", "_max_head", "_route_of", "_scanned", "body", "head", "invites", "route",
    )  # fmt: skip

    def __init__(self, settings: GatewaySection, route_of: Callable[[RequestHead], Route]) -> None:
        self._max_head, self._max_body, self._route_of = settings.max_head, settings.max_body, route_of
        self._heads = RequestHeads()
        self._held = bytearray()  # bytes not looked at yet: a head that has begun, or pipelined requests
        self._scanned = 0  # how much of them is known to hold no end of a head
        self.route: Route | None = None  # of the request at hand, while its body is read
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
        held = self._held
        if self.body is not None:
            if held:
                data = bytes(held) + data
                held.clear()
            return self._read_body(data)
        if not held:
            end = data.find(b"\r\n\r\n")
            if 0 < end <= self._max_head - 4 and not data.startswith(b"\r\n"):  # the usual case, at less cost
                self.head = None
                self.head = self._heads.read(data[: end + 2])
                return self._begin_body(data, end + 4)
        held += data
        head = self._cut_head()
        if head is None:
            return None
        data = b""
        if head.has_body:  # else what is held are further requests, perhaps many: they stay where they are
            data = bytes(held)
            held.clear()
        return self._begin_body(data, 0)

    def _cut_head(self) -> RequestHead | None:
        """Takes one head off the bytes held. None: it is not complete. Raises Refused."""
        held, limit = self._held, self._max_head
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
            return None
        raw = bytes(held[: end + 2])
        del held[: end + 4]
        self._scanned = 0
        self.head = self._heads.read(raw)
        return self.head

    def _begin_body(self, data: bytes, start: int) -> Request | None:
        """Refuses by the head alone where that is possible, else goes on to the body, which begins at ``start``."""
        head, limit = self.head, self._max_body
        assert head is not None
        length, more = head.content_length, len(data) - start
        if not head.has_body:
            if more:
                self._held += memoryview(data)[start:]
            return Request(head, self._route_of(head), b"")
        route = self._route_of(head)
        if length > limit:
            raise too_large(limit)
        if length == more and not head.chunked:
            return Request(head, route, data[start:])
        self.body, self.route = ChunkedBody(limit) if head.chunked else CountedBody(length), route
        self.invites = head.expects_continue and not more
        return self._read_body(data[start:]) if more else None

    def _read_body(self, data: bytes) -> Request | None:
        body, head, route = self.body, self.head, self.route
        assert body is not None
        assert head is not None
        assert route is not None
        if not body.feed(data):
            return None
        self.body = None
        self._held += body.rest
        return Request(head, route, body.whole())
