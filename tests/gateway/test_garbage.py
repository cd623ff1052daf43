"""What a request leaves behind: nothing that only the garbage collector could free."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from launcher.gateway.heads import RequestHead
from launcher.gateway.http1 import ClientConnection
from launcher.gateway.price import Price
from launcher.gateway.relay import Exchange
from launcher.gateway.rescue import Rescue
from launcher.gateway.upstream import EngineConnection
from tests.gateway.harness import CHAT, Desk, chat, request_bytes

USAGE = {"stream": True, "stream_options": {"include_usage": True}}
OURS = (ClientConnection, EngineConnection, Exchange, Price, RequestHead, Rescue)


@pytest.fixture
def garbage() -> Iterator[Callable[[], list[Any]]]:
    """What of ours only the collector could free since the test's beginning."""
    gc.collect()
    gc.disable()

    def found() -> list[Any]:
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        gc.set_debug(0)
        return [thing for thing in gc.garbage if isinstance(thing, OURS)]

    yield found
    gc.garbage.clear()
    gc.enable()


Garbage = Callable[[], list[Any]]


@pytest.mark.parametrize(
    "body",
    [chat(), chat(stream=True), chat(**USAGE), chat(return_reasoning=True), chat(return_reasoning=True, stream=True)],
)
async def test_requests_leave_nothing(desk: Desk, garbage: Garbage, body: dict[str, Any]) -> None:
    for _ in range(3):
        assert (await desk.post(body)).status == 200
    desk.close()
    await desk.until(lambda: len(desk.gateway.connections) == 1)
    await desk.at_rest()
    assert not garbage()


@pytest.mark.parametrize("line", ["X-Priority: urgent", "X-Mode: none", "Host: two"])
async def test_refusals_leave_nothing(desk: Desk, garbage: Garbage, line: str) -> None:
    for _ in range(3):
        assert (await desk.post(chat(), line)).status == 400
    desk.close()
    await desk.until(lambda: len(desk.gateway.connections) == 1)
    assert not garbage()


async def test_clients_that_leave_leave_nothing(desk: Desk, garbage: Garbage) -> None:
    for _ in range(3):
        client = await desk.client()
        await client.send(request_bytes("POST", CHAT, b'{"stream": true, "messages": [], "max_tokens": 1000}'))
        await client.read_head()
        client.close()
    await desk.until(lambda: len(desk.gateway.connections) == 1)
    await desk.at_rest()
    assert not garbage()
