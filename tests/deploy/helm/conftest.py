"""The real helm and kubectl, which `make test` brings along (see deploy/bootstrap.py)."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tests.deploy.helm.chart import Helm


def program(name: str) -> Path:
    """Beside this Python, else where the shell finds it; skips where it is not."""
    beside = Path(sys.executable).with_name(name)
    found = beside if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not here: `make test` fetches it, on x86-64")
    return Path(found)


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    return Helm(program("helm"), tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="session")
def kubectl() -> Path:
    return program("kubectl")
