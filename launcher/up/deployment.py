"""A plan becomes a running endpoint: the supervisor and the gateway wired together, drained and stopped in order.

Prints nothing: what happens is told to an `Audience`, and to the run directory's record, which `launcher ps` reads.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launcher import __version__
from launcher.engine.command import EngineCommand, engine_command
from launcher.engine.diagnose import diagnose
from launcher.engine.stages import stage_of
from launcher.errors import EngineError, PreconditionError
from launcher.gateway.replicas import Activity, Endpoint, Replicas
from launcher.gateway.server import Gateway
from launcher.plan.placement import Placement
from launcher.plan.plan import Plan
from launcher.probe.vllm_build import VllmBuild
from launcher.profile.load import LoadedProfile
from launcher.profile.model import ExternalEngine, Profile, VllmEngine
from launcher.supervise.child import Exit
from launcher.supervise.external import ExternalServer, ExternalWatch
from launcher.supervise.logfiles import engine_logger, launcher_logger
from launcher.supervise.restart import RestartPolicy
from launcher.supervise.rundir import RunDir
from launcher.supervise.state import FINAL, Phase
from launcher.supervise.supervisor import Engine, EngineSpec, Finding, Supervisor
from launcher.up.snapshot import Audience, EngineView, Snapshot, progress_line, view_engine, view_external

RECORD_VERSION = 1
STOP_MARGIN_S = 15.0  # for killing what is left and closing; `down` kills the launcher after drain + stop + this
DEFAULT_MAX_IN_FLIGHT = 256  # vLLM's own default of max_num_seqs on the smaller cards


class ReplicaSwitchboard:
    """Carries the supervisor's word to the gateway's replicas, so that neither knows the other."""

    def __init__(self, replicas: Replicas, headers: Mapping[str, str] | None = None) -> None:
        self._replicas = replicas
        self._headers = dict(headers or {})

    def starting(self, index: int, url: str) -> None:
        self._replicas.add(index, Endpoint(url, self._headers))

    def ready(self, index: int) -> None:
        self._replicas.ready(index)

    def down(self, index: int, reason: str) -> None:
        self._replicas.down(index, reason)

    def activity(self, index: int) -> Activity:
        return self._replicas.activity(index)


@dataclass(frozen=True)
class RunningCommand:
    """An engine's command with the address that it will answer on."""

    argv: Sequence[str]
    env: Mapping[str, str]
    url: str


@dataclass
class Deployment:
    """One profile, running. Written by its own event loop only; ``request_stop`` is for signal handlers of that loop."""

    loaded: LoadedProfile
    plan: Plan
    build: VllmBuild | None
    model_path: str
    rundir: RunDir
    audience: Audience
    _state: str = "starting"
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _stop_now: asyncio.Event = field(default_factory=asyncio.Event)
    _started: float = field(default_factory=time.time)
    _since: dict[int, tuple[str, float]] = field(default_factory=dict)
    _said: dict[int, str] = field(default_factory=dict)
    _was_ready: bool = False
    _url: str = ""

    @property
    def profile(self) -> Profile:
        return self.loaded.profile

    @property
    def logs(self) -> Path:
        """Where this deployment's log files are."""
        own = self.profile.logging.dir
        return self.loaded.base_dir / own if own else self.rundir.path / "logs"

    @property
    def stopped_at_once(self) -> bool:
        """Whether it was told a second time to stop."""
        return self._stop_now.is_set()

    def request_stop(self) -> None:
        """The first call drains and stops; the second stops at once."""
        if self._stop.is_set():
            self._stop_now.set()
        else:
            self._stop.set()
            self.audience.said("stopping: no new requests, waiting for running ones (once more to stop at once)")

    async def run(self) -> None:
        """From a bound port to the last process gone. Raises EngineError when every engine has failed for good."""
        launcher_logger(self.logs, self.profile.logging)
        self._replicas = Replicas()
        self._gateway = Gateway(
            self.profile.gateway,
            self._replicas,
            model=self.profile.model,
            max_in_flight=self._max_in_flight(),
            version=__version__,
        )
        host, port = await self._gateway.start()
        self._url = f"http://{browsable(host)}:{port}"
        self.audience.said(f"gateway listens on {self._url}")
        try:
            if isinstance(self.profile.engine, ExternalEngine):
                await self._run_external(self.profile.engine)
            else:
                await self._run_vllm(self.profile.engine)
        finally:
            await self._gateway.close()

    def _max_in_flight(self) -> int:
        engine = self.profile.engine
        own = engine.max_num_seqs if isinstance(engine, VllmEngine) else None
        return self.profile.gateway.max_in_flight or own or DEFAULT_MAX_IN_FLIGHT

    async def _run_vllm(self, engine: VllmEngine) -> None:
        self._supervisor = Supervisor(
            [self._spec(placement) for placement in self.plan.placements],
            ReplicaSwitchboard(self._replicas),
            policy=RestartPolicy.of(self.profile.restart),
            timeouts=self.profile.timeouts,
            warmup=self.profile.warmup,
            base_dir=self.loaded.base_dir,
            environment=os.environ,
            on_change=self._engine_changed,
        )
        self._supervisor.start()
        self._publish()
        running = asyncio.create_task(self._supervisor.run())
        stop = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({running, stop}, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()  # a bug of ours shows here
                raise self._explained()
            await self._drain()
            self._supervisor.stop()
            await self._until(running, self._supervisor.kill)
        finally:
            stop.cancel()
            running.cancel()
            await asyncio.gather(running, stop, return_exceptions=True)
            self._state = "stopped"
            self._publish()

    async def _drain(self) -> None:
        self._state = "draining"
        self._publish()
        self._gateway.stop_admitting("the endpoint is stopping")
        drained = asyncio.create_task(self._gateway.drained(self.profile.timeouts.drain))
        hurry = asyncio.create_task(self._stop_now.wait())
        await asyncio.wait({drained, hurry}, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        left = drained.result() if drained.done() else self._replicas.in_flight
        if left:
            self.audience.said(f"{left} requests were still running and are cut off")
        drained.cancel()

    async def _until(self, running: asyncio.Task[None], hurry_up: Any) -> None:
        """Wait for the engines to be gone; a second request to stop kills them."""
        hurry = asyncio.create_task(self._stop_now.wait())
        await asyncio.wait({running, hurry}, return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            hurry_up()
        hurry.cancel()
        await running

    async def _run_external(self, engine: ExternalEngine) -> None:
        headers = external_headers(engine)
        watch = ExternalWatch(
            engine.urls,
            ReplicaSwitchboard(self._replicas, headers),
            health_path=engine.health_path,
            headers=headers,
            timeouts=self.profile.timeouts,
            on_change=self._external_changed,
        )
        self._external = watch.servers
        running = asyncio.create_task(watch.run())
        self._publish()
        stop = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({running, stop}, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
            await self._drain()
        finally:
            for task in (stop, running):
                task.cancel()
            await asyncio.gather(running, stop, return_exceptions=True)
            self._state = "stopped"
            self._publish()

    def _spec(self, placement: Placement) -> EngineSpec:
        return EngineSpec(
            index=placement.replica,
            command=lambda: self._command(placement),
            model=self.profile.model.public_name or "",
            sees_images=self.plan.sees_images,
            diagnose=self._diagnose,
            stage_of=lambda line: (stage := stage_of(line)) and str(stage),
            logger=engine_logger(placement.replica, self.logs, self.profile.logging),
        )

    def _command(self, placement: Placement) -> RunningCommand:
        assert self.build is not None
        command: EngineCommand = engine_command(
            self.profile, placement, port=free_port(), model_path=self.model_path, build=self.build
        )
        return RunningCommand(command.argv, command.env, f"http://{command.host}:{command.port}")

    def _diagnose(self, lines: Sequence[str], ended: Exit) -> Finding:
        found = diagnose(lines, self.profile, ended.code, ended.signal)
        return Finding(found.cause, found.remedy, found.retry_helps)

    def _explained(self) -> EngineError:
        """Why no engine is left, from the first that failed."""
        self._state = "failed"
        first = next(engine for engine in self._supervisor.engines if engine.state.phase is Phase.FAILED)
        crashes = len(first.state.crashes)
        tried = "" if crashes == 1 else f" ({crashes} times within {self.profile.restart.window:g} s, no restart left)"
        log_file = self.logs / f"engine-{first.spec.index}.log"
        return EngineError(
            f"engine {first.spec.index} failed{tried}: {first.state.reason}",
            f"{first.state.remedy}\nIts log: {log_file}".strip(),
        )

    def _engine_changed(self, engine: Engine) -> None:
        index, now = engine.spec.index, time.time()
        phase = str(engine.state.phase)
        if self._since.get(index, ("", 0.0))[0] != phase:
            self._since[index] = (phase, now)
        line = progress_line(engine, now - self._started, len(self._supervisor.engines))
        if line and line != self._said.get(index):
            self._said[index] = line
            self.audience.said(line)
        self._settle(
            ready=sum(e.state.phase is Phase.READY for e in self._supervisor.engines),
            total=len(self._supervisor.engines),
            hopeless=all(e.state.phase in FINAL for e in self._supervisor.engines),
        )

    def _external_changed(self, server: ExternalServer) -> None:
        self._since[server.index] = ("ready" if server.ready else "down", time.time())
        self.audience.said(f"{server.url}: {'ready' if server.ready else server.reason}")
        self._settle(
            ready=sum(server.ready is True for server in self._external), total=len(self._external), hopeless=False
        )

    def _settle(self, ready: int, total: int, hopeless: bool) -> None:
        if self._state not in ("draining", "stopped", "failed"):
            self._state = "ready" if ready == total else "degraded" if ready else "failed" if hopeless else "starting"
        self._publish()
        if self._state == "ready" and not self._was_ready:
            self._was_ready = True
            self.audience.ready(self.snapshot())

    def snapshot(self) -> Snapshot:
        """The deployment as it is now."""
        return Snapshot(
            name=self.profile.name,
            state=self._state,
            url=self._url,
            model=self.profile.model.public_name or "",
            engines=self._views(),
            in_flight=self._replicas.in_flight,
            queued=self._gateway.queued,
        )

    def _views(self) -> tuple[EngineView, ...]:
        def since(index: int) -> float:
            return self._since.get(index, ("", self._started))[1]

        if isinstance(self.profile.engine, ExternalEngine):
            return tuple(view_external(server, since(server.index)) for server in self._external)
        return tuple(view_engine(engine, since(engine.spec.index)) for engine in self._supervisor.engines)

    def _publish(self) -> None:
        snapshot = self.snapshot()
        record = {
            "schema_version": RECORD_VERSION,
            "pid": os.getpid(),
            "profile": str(self.loaded.path),
            "logs": str(self.logs),
            "started": self._started,
            "stop_within_s": self.profile.timeouts.drain + self.profile.timeouts.stop + STOP_MARGIN_S,
            **dataclasses.asdict(snapshot),
        }
        self.rundir.write(record)
        self.audience.changed(snapshot)


def external_headers(engine: ExternalEngine) -> dict[str, str]:
    """The Authorization header for external servers. Raises PreconditionError when its variable is not set."""
    if engine.api_key_env is None:
        return {}
    key = os.environ.get(engine.api_key_env)
    if not key:
        raise PreconditionError(
            f"engine.api_key_env names {engine.api_key_env}, but that environment variable is not set",
            f"export {engine.api_key_env}=… first, or take engine.api_key_env out of the profile.",
        )
    return {"Authorization": f"Bearer {key}"}


def free_port() -> int:
    """A port on loopback that nobody listens on. Another process may still take it first: then the start is repeated."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def browsable(host: str) -> str:
    """An address to paste: every-interface addresses are no destination."""
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
