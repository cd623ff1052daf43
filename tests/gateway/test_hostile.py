"""Hostile requests, one a line: what is sent, what is answered, whether the connection ends. None of it reaches an engine.

This table is the document: it stands alone, although test_http1.py and test_parsing.py tell of some of it in other ways.
Below it: what reaches an engine byte for byte, where a request is odd but right.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import httptools
import pytest

from launcher.gateway.refusal import Refused
from launcher.gateway.requests import RequestReader
from launcher.gateway.routes import find_route
from launcher.profile.model import GatewaySection
from tests.fakes.process import FakeEngine
from tests.gateway.harness import CHAT, Desk, chat, gateway_to, request_bytes

CLOSES, STAYS = True, False
BODY = json.dumps(chat("HONEST")).encode()
HIDDEN = request_bytes("POST", CHAT, json.dumps(chat("SMUGGLED")).encode())  # what an attacker would like to be served
CHUNKED = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
LENGTH = b"Content-Length: %d" % len(BODY)
TE = b"Transfer-Encoding: chunked"


class Case(NamedTuple):
    """Bytes on a fresh connection; the answers in turn, as 'status reason'; whether the connection ends after them."""

    data: bytes
    answers: tuple[str, ...]
    closes: bool


def line(start: bytes, *headers: bytes) -> bytes:
    """A head with this request line."""
    return b"\r\n".join([start, b"Host: g", *headers, b"", b""])


def get(*headers: bytes, path: bytes = b"/health") -> bytes:
    return line(b"GET %b HTTP/1.1" % path, *headers)


def post(*headers: bytes, body: bytes = BODY, path: bytes = CHAT.encode()) -> bytes:
    return line(b"POST %b HTTP/1.1" % path, *headers) + body


def coded(body: bytes) -> bytes:
    return post(TE, body=body)


def to(path: bytes) -> bytes:
    """A good request to a path."""
    return post(LENGTH, path=path)


def refused(data: bytes, answer: str) -> Case:
    """What leaves the end of the request uncertain, or its body unread, so that the connection has to end."""
    return Case(data, (answer,), CLOSES)


def declined(data: bytes, *answers: str) -> Case:
    """What is plain, and only not served: the connection goes on."""
    return Case(data, answers, STAYS)


TLS_HELLO = b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03" + b"\x11" * 200
WRONG_LINE, WRONG_HEADER, WRONG_LENGTH = "400 request_line", "400 header", "400 content_length"
WRONG_CODING, WRONG_CHUNK, WRONG_HOST = "400 transfer_encoding", "400 chunk", "400 host"
NO_PATH, NO_METHOD = "404 unknown_path", "405 method_not_allowed"

# fmt: off
TABLE: dict[str, Case] = {
    # Request lines.
    "only a line end, then noise": refused(b"\r\n\r\n\x01\x02\r\n\r\n", WRONG_LINE),
    "HTTP/0.9": refused(b"GET /health\r\n\r\n", WRONG_LINE),
    "no target": refused(line(b"GET HTTP/1.1"), WRONG_LINE),
    "an empty target": refused(line(b"GET  HTTP/1.1"), WRONG_LINE),
    "two blanks": refused(line(b"GET  /health HTTP/1.1"), WRONG_LINE),
    "a blank before": refused(line(b" GET /health HTTP/1.1"), WRONG_LINE),
    "a blank behind": refused(line(b"GET /health HTTP/1.1 "), WRONG_LINE),
    "tabs for blanks": refused(line(b"GET\t/health\tHTTP/1.1"), WRONG_LINE),
    "a blank in the target": refused(line(b"GET /hea lth HTTP/1.1"), WRONG_LINE),
    "NUL in the target": refused(line(b"GET /health\x00 HTTP/1.1"), WRONG_LINE),
    "CR in the target": refused(line(b"GET /health\rX HTTP/1.1"), WRONG_LINE),
    "DEL in the target": refused(line(b"GET /health\x7f HTTP/1.1"), WRONG_LINE),
    "a byte above 127 in the target": refused(line(b"GET /caf\xe9 HTTP/1.1"), WRONG_LINE),
    "UTF-8 in the target": refused(line("GET /café HTTP/1.1".encode()), WRONG_LINE),
    "a bare LF in the target": refused(line(b"GET /health\nX: y HTTP/1.1"), "400 bare_lf"),
    "a method with a slash": refused(line(b"GE/T /health HTTP/1.1"), WRONG_LINE),
    "a method in brackets": refused(line(b"[GET] /health HTTP/1.1"), WRONG_LINE),
    "a method of 10,000 letters": refused(line(b"G" * 10_000 + b" /health HTTP/1.1"), WRONG_LINE),
    "a method with NUL": refused(line(b"GE\x00T /health HTTP/1.1"), WRONG_LINE),
    "nothing but NULs": refused(b"\x00" * 300, WRONG_LINE),
    # Versions and other protocols.
    "lower-case http": refused(line(b"GET /health http/1.1"), WRONG_LINE),
    "HTTP/1": refused(line(b"GET /health HTTP/1"), WRONG_LINE),
    "HTTP/1.10": refused(line(b"GET /health HTTP/1.10"), WRONG_LINE),
    "HTTP/1,1": refused(line(b"GET /health HTTP/1,1"), WRONG_LINE),
    "HTTP/1.2": refused(line(b"GET /health HTTP/1.2"), "505 http_version"),
    "HTTP/0.9, spelt out": refused(line(b"GET /health HTTP/0.9"), "505 http_version"),
    "HTTP/2.0": refused(line(b"GET /health HTTP/2.0"), "505 http_version"),
    "HTTP/2, as it begins": refused(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505 http_version"),
    "a TLS hello": refused(TLS_HELLO, WRONG_LINE),
    "the first byte of a TLS hello": refused(TLS_HELLO[:1], WRONG_LINE),
    "SSH": refused(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", WRONG_LINE),
    "an HTTP answer": refused(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", WRONG_LINE),
    # Methods.
    "TRACE": declined(line(b"TRACE /health HTTP/1.1"), NO_METHOD),
    "CONNECT": declined(line(b"CONNECT example.com:443 HTTP/1.1"), NO_PATH),
    "CONNECT to a path": declined(line(b"CONNECT /health HTTP/1.1"), NO_METHOD),
    "a lower-case method": declined(line(b"get /health HTTP/1.1"), NO_METHOD),
    "a method that nobody knows": declined(line(b"STEAL /health HTTP/1.1"), NO_METHOD),
    "OPTIONS *": declined(line(b"OPTIONS * HTTP/1.1"), NO_PATH),
    "a method that takes no body, with one": refused(post(LENGTH, path=b"/health"), NO_METHOD),
    "GET for a chat": declined(get(path=CHAT.encode()), NO_METHOD),
    # Targets.
    "absolute, to nowhere": declined(get(path=b"http://evil.example/admin"), NO_PATH),
    "absolute, without a path": declined(get(path=b"http://evil.example"), "200 "),
    "absolute, of another scheme": declined(get(path=b"ftp://g/health"), NO_PATH),
    "a file": declined(get(path=b"file:///etc/passwd"), NO_PATH),
    "an authority alone": declined(get(path=b"g:80"), NO_PATH),
    "an asterisk": declined(get(path=b"*"), NO_PATH),
    "two slashes": refused(to(b"//v1/chat/completions"), NO_PATH),
    "a slash behind": refused(to(b"/v1/chat/completions/"), NO_PATH),
    "a slash twice within": refused(to(b"/v1//chat/completions"), NO_PATH),
    "upper case": refused(to(b"/V1/CHAT/COMPLETIONS"), NO_PATH),
    "a dot segment": refused(to(b"/v1/./chat/completions"), NO_PATH),
    "dot-dot": refused(to(b"/v1/models/../chat/completions"), NO_PATH),
    "dot-dot to the root": declined(get(path=b"/../../../../etc/passwd"), NO_PATH),
    "dot-dot, encoded": refused(to(b"/v1/models/%2e%2e/chat/completions"), NO_PATH),
    "dot-dot, encoded twice": refused(to(b"/v1/models/%252e%252e/chat/completions"), NO_PATH),
    "a letter encoded": refused(to(b"/v1/chat/completion%73"), NO_PATH),
    "a slash encoded": refused(to(b"/v1%2fchat%2fcompletions"), NO_PATH),
    "a backslash": refused(to(b"/v1\\chat\\completions"), NO_PATH),
    "%00 behind": refused(to(b"/v1/chat/completions%00"), NO_PATH),
    "%00 within a pattern": declined(get(path=b"/v1/responses/resp_a%00b"), NO_PATH),
    "%0d%0a within a pattern": declined(get(path=b"/v1/responses/resp_a%0d%0aX"), NO_PATH),
    "an id with dot-dot": declined(get(path=b"/v1/responses/resp_../../../health"), NO_PATH),
    "a path parameter": refused(to(b"/v1/chat/completions;x=1"), NO_PATH),
    "a fragment": refused(to(b"/v1/chat/completions#x"), NO_PATH),
    "a path that stops engines": refused(post(LENGTH, path=b"/sleep"), NO_PATH),
    "a query for a path": declined(get(path=b"/?/v1/chat/completions"), "200 "),
    # Line ends and folding.
    "bare LFs only": refused(b"GET /health HTTP/1.1\nHost: g\n\n", "400 bare_lf"),
    "a bare LF after a header": refused(b"GET /health HTTP/1.1\r\nHost: g\nX: y\r\n\r\n", "400 bare_lf"),
    "a bare LF for the empty line": refused(b"GET /health HTTP/1.1\r\nHost: g\r\n\n", "400 bare_lf"),
    "LF CR": refused(b"GET /health HTTP/1.1\n\rHost: g\n\r\n\r", "400 bare_lf"),
    "a bare CR in a value": refused(get(b"X: a\rContent-Length: 5"), WRONG_HEADER),
    "CR CR LF": refused(b"GET /health HTTP/1.1\r\nHost: g\r\r\n\r\n", WRONG_HEADER),
    "bare CRs only": refused(b"GET /health HTTP/1.1\rHost: g\r\r" + get(), WRONG_LINE),
    "a folded header": refused(get(b"X: a", b" b"), "400 folded_header"),
    "a header folded with a tab": refused(get(b"X: a", b"\tb"), "400 folded_header"),
    "a folded coding": refused(post(b"Transfer-Encoding:", b" chunked", body=CHUNKED), "400 folded_header"),
    "a first header that is folded": refused(b"GET /health HTTP/1.1\r\n Host: g\r\n\r\n", "400 folded_header"),
    # Header names and values.
    "no colon": refused(get(b"Host g"), WRONG_HEADER),
    "no name": refused(get(b": x"), WRONG_HEADER),
    "a blank before the colon": refused(post(b"Content-Length : 5"), WRONG_HEADER),
    "a tab before the colon": refused(post(b"Transfer-Encoding\t: chunked", body=CHUNKED), WRONG_HEADER),
    "a blank in the name": refused(get(b"X Y: z"), WRONG_HEADER),
    "NUL in the name": refused(get(b"X\x00Y: z"), WRONG_HEADER),
    "NUL before the name": refused(post(b"\x00" + TE, body=CHUNKED), WRONG_HEADER),
    "a byte above 127 in the name": refused(get(b"Caf\xe9: z"), WRONG_HEADER),
    "brackets in the name": refused(get(b"X[0]: z"), WRONG_HEADER),
    "NUL in a value": refused(get(b"X: a\x00b"), WRONG_HEADER),
    "a vertical tab in a value": refused(get(b"X: a\x0bb"), WRONG_HEADER),
    "a form feed in a value": refused(get(b"X: a\x0cb"), WRONG_HEADER),
    "ESC in a value": refused(get(b"X: \x1b[31m"), WRONG_HEADER),
    "DEL in a value": refused(get(b"X: \x7f"), WRONG_HEADER),
    "LF in an X-Request-Id": refused(get(b"X-Request-Id: a\nX-Admin: 1"), "400 bare_lf"),
    "CR in an X-Request-Id": refused(get(b"X-Request-Id: a\rX-Admin: 1"), WRONG_HEADER),
    # Host.
    "no Host": refused(b"GET /health HTTP/1.1\r\n\r\n", WRONG_HOST),
    "two Hosts": refused(get(b"Host: h"), WRONG_HOST),
    "the same Host twice": refused(get(b"Host: g"), WRONG_HOST),
    "a Host with a path": refused(b"GET /health HTTP/1.1\r\nHost: g/admin\r\n\r\n", WRONG_HOST),
    "a Host with a user": refused(b"GET /health HTTP/1.1\r\nHost: root@g\r\n\r\n", WRONG_HOST),
    "a Host with a blank": refused(b"GET /health HTTP/1.1\r\nHost: g h\r\n\r\n", WRONG_HOST),
    "a list of Hosts": refused(b"GET /health HTTP/1.1\r\nHost: g, \"h\"\r\n\r\n", WRONG_HOST),
    "a Host with a port that is none": refused(b"GET /health HTTP/1.1\r\nHost: g:http\r\n\r\n", WRONG_HOST),
    "a Host with brackets left open": refused(b"GET /health HTTP/1.1\r\nHost: [::1\r\n\r\n", WRONG_HOST),
    # Content-Length.
    "a negative length": refused(post(b"Content-Length: -1"), WRONG_LENGTH),
    "a length with a plus": refused(post(b"Content-Length: +5"), WRONG_LENGTH),
    "a hexadecimal length": refused(post(b"Content-Length: 0x5"), WRONG_LENGTH),
    "a length with a comma": refused(post(b"Content-Length: 5, 5"), WRONG_LENGTH),
    "a length with a blank": refused(post(b"Content-Length: 1 0"), WRONG_LENGTH),
    "a length with a fraction": refused(post(b"Content-Length: 5.0"), WRONG_LENGTH),
    "a length with an underscore": refused(post(b"Content-Length: 1_0"), WRONG_LENGTH),
    "a length with an exponent": refused(post(b"Content-Length: 1e1"), WRONG_LENGTH),
    "a length in other digits": refused(post("Content-Length: ٥".encode()), WRONG_LENGTH),
    "no length in it": refused(post(b"Content-Length:"), WRONG_LENGTH),
    "a length of 40 digits": refused(post(b"Content-Length: " + b"9" * 40), WRONG_LENGTH),
    "a length of 2^64 + 5": refused(post(b"Content-Length: 18446744073709551621"), WRONG_LENGTH),
    "a length of 2^32 + 5": refused(post(b"Content-Length: 4294967301"), "413 body_too_large"),
    "two lengths": refused(post(LENGTH, b"Content-Length: 3"), WRONG_LENGTH),
    "the same length twice": refused(post(LENGTH, LENGTH), WRONG_LENGTH),
    # Transfer-Encoding.
    "a length and chunks (CL.TE)": refused(post(LENGTH, TE, body=CHUNKED + HIDDEN), WRONG_CODING),
    "chunks and a length (TE.CL)": refused(post(TE, b"Content-Length: 4", body=CHUNKED + HIDDEN), WRONG_CODING),
    "a length of 0 and chunks": refused(post(b"Content-Length: 0", TE, body=CHUNKED), WRONG_CODING),
    "chunked twice (TE.TE)": refused(post(TE, TE, body=CHUNKED + HIDDEN), WRONG_CODING),
    "chunked and identity": refused(post(TE, b"Transfer-Encoding: identity", body=CHUNKED), WRONG_CODING),
    "chunked, then nonsense": refused(post(TE, b"Transfer-encoding: cow", body=CHUNKED), WRONG_CODING),
    "chunked,identity": refused(post(b"Transfer-Encoding: chunked,identity", body=CHUNKED), WRONG_CODING),
    "gzip, chunked": refused(post(b"Transfer-Encoding: gzip, chunked", body=CHUNKED), WRONG_CODING),
    "chunked, nothing": refused(post(b"Transfer-Encoding: chunked,", body=CHUNKED), WRONG_CODING),
    "identity": refused(post(LENGTH, b"Transfer-Encoding: identity"), WRONG_CODING),
    "xchunked": refused(post(b"Transfer-Encoding: xchunked", body=CHUNKED), WRONG_CODING),
    "chunked in quotes": refused(post(b'Transfer-Encoding: "chunked"', body=CHUNKED), WRONG_CODING),
    "chunked with a parameter": refused(post(b"Transfer-Encoding: chunked;q=1", body=CHUNKED), WRONG_CODING),
    "no coding in it": refused(post(LENGTH, b"Transfer-Encoding:"), WRONG_CODING),
    "chunked after a vertical tab": refused(post(b"Transfer-Encoding: \x0bchunked", body=CHUNKED), WRONG_HEADER),
    "chunked before a NUL": refused(post(b"Transfer-Encoding: chunked\x00", body=CHUNKED), WRONG_HEADER),
    "chunked behind a bare LF": refused(post(b"X: y\nTransfer-Encoding: chunked", body=CHUNKED), "400 bare_lf"),
    "chunks over HTTP/1.0": refused(line(b"POST /v1/completions HTTP/1.0", TE) + CHUNKED, WRONG_CODING),
    # Chunks.
    "a size that is none": refused(coded(b"zz\r\nab\r\n0\r\n\r\n"), WRONG_CHUNK),
    "no size": refused(coded(b"\r\nab\r\n0\r\n\r\n"), WRONG_CHUNK),
    "a negative size": refused(coded(b"-2\r\nab\r\n0\r\n\r\n"), WRONG_CHUNK),
    "a size with 0x": refused(coded(b"0x2\r\nab\r\n0\r\n\r\n"), WRONG_CHUNK),
    "a size with a blank before": refused(coded(b" 2\r\nab\r\n0\r\n\r\n"), WRONG_CHUNK),
    "a size with a blank behind": refused(coded(b"2 \r\nab\r\n0\r\n\r\n"), WRONG_CHUNK),
    "a size above 2^32": refused(coded(b"100000002\r\nab\r\n0\r\n\r\n"), WRONG_CHUNK),
    "a size above 2^64": refused(coded(b"10000000000000002\r\nab\r\n0\r\n\r\n"), WRONG_CHUNK),
    "a size with an LF alone": refused(coded(b"2\nab\r\n0\r\n\r\n"), WRONG_CHUNK),
    "a size with a CR alone": refused(coded(b"2\rab\r\n0\r\n\r\n"), WRONG_CHUNK),
    "an LF alone after the data": refused(coded(b"2\r\nab\n0\r\n\r\n"), WRONG_CHUNK),
    "nothing after the data": refused(coded(b"2\r\nab0\r\n\r\n"), WRONG_CHUNK),
    "more data than the size": refused(coded(b"2\r\nabc\r\n0\r\n\r\n"), WRONG_CHUNK),
    "an extension with an LF": refused(coded(b"2;a\nb\r\nab\r\n0\r\n\r\n"), WRONG_CHUNK),
    "an extension with a CR": refused(coded(b"2;a\rb\r\nab\r\n0\r\n\r\n"), WRONG_CHUNK),
    "an extension with NUL": refused(coded(b"2;a=\x00\r\nab\r\n0\r\n\r\n"), WRONG_CHUNK),
    "an extension of 5,000 bytes": refused(coded(b"2;" + b"x" * 5000 + b"\r\nab\r\n0\r\n\r\n"), WRONG_CHUNK),
    "a last chunk with data": refused(coded(b"0\r\nab\r\n\r\n"), WRONG_CHUNK),
    "a trailer that is none": refused(coded(b"2\r\n{}\r\n0\r\nno header\r\n\r\n"), WRONG_CHUNK),
    "a folded trailer": refused(coded(b"2\r\n{}\r\n0\r\nX: y\r\n z\r\n\r\n"), WRONG_CHUNK),
    "a trailer with an LF": refused(coded(b"2\r\n{}\r\n0\r\nX: y\n\r\n"), WRONG_CHUNK),
    "20,000 bytes of trailers": refused(coded(b"2\r\n{}\r\n0\r\n" + b"X: y\r\n" * 4000 + b"X"), WRONG_CHUNK),
    # Sizes.
    "a head of 100 kB": refused(get(b"X: " + b"y" * 100_000), "431 head_too_large"),
    "a target of 100 kB": refused(get(path=b"/" + b"y" * 100_000), "431 head_too_large"),
    "a head of 100 kB without an end": refused(get()[:-2] + b"X: " + b"y" * 100_000, "431 head_too_large"),
    "a line of 100 kB without an end": refused(b"G" * 20 + b" /" + b"y" * 100_000, "431 head_too_large"),
    "129 headers": refused(get(*(b"X-%d: y" % i for i in range(128))), "431 too_many_headers"),
    "a body above gateway.max_body": refused(post(b"Content-Length: 2000000", body=b""), "413 body_too_large"),
    "chunks above gateway.max_body": refused(coded(b"100000\r\n" + b"x" * 2**20 + b"\r\n"), "413 body_too_large"),
    # Expect.
    "an expectation that is none": refused(post(LENGTH, b"Expect: 200-ok"), "417 expectation"),
    "an expectation and more": refused(post(LENGTH, b"Expect: 100-continue, x"), "417 expectation"),
    "an empty expectation": refused(post(LENGTH, b"Expect:"), "417 expectation"),
    # Upgrades: never made; the request is answered as if it had not asked.
    "h2c": declined(
        get(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__"), "200 "),
    "a WebSocket": declined(
        get(b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13",
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", path=b"/v1/realtime"), NO_PATH),
    "frames of a WebSocket behind": Case(
        get(b"Connection: Upgrade", b"Upgrade: websocket") + b"\x81\x85\x37\xfa\x21\x3d", ("200 ", WRONG_LINE), CLOSES),
    # What comes behind a good request.
    "rubbish": Case(get() + b"\x00\x01\x02\x03", ("200 ", WRONG_LINE), CLOSES),
    "more body than was told": Case(
        line(b"GET /health HTTP/1.1", b"Content-Length: 2") + b"{}}\r\n\r\n", ("200 ", WRONG_LINE), CLOSES),
    "a bare LF": Case(get() + b"GET /health HTTP/1.1\nHost: g\n\n", ("200 ", "400 bare_lf"), CLOSES),
    "two good ones and a bad one": Case(get() + get() + get(b"X Y: z") + get(), ("200 ", "200 ", WRONG_HEADER), CLOSES),
    "a hidden request behind a refused head": refused(get(b"X Y: z") + HIDDEN, WRONG_HEADER),
    "a hidden request as the body for a refused path": refused(
        post(b"Content-Length: %d" % len(HIDDEN), body=HIDDEN, path=b"/nowhere"), NO_PATH),
    "a hidden request behind a refused chunk": refused(coded(b"zz\r\n") + HIDDEN, WRONG_CHUNK),
    "a hidden request behind a refused upload": refused(post(b"Content-Length: 2000000", body=HIDDEN), "413 body_too_large"),
}
# fmt: on


@asynccontextmanager
async def hardened(url: str) -> AsyncIterator[Desk]:
    async with gateway_to(url, max_body=2**20 - 1) as desk:
        yield desk


@pytest.mark.parametrize("name", TABLE)
async def test_a_hostile_request_gets_its_answer_and_reaches_no_engine(engine: FakeEngine, name: str) -> None:
    case = TABLE[name]
    async with hardened(engine.url) as desk:
        client = await desk.client()
        await client.send(case.data)
        for expected in case.answers:
            answer = await client.read()
            reason = answer.error["reason"] if answer.status != 200 else ""
            assert f"{answer.status} {reason}" == expected
            assert answer.headers["x-request-id"]
            if answer.status != 200:
                assert answer.error["src"] == answer.headers["x-launcher-src"] == "gateway"
                assert answer.error["message"].endswith(".")
        if case.closes:
            assert answer.headers["connection"] == "close"
            assert await client.at_end()
        else:  # the next request on the same connection is answered, so its beginning was found
            assert "connection" not in answer.headers
            await client.send(request_bytes("GET", "/ready"))
            assert (await client.read()).json()["ready"] is True
        assert (await engine.seen())["counts"].get("request", 0) == 0
        assert (await desk.post(chat())).status == 200  # and the gateway serves as before
        await desk.at_rest()


def test_the_table_is_as_long_as_promised() -> None:
    assert len(TABLE) >= 60
    assert len({case.data for case in TABLE.values()}) == len(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_however_the_network_cuts_it_the_first_answer_is_the_same(name: str) -> None:
    """The reader alone, byte by byte."""
    case = TABLE[name]
    settings = GatewaySection().model_copy(update={"max_body": 2**20 - 1})
    reader = RequestReader(settings, lambda head: find_route(head.method, head.target))
    size = 1 if len(case.data) < 10_000 else 999
    try:
        for position in range(0, len(case.data), size):
            if reader.read(case.data[position : position + size]) is not None:
                answer = "200 "
                break
    except Refused as refused:
        answer = f"{refused.refusal.status} {refused.refusal.reason}"
    assert answer == case.answers[0]


# What is odd but right reaches the engine: once, as one request, with nothing of the client's for this hop.


class Tap:
    """An engine that keeps every byte and answers each request that it finds; llhttp says where they begin and end."""

    def __init__(self) -> None:
        self.received = b""
        self.requests: list[tuple[bytes, list[tuple[bytes, bytes]], bytes]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        parser = httptools.HttpRequestParser(self)
        while data := await reader.read(65536):
            self.received += data
            before = len(self.requests)
            parser.feed_data(data)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}" * (len(self.requests) - before))
        writer.close()

    def on_message_begin(self) -> None:
        self._target, self._headers, self._body = b"", [], b""

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self.requests.append((self._target, self._headers, self._body))


@pytest.fixture
async def tap() -> AsyncIterator[tuple[Tap, Desk]]:
    tap = Tap()
    server = await asyncio.start_server(tap.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with gateway_to(f"http://{host}:{port}") as desk:
        yield tap, desk
    server.close()


# What is sent, and the body that the engine must get, in one request.
ODD = {
    "a request as the body": (post(b"Content-Length: %d" % len(HIDDEN), body=HIDDEN), HIDDEN),
    "a request as a chunk": (coded(b"%x\r\n%b\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN)), HIDDEN),
    "a last chunk within the body": (post(b"Content-Length: 7", body=b"0\r\n\r\n{}"), b"0\r\n\r\n{}"),
    "a last chunk within a chunk": (coded(b"5\r\n0\r\n\r\n\r\n0\r\n\r\n"), b"0\r\n\r\n"),
    "a length among the trailers": (coded(b"2\r\n{}\r\n0\r\nContent-Length: 50\r\n\r\n"), b"{}"),
    "a coding among the trailers": (coded(b"2\r\n{}\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n"), b"{}"),
    "an extension like a header": (coded(b"2;\tTransfer-Encoding: chunked\r\n{}\r\n0\r\n\r\n"), b"{}"),
    "sizes with zeros before": (coded(b"00000002\r\n{}\r\n000\r\n\r\n"), b"{}"),
    "a length with zeros before": (post(b"Content-Length: 0002", body=b"{}"), b"{}"),
    "blanks and tabs around a length": (post(b"Content-Length: \t 2 \t", body=b"{}"), b"{}"),
    "blanks and tabs around chunked": (
        post(b"Transfer-Encoding:\t chunked \t", body=b"2\r\n{}\r\n0\r\n\r\n"), b"{}",
    ),
    "CHUNKED": (post(b"TRANSFER-ENCODING: CHUNKED", body=b"2\r\n{}\r\n0\r\n\r\n"), b"{}"),
    "a coding by another name": (post(LENGTH, b"Transfer_Encoding: chunked", b"X-Transfer-Encoding: chunked"), BODY),
    "a length by another name": (post(LENGTH, b"Content_Length: 2", b"Content-Length-X: 2"), BODY),
    "a length that Connection names": (post(LENGTH, b"Connection: content-length, keep-alive"), BODY),
    "a coding that Connection names": (
        post(TE, b"Connection: transfer-encoding", body=b"2\r\n{}\r\n0\r\n\r\n"), b"{}",
    ),
    "letters that shrink to CR LF": (post(LENGTH, "X: čĊSMUGGLED: 1".encode()), BODY),
    "NEL and no-break blanks": (post(LENGTH, b"X: a\x85b\xa0c"), BODY),
    "CR LF encoded in the query": (to(CHAT.encode() + b"?a=%0d%0aX:%20y%0d%0a%0d%0aGET%20/"), BODY),
    "another Host in the target": (to(b"http://evil.example:1" + CHAT.encode()), BODY),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
async def test_an_odd_request_stays_one_request(tap: tuple[Tap, Desk], name: str) -> None:
    engine, desk = tap
    data, body = ODD[name]
    client = await desk.client()
    await client.send(data + request_bytes("GET", "/health"))
    assert (await client.read()).json() == {}
    assert (await client.read()).json()["status"] == "ok"  # and what follows is found where it begins
    ((target, headers, seen),) = engine.requests
    assert target.startswith(CHAT.encode())
    assert seen == body
    names = [name for name, _ in headers]
    assert (names.count(b"host"), names.count(b"content-length"), names.count(b"x-request-id")) == (1, 1, 1)
    assert b"transfer-encoding" not in names
    assert dict(headers)[b"host"] == desk.replicas.all[0].host_line.removeprefix(b"host: ")
    assert int(dict(headers)[b"content-length"]) == len(body)


async def test_headers_for_this_hop_end_here(tap: tuple[Tap, Desk]) -> None:
    engine, desk = tap
    for_this_hop = (
        "Connection: X-Secret, keep-alive, te", "X-Secret: 1", "TE: trailers", "Keep-Alive: timeout=5", "Upgrade: h2c",
        "Proxy-Connection: close", "Proxy-Authorization: Basic eDp5", "Trailer: X-T", "Proxy-Authenticate: Basic",
    )  # fmt: skip
    assert (await desk.post(chat(), *for_this_hop, "X-Passes: on", "Forwarded: for=1.2.3.4")).status == 200
    ((_, headers, _),) = engine.requests
    assert {name for name, _ in headers} == {b"host", b"x-passes", b"forwarded", b"x-request-id", b"content-length"}


async def test_connection_cannot_take_away_what_the_gateway_says_itself(tap: tuple[Tap, Desk]) -> None:
    engine, desk = tap
    answer = await desk.post(chat(), "Connection: host, x-request-id, content-length", "X-Request-Id: mine")
    assert answer.headers["x-request-id"] == "mine"
    ((_, headers, _),) = engine.requests
    assert {name for name, _ in headers} == {b"host", b"x-request-id", b"content-length"}


@pytest.mark.parametrize("identity", ["a b", "\xe9", "x" * 129, "", '"<script>"\t', "a,b\x80"])
async def test_a_request_id_that_is_not_fit_is_replaced(tap: tuple[Tap, Desk], identity: str) -> None:
    engine, desk = tap
    answer = await desk.post(chat(), f"X-Request-Id: {identity}")
    ((_, headers, _),) = engine.requests
    assert [value for name, value in headers if name == b"x-request-id"] == [answer.headers["x-request-id"].encode()]
    assert answer.headers["x-request-id"] != identity


async def test_two_request_ids_become_one(tap: tuple[Tap, Desk]) -> None:
    engine, desk = tap
    answer = await desk.post(chat(), "X-Request-Id: first", "X-Request-Id: second")
    ((_, headers, _),) = engine.requests
    assert [value for name, value in headers if name == b"x-request-id"] == [answer.headers["x-request-id"].encode()]


async def test_a_request_cut_short_is_never_seen(tap: tuple[Tap, Desk]) -> None:
    """Wherever the client ends its side, as long as the body is not whole."""
    engine, desk = tap
    for data in (post(LENGTH), post(TE, body=CHUNKED)):
        for cut in (*range(1, len(data), 13), len(data) - 1):
            client = await desk.client()
            await client.send(data[:cut])
            client.writer.write_eof()
            assert await client.at_end()
            client.close()
    assert engine.received == b""


async def test_an_engine_that_hides_an_answer_in_its_answer(engine: FakeEngine) -> None:
    """More bytes than an answer has are nobody's: the next request does not get them."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        hidden = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nSMUGGLED"
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}" + hidden)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with gateway_to(f"http://{host}:{port}") as desk:
        client = await desk.client()
        for _ in range(5):
            await client.post(CHAT, chat())
            answer = await client.read()
            assert (answer.status, answer.body) == (200, b"{}")
    server.close()
