"""Fixtures: a gateway in front of the shared fake engine; every test runs on uvloop and on asyncio's own loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import uvloop

from tests.fakes.process import FakeEngine
from tests.gateway.harness import Desk, gateway_to


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


@pytest.fixture
async def desk(engine: FakeEngine) -> AsyncIterator[Desk]:
    """A gateway in front of the shared fake engine."""
    async with gateway_to(engine.url) as desk:
        yield desk
