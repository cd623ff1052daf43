"""What is fuzzed, and what must hold for any bytes: no crash, the same result however they are cut, a second opinion."""

from __future__ import annotations

from typing import Any

import httptools

from launcher.gateway.framing import ChunkDecoder, FramingError, is_one_chunk, scan_chunks
from launcher.gateway.refusal import Refused
from launcher.gateway.requests import RequestReader
from launcher.gateway.routes import Kind, Route
from launcher.profile.model import GatewaySection
from tests.fuzz import answers, clips, media, texts, uploads
from tests.fuzz.cuts import alike
from tests.fuzz.target import Target

ANY = Route("/any", Kind.INFERENCE, (b"GET", b"POST"))
SETTINGS = GatewaySection().model_copy(update={"max_head": 700, "max_body": 600})
# Methods that llhttp knows; it has more, some with rules of their own.
KNOWN = frozenset(b"GET POST HEAD PUT DELETE OPTIONS TRACE PATCH".split())


# Requests.

# What llhttp refuses within chunks and we drop, so that no engine sees it: odd extensions, trailers with framing headers.
CHOOSIER = ("chunk extensions", "Transfer-Encoding", "Content-Length")


def requests(data: bytes) -> None:
    """A connection's bytes. What is accepted means the same to llhttp, so nobody behind us can be fooled."""
    accepted, _ = alike(data + b"\r\n\r\n", read_requests)
    if not accepted or b"pgrade" in data.lower():
        return
    opinion = RequestOpinion()
    parser = httptools.HttpRequestParser(opinion)
    opinion.parser = parser
    error: Exception | None = None
    try:
        parser.feed_data(data + b"\r\n\r\n")
    except httptools.HttpParserError as problem:
        error = problem
    for ours, theirs in zip(accepted, [*opinion.requests, *[None] * len(accepted)], strict=False):
        method, target, headers, body, _ = ours
        if method not in KNOWN or not target.startswith(b"/") or b"://" in data:
            return  # llhttp is choosier about what no route has, and about hosts that nobody looks at
        if theirs is None and opinion.in_body and any(what in str(error) for what in CHOOSIER):
            return
        assert theirs is not None, f"llhttp does not read {ours!r}: {error!r}"
        assert (method, body) == (theirs[0], theirs[3]), f"llhttp reads {theirs!r}, not {ours!r}"
        assert theirs[1].endswith(target.removeprefix(b"/")), f"llhttp reads {theirs!r}, not {ours!r}"
        assert [pair for pair in theirs[2] if pair in headers] == headers


def read_requests(pieces: list[bytes]) -> tuple[list[Any], str]:
    """The requests up to the first that ends the connection, and how it went on: refused, or waiting."""
    targets: list[bytes] = []

    def route_of(head: Any) -> Route:
        targets.append(head.target)
        return ANY

    reader, accepted, waiting = RequestReader(SETTINGS, route_of), [], list(pieces)
    try:
        while waiting:
            request = reader.read(waiting.pop(0))
            while request is not None:
                head = request.head
                headers = [(n.lower(), v.strip(b" \t")) for n, _, v in (line.partition(b":") for line in head.lines)]
                seen = (head.method, head.target, headers, request.body, head.keep_alive)
                accepted.append(seen)
                assert len(request.body) <= SETTINGS.max_body
                if not head.keep_alive:
                    return accepted, "closed"
                request = reader.read(b"") if reader.held else None
    except Refused as refused:
        refusal = refused.refusal
        assert refusal.close
        assert refusal.body()
        return accepted, "refused"
    assert reader.held <= SETTINGS.max_head + 1024
    return accepted, "waiting"


class RequestOpinion:
    """What llhttp makes of a stream of requests."""

    parser: httptools.HttpRequestParser

    def __init__(self) -> None:
        self.requests: list[tuple[bytes, bytes, list[tuple[bytes, bytes]], bytes]] = []

    def on_message_begin(self) -> None:
        self._url, self._body, self.in_body = b"", b"", False
        self._headers: list[tuple[bytes, bytes]] = []

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.in_body:  # else it is a trailer
            self._headers.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self.in_body = True

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self.requests.append((self.parser.get_method(), self._url, self._headers, self._body))


# Chunks.


def chunks(data: bytes) -> None:
    """Both readers of chunks agree with each other and with llhttp."""
    decoded = alike(data, decode)
    scanned = alike(data, scan)
    assert scanned == decoded[:2], f"scanner {scanned!r}, decoder {decoded!r}"
    if is_one_chunk(data):
        assert scan_chunks(data) == (len(data), False, 0)
    verdict, payload, rest = decoded
    if verdict == "ended":
        opinion = RequestOpinion()
        opinion.parser = httptools.HttpRequestParser(opinion)
        head = b"POST / HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n"
        if b";" not in data:  # extensions are ignored here, and no engine sees them; llhttp reads them
            opinion.parser.feed_data(head + data[: len(data) - len(rest)])
            assert [request[3] for request in opinion.requests] == [payload], f"llhttp reads {opinion.requests!r}"


def decode(pieces: list[bytes]) -> tuple[str, bytes, bytes]:
    """How it ends; the payload, if it does; what comes after."""
    decoder, out, rest = ChunkDecoder(), b"", b""
    try:
        for piece in pieces:
            if decoder.ended:
                rest += piece
            else:
                out += b"".join(decoder.feed(piece))
                rest += decoder.rest
    except FramingError:
        return "refused", b"", b""
    return ("ended", out, rest) if decoder.ended else ("more", out, b"")


def scan(pieces: list[bytes]) -> tuple[str, bytes]:
    """The same with the scanner: only whole chunks are passed on, and decoded then."""
    held, passed, ended, payload = b"", b"", False, b""
    try:
        for piece in pieces:
            if ended:
                break
            held += piece
            boundary, ended, needed = scan_chunks(held)
            assert 0 <= boundary <= len(held)
            passed += held[:boundary]
            held = held[boundary:]
            assert ended or not needed or needed > len(held)
    except FramingError:
        return "refused", b""
    decoder = ChunkDecoder()
    payload = b"".join(decoder.feed(passed if ended else passed + held))
    return ("ended" if ended else "more"), payload


REQUEST_WORDS = tuple(
    b"GET |POST |HEAD | /v1/x?y=1| HTTP/1.1\r\n| HTTP/1.0\r\n|Host: g\r\n|Content-Length: |Content-Length: 2\r\n|{}|"
    b"Transfer-Encoding: chunked\r\n|chunked|identity|, |Connection: close\r\n|Connection: keep-alive\r\n|connection: x\r\n|"
    b"Expect: 100-continue\r\n|X-Request-Id: 1\r\n|X: y\r\n| |\t|:|;|0\r\n\r\n|2\r\n{}\r\n|a;b=c\r\n|http://h:1/p|*|\x0b|\x80|\xff"
    .split(b"|")
)  # fmt: skip
REQUESTS = (
    b"GET /health HTTP/1.1\r\nHost: g",
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\nContent-Length: 2\r\n\r\n{}GET / HTTP/1.1\r\nHost: g",
    b"POST / HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\n{}\r\n0\r\nX: y\r\n\r\nGET / HTTP/1.1\r\nHost: g",
    b"GET http://h/p HTTP/1.0\r\nConnection: keep-alive, x\r\nX: y\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: [::1]:80",
    b"POST / HTTP/1.1\r\nHost: g\r\nExpect: 100-continue\r\nContent-Length: 3\r\nAuthorization: Bearer k\r\n\r\nabc",
)
CHUNKS = (
    b"2\r\n{}\r\n0\r\n\r\n",
    b"A;x=y\r\n0123456789\r\n1\r\n\n\r\n0\r\nA: b\r\nC:\r\n\r\nrest",
    b"00\r\n\r\n",
    b"ff",
)
CHUNK_WORDS = tuple(b"0\r\n|1\r\na\r\n|\r\n|;|;a=b\r\n|\t|0\r\n\r\n|a|F|00000001|X: y\r\n|:|\n|\r".split(b"|"))

TARGETS = {
    "requests": Target(requests, REQUESTS, REQUEST_WORDS),
    "chunks": Target(chunks, CHUNKS, CHUNK_WORDS),
    **answers.TARGETS,
    **media.TARGETS,
    **clips.TARGETS,
    **uploads.TARGETS,
    **texts.TARGETS,
}
