"""The supervisor with real processes: the fake engine in place of vLLM, every way to fail."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import sys
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from launcher.profile.model import Profile
from launcher.supervise.child import Exit, start_time
from launcher.supervise.engine import NO_HEADERS, Engine, EngineSpec, Finding
from launcher.supervise.restart import RestartPolicy
from launcher.supervise.state import Phase
from launcher.supervise.supervisor import Supervisor
from tests.fakes.process import SCRIPT

FAST = {
    "timeouts": {
        "start": "20s",
        "warmup": "5s",
        "stall": "500ms",
        "probe_interval": "200ms",
        "probe": "2s",
        "stop": "1s",
    },
    "restart": {"backoff": "10ms", "max_backoff": "20ms", "budget": 2},
}


@dataclass
class FakeActivity:
    in_flight: int = 0
    last_byte_at: float | None = None


@dataclass
class Gateway:
    """Hears what the supervisor tells, and says what it is told to say."""

    heard: list[tuple[str, str]] = field(default_factory=list)
    doing: FakeActivity = field(default_factory=FakeActivity)
    url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    def starting(self, index: int, url: str, headers: Mapping[str, str] = NO_HEADERS) -> None:
        self.url, self.headers = url, headers
        self.heard.append(("starting", ""))

    def ready(self, index: int) -> None:
        self.heard.append(("ready", ""))

    def down(self, index: int, reason: str) -> None:
        self.heard.append(("down", reason))

    def activity(self, index: int) -> FakeActivity:
        return self.doing

    @property
    def words(self) -> list[str]:
        return [word for word, _ in self.heard]


@dataclass(frozen=True)
class FakeCommand:
    argv: Sequence[str]
    added: Mapping[str, str]
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def environment(self, inherited: Mapping[str, str]) -> Mapping[str, str]:
        return {**inherited, **self.added}


class Watched:
    """A supervisor over one fake engine, and a way to wait for what becomes of it."""

    def __init__(
        self,
        tmp_path: Path,
        behaviour: dict[str, Any],
        settings: dict[str, Any],
        sees_images: bool,
        model: str,
        key: str,
    ) -> None:
        profile = Profile.model_validate({"name": "t", "model": {"id": "m"}, **FAST, **settings})
        self.behaviour, self.key = behaviour, key
        self.gateway = Gateway()
        self.stages: list[str] = []
        self._changed = asyncio.Event()
        spec = EngineSpec(
            0, self.command, model, sees_images, self.diagnose, self.stage_of, logging.getLogger("test.engine")
        )
        self.supervisor = Supervisor(
            [spec],
            self.gateway,
            policy=RestartPolicy.of(profile.restart),
            timeouts=profile.timeouts,
            warmup=profile.warmup,
            base_dir=tmp_path,
            environment=os.environ,
            on_change=self.changed,
        )

    @property
    def engine(self) -> Engine:
        return self.supervisor.engines[0]

    def command(self) -> FakeCommand:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        argv = (sys.executable, "-u", str(SCRIPT), "--port", str(port), "--served-model-name", "m")
        added = {"FAKE_ENGINE": json.dumps(self.behaviour), "VLLM_API_KEY": self.key}
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else NO_HEADERS
        return FakeCommand(argv, added, f"http://127.0.0.1:{port}", headers)

    @staticmethod
    def diagnose(lines: Sequence[str], ended: Exit) -> Finding:
        for line in lines:
            if "max_model_len" in line:
                return Finding("max_len is too long", "model.max_len: 2048", retry_helps=False)
        return Finding(str(ended))

    @staticmethod
    def stage_of(line: str) -> str | None:
        return "loading" if "oading" in line else None

    def changed(self, engine: Engine) -> None:
        self.stages.append(engine.stage)
        self._changed.set()

    async def until(self, wanted: Callable[[], bool]) -> None:
        while not wanted():
            assert self.engine.state.phase is not Phase.FAILED, self.engine.state
            self._changed.clear()
            await self._changed.wait()

    async def until_phase(self, phase: Phase, attempt: int | None = None) -> None:
        await self.until(
            lambda: self.engine.state.phase is phase and (attempt is None or self.engine.state.attempt == attempt)
        )

    async def call(self, path: str, value: Any = None) -> Any:
        data = None if value is None else json.dumps(value).encode()
        request = urllib.request.Request(self.gateway.url + path, data, {"Content-Type": "application/json"})

        def get() -> Any:
            with urllib.request.urlopen(request, timeout=20) as response:
                return json.load(response)

        return await asyncio.to_thread(get)


@asynccontextmanager
async def watched(
    tmp_path: Path,
    settings: dict[str, Any] | None = None,
    sees_images: bool = False,
    model: str = "m",
    key: str = "",
    **behaviour: Any,
) -> AsyncIterator[Watched]:
    one = Watched(tmp_path, behaviour, settings or {}, sees_images, model, key)
    one.supervisor.start()
    running = asyncio.create_task(one.supervisor.run())
    try:
        async with asyncio.timeout(60):
            yield one
    finally:
        one.supervisor.stop()
        await asyncio.wait_for(running, 20)
        assert one.engine.child is None
        assert one.engine.state.phase in (Phase.STOPPED, Phase.FAILED)


async def test_ready_means_warm(tmp_path: Path) -> None:
    settings = {
        "warmup": {
            "system_prompt": "Be brief.",
            "prompts": ["one", "two"],
            "canary": {"prompt": "France's capital?", "contains": "paris"},
        }
    }
    async with watched(tmp_path, settings, sees_images=True, reply="Paris it is") as one:
        await one.until_phase(Phase.READY)
        chats = [
            json.loads(request["body"])
            for request in (await one.call("/_fake/seen"))["requests"]
            if request["target"] == "/v1/chat/completions"
        ]
    assert [chat["messages"][0]["content"] for chat in chats[:3]] == ["Be brief."] * 3
    assert [chat["messages"][1]["content"] for chat in chats[:2]] == ["one", "two"]
    picture, text = chats[2]["messages"][1]["content"]
    assert picture["image_url"]["url"].startswith("data:image/png;base64,")
    assert text["type"] == "text"
    assert chats[3]["messages"] == [{"role": "user", "content": "France's capital?"}]
    assert one.gateway.words == ["starting", "ready", "down"]


async def test_a_wrong_canary_never_serves(tmp_path: Path) -> None:
    settings = {"warmup": {"canary": {"prompt": "France's capital?", "contains": "Paris"}}}
    async with watched(tmp_path, settings, reply="L'Étoile") as one:
        await one.until_phase(Phase.FAILED)
    assert one.engine.state.reason == (
        "canary: asked \"France's capital?\", the engine answered \"L'Étoile\", which does not contain 'Paris'"
    )
    assert "ready" not in one.gateway.words
    assert one.engine.state.attempt == 1


async def test_a_warm_up_that_the_engine_refuses_is_not_repeated(tmp_path: Path) -> None:
    settings = {"warmup": {"image": "no-such.png"}}
    async with watched(tmp_path, settings, sees_images=True) as one:
        await one.until_phase(Phase.FAILED)
    assert (one.engine.state.attempt, one.engine.state.reason) == (
        1,
        f"warmup.image: {tmp_path}/no-such.png cannot be read: No such file or directory",
    )
    async with watched(tmp_path, model="another") as one:
        await one.until_phase(Phase.FAILED)
    assert one.engine.state.attempt == 1
    assert one.engine.state.reason.startswith("warm-up request failed: /v1/chat/completions answered 404: ")


async def test_kill_9_is_followed_by_a_fresh_engine(tmp_path: Path) -> None:
    async with watched(tmp_path) as one:
        await one.until_phase(Phase.READY)
        assert one.engine.child is not None
        first = one.engine.child.pid
        os.kill(first, signal.SIGKILL)
        await one.until_phase(Phase.READY, attempt=2)
        assert one.engine.child is not None
        assert one.engine.child.pid != first
        assert start_time(first) is None
    assert one.gateway.heard[:5] == [
        ("starting", ""),
        ("ready", ""),
        ("down", "killed by SIGKILL"),
        ("starting", ""),
        ("ready", ""),
    ]


async def test_an_engine_with_a_key_is_asked_with_it_and_the_gateway_is_told(tmp_path: Path) -> None:
    """Warm-up and the probes for life pass; who asks without the key is refused."""
    async with watched(tmp_path, key="engine-key") as one:
        await one.until_phase(Phase.READY)
        await one.call("/_fake/wait?event=request&count=4")  # those of the warm-up, and a probe
        assert one.gateway.headers == {"Authorization": "Bearer engine-key"}
        with pytest.raises(OSError, match="401"):
            await one.call("/v1/completions", {"model": "m", "prompt": "x"})
        assert one.engine.state.attempt == 1


async def test_an_exit_with_code_0_is_a_failure_too(tmp_path: Path) -> None:
    # Not probed: a probe between its death and its exit is answered 500, and then that is the reason.
    settings = {"timeouts": {**FAST["timeouts"], "probe_interval": "1m"}}
    async with watched(tmp_path, settings) as one:
        await one.until_phase(Phase.READY)
        assert one.engine.child is not None
        await one.call("/_fake/set", {"fault": "engine_death"})
        with pytest.raises(OSError, match="500"):
            await one.call("/v1/completions", {"model": "m", "prompt": "x"})
        await one.until_phase(Phase.READY, attempt=2)
    assert ("down", "exited with code 0") in one.gateway.heard
    assert one.engine.ends == {"exited": 1, "hung": 0, "start": 0}


async def test_a_stopped_engine_is_seen_as_hung_and_restarted(tmp_path: Path) -> None:
    async with watched(tmp_path) as one:
        await one.until_phase(Phase.READY)
        assert one.engine.child is not None
        os.kill(one.engine.child.pid, signal.SIGSTOP)
        await one.until_phase(Phase.READY, attempt=2)
    assert (
        "down",
        "hung: asked for one token while idle, /v1/completions was not answered within 2 s",
    ) in one.gateway.heard


async def test_work_without_tokens_is_hung(tmp_path: Path) -> None:
    async with watched(tmp_path) as one:
        await one.until_phase(Phase.READY)
        await one.call("/_fake/set", {"fault": "hang"})
        one.gateway.doing = FakeActivity(in_flight=2)
        await one.until(lambda: one.engine.state.attempt == 2)
        one.gateway.doing = FakeActivity()
        await one.until_phase(Phase.READY, attempt=2)
    assert ("down", "hung: 2 requests in flight and no token for 0.5 s") in one.gateway.heard
    assert one.engine.ends == {"exited": 0, "hung": 1, "start": 0}


async def test_work_that_gets_no_token_from_an_engine_that_can_give_one(tmp_path: Path) -> None:
    """A flood of requests that the engine refuses: something is always in flight, and nothing is wrong."""
    async with watched(tmp_path) as one:
        await one.until_phase(Phase.READY)
        asked = (await one.call("/_fake/seen"))["counts"]["request"]
        one.gateway.doing = FakeActivity(in_flight=2)
        await one.call(f"/_fake/wait?event=request&count={asked + 3}&timeout=10")  # probed, again and again
        assert (one.engine.state.phase, one.engine.state.attempt) == (Phase.READY, 1)


async def test_a_crash_loop_stops_at_its_budget(tmp_path: Path) -> None:
    async with watched(tmp_path, start_exit=3) as one:
        await one.until_phase(Phase.FAILED)
    assert repr(one.engine.state) == "<Engine failed attempt=3 crashes=3 (exited with code 3)>"
    assert one.engine.ends == {"exited": 0, "hung": 0, "start": 3}


async def test_a_fault_that_no_restart_mends_is_not_repeated(tmp_path: Path) -> None:
    async with watched(tmp_path, start_log="User-specified max_model_len is too long", start_exit=1) as one:
        await one.until_phase(Phase.FAILED)
    assert one.engine.state.attempt == 1
    assert (one.engine.state.reason, one.engine.state.remedy) == ("max_len is too long", "model.max_len: 2048")


async def test_a_start_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    settings = {"timeouts": {**FAST["timeouts"], "start": "2s"}, "restart": {**FAST["restart"], "budget": 0}}
    async with watched(tmp_path, settings, start_log="Loading weights", start_delay_s=60) as one:
        await one.until_phase(Phase.FAILED)
    assert one.engine.state.reason == "not healthy within timeouts.start (2 s) (it was: loading)"
    assert "loading" in one.stages


async def test_an_engine_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    async with watched(tmp_path, ignore_sigterm=True) as one:
        await one.until_phase(Phase.READY)
    assert one.engine.state.phase is Phase.STOPPED


async def test_stop_while_starting(tmp_path: Path) -> None:
    async with watched(tmp_path, start_delay_s=60) as one:
        await one.until(lambda: one.engine.child is not None)
    assert one.engine.state.phase is Phase.STOPPED
