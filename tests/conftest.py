"""Fixtures that several folders share: one fake engine for all tests that take one, reset before each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.process import FakeEngine, fake_engine


@pytest.fixture(scope="session")
def shared_engine() -> Iterator[FakeEngine]:
    with fake_engine() as engine:
        yield engine


@pytest.fixture
def engine(shared_engine: FakeEngine) -> FakeEngine:
    shared_engine.call_now("/_fake/reset", {})
    return shared_engine
