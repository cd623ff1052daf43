"""How a running deployment looks from outside: the view that `ps`, the status line and the record are made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from launcher.supervise.child import Child, start_time
from launcher.supervise.engine import Engine, EngineEnd
from launcher.supervise.external import ExternalServer
from launcher.supervise.state import RUNNING, Phase


@dataclass(frozen=True)
class EngineView:
    """One engine as `ps` and the status line show it. ``since`` is in seconds since the epoch."""

    index: int
    phase: str
    stage: str
    url: str
    since: float
    restarts: int
    last_failure: str
    pid: int | None = None
    pid_started: int | None = None
    guard_pid: int | None = None
    guard_started: int | None = None


@dataclass(frozen=True)
class Snapshot:
    """The deployment at a moment."""

    name: str
    state: str  # preparing, starting, ready, degraded, draining, failed, stopped
    url: str
    model: str
    engines: tuple[EngineView, ...]
    in_flight: int = 0
    queued: int = 0
    ends: tuple[EngineEnd, ...] = ()  # the last ones that nobody asked for, the oldest first


class Audience(Protocol):
    """Who is told what happens: the command line, in production."""

    def said(self, line: str) -> None:
        """A line of progress that is worth keeping."""

    def changed(self, snapshot: Snapshot) -> None:
        """Something moved; called often."""

    def ready(self, snapshot: Snapshot) -> None:
        """Every engine answers, for the first time."""


def processes_of(child: Child | None) -> dict[str, int | None]:
    """The fields of EngineView that tell an engine's process and its guard, for whoever has to end what is left of them."""
    if child is None:
        return {}
    return {
        "pid": child.pid,
        "pid_started": start_time(child.pid),
        "guard_pid": child.guard_pid,
        "guard_started": start_time(child.guard_pid),
    }


def view_engine(engine: Engine, since: float) -> EngineView:
    """An engine that we run; ``since`` in seconds since the epoch."""
    child, state = engine.child, engine.state
    return EngineView(
        index=engine.spec.index,
        phase=str(state.phase),
        stage=engine.stage,
        url=engine.client.url if engine.client and state.phase in RUNNING else "",
        since=since,
        restarts=max(0, state.attempt - 1),
        last_failure=engine.last_failure,
        **processes_of(child),
    )


def view_external(server: ExternalServer, since: float) -> EngineView:
    """A server that runs elsewhere."""
    phase = "asking" if server.ready is None else "ready" if server.ready else "down"
    return EngineView(server.index, phase, "", server.url, since, 0, server.reason)


def progress_line(engine: Engine, elapsed_s: float, total: int) -> str:
    """What to say of an engine's change, or '' when it is not worth a line."""
    who = f"engine {engine.spec.index}" if total > 1 else "engine"
    state = engine.state
    match state.phase:
        case Phase.STARTING:
            again = f" (attempt {state.attempt})" if state.attempt > 1 else ""
            return f"{who}: {engine.stage or 'starting'}{again}"
        case Phase.WARMING:
            return f"{who}: {engine.stage or 'warming up'}"
        case Phase.READY:
            return f"{who}: ready after {elapsed_s:.0f} s" if state.attempt == 1 else f"{who}: ready again"
        case Phase.KILLING:
            return f"{who}: {state.reason}; ending it"
        case Phase.BACKOFF:
            return f"{who}: {state.reason}; restart {state.attempt} follows"
        case Phase.FAILED:
            return f"{who}: failed: {state.reason}"
    return ""
