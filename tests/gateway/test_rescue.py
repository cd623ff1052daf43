"""A stream outlives its engine: another replica, or the restarted one, goes on where it broke off."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from openai import AsyncOpenAI

from launcher.profile.model import TemplatePolicy
from tests.fakes.process import FakeEngine, fake_engine
from tests.gateway.harness import CHAT, Desk, Response, chat, events, gateway_to

WORDS = " ".join(f"w{number}" for number in range(8))


def text_of(told: list[Any]) -> str:
    choices = [choice for event in told if event != "[DONE]" for choice in event["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


async def ask_the_broken_one(desk: Desk, **more: Any) -> Response:
    """The second of two replicas takes turns with the first: ask until the broken one was asked."""
    for _ in range(4):
        answer = await desk.post(chat(stream=True, **more))
        if b": launcher resumed" in answer.body:
            return answer
    raise AssertionError("no answer was resumed")


@pytest.mark.parametrize("fault", ["close", "reset", "die"])
@pytest.mark.parametrize("after", [1, 4, 7])
async def test_another_replica_goes_on(engine: FakeEngine, fault: str, after: int) -> None:
    with fake_engine(fault=fault, fault_after=after) as broken:
        async with gateway_to(broken.url, engine.url) as desk:
            answer = await ask_the_broken_one(desk, stream_options={"include_usage": True})
            told = events(answer.body)
            assert text_of(told) == WORDS
            assert told[-1] == "[DONE]"
            assert len({event["id"] for event in told[:-1]}) == 1
            roles = [c["delta"]["role"] for event in told[:-1] for c in event["choices"] if "role" in c["delta"]]
            assert roles == ["assistant"]
            assert told[-2]["usage"]["completion_tokens"] == 8
            sent = json.loads((await engine.seen())["requests"][-1]["body"])
            assert sent["messages"][-1]["role"] == "assistant"
            assert sent["continue_final_message"] is True
            await desk.at_rest()
            assert await desk.metric('launcher_stream_resumes_total{outcome="resumed"}') == 1
            assert await desk.metric('launcher_tickets_total{outcome="failed"}') == 0


async def test_the_engine_tells_that_it_failed(engine: FakeEngine) -> None:
    """vLLM's API server outlives its core for a moment: the stream ends well-formed, with an error in it."""
    with fake_engine(fault="stream_error", fault_after=3) as broken:
        async with gateway_to(broken.url, engine.url) as desk:
            told = events((await ask_the_broken_one(desk)).body)
            assert text_of(told) == WORDS
            await desk.at_rest()


async def test_openais_client_sees_one_answer(engine: FakeEngine) -> None:
    with fake_engine(fault="reset", fault_after=3) as broken:
        async with gateway_to(broken.url, engine.url) as desk:
            client = AsyncOpenAI(base_url=f"{desk.url}/v1", api_key="none", max_retries=0)
            for _ in range(3):
                stream = await client.chat.completions.create(**chat(), stream=True)
                text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
                assert text == WORDS
            await client.close()
            assert await desk.metric('launcher_stream_resumes_total{outcome="resumed"}') >= 1


async def test_a_limit_counts_both_parts(engine: FakeEngine) -> None:
    with fake_engine(fault="close", fault_after=4) as broken:
        async with gateway_to(broken.url, engine.url) as desk:
            told = events((await ask_the_broken_one(desk, max_tokens=6)).body)
            assert text_of(told) == "w0 w1 w2 w3 w4 w5"
            assert json.loads((await engine.seen())["requests"][-1]["body"])["max_tokens"] == 2


async def test_the_restarted_engine_goes_on(engine: FakeEngine) -> None:
    await engine.set(fault="close", fault_after=3, fault_count=1)
    async with gateway_to(engine.url, restart_wait=30.0) as desk:
        client = await desk.client()
        await client.post(CHAT, chat(stream=True))
        await desk.until(lambda: desk.gateway.queued == 1)
        desk.replicas.down(0, "exited")
        desk.replicas.add(0, desk_endpoint(engine))
        desk.replicas.ready(0)
        answer = await client.read()
        assert text_of(events(answer.body)) == WORDS
        await desk.at_rest()


def desk_endpoint(engine: FakeEngine) -> Any:
    from launcher.gateway.replicas import Endpoint

    return Endpoint(engine.url)


async def test_nobody_takes_over(engine: FakeEngine) -> None:
    await engine.set(fault="close", fault_after=3)
    async with gateway_to(engine.url, restart_wait=0.2) as desk:
        client = await desk.client()
        await client.post(CHAT, chat(stream=True))
        await desk.until(lambda: desk.gateway.queued == 1)
        desk.replicas.down(0, "exited with code 0")
        told = events((await client.read()).body)
        assert text_of(told[:-2]) == "w0 w1 w2"
        assert told[-2]["error"]["reason"] in ("not_ready", "engine_failed")
        assert told[-1] == "[DONE]"
        await desk.at_rest()


async def test_one_that_breaks_again_and_again_ends(engine: FakeEngine) -> None:
    with fake_engine(fault="close", fault_after=1) as one, fake_engine(fault="close", fault_after=1) as two:
        async with gateway_to(one.url, two.url) as desk:
            told = events((await desk.post(chat(stream=True, max_tokens=40))).body)
            said = text_of(told[:-2]).split()
            assert said == [f"w{number}" for number in range(len(said))]
            assert told[-2]["error"]["src"] == "gateway"
            await desk.at_rest()


@pytest.mark.parametrize(
    "more",
    [
        {"tools": [{"type": "function", "function": {"name": "look", "parameters": {}}}]},
        {"logprobs": True},
        {"n": 2},
        {"response_format": {"type": "json_object"}},
    ],
    ids=["tools", "logprobs", "n", "response_format"],
)
async def test_what_cannot_be_put_together_breaks_off(engine: FakeEngine, more: dict[str, Any]) -> None:
    with fake_engine(fault="close", fault_after=1) as broken:
        async with gateway_to(broken.url, engine.url) as desk:
            answers = [events((await desk.post(chat(stream=True, **more))).body) for _ in range(2)]
            assert sum("error" in told[-2] for told in answers) == 1


async def test_residue_that_was_held_back_is_still_taken_out(engine: FakeEngine) -> None:
    """The client has less than the engine said: the engine goes on from what it said itself."""
    with fake_engine(fault="close", fault_after=4) as broken:
        template = TemplatePolicy(strip=("w3 w4",))
        async with gateway_to(broken.url, engine.url, template=template) as desk:
            told = events((await ask_the_broken_one(desk)).body)
            assert text_of(told) == "w0 w1 w2  w5 w6 w7"


async def test_a_client_that_leaves_while_it_waits_ends_it_all(engine: FakeEngine) -> None:
    await engine.set(fault="close", fault_after=3)
    async with gateway_to(engine.url, restart_wait=30.0) as desk:
        client = await desk.client()
        await client.post(CHAT, chat(stream=True))
        await desk.until(lambda: desk.gateway.queued == 1)
        client.close()
        await desk.until(lambda: not desk.gateway.active)
        await desk.at_rest()


async def test_an_answer_that_lacks_only_its_end_is_ended() -> None:
    """All tokens had come: nothing is asked of another engine, and the client's connection goes on."""

    def chunk(delta: dict[str, str], finish: str | None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        event = b"data: " + json.dumps({"id": "1", "created": 1, "model": "m", "choices": [choice]}).encode() + b"\n\n"
        return b"%x\r\n%b\r\n" % (len(event), event)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        writer.write(chunk({"role": "assistant", "content": ""}, None) + chunk({"content": "w0"}, "stop"))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with gateway_to(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as desk:
        client = await desk.client()
        for _ in range(2):
            await client.post(CHAT, chat(stream=True))
            told = events((await client.read()).body)
            assert (text_of(told), told[-1]) == ("w0", "[DONE]")
        assert await desk.metric('launcher_stream_resumes_total{outcome="completed"}') == 2
        await desk.at_rest()
    server.close()


async def test_refused_connections_use_up_no_attempt(engine: FakeEngine) -> None:
    """An engine that is gone, and not marked so yet, is tried again until restart_wait has passed, not three times."""
    await engine.set(fault="close", fault_after=3, fault_count=1)
    async with gateway_to(engine.url, restart_wait=60.0) as desk:
        client = await desk.client()
        await client.post(CHAT, chat(stream=True))
        await desk.until(lambda: desk.gateway.queued == 1)
        replica = desk.replicas.all[0]
        (waiting,) = desk.gateway.dispatcher.queue
        there, replica.port = replica.port, 1
        for tries in range(1, 6):  # its time of suspicion is over
            replica.suspect_until = 0.0
            desk.gateway.pump.turn()
            await desk.until(lambda tries=tries: desk.gateway.queued == 1)
        assert waiting.resumes == 1
        replica.port, replica.suspect_until = there, 0.0
        desk.gateway.pump.turn()
        assert text_of(events((await client.read()).body)) == WORDS
        await desk.at_rest()


async def test_nothing_is_written_after_the_end(engine: FakeEngine) -> None:
    """The other replica is full and there is no time to wait: broken off, and no comment follows later."""
    with fake_engine(fault="close", fault_after=2) as broken:
        async with gateway_to(broken.url, engine.url, max_in_flight=1) as desk:
            await engine.set(hold_after=0)
            first, second = await desk.client(), await desk.client()
            for client in (first, second):
                await client.post(CHAT, chat(stream=True))
            broke = await first.read()
            assert events(broke.body)[-1] == "[DONE]"
            assert all(exchange._comments is None for exchange in desk.gateway.active)
            await engine.release()
            await second.read()
            await desk.at_rest()


async def test_an_error_answer_to_the_continuation_never_reaches_the_client(engine: FakeEngine) -> None:
    """The one that was to go on answers 500: what it says is not put into the stream; the next attempt goes on."""
    await engine.set(fault="error_500", fault_count=1)
    with fake_engine(fault="close", fault_after=3, fault_count=1) as broken:
        async with gateway_to(broken.url, engine.url, restart_wait=30.0) as desk:
            client = await desk.client()
            await client.post(CHAT, chat(stream=True))
            await desk.until(lambda: desk.gateway.queued == 1 or not desk.gateway.active)
            for replica in desk.replicas.all:
                replica.suspect_until = 0.0
            desk.gateway.pump.turn()
            body = (await client.read()).body
            assert b"internal" not in body.lower()
            assert text_of(events(body)) == WORDS
            await desk.at_rest()
