"""A look at a deployment, without one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from launcher.control import watch
from launcher.control.gateway_client import Answer, GatewayClient
from launcher.control.models import Look
from launcher.control.watch import Watch, outsiders
from launcher.probe.gpus import GpuUse
from launcher.supervise.rundir import Found, read_record

REPLICAS = [
    {"index": 0},
    {"index": 1, "url": "http://a", "ready": True, "in_flight": 3},
    {"index": 2, "url": "http://b", "ready": False, "reason": "does not answer"},
    {"index": 3, "url": "http://c", "ready": True, "leaving": True, "draining": True},
]
RECORD = {
    "state": "degraded",
    "url": "http://127.0.0.1:8080",
    "engines": [{"index": 0, "phase": "backoff", "stage": "", "since": 5.0, "url": "", "restarts": 1, "last_failure": "gone"}],
    "ends": [{"at": 4.0, "engine": 0, "cause": "exited", "reason": "gone", "remedy": ""}],
}  # fmt: skip


class Told(GatewayClient):
    """A gateway that says what it is given."""

    def __init__(self, status: int, value: Any) -> None:
        super().__init__(Path("gateway.sock"))
        self._answer = Answer(status, json.dumps(value).encode())

    def ask(self, *_: object) -> Answer:
        return self._answer


def test_replicas_that_the_record_does_not_name() -> None:
    stages = [(one["index"], one["stage"]) for one in outsiders({"engines": [{"index": 0}]}, {"replicas": REPLICAS})]
    assert stages == [(1, "ready"), (2, "does not answer"), (3, "leaving")]
    assert not list(outsiders({}, None))
    assert not list(outsiders({}, {}))


def test_a_look_is_as_its_model_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "state.json").write_text(json.dumps(RECORD))
    monkeypatch.setattr(watch, "gpu_use", lambda: [GpuUse(0, "RTX 4090", 2**30, 24 * 2**30, None)])
    find = lambda: Found(tmp_path, read_record(tmp_path), alive=True)  # noqa: E731
    seen = Watch(find, Told(503, {})).look()
    look = Look.model_validate_json(json.dumps(seen), strict=True)
    assert (look.name, look.state, look.live) == (tmp_path.name, "degraded", None)
    assert (look.engines[0].since, look.engines[0].running, look.ends[0].reason) == (5.0, None, "gone")
    assert (look.gpus[0].name, look.gpus[0].growth_bytes_per_s, look.warnings) == ("RTX 4090", None, [])
    told = Watch(find, Told(200, {"replicas": REPLICAS})).look()
    assert [(one["index"], one["phase"]) for one in told["engines"]] == [
        (0, "backoff"), (1, "ready"), (2, "down"), (3, "ready"),
    ]  # fmt: skip


def test_a_killed_launchers_gateway_is_not_asked(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text(json.dumps(RECORD))
    seen = Watch(Found(tmp_path, {}, alive=False).again, Told(200, {})).look()
    assert (seen["state"], seen["live"], seen["url"]) == ("dead", None, "http://127.0.0.1:8080")
