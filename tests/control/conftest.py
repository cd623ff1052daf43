"""Fixtures: a gateway with its admin socket in front of fake engines, on the loop that production uses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from tests.control.harness import AdminDesk, admin_desk
from tests.fakes.process import FakeEngine, fake_engine


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def two_engines() -> Iterator[tuple[FakeEngine, FakeEngine]]:
    with fake_engine() as one, fake_engine() as other:
        yield one, other


@pytest.fixture
def engines(two_engines: tuple[FakeEngine, FakeEngine]) -> tuple[FakeEngine, FakeEngine]:
    for engine in two_engines:
        engine.call_now("/_fake/reset", {})
    return two_engines


@pytest.fixture
async def admin(tmp_path: Path, engines: tuple[FakeEngine, FakeEngine]) -> AsyncIterator[AdminDesk]:
    """A gateway to one external server."""
    async with admin_desk(tmp_path, engines[0].url) as desk:
        yield desk
