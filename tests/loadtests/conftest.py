"""What the load tests are tried on: a profile of fake engines, which `launcher` starts as it starts real ones."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from loadtests import driver
from loadtests.deployment import ROOT
from tests.process.deployment import write_profile


@pytest.fixture(autouse=True)
def short_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first requests of a fake engine are as fast as its others."""
    monkeypatch.setattr(driver, "WARM_UP_S", 1.0)


@pytest.fixture
def fake_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment that starts them, in whatever folder."""
    monkeypatch.setenv("FAKE_ENGINE_PYTHON", sys.executable)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture
def fake_profile(fake_engines: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A profile of one fake engine, in the current folder."""
    monkeypatch.chdir(tmp_path)
    return write_profile(tmp_path)
