"""Request and response heads: bytes in, facts out. Strict where two readers of the same bytes could disagree."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from launcher.gateway.refusal import bad_head

if TYPE_CHECKING:
    from launcher.gateway.auth import Identity
    from launcher.gateway.tracing import Trace

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"
# Possessive repeats: the time is linear in a line's length, whatever it holds.
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb"{1,32}+) ([!-~]++) HTTP/([0-9])\.([0-9])").fullmatch
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*+))?").fullmatch
_HEADER_LINE = re.compile(rb"(" + _TOKEN + rb"++):[\t ]*+([\t\x20-\x7e\x80-\xff]*+)").fullmatch
_SANE_ID = re.compile(rb"[!-~]{1,128}").fullmatch
_DIGITS = re.compile(rb"[0-9]{1,18}").fullmatch
_BARE_LF = re.compile(rb"(?<!\r)\n").search
_FOLDED = re.compile(rb"\n[\t ]").search
_HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*+|\[[0-9A-Za-z:.]{2,64}\])(?::[0-9]{0,5})?").fullmatch
# How a head begins, as far as it has come: what is something else, such as a TLS hello, need not be waited for.
_BEGUN = re.compile(rb"\r|" + _TOKEN + rb"{1,32}+ |" + _TOKEN + rb"{0,32}+\Z").match
_ABSOLUTE = re.compile(rb"(?i)https?://[^/?#]*").match
MAX_HEADERS = 128
MEMORY_LINES, MEMORY_LINE_BYTES = 2048, 200
CREDENTIALS = frozenset(b"authorization x-api-key api-key".split())  # OpenAI's and vLLM's, Anthropic's, Azure's
# Not kept: what should not lie about in memory, and what is another line each time.
NOT_KEPT = CREDENTIALS | frozenset(
    b"proxy-authorization cookie x-request-id traceparent tracestate baggage idempotency-key".split()
)

HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-connection te trailer transfer-encoding upgrade proxy-authenticate".split()
)
# Request headers that are looked at; all others pass as they came.
_LOOKED_AT = HOP_BY_HOP | frozenset(
    b"content-length host expect x-request-id proxy-authorization x-priority x-mode x-vllm-priority x-launcher-key "
    b"x-launcher-host".split()
)
_RESPONSE_LOOKED_AT = HOP_BY_HOP | frozenset(
    b"content-length content-type content-encoding retry-after x-request-id x-launcher-src".split()
)


class Fact(NamedTuple):
    """What is known of a header line that is looked at. The two below are told by identity, so it is no plain tuple."""

    name: bytes  # in lower case
    value: bytes


PASSES = Fact(b"", b"")  # a header that is not looked at
BAD_HOST = b"host?"  # the name in the fact of a Host line whose value is none: judged when it is first read
CREDENTIAL = Fact(b"credential", b"")  # one that holds an API key: passes, unless the gateway asks for keys itself


class LineMemory:
    """What header lines say. Clients and engines send the same lines again and again: each is read once.

    Bounded in lines and in their length, and emptied when full.
    """

    __slots__ = ("_looked_at", "known")

    def __init__(self, looked_at: frozenset[bytes]) -> None:
        self._looked_at = looked_at
        self.known: dict[bytes, Fact] = {}

    def read(self, line: bytes) -> Fact:
        """The fact in a line that is not known yet. Raises ValueError for what is no header line."""
        found = _HEADER_LINE(line)
        if found is None:
            raise ValueError("not a header line")
        name = found[1].lower()
        if name in CREDENTIALS:
            return CREDENTIAL
        fact = Fact(name, found[2].rstrip(b" \t")) if name in self._looked_at else PASSES
        if name == b"host" and not _HOST(fact.value):
            fact = Fact(BAD_HOST, fact.value)
        if len(line) <= MEMORY_LINE_BYTES and name not in NOT_KEPT:
            if len(self.known) >= MEMORY_LINES:
                self.known.clear()
            self.known[line] = fact
        return fact


RequestStart = tuple[bytes, bytes, bool]
_request_starts: dict[bytes, RequestStart] = {}
_request_lines = LineMemory(_LOOKED_AT)
_response_lines = LineMemory(_RESPONSE_LOOKED_AT)


class RequestHead:
    """One request's head. ``lines`` are the end-to-end header lines, without those that the gateway writes itself."""

    content_length = 0
    chunked = False
    expects_continue = False
    credentials: tuple[bytes, ...] = ()  # those of the lines that hold an API key
    host = b""
    identity: Identity = None  # type: ignore[assignment]  # who asks; the gateway's route() finds out
    request_id = b""  # b'': none, or not fit to be echoed
    priority = b""  # X-Priority
    mode = b""  # X-Mode
    engine_priority = b""  # X-Vllm-Priority, which also goes on to the engine
    trace: Trace | None = None  # None: it was not decided yet whether it has one, or nobody asks for traces

    def __init__(self, method: bytes, target: bytes, is_http11: bool) -> None:
        self.method, self.target, self.is_http11 = method, target, is_http11
        self.keep_alive = is_http11
        self.lines: list[bytes] = []

    @property
    def has_body(self) -> bool:
        return self.chunked or self.content_length > 0

    def value_of(self, name: bytes) -> bytes:
        """What the lines of this name say, joined by commas; b'' if there are none. ``name``: in lower case, none that
        is looked at."""
        colon = len(name)
        found = [line for line in self.lines if line[colon : colon + 1] == b":" and line[:colon].lower() == name]
        return b",".join([line[colon + 1 :].strip() for line in found])

    def again(self, content_length: int) -> RequestHead:
        """A head that says the same, but for its length."""
        other = RequestHead(self.method, self.target, self.is_http11)
        other.keep_alive, other.lines, other.content_length = self.keep_alive, self.lines.copy(), content_length
        other.credentials, other.host, other.request_id = self.credentials, self.host, self.request_id
        if self.chunked or self.expects_continue or self.priority or self.mode or self.engine_priority:
            other.chunked, other.expects_continue = self.chunked, self.expects_continue
            other.priority, other.mode, other.engine_priority = self.priority, self.mode, self.engine_priority
        return other


def parse_request_head(head: bytes) -> RequestHead:
    """Reads a head that ends with the CRLF of its last line. Raises Refused."""
    lines = head.split(b"\r\n")
    start = _request_starts.get(lines[0]) or _read_request_line(lines[0], head)
    if len(lines) > MAX_HEADERS + 2:
        raise bad_head("too_many_headers", f"The request has more than {MAX_HEADERS} header lines.", 431)
    del lines[0], lines[-1]  # the request line, and what is after the last CRLF: nothing
    request = RequestHead(*start)
    keep, known, looked_at = request.lines.append, _request_lines.known.get, []
    for line in lines:
        fact = known(line)
        if fact is None:
            try:
                fact = _request_lines.read(line)
            except ValueError:
                raise _why_malformed(head) from None
        if fact is PASSES:
            keep(line)
        elif fact is CREDENTIAL:
            keep(line)
            request.credentials += (line,)
        else:
            looked_at.append(fact)
    _look(request, looked_at)
    return request


def _read_request_line(line: bytes, head: bytes) -> RequestStart:
    """Method, target and whether it is HTTP/1.1. Raises Refused."""
    found = _REQUEST_LINE(line)
    if found is None:
        raise _why_malformed(head)
    method, target, major, minor = found.groups()
    if major != b"1" or minor not in (b"0", b"1"):
        raise bad_head("http_version", f"HTTP/{major.decode()}.{minor.decode()} is not spoken here: use HTTP/1.1.", 505)
    start = (method, target if target.startswith(b"/") else _origin_form(target), minor == b"1")
    if len(line) <= MEMORY_LINE_BYTES:
        if len(_request_starts) >= MEMORY_LINES:
            _request_starts.clear()
        _request_starts[line] = start
    return start


def _look(request: RequestHead, headers: list[Fact]) -> None:
    """Draws the facts from the headers that matter here, and refuses those that two readers could read differently."""
    hosts, lengths, codings = 0, 0, 0
    for name, value in headers:
        if name == b"host":
            hosts += 1
            request.host = value
        elif name == BAD_HOST:
            raise bad_head("host", f"Host {_show(value)} is not 'name' or 'name:port'.")
        elif name == b"content-length":
            lengths += 1
            if not _DIGITS(value):
                raise bad_head("content_length", f"Content-Length {_show(value)} is not a number of bytes.")
            request.content_length = int(value)
        elif name == b"transfer-encoding":
            codings += 1
            if value.lower() != b"chunked":
                raise bad_head("transfer_encoding", f"Transfer-Encoding {_show(value)} is not supported: use chunked.")
            request.chunked = True
        elif name == b"connection":
            _read_connection(request, value)
        elif name == b"expect":
            if value.lower() != b"100-continue":
                raise bad_head("expectation", f"Expect {_show(value)} is not supported: only 100-continue is.", 417)
            request.expects_continue = request.is_http11
        elif name == b"x-request-id" and _SANE_ID(value):
            request.request_id = value
        elif name == b"x-priority":
            request.priority = value
        elif name == b"x-mode":
            request.mode = value
        elif name == b"x-vllm-priority":
            request.engine_priority = value
            request.lines.append(b"x-vllm-priority: " + value)
    if hosts > 1 or (request.is_http11 and not hosts):
        raise bad_head("host", f"The request has {hosts or 'no'} Host headers: exactly one is needed.")
    if lengths > 1:
        raise bad_head("content_length", "The request has more than one Content-Length.")
    if codings and (lengths or codings > 1 or not request.is_http11):
        raise bad_head("transfer_encoding", "Transfer-Encoding must come once, over HTTP/1.1, without Content-Length.")


def _read_connection(request: RequestHead, value: bytes) -> None:
    """``Connection: close``, ``keep-alive``, or names of headers that are for this hop only."""
    named = set()
    for word in value.lower().split(b","):
        word = word.strip(b" \t")
        if word == b"close":
            request.keep_alive = False
        elif word == b"keep-alive":
            request.keep_alive = request.keep_alive or not request.is_http11
        elif word:
            named.add(word)
    if named:
        request.lines[:] = [line for line in request.lines if line[: line.index(b":")].lower() not in named]


def _origin_form(target: bytes) -> bytes:
    """The path of an absolute target; what has none (``*``, ``host:port``) stays and will match no route."""
    found = _ABSOLUTE(target)
    if found is None:
        return target
    path = target[found.end() :]
    return path if path.startswith(b"/") else b"/" + path


def _why_malformed(head: bytes) -> Exception:
    """The sentence for a head that is not HTTP/1.1."""
    if _BARE_LF(head):
        return bad_head("bare_lf", "A line of the request's head ends with LF alone: HTTP ends lines with CRLF.")
    if _FOLDED(head):
        return bad_head("folded_header", "A header is folded over several lines, which HTTP/1.1 forbids.")
    line = head.split(b"\r\n", 1)[0]
    if not _REQUEST_LINE(line):
        return bad_head("request_line", f"The request line {_show(line)} is not 'METHOD /path HTTP/1.1'.")
    return bad_head("header", "A header line is not 'Name: value' with a valid name and no control characters.")


def malformed_since(begun: bytes | bytearray, position: int) -> bool:
    """Whether a head that has begun can be refused already for what came after ``position``, without a time-out."""
    return _BARE_LF(begun, position) is not None or not (position or _BEGUN(begun))


def _show(value: bytes) -> str:
    text = value.decode("latin-1")
    return repr(text if len(text) <= 80 else text[:80] + "…")


class ResponseHead:
    """An engine's response head. ``lines`` pass on; lengths and connections are the gateway's to write."""

    content_length: int | None = None
    length_line = b""
    is_events = False
    chunked = False
    is_encoded = False
    retry_after = False

    def __init__(self, status: int, status_line: bytes, keep_alive: bool) -> None:
        self.status, self.status_line, self.keep_alive = status, status_line, keep_alive
        self.lines: list[bytes] = []

    def again(self, content_length: int) -> ResponseHead:
        """A head that says the same, but for its length where it has one."""
        other = ResponseHead(self.status, self.status_line, self.keep_alive)
        other.lines, other.is_events, other.chunked = self.lines, self.is_events, self.chunked
        other.is_encoded, other.retry_after = self.is_encoded, self.retry_after
        if self.content_length is not None:
            other.content_length = content_length
            other.length_line = b"content-length: %d" % content_length
        return other


def parse_response_head(head: bytes) -> ResponseHead:
    """Reads a head that ends with the CRLF of its last line. Raises ValueError."""
    lines = head.split(b"\r\n")
    response = ResponseHead(*(_STARTS.get(lines[0]) or _read_status_line(lines[0])))
    del lines[0], lines[-1]
    keep, known = response.lines.append, _response_lines.known.get
    for line in lines:
        fact = known(line)
        if fact is None:
            fact = _response_lines.read(line)
        if fact is PASSES or fact is CREDENTIAL:
            keep(line)
        else:
            _note(response, line, *fact)
    if response.chunked and response.content_length is not None:
        raise ValueError("the response has Content-Length and Transfer-Encoding")
    return response


_STARTS = {b"HTTP/1.1 200 OK": (200, b"HTTP/1.1 200 OK", True)}


def _read_status_line(line: bytes) -> tuple[int, bytes, bool]:
    """The status, the line as HTTP/1.1, and whether it was. Raises ValueError."""
    found = _STATUS_LINE(line)
    if found is None:
        raise ValueError("the response's head is not HTTP/1.1")
    is_http11 = found[1] == b"1"
    return int(found[2]), line if is_http11 else b"HTTP/1.1" + line[8:], is_http11


def _note(response: ResponseHead, line: bytes, name: bytes, value: bytes) -> None:
    """Draws the facts from a response header that matters here. Raises ValueError."""
    if name == b"content-length":
        if not _DIGITS(value) or response.content_length not in (None, int(value)):
            raise ValueError(f"the response's Content-Length {_show(value)} is not one number")
        response.content_length, response.length_line = int(value), line
    elif name == b"content-type":
        response.lines.append(line)
        response.is_events = value.lower().startswith(b"text/event-stream")
    elif name == b"transfer-encoding":
        if value.lower() != b"chunked":
            raise ValueError(f"the response's Transfer-Encoding {_show(value)} is not chunked")
        response.chunked = True
    elif name == b"connection":
        response.keep_alive = b"close" not in value.lower() and (response.keep_alive or b"keep" in value.lower())
    elif name == b"content-encoding":
        response.lines.append(line)
        response.is_encoded = True
    elif name == b"retry-after":
        response.lines.append(line)
        response.retry_after = True
