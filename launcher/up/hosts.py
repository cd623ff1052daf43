"""The two ways to have engines, behind one face: vLLM servers of our own, and servers that run elsewhere."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

from launcher.engine.command import EngineCommand, engine_command
from launcher.errors import EngineError, PreconditionError
from launcher.gateway.metrics import Sample
from launcher.gateway.replicas import Activity, Endpoint, Replicas
from launcher.plan.placement import Placement
from launcher.profile.load import LoadedProfile
from launcher.profile.model import ExternalEngine, Profile, TimeoutsSection
from launcher.supervise.engine import KEPT_ENDS, NO_HEADERS, EngineEnd, ReplicaListener
from launcher.supervise.external import Care, Departures, ExternalServer, ExternalWatch, HealthCheck
from launcher.supervise.logfiles import engine_logger
from launcher.supervise.warmup import warmup_requests
from launcher.up.engines import Changed, OwnEngines, Since, sees_images
from launcher.up.keys import ENGINE_KEY
from launcher.up.prepare import Prepared
from launcher.up.snapshot import EngineView, view_external
from launcher.up.status import status_url


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

    def ends(self) -> tuple[EngineEnd, ...]:
        """The last ends that nobody asked for, the oldest first."""

    def samples(self) -> Iterable[Sample]:
        """Metrics of what runs here, in the gateway's table of them."""

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


class VllmHost:
    """vLLM servers that we start and supervise, each on a free port of loopback, with a key that only we know."""

    def __init__(
        self,
        loaded: LoadedProfile,
        prepared: Prepared,
        logs: Path,
        listener: ReplicaListener,
        changed: Changed,
        departures: Departures,
    ) -> None:
        self._loaded, self._prepared = loaded, prepared
        self._since = Since()
        logging_section, timeouts = loaded.profile.logging, loaded.profile.timeouts
        self._engines = OwnEngines(
            loaded,
            prepared,
            listener,
            changed,
            command=self._command,
            logger=lambda index: engine_logger(index, logs, logging_section),
            where_logged=lambda index: str(logs / f"engine-{index}.log"),
        )
        self.membership = ExternalWatch(  # servers that run elsewhere may join these engines, and leave again
            (),
            listener,
            health=HealthCheck(every_s=timeouts.probe_interval),
            headers={},
            timeouts=timeouts,
            on_change=lambda server: changed(server_line(server)),
            departures=departures,
            care=care_of(loaded, sees_images=sees_images(prepared.plan)),
            first_index=len(prepared.plan.placements),
        )

    async def run(self) -> None:
        guests = asyncio.create_task(self.membership.run())
        try:
            await self._engines.run()
        finally:
            guests.cancel()

    def stop(self) -> None:
        self._engines.stop()

    def kill(self) -> None:
        self._engines.kill()

    def views(self) -> tuple[EngineView, ...]:
        return (*self._engines.views(), *views_of(self.membership, self._since))

    def ends(self) -> tuple[EngineEnd, ...]:
        both = (*self._engines.ends(), *self.membership.ends)
        return tuple(sorted(both, key=lambda end: end.at)[-KEPT_ENDS:])

    def samples(self) -> Iterable[Sample]:
        return self._engines.samples()

    def why_over(self) -> EngineError:
        return self._engines.why_over()

    def _command(self, placement: Placement) -> EngineCommand:
        assert self._prepared.build is not None
        return engine_command(
            self._loaded.profile,
            placement,
            port=free_port(),
            model_path=self._prepared.model_path,
            build=self._prepared.build,
            text_only=self._prepared.plan.is_text_only,
            node=self._prepared.node,
            base_dir=self._loaded.base_dir,
            api_key=secrets.token_urlsafe(32),
        )


class ExternalHost:
    """Servers that run already: OpenAI-compatible ones, or the engines of this profile, each under a launcher of its own."""

    def __init__(
        self,
        urls: Sequence[str],
        listener: ReplicaListener,
        changed: Changed,
        departures: Departures,
        *,
        health: HealthCheck,
        headers: Mapping[str, str],
        timeouts: TimeoutsSection,
        care: Care | None,
    ) -> None:
        self._since = Since()
        self._stopped = asyncio.Event()
        self.membership = ExternalWatch(
            urls,
            listener,
            health=health,
            headers=headers,
            timeouts=timeouts,
            on_change=lambda server: changed(server_line(server)),
            departures=departures,
            care=care,
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

    def ends(self) -> tuple[EngineEnd, ...]:
        return tuple(self.membership.ends)

    def samples(self) -> Iterable[Sample]:
        return ()  # they have metrics of their own

    def why_over(self) -> EngineError:
        return EngineError("watching the external servers ended", "This is a bug: please report it with the log.")


def external_health(engine: ExternalEngine, timeouts: TimeoutsSection) -> HealthCheck:
    """As the profile says of servers that run elsewhere."""
    return HealthCheck(engine.health_path, timeouts.probe_interval)


def care_of(loaded: LoadedProfile, *, sees_images: bool) -> Care | None:
    """The profile's warm-up for servers that nobody else warms; None where it does not name their model."""
    profile = loaded.profile
    if profile.model.public_name is None:
        return None
    requests = partial(warmup_requests, profile.warmup, sees_images=sees_images, base_dir=loaded.base_dir)
    return Care(profile.model.public_name, requests)


def asks_for_an_image(profile: Profile) -> bool:
    """Whether a warm-up picture was asked for: what a server elsewhere sees, only the profile can say."""
    return "image" in profile.warmup.model_fields_set and profile.warmup.image != "none"


# `launcher engine` says on a port of its own whether its engine is warmed and well, which vLLM's /health does not.
# It is cheap to ask, and says beforehand that an engine is going to stop: so it is asked each second.
ENGINES_OF_OURS = HealthCheck("/ready", every_s=1.0, base=status_url)


def views_of(watch: ExternalWatch, since: Since) -> tuple[EngineView, ...]:
    """The servers that run elsewhere, as they are now."""
    return tuple(view_external(server, since.of(server.index, str(server.ready))) for server in watch.servers)


def server_line(server: ExternalServer) -> str:
    """What to say when a server that runs elsewhere has changed."""
    return f"{server.url}: {'ready' if server.ready else server.reason}"


def remote_headers(environ: Mapping[str, str]) -> dict[str, str]:
    """What engines under launchers of their own ask for, where they were given a key."""
    key = environ.get(ENGINE_KEY)
    return {"Authorization": f"Bearer {key}"} if key else {}


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
