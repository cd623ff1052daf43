"""openai and langchain-openai against the gateway, used as their documentation says, unchanged."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest
from langchain_openai import ChatOpenAI
from openai import AsyncOpenAI, OpenAI

from tests.fakes.process import FakeEngine
from tests.gateway.harness import Desk

ASKED: Any = [{"role": "user", "content": "What is the capital of France?"}]
PARIS = "The capital of France is Paris."
EXTRA = {"enable_thinking": True, "return_reasoning": True}


def client(desk: Desk, **more: Any) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{desk.url}/v1", api_key="none", **{"max_retries": 0, **more})


def langchain(desk: Desk, **more: Any) -> ChatOpenAI:
    return ChatOpenAI(base_url=f"{desk.url}/v1", api_key="none", model="fake-model", **more)  # type: ignore[arg-type]


async def test_openai_async(desk: Desk) -> None:
    async with client(desk) as ai:
        answer = await ai.chat.completions.create(model="fake-model", messages=ASKED)
        assert answer.choices[0].message.content == PARIS
        stream = await ai.chat.completions.create(
            model="fake-model", messages=ASKED, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == PARIS
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == 6
        assert [model.id async for model in ai.models.list()] == ["fake-model"]
        assert answer._request_id


async def test_openai_sync(desk: Desk) -> None:
    def use() -> None:
        with OpenAI(base_url=f"{desk.url}/v1", api_key="none") as ai:
            answer = ai.chat.completions.create(model="fake-model", messages=ASKED)
            assert answer.choices[0].message.content == PARIS
            stream = ai.chat.completions.create(model="fake-model", messages=ASKED, stream=True)
            assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == PARIS
            text = ai.completions.create(model="fake-model", prompt="x", max_tokens=2, stream=True)
            assert "".join(chunk.choices[0].text for chunk in text) == "w0 w1"

    await asyncio.to_thread(use)


async def test_openai_sees_the_reasoning_twice(desk: Desk, engine: FakeEngine) -> None:
    await engine.set(reasoning="let me see")
    async with client(desk) as ai:
        answer = await ai.chat.completions.create(model="fake-model", messages=ASKED, extra_body=EXTRA)
        assert answer.choices[0].message.content == f"<think>let me see</think>\n\n{PARIS}"
        assert answer.choices[0].message.reasoning == "let me see"  # type: ignore[attr-defined]


async def test_errors_raise_what_the_client_expects(desk: Desk, engine: FakeEngine) -> None:
    async with client(desk) as ai:
        with pytest.raises(openai.NotFoundError, match="The model `other` does not exist"):
            await ai.chat.completions.create(model="other", messages=ASKED)
        with pytest.raises(openai.NotFoundError, match="is not served here"):
            await ai.files.list()
        with pytest.raises(openai.BadRequestError, match="enable_thinking must be true or false"):
            await ai.chat.completions.create(model="fake-model", messages=ASKED, extra_body={"enable_thinking": 1})
        await engine.set(fault="close", fault_after=2)
        stream = await ai.chat.completions.create(model="fake-model", messages=ASKED, stream=True)
        with pytest.raises(openai.APIError, match="in the middle of the answer"):
            _ = [chunk async for chunk in stream]


async def test_openai_retries_a_503_after_the_time_it_is_told(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client waits as long as Retry-After says; its waiting is cut short here, and noted."""
    waits: list[float] = []
    desk.replicas.down(0, "restarting")

    async def wait(seconds: float, *_: Any) -> None:
        waits.append(seconds)
        desk.replicas.ready(0)

    async with client(desk, max_retries=2) as ai:
        monkeypatch.setattr("openai._base_client.anyio.sleep", wait)
        answer = await ai.chat.completions.create(model="fake-model", messages=ASKED)
    assert answer.choices[0].message.content == PARIS
    assert waits == [5.0]


@pytest.mark.parametrize("streaming", [True, False])
async def test_langchain_gets_the_reasoning_on_invoke(desk: Desk, engine: FakeEngine, streaming: bool) -> None:
    await engine.set(reasoning="let me see")
    chat = langchain(desk, extra_body=EXTRA, streaming=streaming)
    expected = f"<think>let me see</think>\n\n{PARIS}"
    assert (await chat.ainvoke("What is the capital of France?")).content == expected
    answer = await asyncio.to_thread(chat.invoke, "What is the capital of France?")
    assert answer.content == expected
    asked = [json.loads(request["body"]) for request in (await engine.seen())["requests"]]
    assert [bool(body.get("stream")) for body in asked] == [streaming, streaming]


async def test_langchain_gets_the_reasoning_on_stream(desk: Desk, engine: FakeEngine) -> None:
    await engine.set(reasoning="let me see")
    chat = langchain(desk, extra_body=EXTRA, streaming=True)
    pieces = [piece.content async for piece in chat.astream("What is the capital of France?")]
    assert "".join(map(str, pieces)) == f"<think>let me see</think>\n\n{PARIS}"
    assert "<think>let" in pieces
    assert len([piece for piece in pieces if piece]) > 8


async def test_langchain_without_the_switches(desk: Desk, engine: FakeEngine) -> None:
    await engine.set(reasoning="let me see")
    chat = langchain(desk, streaming=True)
    assert (await chat.ainvoke("What is the capital of France?")).content == PARIS
