"""Fixtures: a gateway in front of the shared fake engine, and the event loops that the tests run on."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable

import pytest
import uvloop

from tests.fakes.process import FakeEngine
from tests.gateway.harness import Desk, gateway_to

# What deals with transports runs on both loops, since these differ there; the launcher itself runs on uvloop.
ON_BOTH = {
    "backpressure",
    "bodies",
    "faults",
    "garbage",
    "hostile",
    "http1",
    "relay",
    "rescue",
    "server",
    "tls",
    "upstream",
}


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    found = {"uvloop": uvloop.new_event_loop}
    only_uvloop = os.environ.get("LAUNCHER_TEST_LOOP") == "uvloop"  # tests/compiled runs all this once more
    if item.path.stem.removeprefix("test_") in ON_BOTH and not only_uvloop:
        found["asyncio"] = asyncio.new_event_loop
    return found


@pytest.fixture
async def desk(engine: FakeEngine) -> AsyncIterator[Desk]:
    """A gateway in front of the shared fake engine."""
    async with gateway_to(engine.url) as desk:
        yield desk
