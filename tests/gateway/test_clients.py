"""The clients that people use, unchanged, with the fake engine behind the gateway; on the real one: tests/e2e."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
import openai
import pytest
from langchain_openai import ChatOpenAI

from tests.fakes.process import FakeEngine
from tests.gateway.harness import CHAT, Desk, chat, gateway_to

WORDS = " ".join(f"w{number}" for number in range(8))
ASKED: dict[str, Any] = {"model": "fake-model", "messages": [{"role": "user", "content": "hello"}]}


async def test_openai(desk: Desk) -> None:
    async with openai.AsyncOpenAI(base_url=f"{desk.url}/v1", api_key="none") as client:
        whole = await client.chat.completions.create(**ASKED)
        assert whole.choices[0].message.content == WORDS
        stream = await client.chat.completions.create(stream=True, stream_options={"include_usage": True}, **ASKED)
        chunks = [chunk async for chunk in stream]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == WORDS
        assert chunks[-1].usage is not None
        done = await client.completions.create(model="fake-model", prompt="hello")
        assert done.choices[0].text == WORDS


async def test_openai_without_async(desk: Desk) -> None:
    def ask() -> list[str]:
        with openai.OpenAI(base_url=f"{desk.url}/v1", api_key="none") as client:
            whole = client.chat.completions.create(**ASKED).choices[0].message.content or ""
            chunks = list(client.chat.completions.create(stream=True, **ASKED))
            return [whole, "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)]

    assert await asyncio.to_thread(ask) == [WORDS, WORDS]


async def test_langchain(desk: Desk) -> None:
    model = ChatOpenAI(base_url=f"{desk.url}/v1", api_key="none", model="fake-model")
    assert (await model.ainvoke("hello")).content == WORDS
    pieces = [str(piece.content) async for piece in model.astream("hello")]
    assert "".join(pieces) == WORDS
    assert len(pieces) > 3


async def test_openai_comes_back_when_it_was_told_to(engine: FakeEngine) -> None:
    """Its own retries, on our 429: it waits as long as retry-after-ms says, and is served then."""
    answers: list[tuple[int, float]] = []
    asked_at: list[float] = []

    async def asks(request: httpx.Request) -> None:
        asked_at.append(time.monotonic())

    async def told(response: httpx.Response) -> None:
        answers.append((response.status_code, float(response.headers.get("retry-after-ms", 0)) / 1000))
        if response.status_code == 429:
            await engine.release(2)
            await engine.set(hold_after=-1)

    await engine.set(hold_after=0)
    async with gateway_to(engine.url, max_in_flight=1, max_queued=1) as desk:
        for _ in range(2):
            await (await desk.client()).post(CHAT, chat())
        await desk.until(lambda: desk.gateway.queued == 1)
        hooks = {"request": [asks], "response": [told]}
        async with (
            httpx.AsyncClient(event_hooks=hooks) as http,
            openai.AsyncOpenAI(base_url=f"{desk.url}/v1", api_key="none", http_client=http) as client,
        ):
            answer = await client.chat.completions.create(**ASKED)
        assert answer.choices[0].message.content == WORDS
        assert [status for status, _ in answers] == [429, 200]
        assert asked_at[1] - asked_at[0] >= answers[0][1] > 0
        assert await desk.metric('launcher_refusals_total{reason="queue_full"}') == 1
        await desk.at_rest()


async def test_openai_raises_what_it_was_told(engine: FakeEngine) -> None:
    """Without retries: the error's class by the status, and the gateway's sentence in it."""
    await engine.set(hold_after=0)
    async with gateway_to(engine.url, max_in_flight=1, max_queued=0) as desk:
        await (await desk.client()).post(CHAT, chat())
        await engine.wait("hold")
        async with openai.AsyncOpenAI(base_url=f"{desk.url}/v1", api_key="none", max_retries=0) as client:
            with pytest.raises(openai.RateLimitError, match="Too many requests: 0 wait already") as refused:
                await client.chat.completions.create(**ASKED)
        assert refused.value.type == "rate_limit_error"
        await engine.release(1)
