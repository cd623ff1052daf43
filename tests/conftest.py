"""Fixtures that several folders share: one fake engine for all tests that take one, reset before each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes.process import FakeEngine, fake_engine
from tests.side_by_side import OneOfSeveral, scheduler


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):  # pytest-xdist's
        config.pluginmanager.register(OneOfSeveral())


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    return scheduler(config, log)


@pytest.fixture(scope="session")
def shared_engine() -> Iterator[FakeEngine]:
    with fake_engine() as engine:
        yield engine


@pytest.fixture
def engine(shared_engine: FakeEngine) -> FakeEngine:
    shared_engine.call_now("/_fake/reset", {})
    return shared_engine
