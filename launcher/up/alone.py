"""One engine of a profile without a gateway: what a container or a node runs, for gateways that run elsewhere.

It is planned, checked, started, warmed, watched and restarted as under `launcher up`; whether it may be used is said on
a port of its own (see ``status``).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
from collections.abc import AsyncIterator, Mapping

from launcher.engine.command import EngineCommand, engine_command
from launcher.gateway.replicas import Activity
from launcher.plan.placement import Placement
from launcher.profile.load import LoadedProfile
from launcher.profile.model import VllmEngine
from launcher.supervise.engine import NO_HEADERS
from launcher.supervise.engine_client import EngineClient
from launcher.supervise.logfiles import engine_console, launcher_console
from launcher.up.engines import OwnEngines
from launcher.up.keys import ENGINE_KEY
from launcher.up.prepare import Prepared
from launcher.up.snapshot import Audience, Snapshot
from launcher.up.status import Status
from launcher.up.stopping import Stopping

log = logging.getLogger("launcher.up")
COUNT_S = 2.0  # how often the engine is asked what it has in hand, which elsewhere the gateway knows
COUNT_TIMEOUT_S = 2.0


def one_replica(loaded: LoadedProfile) -> LoadedProfile:
    """The profile with a single replica: each of the others has a launcher of its own."""
    engine = loaded.profile.engine
    assert isinstance(engine, VllmEngine)
    alone = loaded.profile.model_copy(update={"engine": engine.model_copy(update={"replicas": 1})})
    return dataclasses.replace(loaded, profile=alone)


class Word:
    """What the supervisor says of the engine, passed on to whoever asks; and the engine's own count of its work."""

    def __init__(self, status: Status) -> None:
        self._status = status
        self._requests, self._tokens = 0, -1.0
        self._progress_at: float | None = None
        self._counting: asyncio.Task[None] | None = None
        self._client: EngineClient | None = None

    def starting(self, index: int, url: str, headers: Mapping[str, str] = NO_HEADERS) -> None:
        self._status.say("starting")
        self._client = EngineClient(url, "")
        self._requests, self._tokens = 0, -1.0  # an earlier process's are gone with it

    def ready(self, index: int) -> None:
        self._status.say("")
        self._counting = asyncio.create_task(self._count())

    def down(self, index: int, reason: str) -> None:
        self._status.say(reason)
        self.close()

    def activity(self, index: int) -> Activity:
        return Activity(self._requests, self._progress_at)

    def close(self) -> None:
        """Asks the engine no more."""
        if self._counting is not None:
            self._counting.cancel()
            self._counting = None

    async def _count(self) -> None:
        assert self._client is not None
        loop = asyncio.get_running_loop()
        try:
            while True:
                found = await self._client.load(COUNT_TIMEOUT_S)
                if found is not None:  # else it is too busy to say, and what was known last still holds
                    if found.tokens != self._tokens:
                        self._progress_at = loop.time()
                    self._requests, self._tokens = found
                await asyncio.sleep(COUNT_S)
        finally:
            await self._client.close()


class LoneEngine:
    """The engine at ``host:port`` until told to stop. Written by its own event loop only."""

    def __init__(
        self,
        loaded: LoadedProfile,
        prepared: Prepared,
        audience: Audience,
        *,
        host: str,
        port: int,
        status: Status,
        notice_s: float,
    ) -> None:
        """``notice_s``: how long it still takes requests after it has said that it stops, for gateways to hear of it."""
        self._loaded, self._prepared, self._audience = loaded, prepared, audience
        self._host, self._port, self._status, self._notice_s = host, port, status, notice_s
        launcher_console(loaded.profile.logging)
        timeouts = loaded.profile.timeouts
        # Nobody else waits for its streams: between the polite signal and the other lies the whole drain.
        patient = timeouts.model_copy(update={"stop": timeouts.drain + timeouts.stop})
        self._word = Word(status)
        self._engines = OwnEngines(
            loaded,
            prepared,
            self._word,
            self._changed,
            command=self._command,
            logger=engine_console,
            where_logged=lambda _: "the lines above",
            timeouts=patient,
        )
        status.told = self._engines.samples
        self._stopping = Stopping()

    @property
    def stopped_at_once(self) -> bool:
        """Whether it was told a second time to stop."""
        return self._stopping.is_hurried

    def request_stop(self) -> None:
        """The first call lets running requests finish; the second ends them."""
        if self._stopping.ask():
            self._audience.said("stopping: running requests finish (once more to stop at once)")

    async def run(self) -> None:
        """Until its process is gone. Raises EngineError when it ended unasked for the last time."""
        async with self._status.served(self._host, self._port + 1), self._supervised() as engine:
            stop = asyncio.create_task(self._stopping.wait_asked())
            await asyncio.wait({engine, stop}, return_when=asyncio.FIRST_COMPLETED)
            stop.cancel()
            if engine.done():
                engine.result()
                raise self._engines.why_over()
            await self._end(engine)
        self._audience.said("stopped")

    @contextlib.asynccontextmanager
    async def _supervised(self) -> AsyncIterator[asyncio.Task[None]]:
        task = asyncio.create_task(self._engines.run())
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self._word.close()
            self._status.say("stopped")

    async def _end(self, engine: asyncio.Task[None]) -> None:
        self._status.say("stopping")
        await self._stopping.unless_hurried(engine, at_most_s=self._notice_s)
        self._engines.stop()
        await self._stopping.unless_hurried(engine)
        if not engine.done():
            self._engines.kill()
        await engine

    def _command(self, placement: Placement) -> EngineCommand:
        assert self._prepared.build is not None
        return engine_command(
            self._loaded.profile,
            placement,
            host=self._host,
            port=self._port,
            model_path=self._prepared.model_path,
            build=self._prepared.build,
            text_only=self._prepared.plan.is_text_only,
            node=self._prepared.node,
            base_dir=self._loaded.base_dir,
            api_key=os.environ.get(ENGINE_KEY, ""),
        )

    def _changed(self, line: str) -> None:
        if line:
            self._audience.said(line)
        self._audience.changed(self.snapshot())

    def snapshot(self) -> Snapshot:
        """As it is now."""
        return Snapshot(
            name=self._loaded.profile.name,
            state=self._status.reason or "ready",
            url=f"http://{self._host}:{self._port}",
            model=self._loaded.profile.model.public_name or "",
            engines=self._engines.views(),
        )

    def __repr__(self) -> str:
        return f"<LoneEngine {self._host}:{self._port} {self._status!r}>"
