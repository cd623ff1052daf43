"""Engines that fail: before the answer, within its head, within its body; with and without another replica."""

from __future__ import annotations

import asyncio

import pytest

from tests.fakes.process import FakeEngine, fake_engine
from tests.gateway.harness import CHAT, Desk, chat, events, gateway_to

# Faults before a head that can be used; none of their bytes may reach the client.
BAD_STARTS = {
    "garbage": "The engine's answer cannot be read: the response's head is not HTTP/1.1 before it had answered.",
    "half_head": "The engine closed the connection before it had answered.",
    "both_lengths": (
        "The engine's answer cannot be read: the response has Content-Length and Transfer-Encoding "
        "before it had answered."
    ),
    "endless_head": "The engine's answer is not HTTP/1.1 before it had answered.",
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", BAD_STARTS)
async def test_no_answer_becomes_502(desk: Desk, engine: FakeEngine, fault: str, stream: bool) -> None:
    await engine.set(fault=fault)
    client = await desk.client()
    await client.post(CHAT, chat(stream=stream))
    answer = await client.read()
    assert answer.status == 502
    assert answer.error == {
        "message": BAD_STARTS[fault], "type": "server_error", "param": None, "code": 502,
        "reason": "engine_failed", "src": "gateway",
    }  # fmt: skip
    assert answer.headers["x-launcher-src"] == "gateway"
    assert (await engine.seen())["counts"]["request"] == 1  # bytes had come: not sent again
    await engine.set(fault="")
    await client.post(CHAT, chat())  # the client's connection is still good
    assert (await client.read()).status == 200
    await desk.at_rest()


async def test_an_engine_that_closes_without_a_byte(desk: Desk, engine: FakeEngine) -> None:
    await engine.set(fault="close_before")
    answer = await desk.post(chat())
    assert (answer.status, answer.error["message"]) == (502, "The engine closed the connection before it had answered.")
    assert await desk.metric('launcher_engine_failures_total{replica="0",stage="head"}') == 1


async def test_an_engine_that_is_not_there(engine: FakeEngine) -> None:
    async with gateway_to("http://127.0.0.1:1") as desk:
        for stream in (False, True):
            answer = await desk.post(chat(stream=stream))
            assert answer.status == 502
            assert answer.error["message"].startswith("The engine cannot be reached: ")
        await desk.at_rest()


@pytest.mark.parametrize("fault", ["close", "reset", "close_after_head", "bad_chunk", "die"])
async def test_a_stream_that_breaks_ends_with_an_error(fault: str) -> None:
    with fake_engine(fault=fault, fault_after=2) as engine:
        async with gateway_to(engine.url) as desk:
            client = await desk.client()
            await client.post(CHAT, chat(stream=True))
            answer = await client.read()
            told = events(answer.body)
            assert told[-1] == "[DONE]"
            assert told[-2]["error"]["src"] == "gateway"
            assert told[-2]["error"]["code"] == 502
            assert told[-2]["error"]["message"].endswith("in the middle of the answer.")
            tokens = [e["choices"][0]["delta"]["content"] for e in told[:-2]]
            assert tokens == (["", "w0", " w1"] if fault in ("close", "reset", "die") else [])
            await client.post("/health", b"")  # the connection is in order
            assert (await client.read()).status == 405
            await desk.at_rest()


@pytest.mark.parametrize("split", [1, 50])
async def test_a_stream_that_breaks_within_an_event(engine: FakeEngine, desk: Desk, split: int) -> None:
    """Half a chunk is held back, so the client sees whole events and then the error."""
    with fake_engine() as other:
        await other.set(split_bytes=split, hold_after=3, tokens=1000)
        async with gateway_to(other.url) as own:
            client = await own.client()
            await client.post(CHAT, chat(stream=True))
            await client.read_head()
            await other.wait("hold")
            await other.release()
            await client.read_chunk()
            other.kill()
            chunks = []
            while chunk := await client.read_chunk():
                chunks.append(chunk)
            told = events(b"".join(chunks))
            assert told[-2]["error"]["code"] == 502


async def test_events_that_are_cut_within_a_chunk_do_not_swallow_the_error(desk: Desk) -> None:
    """An engine whose chunks are not whole events: the error still begins a line of its own."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        writer.write(b'a\r\ndata: {"cu\r\n')
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with gateway_to(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as own:
        body = (await own.post(chat(stream=True))).body
    assert body.startswith(b'data: {"cu\n\ndata: {"error": ')
    assert body.endswith(b"\n\ndata: [DONE]\n\n")
    server.close()


@pytest.mark.parametrize("fault", ["wrong_length", "close_after_head"])
async def test_a_whole_answer_that_breaks_is_cut_off(desk: Desk, engine: FakeEngine, fault: str) -> None:
    await engine.set(fault=fault)
    client = await desk.client()
    await client.post(CHAT, chat())
    with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
        await client.read()
    await desk.at_rest()
    assert await desk.metric('launcher_engine_failures_total{replica="0",stage="body"}') == 1


async def test_more_bytes_than_announced_never_reach_the_next_answer(desk: Desk, engine: FakeEngine) -> None:
    await engine.set(fault="short_length", fault_count=1)
    client = await desk.client()
    await client.post(CHAT, chat())
    first = await client.read()
    await client.post(CHAT, chat())
    second = await client.read()
    assert second.status == 200
    assert second.json()
    assert not first.body.endswith(b"}}")
    assert len({r["connection"] for r in (await engine.seen())["requests"]}) == 2


async def test_the_engines_own_stream_error_passes(engine: FakeEngine) -> None:
    await engine.set(fault="stream_error", fault_after=1)
    async with gateway_to(engine.url, resume_streams=False) as desk:
        told = events((await desk.post(chat(stream=True))).body)
    assert told[-2]["error"]["type"] == "InternalServerError"
    assert "src" not in told[-2]["error"]


async def test_an_early_answer_to_a_large_body(desk: Desk, engine: FakeEngine) -> None:
    await engine.set(fault="answer_early")
    answer = await desk.post(b'{"x": "' + b"y" * 8_000_000 + b'"}')
    assert (answer.status, answer.headers.get("x-launcher-src")) in ((400, "engine"), (502, "gateway"))
    await engine.set(fault="")
    assert (await desk.post(chat())).status == 200
    await desk.at_rest()


async def test_a_slow_head_is_waited_for(desk: Desk, engine: FakeEngine) -> None:
    await engine.set(fault="slow_head")
    client = await desk.client()
    await client.post(CHAT, chat())
    await engine.wait("hold")
    await engine.release()
    assert (await client.read()).status == 200


async def test_an_engine_that_dies_as_vllm_does(desk: Desk) -> None:
    with fake_engine(fault="engine_death") as engine:
        async with gateway_to(engine.url) as own:
            answer = await own.post(chat())
            assert (answer.status, answer.headers["x-launcher-src"]) == (500, "engine")
            assert await asyncio.to_thread(engine.process.wait, 10) == 0


async def test_another_replica_takes_over_before_the_first_byte(engine: FakeEngine) -> None:
    with fake_engine(fault="close_before") as broken:
        async with gateway_to(broken.url, engine.url) as desk:
            for _ in range(4):
                assert (await desk.post(chat())).status == 200
            await desk.at_rest()
            assert (await engine.seen())["counts"]["done"] == 4
            assert await desk.metric('launcher_retries_total{reason="failover"}') >= 1


@pytest.mark.parametrize("path", [CHAT, "/tokenize", "/v1/models"])
async def test_another_replica_takes_over_where_one_is_not_there(engine: FakeEngine, path: str) -> None:
    async with gateway_to("http://127.0.0.1:1", engine.url) as desk:
        for _ in range(4):
            answer = await (desk.get(path) if path == "/v1/models" else desk.post(chat(), path=path))
            assert answer.status == 200
        await desk.at_rest()


async def test_a_request_is_not_given_to_engine_after_engine(engine: FakeEngine) -> None:
    """One that kills engines ends two of three, not all."""
    with fake_engine(fault="die") as one, fake_engine(fault="die") as two, fake_engine(fault="die") as three:
        async with gateway_to(one.url, two.url, three.url) as desk:
            assert (await desk.post(chat())).status == 502
            await asyncio.gather(*(asyncio.to_thread(e.process.poll) for e in (one, two, three)))
            assert sum(e.process.poll() is None for e in (one, two, three)) >= 1


async def test_an_answer_that_has_begun_is_not_sent_again(engine: FakeEngine) -> None:
    with fake_engine(fault="close", fault_after=1) as broken:
        async with gateway_to(broken.url, engine.url, resume_streams=False) as desk:
            answers = [events((await desk.post(chat(stream=True))).body) for _ in range(2)]
            assert sum("error" in told[-2] for told in answers) == 1
            assert (await engine.seen())["counts"]["request"] == 1


async def test_an_answer_to_be_changed_that_breaks_becomes_502(desk: Desk, engine: FakeEngine) -> None:
    await engine.set(fault="wrong_length", reasoning="hm")
    answer = await desk.post(chat(return_reasoning=True))
    assert (answer.status, answer.error["reason"]) == (502, "engine_failed")


async def test_a_stream_to_be_changed_that_breaks_ends_with_an_error(desk: Desk, engine: FakeEngine) -> None:
    await engine.set(fault="close", fault_after=1, reasoning="hm hm")
    told = events((await desk.post(chat(return_reasoning=True, stream=True))).body)
    assert "".join(e["choices"][0]["delta"]["content"] for e in told[:-2]) == "<think>hm</think>\n\n"
    assert told[-2]["error"]["src"] == "gateway"
    assert told[-1] == "[DONE]"
