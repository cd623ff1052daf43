"""Fixtures: one fake engine for all tests, reset before each; every test runs on uvloop and on asyncio's own loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import uvloop

from tests.fakes.process import FakeEngine, fake_engine
from tests.gateway.harness import Desk, gateway_to


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


@pytest.fixture(scope="session")
def shared_engine() -> Iterator[FakeEngine]:
    with fake_engine() as engine:
        yield engine


@pytest.fixture
def engine(shared_engine: FakeEngine) -> FakeEngine:
    shared_engine.call_now("/_fake/reset", {})
    return shared_engine


@pytest.fixture
async def desk(engine: FakeEngine) -> AsyncIterator[Desk]:
    """A gateway in front of the shared fake engine."""
    async with gateway_to(engine.url) as desk:
        yield desk
