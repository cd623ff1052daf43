"""Answers on their way: byte for byte, streamed as they come, back-pressure, and clients that leave."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import socket

import pytest

from tests.fakes.process import FakeEngine, fake_engine
from tests.gateway.harness import CHAT, Desk, chat, events, gateway_to, request_bytes


async def direct(engine: FakeEngine, data: bytes) -> bytes:
    """What the engine itself answers to these bytes, up to the connection's end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", engine.port)
    writer.write(data)
    head = await reader.readuntil(b"\r\n\r\n")
    if b"chunked" in head:
        body = await reader.readuntil(b"0\r\n\r\n")
    else:
        body = await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
    writer.close()
    return body


@pytest.mark.parametrize("more", [{}, {"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}])
async def test_bytes_pass_untouched_both_ways(desk: Desk, engine: FakeEngine, more: dict[str, object]) -> None:
    await engine.set(reasoning="let me see")
    odd = b'{"messages" :[ {"role":"user","content":"h\\u00e9llo   \xc3\xa9"} ] ,"model":"fake-model"'
    tail = b', "stream" : true' if "stream" in more else b""
    tail += b', "stream_options":{"include_usage":true}' if "stream_options" in more else b""
    body = odd + tail + b" }"
    client = await desk.client()
    await client.post(CHAT, body)
    answer = await client.read()
    seen = (await engine.seen())["requests"][-1]
    assert (seen["bytes"], seen["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())
    await engine.call("/_fake/reset", {})
    await engine.set(reasoning="let me see")
    own = await direct(engine, request_bytes("POST", CHAT, body))
    if more:
        assert b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in answer.chunks) + b"0\r\n\r\n" == own
    else:
        assert answer.body == own


async def test_headers_pass_except_those_of_one_hop(desk: Desk, engine: FakeEngine) -> None:
    lines = ("Connection: keep-alive, X-Hop", "X-Hop: 1", "Keep-Alive: timeout=5", "TE: trailers", "Upgrade: h2c")
    answer = await desk.post(chat(), *lines, "X-Vllm-Priority: 3", "Authorization: Bearer k", "X-Request-Id: abc-1")
    seen = (await engine.seen())["requests"][-1]["headers"]
    assert not {"connection", "x-hop", "keep-alive", "te", "upgrade"} & set(seen)
    assert seen["x-vllm-priority"] == "3"
    assert seen["authorization"] == "Bearer k"
    assert seen["x-request-id"] == "abc-1" == answer.headers["x-request-id"]
    assert seen["host"] == f"127.0.0.1:{engine.port}"
    assert answer.headers["server"] == "uvicorn"
    assert "x-launcher-src" not in answer.headers


@pytest.mark.parametrize("given", ["", "x" * 129, "two words", "caf\xe9"])
async def test_a_request_id_is_made_where_none_is_fit(desk: Desk, engine: FakeEngine, given: str) -> None:
    answer = await desk.post(chat(), f"X-Request-Id: {given}")
    made = answer.headers["x-request-id"]
    assert made != given
    assert 8 <= len(made) <= 128
    assert (await engine.seen())["requests"][-1]["headers"]["x-request-id"] == made


async def test_each_chunk_is_passed_on_at_once(desk: Desk, engine: FakeEngine) -> None:
    await engine.set(hold_after=2)
    client = await desk.client()
    await client.post(CHAT, chat(stream=True))
    await client.read_head()
    early = [await client.read_chunk() for _ in range(3)]  # the role, and two tokens, while the engine holds the rest
    assert b"w1" in early[-1]
    await engine.release()
    rest = []
    while chunk := await client.read_chunk():
        rest.append(chunk)
    assert events(rest[-1]) == ["[DONE]"]


@pytest.mark.parametrize("split", [1, 7, 1000])
async def test_chunks_that_come_in_pieces(desk: Desk, engine: FakeEngine, split: int) -> None:
    await engine.set(split_bytes=split, tokens=5)
    answer = await desk.post(chat(stream=True))
    assert "".join(e["choices"][0]["delta"]["content"] for e in events(answer.body)[:-1]) == "w0 w1 w2 w3 w4"
    assert len(answer.chunks) == 8


async def test_errors_of_the_engine_pass_and_say_so(desk: Desk, engine: FakeEngine) -> None:
    answer = await desk.post({"model": "other", "messages": []})
    assert answer.status == 404
    assert answer.error == {
        "message": "The model `other` does not exist.", "type": "NotFoundError", "param": None, "code": 404,
    }  # fmt: skip
    assert answer.headers["x-launcher-src"] == "engine"


async def test_the_engines_bare_503_gains_retry_after(desk: Desk, engine: FakeEngine) -> None:
    await engine.set(fault="refuse_503")
    answer = await desk.post(chat())
    assert answer.status == 503
    assert answer.error["type"] == "ServiceUnavailableError"
    assert (answer.headers["retry-after"], answer.headers["retry-after-ms"]) == ("1", "1000")
    assert answer.headers["x-launcher-src"] == "engine"


async def test_an_interim_answer_is_skipped(desk: Desk, engine: FakeEngine) -> None:
    await engine.set(fault="interim")
    assert (await desk.post(chat())).status == 200


async def test_a_body_that_ends_with_the_connection_is_chunked(desk: Desk, engine: FakeEngine) -> None:
    await engine.set(fault="until_close")
    answer = await desk.post(chat("capital of France?"))
    assert answer.headers["transfer-encoding"] == "chunked"
    assert answer.json()["choices"][0]["message"]["content"] == "The capital of France is Paris."


async def test_http10_gets_no_chunks(desk: Desk, engine: FakeEngine) -> None:
    body = b'{"stream": true, "max_tokens": 2}'
    client = await desk.client()
    await client.send(b"POST %b HTTP/1.0\r\nContent-Length: %d\r\n\r\n%b" % (CHAT.encode(), len(body), body))
    answer = await client.read()
    assert "transfer-encoding" not in answer.headers
    assert answer.headers["connection"] == "close"
    assert [e if e == "[DONE]" else e["choices"][0]["delta"]["content"] for e in events(answer.body)] == [
        "", "w0", " w1", "", "[DONE]",
    ]  # fmt: skip


async def test_head_has_no_body(desk: Desk, engine: FakeEngine) -> None:
    client = await desk.client()
    await client.send(request_bytes("HEAD", "/health") + request_bytes("HEAD", "/v1/models"))
    own = await client.read(head_only=True)
    assert (own.status, int(own.headers["content-length"]) > 0) == (200, True)
    theirs = await client.read(head_only=True)
    assert (theirs.status, int(theirs.headers["content-length"]) > 0) == (200, True)
    await client.send(request_bytes("GET", "/health"))
    assert (await client.read()).json()["status"] == "ok"


async def test_one_engine_connection_serves_many_requests(desk: Desk, engine: FakeEngine) -> None:
    client = await desk.client()
    for more in ({}, {"stream": True}, {}, {"stream": True}):
        await client.post(CHAT, chat(**more))
        assert (await client.read()).status == 200
    used = {request["connection"] for request in (await engine.seen())["requests"]}
    assert len(used) == 1


async def test_a_stale_connection_is_replaced(desk: Desk, engine: FakeEngine) -> None:
    """The engine closes an idle connection when the next request is on its way: it never saw that one."""
    assert (await desk.post(chat())).status == 200
    await engine.set(fault="close_before", fault_count=1)
    assert (await desk.post(chat())).status == 200
    assert await desk.metric('launcher_retries_total{reason="stale"}') == 1


async def test_connections_that_the_engine_closed_are_forgotten(desk: Desk, engine: FakeEngine) -> None:
    assert (await desk.post(chat())).status == 200
    assert repr(desk.gateway.pool) == "<Pool idle=1>"
    await engine.call("/_fake/drop_idle", {})
    assert (await desk.post(chat())).status == 200
    assert (await engine.seen())["counts"]["request"] == 2


async def test_a_client_that_leaves_aborts_its_stream(desk: Desk, engine: FakeEngine) -> None:
    await engine.set(hold_after=1)
    client = await desk.client()
    await client.post(CHAT, chat(stream=True))
    await client.read_head()
    client.close()
    seen = await engine.wait("abort")
    assert seen["requests"][-1]["ended"] == "abort"
    await desk.at_rest()
    assert await desk.metric("launcher_client_disconnects_total") == 1


async def test_a_client_that_leaves_before_the_answer_aborts_it(desk: Desk, engine: FakeEngine) -> None:
    await engine.set(hold_after=0)
    client = await desk.client()
    await client.post(CHAT, chat())
    await engine.wait("hold")
    client.close()
    await engine.wait("abort")
    await desk.at_rest()


async def test_a_half_closed_client_has_left(desk: Desk, engine: FakeEngine) -> None:
    await engine.set(hold_after=0)
    client = await desk.client()
    await client.post(CHAT, chat(stream=True))
    await engine.wait("hold")
    client.writer.write_eof()
    await engine.wait("abort")


async def test_a_client_that_leaves_while_waiting_frees_its_place(engine: FakeEngine) -> None:
    await engine.set(hold_after=0)
    async with gateway_to(engine.url, max_in_flight=1) as desk:
        first, second = await desk.client(), await desk.client()
        await first.post(CHAT, chat())
        await engine.wait("hold")
        await second.post(CHAT, chat())
        await desk.until(lambda: desk.gateway.queued == 1)
        second.close()
        await desk.until(lambda: desk.gateway.queued == 0)
        await engine.release()
        assert (await first.read()).status == 200
        await desk.at_rest()
        assert (await engine.seen())["counts"]["request"] == 1


async def test_a_slow_reader_holds_its_engine_back(desk: Desk, engine: FakeEngine) -> None:
    """65 MB wait in the engine, not here: it has written no more than the kernel's buffers on the way hold."""
    await engine.set(tokens=1000, chunk_bytes=65536)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**18)
    sock.connect(desk.address)
    sock.sendall(request_bytes("POST", CHAT, b'{"stream": true}'))
    await engine.wait("request")
    (exchange,) = desk.gateway.active
    while exchange._engine is None or not exchange._engine._paused:
        await engine.seen()
    written, before = -1, -2
    while written != before:  # until nothing moves any more
        before, written = written, (await engine.seen())["bytes_written"]
    assert 0 < written < 32 * 2**20
    assert exchange.client.transport.get_write_buffer_size() < 2**20
    assert (await engine.seen())["running"] == 1
    sock.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=sock, limit=2**22)
    received, last = 0, b""
    while not last.endswith(b"0\r\n\r\n"):
        last = last[-5:] + (piece := await reader.read(2**20))
        received += len(piece)
    assert received > 65_000_000
    writer.close()
    await desk.at_rest()


async def test_no_delay_on_both_sides(desk: Desk, engine: FakeEngine) -> None:
    await engine.set(hold_after=0)
    client = await desk.client()
    await client.post(CHAT, chat())
    await engine.wait("hold")
    (exchange,) = desk.gateway.active
    for transport in (exchange.client.transport, exchange._engine.transport):  # type: ignore[union-attr]
        plain = transport.get_extra_info("socket")
        assert plain.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


async def test_a_thousand_streams_at_once(desk: Desk, engine: FakeEngine) -> None:
    await engine.set(tokens=5, inter_token_s=0.05)
    async with gateway_to(engine.url, max_in_flight=1000) as many:

        async def one(number: int) -> bytes:
            client = await many.client()
            await client.post(CHAT, chat(f"number {number}", stream=True))
            answer = (await client.read()).body
            client.close()
            return answer

        answers = await asyncio.gather(*(one(number) for number in range(1000)))
        assert all(answer.endswith(b"data: [DONE]\n\n") for answer in answers)
        await many.at_rest()
        assert (await engine.seen())["counts"]["done"] == 1000


async def test_a_body_is_let_go_when_the_answer_begins(desk: Desk, engine: FakeEngine) -> None:
    """A stream may last for minutes, and a picture takes megabytes."""
    await engine.set(hold_after=1)
    client = await desk.client()
    await client.post(CHAT, chat("x" * 1_000_000, stream=True))
    await client.read_head()
    (exchange,) = desk.gateway.active
    held = [value for value in gc.get_referents(exchange, exchange._changes, exchange.request) if type(value) is bytes]
    assert max(map(len, held)) < 1000
    assert (exchange.request.body, exchange._changes.body) == (b"", b"")


async def test_connections_of_a_burst_are_not_kept_for_ever(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some engines never close an idle connection."""
    await engine.set(keepalive_s=600, hold_after=0)
    async with gateway_to(engine.url) as desk:
        clients = [await desk.client() for _ in range(10)]
        for client in clients:
            await client.post(CHAT, chat())
        await engine.wait("hold", 10)
        await engine.release(10)
        for client in clients:
            await client.read()
        assert repr(desk.gateway.pool) == "<Pool idle=10>"
        for connection in desk.gateway.pool._idle[desk.replicas.all[0]]:
            connection.idle_since -= 60
        await engine.set(hold_after=-1)
        await desk.post(chat())
        await desk.post(chat())
        assert repr(desk.gateway.pool) == "<Pool idle=1>"


async def test_large_bodies_pass(desk: Desk, engine: FakeEngine) -> None:
    body = b'{"messages": [{"role": "user", "content": "' + b"QUJD" * 2_000_000 + b'"}]}'
    assert (await desk.post(body)).status == 200
    seen = (await engine.seen())["requests"][-1]
    assert (seen["bytes"], seen["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())


async def test_a_path_and_a_key_of_an_external_engine(engine: FakeEngine) -> None:
    from launcher.gateway.replicas import Endpoint

    async with gateway_to(engine.url) as desk:
        desk.replicas.add(0, Endpoint(f"{engine.url}/base/", {"Authorization": "Bearer own"}))
        desk.replicas.ready(0)
        answer = await desk.post(chat(), "Authorization: Bearer clients")
        assert answer.json()["path"] == "/base/v1/chat/completions"
        assert (await engine.seen())["requests"][-1]["headers"]["authorization"] == "Bearer own"


async def test_an_engine_that_moves_is_followed(engine: FakeEngine) -> None:
    from launcher.gateway.replicas import Endpoint

    with fake_engine() as other:
        async with gateway_to(engine.url) as desk:
            assert (await desk.post(chat())).status == 200
            desk.replicas.down(0, "exited")
            desk.replicas.add(0, Endpoint(other.url))
            assert (await desk.post(chat())).status == 503
            desk.replicas.ready(0)
            assert (await desk.post(chat())).status == 200
            assert (await other.seen())["counts"]["request"] == 1
