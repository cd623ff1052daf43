"""The two ways to have engines, behind one face: vLLM servers of our own, and servers that run elsewhere."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from launcher.engine.command import EngineCommand, engine_command
from launcher.engine.diagnose import diagnose
from launcher.engine.stages import stage_of
from launcher.errors import EngineError, PreconditionError
from launcher.gateway.keyring import VARIABLE
from launcher.gateway.replicas import Activity, Endpoint, Replicas
from launcher.plan.placement import Placement
from launcher.plan.plan import Plan
from launcher.profile.load import LoadedProfile
from launcher.profile.model import ExternalEngine
from launcher.supervise.child import Exit
from launcher.supervise.engine import NO_HEADERS, Engine, EngineSpec, Finding, ReplicaListener
from launcher.supervise.external import ExternalServer, ExternalWatch
from launcher.supervise.logfiles import engine_logger
from launcher.supervise.restart import RestartPolicy
from launcher.supervise.state import Phase
from launcher.supervise.supervisor import Supervisor
from launcher.up.prepare import Prepared
from launcher.up.snapshot import EngineView, progress_line, view_engine, view_external

# Gets a line worth saying, or '' when only figures moved.
Changed = Callable[[str], None]


class Host(Protocol):
    """Engines that run until told to stop, or until there is no point in going on."""

    membership: ExternalWatch  # servers that join and leave at run time

    async def run(self) -> None:
        """Until nothing runs any more."""

    def stop(self) -> None:
        """Ask everything to end; `run` returns when it has."""

    def kill(self) -> None:
        """End everything at once."""

    def views(self) -> tuple[EngineView, ...]:
        """Each engine as it is now."""

    def why_over(self) -> EngineError:
        """Why `run` returned without having been asked to."""


class Switchboard:
    """Carries the supervisor's word to the gateway's replicas, so that neither knows the other."""

    def __init__(self, replicas: Replicas, headers: Mapping[str, str] | None = None) -> None:
        self._replicas = replicas
        self._headers = dict(headers or {})

    def starting(self, index: int, url: str, headers: Mapping[str, str] = NO_HEADERS) -> None:
        self._replicas.add(index, Endpoint(url, {**self._headers, **headers}))

    def ready(self, index: int) -> None:
        self._replicas.ready(index)

    def down(self, index: int, reason: str) -> None:
        self._replicas.down(index, reason)

    def activity(self, index: int) -> Activity:
        return self._replicas.activity(index)


class Since:
    """When each engine entered the phase that it is in, in seconds since the epoch."""

    def __init__(self) -> None:
        self._entered: dict[int, tuple[str, float]] = {}

    def of(self, index: int, phase: str) -> float:
        known, at = self._entered.get(index, ("", 0.0))
        if known != phase:
            self._entered[index] = (phase, at := time.time())
        return at


class VllmHost:
    """vLLM servers that we start and supervise."""

    def __init__(
        self, loaded: LoadedProfile, prepared: Prepared, logs: Path, listener: ReplicaListener, changed: Changed
    ) -> None:
        self._loaded = loaded
        self._prepared = prepared
        self._logs = logs
        self._changed = changed
        self._started = time.time()
        self._since = Since()
        self._said: dict[int, str] = {}
        profile = loaded.profile
        self._supervisor = Supervisor(
            [self._spec(placement) for placement in prepared.plan.placements],
            listener,
            policy=RestartPolicy.of(profile.restart),
            timeouts=profile.timeouts,
            warmup=profile.warmup,
            base_dir=loaded.base_dir,
            environment={name: value for name, value in os.environ.items() if name != VARIABLE},  # not the engine's
            on_change=self._engine_changed,
        )
        self.membership = ExternalWatch(  # servers that run elsewhere may join these engines, and leave again
            (),
            listener,
            health_path="/health",
            headers={},
            timeouts=profile.timeouts,
            on_change=lambda server: changed(server_line(server)),
            first_index=len(prepared.plan.placements),
        )

    async def run(self) -> None:
        guests = asyncio.create_task(self.membership.run())
        try:
            self._supervisor.start()
            await self._supervisor.run()
        finally:
            guests.cancel()

    def stop(self) -> None:
        self._supervisor.stop()

    def kill(self) -> None:
        self._supervisor.kill()

    def views(self) -> tuple[EngineView, ...]:
        own = [
            view_engine(engine, self._since.of(engine.spec.index, engine.state.phase))
            for engine in self._supervisor.engines
        ]
        return (*own, *views_of(self.membership, self._since))

    def why_over(self) -> EngineError:
        profile = self._loaded.profile
        first = next(engine for engine in self._supervisor.engines if engine.state.phase is Phase.FAILED)
        crashes = len(first.state.crashes)
        tried = "" if crashes == 1 else f" ({crashes} times within {profile.restart.window:g} s, no restart left)"
        log_file = self._logs / f"engine-{first.spec.index}.log"
        return EngineError(
            f"engine {first.spec.index} failed{tried}: {first.state.reason}",
            f"{first.state.remedy}\nIts log: {log_file}".strip(),
        )

    def _spec(self, placement: Placement) -> EngineSpec:
        return EngineSpec(
            index=placement.replica,
            command=lambda: self._command(placement),
            model=self._loaded.profile.model.public_name or "",
            sees_images=sees_images(self._prepared.plan),
            diagnose=self._diagnose,
            stage_of=lambda line: None if (stage := stage_of(line)) is None else str(stage),
            logger=engine_logger(placement.replica, self._logs, self._loaded.profile.logging),
        )

    def _command(self, placement: Placement) -> EngineCommand:
        """Asked for anew at each attempt, each time with a free port and a new key, which only the launcher knows."""
        assert self._prepared.build is not None
        return engine_command(
            self._loaded.profile,
            placement,
            port=free_port(),
            model_path=self._prepared.model_path,
            build=self._prepared.build,
            text_only=self._prepared.plan.is_text_only,
            base_dir=self._loaded.base_dir,
            api_key=secrets.token_urlsafe(32),
        )

    def _diagnose(self, lines: Sequence[str], ended: Exit) -> Finding:
        found = diagnose(lines, self._loaded.profile, ended.code, ended.signal)
        return Finding(found.cause, found.remedy, found.retry_helps)

    def _engine_changed(self, engine: Engine) -> None:
        line = progress_line(engine, time.time() - self._started, len(self._supervisor.engines))
        gist = re.sub(r" ?(\d+ ?%|\d+/\d+)", "", line)  # a share that grows is for the status line, not for a line each
        moved = self._said.get(engine.spec.index) != gist
        self._said[engine.spec.index] = gist
        self._changed(line if moved else "")


class ExternalHost:
    """OpenAI-compatible servers that run already."""

    def __init__(
        self, loaded: LoadedProfile, engine: ExternalEngine, listener: ReplicaListener, changed: Changed
    ) -> None:
        self._changed = changed
        self._since = Since()
        self._stopped = asyncio.Event()
        self.membership = ExternalWatch(
            engine.urls,
            listener,
            health_path=engine.health_path,
            headers=external_headers(engine),
            timeouts=loaded.profile.timeouts,
            on_change=lambda server: changed(server_line(server)),
        )

    async def run(self) -> None:
        watching = asyncio.create_task(self.membership.run())
        stopped = asyncio.create_task(self._stopped.wait())
        try:
            await asyncio.wait({watching, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                watching.result()  # it ends only by a bug of ours, which shows here
        finally:
            watching.cancel()
            stopped.cancel()

    def stop(self) -> None:
        self._stopped.set()

    kill = stop

    def views(self) -> tuple[EngineView, ...]:
        return views_of(self.membership, self._since)

    def why_over(self) -> EngineError:
        return EngineError("watching the external servers ended", "This is a bug: please report it with the log.")


def views_of(watch: ExternalWatch, since: Since) -> tuple[EngineView, ...]:
    """The servers that run elsewhere, as they are now."""
    return tuple(view_external(server, since.of(server.index, str(server.ready))) for server in watch.servers)


def server_line(server: ExternalServer) -> str:
    """What to say when a server that runs elsewhere has changed."""
    return f"{server.url}: {'ready' if server.ready else server.reason}"


def sees_images(plan: Plan) -> bool:
    """Whether the model has a vision tower and the profile lets pictures in; not known counts as no."""
    return plan.shape is not None and plan.shape.vision is not None and plan.profile.model.images_per_prompt != 0


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
