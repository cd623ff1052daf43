"""What the operator's page lives on, from the whole command line over fake engines: looks, ends of engines, the plan."""

from __future__ import annotations

import json
import os
import signal
import urllib.request
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from launcher.control.models import Look, PlanAnswer
from launcher.control.ops import NO_PLAN
from launcher.supervise.rundir import PLAN
from tests.e2e.endpoint import get, wait_for
from tests.fakes.process import fake_engine
from tests.process.deployment import FakeEndpoint
from tests.process.parts import part, ready

DATA = b"data: "


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[FakeEndpoint]:
    one = FakeEndpoint(tmp_path)
    started = one.up(profile=one.profile)
    assert started.returncode == 0, started.stderr
    wait_for("the control app", lambda: get(f"{one.url}/api/state")[0] == 200)
    yield one
    one.down("--now")


def events(url: str) -> HTTPResponse:
    """A stream that has begun."""
    answer: HTTPResponse = urllib.request.urlopen(f"{url}/api/events", timeout=20)
    return answer


def looks(stream: HTTPResponse) -> Iterator[dict[str, Any]]:
    """Those of a stream until its end, each as its model says."""
    is_look = False
    for line in stream:
        if line.startswith(DATA) and is_look:
            look = json.loads(line.removeprefix(DATA))
            Look.model_validate(look)
            yield look
        is_look = line == b"event: watch\n"


def test_an_engine_that_dies_is_seen_with_its_diagnosis(endpoint: FakeEndpoint) -> None:
    with events(endpoint.url) as stream:
        seen = looks(stream)
        assert [(one["phase"], one["running"]) for one in next(seen)["engines"]] == [("ready", 0.0)]
        os.kill(endpoint.engine()["pid"], signal.SIGKILL)
        after = next(look for look in seen if look["ends"])
        (end,) = after["ends"]
        assert (end["engine"], end["cause"]) == (0, "exited")
        assert "SIGKILL" in end["reason"]
        assert after["at"] - 20 < end["at"] <= after["at"]
        assert next(look for look in seen if look["state"] == "ready")["engines"][0]["restarts"] == 1
    assert endpoint.record()["ends"] == [end]


def test_the_plan(endpoint: FakeEndpoint) -> None:
    status, plan = get(f"{endpoint.url}/api/plan")
    assert status == 200
    assert PlanAnswer.model_validate(plan, strict=True).name == "fake"
    sets = [part for one in ("gateway.listen=127.0.0.1:0", "name=fake") for part in ("--set", one)]
    assert plan == json.loads(endpoint.launcher("plan", str(endpoint.profile), *sets, "-o", "json").stdout)
    kept = endpoint.state_dir / "fake" / PLAN
    assert kept.exists()
    endpoint.down()
    assert not kept.exists()


def test_down_waits_for_nobody_who_watches(endpoint: FakeEndpoint) -> None:
    with events(endpoint.url) as stream:
        seen = looks(stream)
        next(seen)
        down = endpoint.down()
        assert (down.returncode, "stopped" in down.stderr, "killed" in down.stderr) == (0, True, False)
        states = [look["state"] for look in seen]  # to its end
        assert set(states) <= {"ready", "draining", "stopped"}
    assert "were still running" not in endpoint.log_tail()


def missing(url: str) -> Any:
    """The error of a 404; None: it is another answer."""
    status, answer = get(url)
    return answer if status == 404 else None


def test_servers_that_run_elsewhere(tmp_path: Path) -> None:
    """Nothing is planned for them, and one that is gone is seen as lost."""
    with fake_engine() as engine:
        profile = tmp_path / "elsewhere.yaml"
        profile.write_text(
            f"name: elsewhere\nmodel: {{served_name: fake-model}}\nengine: {{kind: external, urls: [{engine.url}]}}\n"
            "timeouts: {probe_interval: 100ms}\nwarmup: {prompts: [Hi], max_tokens: 2}\n"
        )
        with part("gateway", profile, tmp_path / "state") as gateway:
            ready(gateway, 1)
            answer = wait_for("the control app", lambda: missing(f"{gateway.url}/api/plan"))
            assert answer["error"]["message"] == NO_PLAN
            engine.kill()
            watched = wait_for("its end", lambda: get(f"{gateway.url}/api/watch")[1]["ends"])
            assert [(end["engine"], end["cause"]) for end in watched] == [(0, "lost")]
            assert watched[0]["reason"]
