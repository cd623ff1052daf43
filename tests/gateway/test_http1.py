"""The server's HTTP: limits, time-outs, smuggling, keep-alive, pipelining, chunked bodies, Expect."""

from __future__ import annotations

import hashlib
import json

import pytest

from launcher.gateway.build import is_compiled
from tests.fakes.process import FakeEngine
from tests.gateway.harness import CHAT, Desk, chat, gateway_to, request_bytes

BODY = json.dumps(chat()).encode()
OK = request_bytes("GET", "/health")


def post(*lines: str, body: bytes = BODY, path: str = CHAT) -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: g", *lines, "", ""]).encode("latin-1") + body


LENGTH = f"Content-Length: {len(BODY)}"
CHUNKED = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)

# What is sent, the status, the reason code. Each closes the connection: where its next request begins is not certain.
MALFORMED = {
    "length and chunks": (post(LENGTH, "Transfer-Encoding: chunked", body=CHUNKED), 400, "transfer_encoding"),
    "chunks and length": (post("Transfer-Encoding: chunked", LENGTH, body=CHUNKED), 400, "transfer_encoding"),
    "two lengths": (post(LENGTH, "Content-Length: 3"), 400, "content_length"),
    "the same length twice": (post(LENGTH, LENGTH), 400, "content_length"),
    "a list of lengths": (post("Content-Length: 3, 3"), 400, "content_length"),
    "a signed length": (post("Content-Length: +3"), 400, "content_length"),
    "a negative length": (post("Content-Length: -1"), 400, "content_length"),
    "a hexadecimal length": (post("Content-Length: 0x10"), 400, "content_length"),
    "an empty length": (post("Content-Length:"), 400, "content_length"),
    "a length of 40 digits": (post("Content-Length: " + "9" * 40), 400, "content_length"),
    "an unknown coding": (post("Transfer-Encoding: gzip"), 400, "transfer_encoding"),
    "two codings": (post("Transfer-Encoding: gzip, chunked", body=CHUNKED), 400, "transfer_encoding"),
    "chunked twice": (
        post("Transfer-Encoding: chunked", "Transfer-Encoding: chunked", body=CHUNKED), 400, "transfer_encoding",
    ),
    "chunked, misspelt": (post("Transfer-Encoding: xchunked", body=CHUNKED), 400, "transfer_encoding"),
    "a coding with a vertical tab": (post("Transfer-Encoding:\x0bchunked", body=CHUNKED), 400, "header"),
    "chunks over HTTP/1.0": (
        b"POST /v1/models HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "transfer_encoding",
    ),
    "a blank before the colon": (post("Content-Length : 3"), 400, "header"),
    "a folded header": (post("X-A: 1", " 2", LENGTH), 400, "folded_header"),
    "a header folded with a tab": (post("X-A: 1", "\t2", LENGTH), 400, "folded_header"),
    "a bare LF after a header": (b"GET /health HTTP/1.1\r\nHost: g\nX-A: 1\r\n\r\n", 400, "bare_lf"),
    "bare LFs only": (b"GET /health HTTP/1.1\nHost: g\n\n", 400, "bare_lf"),
    "a bare CR in a value": (b"GET /health HTTP/1.1\r\nHost: g\r\nX-A: 1\rX-B: 2\r\n\r\n", 400, "header"),
    "a NUL in a value": (post("X-A: \x00", LENGTH), 400, "header"),
    "a header without a name": (post(": x", LENGTH), 400, "header"),
    "a header without a colon": (post("X-A", LENGTH), 400, "header"),
    "a name with a blank": (post("X A: 1", LENGTH), 400, "header"),
    "no host": (b"GET /health HTTP/1.1\r\n\r\n", 400, "host"),
    "two hosts": (b"GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "host"),
    "no version": (b"GET /health\r\n\r\n", 400, "request_line"),
    "two blanks": (b"GET  /health HTTP/1.1\r\nHost: g\r\n\r\n", 400, "request_line"),
    "a blank in the path": (b"GET /hea lth HTTP/1.1\r\nHost: g\r\n\r\n", 400, "request_line"),
    "a byte above 127 in the path": (b"GET /caf\xe9 HTTP/1.1\r\nHost: g\r\n\r\n", 400, "request_line"),
    "a tab instead of a blank": (b"GET\t/health HTTP/1.1\r\nHost: g\r\n\r\n", 400, "request_line"),
    "no HTTP at all": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, "request_line"),
    "lower-case http": (b"GET /health http/1.1\r\nHost: g\r\n\r\n", 400, "request_line"),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\n", 505, "http_version"),
    "HTTP/1.2": (b"GET /health HTTP/1.2\r\nHost: g\r\n\r\n", 505, "http_version"),
    "an unknown expectation": (post("Expect: a-miracle", LENGTH), 417, "expectation"),
    "too many headers": (post(*(f"X-{i}: 1" for i in range(200)), LENGTH), 431, "too_many_headers"),
    "a large head": (b"GET /health HTTP/1.1\r\nHost: g\r\nX: " + b"y" * 70_000 + b"\r\n\r\n", 431, "head_too_large"),
    "a head without an end": (b"GET /health HTTP/1.1\r\nHost: g\r\nX: " + b"y" * 70_000, 431, "head_too_large"),
    "a chunk size that is none": (post("Transfer-Encoding: chunked", body=b"zz\r\nab\r\n0\r\n\r\n"), 400, "chunk"),
    "a signed chunk size": (post("Transfer-Encoding: chunked", body=b"+2\r\nab\r\n0\r\n\r\n"), 400, "chunk"),
    "a chunk size with 0x": (post("Transfer-Encoding: chunked", body=b"0x2\r\nab\r\n0\r\n\r\n"), 400, "chunk"),
    "a chunk size with _": (post("Transfer-Encoding: chunked", body=b"1_0\r\nab\r\n0\r\n\r\n"), 400, "chunk"),
    "a huge chunk size": (post("Transfer-Encoding: chunked", body=b"f" * 17 + b"\r\n"), 400, "chunk"),
    "a bare LF after a chunk size": (post("Transfer-Encoding: chunked", body=b"2\nab\r\n0\r\n\r\n"), 400, "chunk"),
    "a chunk longer than its size": (post("Transfer-Encoding: chunked", body=b"2\r\nabc\r\n0\r\n\r\n"), 400, "chunk"),
    "an endless chunk extension": (
        post("Transfer-Encoding: chunked", body=b"2;" + b"x" * 5000 + b"\r\nab\r\n0\r\n\r\n"), 400, "chunk",
    ),
    "a trailer that is none": (post("Transfer-Encoding: chunked", body=b"0\r\nnot a header\r\n\r\n"), 400, "chunk"),
}  # fmt: skip


@pytest.mark.parametrize("name", MALFORMED)
async def test_malformed_requests_are_refused_and_the_connection_closed(desk: Desk, name: str) -> None:
    data, status, reason = MALFORMED[name]
    client = await desk.client()
    await client.send(data)
    answer = await client.read()
    assert (answer.status, answer.error["reason"]) == (status, reason)
    assert answer.error["src"] == "gateway"
    assert answer.headers["connection"] == "close"
    assert answer.headers["x-request-id"]
    assert await client.at_end()
    assert desk.gateway.metrics.refusals[reason] == 1


@pytest.mark.parametrize("name", [name for name in MALFORMED if "large" not in name and "without an end" not in name])
async def test_nothing_malformed_reaches_the_engine(desk: Desk, engine: FakeEngine, name: str) -> None:
    """Not even with a good request right behind it on the same connection."""
    client = await desk.client()
    await client.send(MALFORMED[name][0] + request_bytes("POST", CHAT, BODY))
    await client.read()
    assert await client.at_end()
    assert (await engine.seen())["requests"] == []


async def test_the_sentences(desk: Desk) -> None:
    async def message(data: bytes) -> str:
        return str((await desk.raw(data)).error["message"])

    assert await message(post(LENGTH, "Transfer-Encoding: chunked")) == (
        "Transfer-Encoding must come once, over HTTP/1.1, without Content-Length."
    )
    assert await message(post("Content-Length: -1")) == "Content-Length '-1' is not a number of bytes."
    assert await message(b"GET /health HTTP/1.1\nHost: g\n\n") == (
        "A line of the request's head ends with LF alone: HTTP ends lines with CRLF."
    )
    assert await message(b"GET /health\r\n\r\n") == "The request line 'GET /health' is not 'METHOD /path HTTP/1.1'."


async def test_a_large_body_is_refused_before_it_is_sent(engine: FakeEngine) -> None:
    async with gateway_to(engine.url, max_body=1000) as desk:
        client = await desk.client()
        await client.send(post("Content-Length: 1001", "Expect: 100-continue", body=b""))
        answer = await client.read()
        assert (answer.status, answer.error["message"]) == (413, "The request's body is larger than 1000 bytes.")
        client = await desk.client()
        await client.send(post("Transfer-Encoding: chunked", body=b"400\r\n" + b"x" * 1024 + b"\r\n0\r\n\r\n"))
        assert (await client.read()).status == 413
        assert await client.at_end()
        assert (await desk.raw(post("Content-Length: 1000", body=b"{" + b" " * 998 + b"}"))).status == 200


async def test_a_refused_upload_is_read_so_that_its_sender_sees_the_answer(engine: FakeEngine) -> None:
    async with gateway_to(engine.url, max_body=1000) as desk:
        client = await desk.client()
        body = b"x" * 8_000_000
        await client.send(post(f"Content-Length: {len(body)}", body=body))
        assert (await client.read()).status == 413


async def test_time_outs(engine: FakeEngine) -> None:
    async with gateway_to(engine.url, head_timeout=0.05, body_timeout=0.05, idle_timeout=0.05) as desk:
        head = await desk.raw(b"GET /health HTTP/1.1\r\nHos")
        assert (head.status, head.error["message"]) == (408, "The head was not complete after 0.05 s.")
        body = await desk.raw(post(LENGTH, body=b"{"))
        assert (body.status, body.error["message"]) == (408, "No more of the body came for 0.05 s.")
        assert (await desk.raw(post("Transfer-Encoding: chunked", body=b"2\r\na"))).status == 408
        silent = await desk.client()
        assert await silent.at_end()
        idle = await desk.client()
        await idle.send(OK)
        assert (await idle.read()).status == 200
        assert await idle.at_end()


async def test_an_answer_that_takes_longer_than_the_time_outs(engine: FakeEngine) -> None:
    await engine.set(first_token_s=0.3)
    async with gateway_to(engine.url, head_timeout=0.05, body_timeout=0.05, idle_timeout=0.05) as desk:
        assert (await desk.post(chat())).status == 200


async def test_a_slow_body_is_no_timeout_while_it_moves(engine: FakeEngine) -> None:
    async with gateway_to(engine.url, body_timeout=0.5) as desk:
        client = await desk.client()
        await client.send(post(LENGTH, body=b""))
        for position in range(len(BODY)):
            await client.send(BODY[position : position + 1])
        assert (await client.read()).status == 200


async def test_a_request_in_single_bytes(desk: Desk, engine: FakeEngine) -> None:
    client = await desk.client()
    for byte in post(LENGTH, "X-A: 1"):
        await client.send(bytes([byte]))
    assert (await client.read()).status == 200
    assert (await engine.seen())["requests"][-1]["sha256"] == hashlib.sha256(BODY).hexdigest()


@pytest.mark.parametrize("size", [1, 3, 1000])
async def test_chunked_bodies_reach_the_engine_whole(desk: Desk, engine: FakeEngine, size: int) -> None:
    client = await desk.client()
    coded = b"".join(
        b"%X;name=value\r\n%b\r\n" % (len(piece), piece)
        for piece in (BODY[start : start + size] for start in range(0, len(BODY), size))
    )
    await client.send(post("Transfer-Encoding: Chunked", body=coded + b"0\r\nX-Trailer: 1\r\n\r\n") + OK)
    assert (await client.read()).status == 200
    assert (await client.read()).json()["status"] == "ok"
    seen = (await engine.seen())["requests"][-1]
    assert seen["sha256"] == hashlib.sha256(BODY).hexdigest()
    assert "transfer-encoding" not in seen["headers"]


async def test_pipelined_requests_are_answered_in_turn(desk: Desk, engine: FakeEngine) -> None:
    await engine.set(inter_token_s=0.002)
    client = await desk.client()
    asked = [chat(f"number {i}", max_tokens=i, stream=bool(i % 2)) for i in range(1, 7)]
    await client.send(b"".join(request_bytes("POST", CHAT, json.dumps(body).encode()) + OK for body in asked))
    for index, body in enumerate(asked, 1):
        answer = (await client.read()).body.decode()
        assert f"w{index - 1}" in answer
        assert f"w{index}" not in answer, body
        assert (await client.read()).json()["status"] == "ok"


async def test_many_pipelined_requests_wait_outside(desk: Desk, engine: FakeEngine) -> None:
    """More than fits into the bound on what is read ahead; all are answered."""
    await engine.set(hold_after=0)
    client = await desk.client()
    await client.post(CHAT, chat())
    await engine.wait("hold")
    count = 20_000
    client.writer.write(OK * count)
    await desk.get("/health")
    (exchange,) = desk.gateway.active
    assert len(exchange.client.reader._held) < 64 * 1024 + 2**20
    await engine.release()
    for _ in range(count + 1):
        assert (await client.read()).status == 200


async def test_expect_100_continue(desk: Desk, engine: FakeEngine) -> None:
    client = await desk.client()
    await client.send(post(LENGTH, "Expect: 100-continue", body=b""))
    assert (await client.read()).status == 100
    await client.send(BODY)
    assert (await client.read()).status == 200
    await client.send(post(LENGTH, "Expect: 100-continue"))  # a body that comes at once needs no invitation
    assert (await client.read()).status == 200
    assert "expect" not in (await engine.seen())["requests"][-1]["headers"]


async def test_keep_alive_and_close(desk: Desk) -> None:
    client = await desk.client()
    for _ in range(3):
        await client.send(OK)
        assert "connection" not in (await client.read()).headers
    await client.send(request_bytes("GET", "/health", b"", "Connection: Close"))
    assert (await client.read()).headers["connection"] == "close"
    assert await client.at_end()


async def test_http10(desk: Desk) -> None:
    client = await desk.client()
    await client.send(b"GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert (await client.read()).headers["connection"] == "keep-alive"
    await client.send(b"POST %b HTTP/1.0\r\nContent-Length: %d\r\n\r\n%b" % (CHAT.encode(), len(BODY), BODY))
    assert (await client.read()).headers["connection"] == "close"
    assert await client.at_end()


async def test_an_absolute_target_and_an_empty_line_before(desk: Desk) -> None:
    assert (await desk.raw(b"\r\n\r\nGET http://any.host:80/health HTTP/1.1\r\nHost: g\r\n\r\n")).status == 200


async def test_a_get_with_a_body(desk: Desk, engine: FakeEngine) -> None:
    client = await desk.client()
    await client.send(request_bytes("GET", "/v1/models", b"abc") + OK)
    assert (await client.read()).status == 200
    assert (await client.read()).json()["status"] == "ok"
    assert (await engine.seen())["requests"][-1]["bytes"] == 3


async def test_a_bug_of_ours_is_a_500(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("launcher.gateway.pages.render", lambda gateway, path: 1 / 0)
    answer = await desk.raw(OK)
    assert (answer.status, answer.error["reason"]) == (500, "internal_error")


# Compiled code calls its functions directly: none can be put in their place.
plain_only = pytest.mark.skipif(is_compiled(), reason="a bug is made by replacing functions of ours")


@plain_only
async def test_a_bug_frees_what_the_request_held(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it strikes: the client is told, the slot is free, who waits is served."""
    async with gateway_to(engine.url, max_in_flight=1) as desk:
        for place in BUGS:
            with monkeypatch.context() as patch:
                patch.setattr(place, lambda *args, **more: 1 / 0)
                client = await desk.client()
                await client.post(CHAT, chat(return_reasoning=True))
                answer = await client.read()
                assert (answer.status, answer.error["reason"]) == (500, "internal_error"), place
                assert await client.at_end()
            await desk.at_rest()
            assert not [c for c in desk.gateway.connections if c.answering], place
        assert (await desk.post(chat())).status == 200
        assert (await desk.post(chat())).status == 200


BUGS = (
    "launcher.gateway.relay.engine_head",
    "launcher.gateway.relay.Exchange.start",
    "launcher.gateway.pool.Pool.dial",
    "launcher.gateway.relay.Exchange.on_head",
    "launcher.gateway.relay.change_whole",
)


@plain_only
async def test_who_waits_is_started_although_another_one_cannot_be(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from launcher.gateway.relay import Exchange

    await engine.set(hold_after=0)
    start = Exchange.start

    def start_unless_poisoned(self: Exchange, fresh: bool = False) -> None:
        if b"poison" in self.request.body:
            raise ZeroDivisionError
        start(self, fresh)

    monkeypatch.setattr(Exchange, "start", start_unless_poisoned)
    async with gateway_to(engine.url, max_in_flight=1) as desk:
        clients = [await desk.client() for _ in range(3)]
        for number, (client, text) in enumerate(zip(clients, ("first", "poison", "third"), strict=True)):
            await client.post(CHAT, chat(text))
            await desk.until(lambda number=number: len(desk.gateway.active) == number + 1)
        await engine.release(2)
        assert [(await client.read()).status for client in clients] == [200, 500, 200]
        await desk.at_rest()


@pytest.mark.parametrize(
    "first",
    [request_bytes("GET", "/nowhere"), request_bytes("DELETE", "/health"), request_bytes("POST", "/v1/models")],
)
async def test_a_pipelined_request_behind_a_refused_one_is_answered(desk: Desk, first: bytes) -> None:
    client = await desk.client()
    await client.send(first + OK + first + OK)
    for status in (404 if b"nowhere" in first else 405, 200) * 2:
        assert (await client.read()).status == status


async def test_tiny_chunks_cost_no_more_memory_than_their_bytes(desk: Desk) -> None:
    """A list of millions of pieces would take a hundred times what they hold."""
    client = await desk.client()
    await client.send(post("Transfer-Encoding: chunked", body=b"2\r\nab\r\n" * 50_000))
    await desk.get("/health")
    await desk.until(lambda: any(c.reader.body and c.reader.body.size == 100_000 for c in desk.gateway.connections))
    (reading,) = [c for c in desk.gateway.connections if c.reader.body]
    assert reading.reader.body is not None
    assert len(reading.reader.body.pieces) < 1000
