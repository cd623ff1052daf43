"""The parsers alone, fuzzed: any cut of the bytes gives the same result, and a second parser agrees."""

from __future__ import annotations

import contextlib
from typing import Any

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.gateway.framing import ChunkDecoder, FramingError, is_one_chunk, scan_chunks
from launcher.gateway.heads import (
    MEMORY_LINES,
    RequestHead,
    _request_lines,
    parse_request_head,
    parse_response_head,
)
from launcher.gateway.known_heads import RequestHeads, ResponseHeads
from launcher.gateway.refusal import Refused

payloads = st.lists(st.binary(min_size=1, max_size=40), max_size=6)
extensions = st.sampled_from([b"", b";a", b" ;a=b", b';q="x y"'])
trailers = st.sampled_from([b"", b"X-T: 1\r\n", b"A:\r\nB: 2\r\n"])


def coded(pieces: list[bytes], extension: bytes = b"", trailer: bytes = b"") -> bytes:
    chunks = b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces)
    return chunks + b"0\r\n" + trailer + b"\r\n"


def cut(data: bytes, draw: Any) -> list[bytes]:
    places = sorted(draw(st.lists(st.integers(0, len(data)), max_size=10)))
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


@given(payloads, extensions, trailers, st.data())
def test_chunks_decode_to_their_payload_however_they_come(
    pieces: list[bytes], extension: bytes, trailer: bytes, data: st.DataObject
) -> None:
    decoder = ChunkDecoder()
    out = b""
    rest = b""
    for piece in cut(coded(pieces, extension, trailer) + b"NEXT", data.draw):
        if decoder.ended:
            rest += piece
        else:
            out += b"".join(decoder.feed(piece))
            rest += decoder.rest
    assert (out, decoder.ended, rest) == (b"".join(pieces), True, b"NEXT")


@given(payloads, extensions, trailers, st.data())
def test_boundaries_are_those_of_whole_chunks(
    pieces: list[bytes], extension: bytes, trailer: bytes, data: st.DataObject
) -> None:
    """Passing on only what scan_chunks calls whole gives all the bytes, and each part on its way is whole chunks."""
    stream = coded(pieces, extension, trailer)
    held, passed, ended = b"", b"", False
    for piece in cut(stream, data.draw):
        if not piece:
            continue
        held += piece
        boundary, ended, _ = scan_chunks(held)
        part, held = held[:boundary], held[boundary:]
        passed += part
        whole = ChunkDecoder()
        whole.feed(part if ended else part + b"0\r\n\r\n")
        assert whole.ended
    assert (passed, ended, held) == (stream, True, b"")


@given(st.binary(max_size=60), st.data())
def test_chunk_readers_survive_anything_and_agree(noise: bytes, data: st.DataObject) -> None:
    valid = data.draw(st.sampled_from([b"", b"3\r\nabc\r\n", b"0\r\n", b"5\r\n"]))
    stream = valid + noise
    try:
        _, ended, _ = scan_chunks(stream)
        verdict = "ended" if ended else "more"
    except FramingError:
        verdict = "refused"
    decoder = ChunkDecoder()
    try:
        for piece in cut(stream, data.draw):
            if not decoder.ended:
                decoder.feed(piece)
        decoded = "ended" if decoder.ended else "more"
    except FramingError:
        decoded = "refused"
    assert decoded == verdict


class Seen:
    """What httptools makes of a request."""

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.url = b""

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value.strip()))


NAMES = [
    "Host",
    "X-A",
    "Content-Length",
    "Transfer-Encoding",
    "Connection",
    "Expect",
    "X-Request-Id",
    "a",
    "A B",
    "x:y",
    "",
]
VALUES = [
    "",
    "1",
    "chunked",
    "close",
    "gzip, chunked",
    "a\tb",
    " padded ",
    "caf\xe9",
    "\x00",
    "a\rb",
    "a\nb",
    "100-continue",
    "17",
]
ENDS = ["\r\n", "\n", "\r", "\r\n "]
lines = st.tuples(
    st.sampled_from(NAMES), st.sampled_from([":", ": ", " :", ""]), st.sampled_from(VALUES), st.sampled_from(ENDS)
)
starts = st.sampled_from(
    [
        "GET / HTTP/1.1\r\n",
        "POST /v1/x?y=1 HTTP/1.1\r\n",
        "GET  / HTTP/1.1\r\n",
        "GET / HTTP/1.1\n",
        "G@T / HTTP/1.1\r\n",
    ]
)


@given(starts, st.lists(lines, max_size=5))
def test_what_is_accepted_httptools_reads_alike(start: str, headers: list[tuple[str, str, str, str]]) -> None:
    """llhttp as a second opinion: a head that we accept means the same to it, so nobody can be smuggled past."""
    text = start + "Host: g\r\n" + "".join("".join(line) for line in headers)
    head = text.encode("latin-1").rstrip(b"\r\n") + b"\r\n"
    try:
        request = parse_request_head(head)
    except Refused as refused:
        refusal = refused.refusal
    else:
        agree(request, head)
        return
    assert refusal.close
    assert 400 <= refusal.status < 600


def agree(request: RequestHead, head: bytes) -> None:
    seen = Seen()
    parser = httptools.HttpRequestParser(seen)
    parser.feed_data(head + b"\r\n")
    assert parser.get_method() == request.method
    assert seen.url == request.target
    kept = [(n.lower(), v.strip(b" \t")) for n, _, v in (line.partition(b":") for line in request.lines)]
    assert [pair for pair in seen.headers if pair in kept] == kept
    told = dict(seen.headers)
    assert request.chunked == (told.get(b"transfer-encoding", b"").lower() == b"chunked")
    assert request.content_length == int(told.get(b"content-length", b"0"))
    assert not (request.chunked and b"content-length" in told)


lengths = st.sampled_from(
    [
        "7",
        "12",
        "0",
        "007",
        " 8 ",
        "",
        "+5",
        "5, 6",
        "1" * 18,
        "1" * 19,
        "x",
        "5\r\nContent-Length: 6",
        "5\r\nContent-Length: 5",
        "6\r\nContent-Length: 5",
    ]
)
kept_alive = st.lists(
    st.tuples(
        st.sampled_from(
            ["{length}X-A: 1\r\n", "X-A: 1\r\n{length}", "X-A: 1\r\n{length}Connection: X-A\r\n", "X-B: 2\r\n"]
        ),
        st.sampled_from(["Content-Length", "content-length"]),
        lengths,
        st.sampled_from(
            ["", "", "", "X-Mode: balanced\r\n", "Expect: 100-continue\r\n", "Transfer-Encoding: chunked\r\n"]
        ),
    ),
    min_size=2,
    max_size=6,
)


def read_or_refused(read: Any, head: bytes) -> Any:
    try:
        said = read(head)
    except (Refused, ValueError) as error:
        return repr(getattr(error, "refusal", error))
    values = {name: getattr(said, name, None) for name in dir(said) if not name.startswith("_")}
    return {name: value for name, value in values.items() if not callable(value)}


@given(kept_alive)
def test_heads_that_are_known_say_what_they_say_when_they_are_new(heads: list[tuple[str, str, str, str]]) -> None:
    """What is remembered of a connection's last head never changes what the next one means."""
    requests, answers = RequestHeads(), ResponseHeads()
    for around, name, length, more in heads * 2:
        fields = around.format(length=f"{name}:{length}\r\n") + more
        request = f"POST / HTTP/1.1\r\nHost: g\r\nAuthorization: k\r\n{fields}".encode()
        assert read_or_refused(requests.read, request) == read_or_refused(parse_request_head, request)
        answer = f"HTTP/1.1 200 OK\r\nDate: now\r\n{fields}".encode()
        known, new = read_or_refused(answers.read, answer), read_or_refused(parse_response_head, answer)
        if isinstance(new, dict) and isinstance(known, dict) and new["length_line"]:
            assert int(known.pop("length_line").partition(b":")[2]) == int(new.pop("length_line").partition(b":")[2])
        assert known == new


def test_an_engine_that_says_its_length_twice_is_compared_with_itself_each_time() -> None:
    heads, raw = ResponseHeads(), b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nContent-Length: 5\r\n"
    assert heads.read(raw % 5).content_length == 5
    with pytest.raises(ValueError, match="not one number"):
        heads.read(raw % 6)


def test_a_head_that_is_known_is_nobody_elses() -> None:
    """Whoever changes what was read changes nothing of the next one."""
    heads, raw = RequestHeads(), b"GET / HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer k\r\nX-A: 1\r\n"
    for _ in range(3):
        head = heads.read(raw)
        assert head.lines == [b"Authorization: Bearer k", b"X-A: 1"]
        assert head.credentials == (b"Authorization: Bearer k",)
        head.lines.clear()
        head.credentials = ()


@given(st.binary(max_size=80))
def test_heads_of_noise_are_refused_not_crashed_on(noise: bytes) -> None:
    for parse, error in ((parse_request_head, Refused), (parse_response_head, ValueError)):
        with contextlib.suppress(error):
            parse(noise + b"\r\n")


def test_lines_that_vary_or_are_secret_are_not_kept() -> None:
    _request_lines.known.clear()
    secret = b"GET / HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer k\r\nCookie: c\r\nX-Request-Id: %d\r\nX-A: %d\r\n"
    for number in range(3 * MEMORY_LINES):
        request = parse_request_head(secret % (number, number))
        assert b"Authorization: Bearer k" in request.lines
    assert len(_request_lines.known) <= MEMORY_LINES
    assert not [line for line in _request_lines.known if b"Bearer" in line or b"Cookie" in line or b"Id" in line]


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n", "Content-Length '2' is not one number"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n", "Content-Length '-1' is not one number"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n", "Transfer-Encoding 'gzip' is not chunked"),
        (b"HTTP/1.1 99 OK\r\n", "not HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n", "not a header line"),
    ],
)
def test_response_heads_that_mean_two_things(head: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_response_head(head)


def test_keep_alive_of_responses() -> None:
    assert parse_response_head(b"HTTP/1.1 200 OK\r\n").keep_alive
    assert not parse_response_head(b"HTTP/1.1 200 OK\r\nConnection: Close\r\n").keep_alive
    old = parse_response_head(b"HTTP/1.0 404 \r\nConnection: keep-alive\r\n")
    assert (old.keep_alive, old.status_line) == (True, b"HTTP/1.1 404 ")
    assert not parse_response_head(b"HTTP/1.0 200 OK\r\n").keep_alive


def test_parsing_time_is_linear_in_the_head() -> None:
    """Long runs of what a backtracking expression would stumble over; the timeout of the test is the assertion."""
    for filler in (b"a" * 60_000, b":" * 60_000, b" " * 60_000, b"\t:" * 30_000):
        with pytest.raises(Refused):
            parse_request_head(b"GET / HTTP/1.1\r\nHost: g\r\n" + filler + b"\x00\r\n")


@given(payloads, extensions, st.binary(max_size=6))
def test_one_chunk_is_what_the_scanner_calls_one(pieces: list[bytes], extension: bytes, noise: bytes) -> None:
    chunks = [b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces]
    for data in (*chunks, b"".join(chunks), b"".join(chunks) + b"0\r\n\r\n", b"".join(chunks) + noise, noise):
        if is_one_chunk(data):
            assert scan_chunks(data) == (len(data), False, 0)
    assert all(map(is_one_chunk, chunks)) or extension


@pytest.mark.parametrize("size", [1, 15, 16, 255, 256, 4095])
def test_one_chunk_of_every_size_is_known(size: int) -> None:
    chunk = b"%x\r\n%b\r\n" % (size, b"x" * size)
    assert is_one_chunk(chunk)
    assert not is_one_chunk(chunk + b"x")
    assert not is_one_chunk(chunk[:-1])
    assert not is_one_chunk(chunk[:-1] + b"\r")
    assert not is_one_chunk(b"%x" % (size + 1) + chunk[len(b"%x" % size) :])
