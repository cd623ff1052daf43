"""A plan becomes a running endpoint: engines and gateway wired together, drained and stopped in order.

Prints nothing: what happens is told to an `Audience`, and to the run directory's record, which `launcher ps` reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from launcher.control import CONTROL_SOCKET, GATEWAY_SOCKET
from launcher.errors import PreconditionError
from launcher.gateway.admin import AdminDoor
from launcher.gateway.audit import AuditLog
from launcher.gateway.sockets import listen_unix
from launcher.profile.load import LoadedProfile
from launcher.profile.model import ExternalEngine, Profile
from launcher.supervise.discovery import follow
from launcher.supervise.logfiles import launcher_console, launcher_logger
from launcher.supervise.rundir import RunDir
from launcher.supervise.state import FINAL
from launcher.up.control_process import ControlProcess
from launcher.up.front import make_gateway, make_replicas
from launcher.up.hosts import (
    ENGINES_OF_OURS,
    ExternalHost,
    Host,
    Switchboard,
    VllmHost,
    asks_for_an_image,
    care_of,
    external_headers,
    external_health,
    remote_headers,
)
from launcher.up.keys import keys_path
from launcher.up.prepare import Prepared
from launcher.up.snapshot import Audience, EngineView, Snapshot
from launcher.up.stopping import Stopping

log = logging.getLogger("launcher.up")
RECORD_VERSION = 1
STOP_MARGIN_S = 15.0  # for killing what is left and closing; `down` kills the launcher after drain + stop + this


class Deployment:
    """One profile, running. All of it is written by its own event loop; ``request_stop`` is for that loop's signals."""

    def __init__(
        self,
        loaded: LoadedProfile,
        prepared: Prepared,
        rundir: RunDir,
        audience: Audience,
        *,
        logs_to_console: bool = False,
    ) -> None:
        """``logs_to_console``: the launcher's log to stderr and requests to stdout, as a container has it; else files."""
        self.profile: Profile = loaded.profile
        self.rundir = rundir
        self.audience = audience
        own = self.profile.logging.dir
        self.logs: Path = loaded.base_dir / own if own else rundir.path / "logs"
        if logs_to_console:
            launcher_console(self.profile.logging)
        else:
            launcher_logger(self.logs, self.profile.logging)
        self._profile_path = loaded.path
        self._audit = AuditLog(
            self.logs / "audit.log", max_bytes=self.profile.logging.max_size, keep=self.profile.logging.keep
        )
        self._replicas = make_replicas(prepared.plan)
        control = rundir.path / CONTROL_SOCKET
        access_logs = None if logs_to_console else self.logs
        self._gateway = make_gateway(loaded, prepared, self._replicas, access_logs, self._audit, control)
        self._keys_path = keys_path(loaded).absolute()
        keys = None if self.profile.gateway.auth == "none" else self._keys_path
        self._control = ControlProcess(
            rundir.path, keys_file=keys, audit_log=self._audit.path.absolute(), on_change=self._control_changed
        )
        self._host = self._make_host(loaded, prepared)
        self._gateway.told = self._host.samples
        self._stopping = Stopping()
        self._started = time.time()
        self._state = "starting"
        self._was_ready = False
        self._url = ""

    def _make_host(self, loaded: LoadedProfile, prepared: Prepared) -> Host:
        engine, timeouts, departures = self.profile.engine, self.profile.timeouts, self._gateway.departures
        care = None
        if prepared.engines:
            urls, health, headers = prepared.engines, ENGINES_OF_OURS, remote_headers(os.environ)
        elif isinstance(engine, ExternalEngine):
            urls, health, headers = engine.urls, external_health(engine, timeouts), external_headers(engine)
            care = care_of(loaded, sees_images=asks_for_an_image(self.profile))
        else:
            switchboard = Switchboard(self._replicas)
            return VllmHost(loaded, prepared, self.logs, switchboard, self._changed, departures)
        switchboard = Switchboard(self._replicas, headers)
        return ExternalHost(
            urls, switchboard, self._changed, departures, health=health, headers=headers, timeouts=timeouts, care=care
        )

    def _control_changed(self) -> None:
        self._gateway.control_runs = self._control.child is not None

    @property
    def stopped_at_once(self) -> bool:
        """Whether it was told a second time to stop."""
        return self._stopping.is_hurried

    def request_stop(self) -> None:
        """The first call drains and stops; the second stops at once."""
        if self._stopping.ask():
            self._say("stopping: no new requests, running ones finish (once more to stop at once)")

    async def run(self) -> None:
        """From a bound port to the last process gone. Raises EngineError when no engine is left."""
        host, port = await self._gateway.start()
        self._url = f"{'https' if self._gateway.certificate else 'http'}://{browsable(host)}:{port}"
        if self._gateway.certificate is not None and self._gateway.certificate.warning:
            self._say(f"warning: {self._gateway.certificate.warning}")
        self._say(f"gateway listens on {self._url}; it answers 503 until an engine is ready")
        self._publish()
        async with self._administered(), self._sharing():
            await self._serve()

    @contextlib.asynccontextmanager
    async def _sharing(self) -> AsyncIterator[None]:
        """Counts the gateways in front of the same engines, where the profile says that there are others."""
        name = self.profile.gateway.peers
        if name is None:
            yield
            return
        # Nobody listed: this one is not either, as happens at its start.
        counting = asyncio.create_task(
            follow(name, 0, lambda addresses: self._gateway.share_engines(max(1, len(addresses))))
        )
        try:
            yield
        finally:
            counting.cancel()
            await asyncio.gather(counting, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def _administered(self) -> AsyncIterator[None]:
        """The admin socket and the control app, beside what serves: where they cannot be, serving goes on without."""
        path = self.rundir.path / GATEWAY_SOCKET
        door = AdminDoor(self._gateway, name=self.profile.name, membership=self._host.membership, audit=self._audit)
        try:
            listener = await listen_unix(door.connection, path)
        except PreconditionError as error:
            self._say(f"warning: {error.message} {error.hint} Without it there are no live figures and no /api.")
            yield
            return
        control = asyncio.create_task(self._control.run())
        try:
            yield
        finally:
            control.cancel()
            await asyncio.gather(control, return_exceptions=True)
            listener.close()
            door.close()

    async def _serve(self) -> None:
        """Until the last engine's process is gone. Raises EngineError when none is left."""
        engines = asyncio.create_task(self._host.run())
        stop = asyncio.create_task(self._stopping.wait_asked())
        try:
            await asyncio.wait({engines, stop}, return_when=asyncio.FIRST_COMPLETED)
            if engines.done():
                engines.result()
                raise self._host.why_over()
            await self._drain()
            self._host.stop()
            await self._stopping.unless_hurried(engines)
            if not engines.done():
                self._host.kill()
            await engines
            self._say("stopped")
        finally:
            for task in (engines, stop):
                task.cancel()
            await asyncio.gather(engines, stop, return_exceptions=True)
            await self._gateway.close()
            self._state = "stopped"
            self._publish()

    async def _drain(self) -> None:
        """Let running requests finish, within timeouts.drain or until told again to stop."""
        self._state = "draining"
        self._publish()
        self._gateway.stop_admitting("the endpoint is stopping")
        drained = asyncio.create_task(self._gateway.drained(self.profile.timeouts.drain))
        await self._stopping.unless_hurried(drained)
        left = drained.result() if drained.done() else self._in_flight
        drained.cancel()
        if left:
            self._say(f"{left} requests were still running and are cut off")

    def _changed(self, line: str) -> None:
        if line:
            self._say(line)
        if self._state not in ("draining", "stopped"):
            self._state = standing(self._host.views())
        self._publish()
        if self._state == "ready" and not self._was_ready:
            self._was_ready = True
            with going_on_without("the terminal or log that is written to"):
                self.audience.ready(self.snapshot())

    def _say(self, line: str) -> None:
        with going_on_without("the terminal or log that is written to"):
            self.audience.said(line)

    def snapshot(self) -> Snapshot:
        """The deployment as it is now."""
        return Snapshot(
            name=self.profile.name,
            state=self._state,
            url=self._url,
            model=self.profile.model.public_name or "",
            engines=self._host.views(),
            in_flight=self._in_flight,
            queued=self._gateway.queued,
            ends=self._host.ends(),
        )

    @property
    def _in_flight(self) -> int:
        return sum(replica.in_flight for replica in self._replicas.all)

    def _publish(self) -> None:
        snapshot = self.snapshot()
        record = {
            "schema_version": RECORD_VERSION,
            "pid": os.getpid(),
            "profile": str(self._profile_path),
            "logs": str(self.logs),
            "keys_file": str(self._keys_path),
            "started": self._started,
            "stop_within_s": self.profile.timeouts.drain + self.profile.timeouts.stop + STOP_MARGIN_S,
            **dataclasses.asdict(snapshot),
        }
        with going_on_without(f"the record in {self.rundir.path}"):
            self.rundir.write(record)
        with going_on_without("the terminal or log that is written to"):
            self.audience.changed(snapshot)


@contextlib.contextmanager
def going_on_without(what: str) -> Iterator[None]:
    """A terminal that was closed or a disk that is full must not end what serves, nor cut its drain short."""
    try:
        yield
    except OSError as error:
        log.warning("going on without %s: %s", what, error.strerror or error)


def standing(engines: tuple[EngineView, ...]) -> str:
    """How a deployment with these engines stands: ready, degraded, starting or failed."""
    phases = [engine.phase for engine in engines]
    if phases and all(phase == "ready" for phase in phases):
        return "ready"
    if "ready" in phases:
        return "degraded"
    return "failed" if phases and all(phase in FINAL for phase in phases) else "starting"


def browsable(host: str) -> str:
    """An address to paste: every-interface addresses are no destination."""
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
