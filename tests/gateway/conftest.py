"""Fixtures: a gateway in front of the shared fake engine; every test runs on uvloop and on asyncio's own loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable

import pytest
import uvloop

from tests.fakes.process import FakeEngine
from tests.gateway.harness import Desk, gateway_to


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    both = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}
    only = os.environ.get("LAUNCHER_TEST_LOOP")  # tests/compiled runs all this once more, on one of them
    return both if only is None else {only: both[only]}


@pytest.fixture
async def desk(engine: FakeEngine) -> AsyncIterator[Desk]:
    """A gateway in front of the shared fake engine."""
    async with gateway_to(engine.url) as desk:
        yield desk
