"""An engine over two hosts, both of them on loopback, with fake engines: each host a launcher with folders of its own."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from tests.e2e.host import Host
from tests.process.deployment import write_profile
from tests.process.parts import free_pair


class FakeHost(Host):
    """One of them. ``behave`` says how its engines do."""

    def __init__(self, folder: Path, rank: int, port: int) -> None:
        super().__init__(folder / f"host-{rank}", "fake", rank, f"127.0.0.1:{port}")
        self.environment |= {"FAKE_ENGINE_PYTHON": sys.executable, "PYTHONPATH": os.getcwd()}

    def behave(self, **behaviour: Any) -> None:
        """How engines started from now on behave (tests/fakes/behaviour.py)."""
        self.environment["FAKE_ENGINE"] = json.dumps(behaviour)


def make_hosts(folder: Path) -> tuple[Path, FakeHost, FakeHost]:
    """The profile, host 0 and host 1, not started."""
    profile = write_profile(folder)
    profile.write_text(profile.read_text().replace("replicas: 1", "tensor_parallel: 2, nodes: 2"))
    port = free_pair()
    return profile, FakeHost(folder, 0, port), FakeHost(folder, 1, port)
