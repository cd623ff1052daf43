"""The life of one engine as a pure state machine: (state, event, now) → (state, actions). No clock, no I/O, no log.

    stopped ─Start→ starting ─Healthy→ warming ─Warmed→ ready
                      ▲  │                │               │
                      │  └── Exited, Overdue, Hung, WarmupFailed ──┐
                      │                                            ▼
                   backoff ◄──── process gone, budget left ──── killing (while a process is left)
                                                                   │
    stopped ◄─ stopping ◄─Stop─ (any)          failed ◄── budget spent, or no restart can help

Every path ends in ready, stopped or failed, and failed always carries the reason.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from launcher.supervise.restart import RestartPolicy, recent_crashes, restart_delay_s


class Phase(StrEnum):
    STOPPED = "stopped"
    STARTING = "starting"
    WARMING = "warming"
    READY = "ready"
    KILLING = "killing"  # failed; waiting for the last of its processes to go
    BACKOFF = "backoff"
    STOPPING = "stopping"
    FAILED = "failed"


RUNNING = frozenset({Phase.STARTING, Phase.WARMING, Phase.READY})
FINAL = frozenset({Phase.STOPPED, Phase.FAILED})


@dataclass(frozen=True)
class EngineState:
    """What is known of one engine. ``attempt`` numbers its processes; ``crashes`` are times within the window.

    An engine that was ever ready has proved its configuration, so that what its log says of a later failure cannot
    make a restart pointless: it gets its whole budget.
    """

    phase: Phase = Phase.STOPPED
    attempt: int = 0
    crashes: tuple[float, ...] = ()
    since: float = 0.0
    reason: str = ""
    remedy: str = ""
    retry_helps: bool = True
    ever_ready: bool = False
    restart_at: float | None = None

    def __repr__(self) -> str:
        why = f" ({self.reason})" if self.reason else ""
        return f"<Engine {self.phase} attempt={self.attempt} crashes={len(self.crashes)}{why}>"


# Events: what happened.


@dataclass(frozen=True)
class Start:
    """Somebody wants the engine."""


@dataclass(frozen=True)
class Healthy:
    """/health answered 200 for the first time."""


@dataclass(frozen=True)
class Warmed:
    """Warm-up requests and canary were answered well."""


@dataclass(frozen=True)
class Failed:
    """It does not work: overdue at the start, a bad warm-up, hung. Its processes are still there."""

    reason: str
    remedy: str = ""
    retry_helps: bool = True
    is_hung: bool = False


@dataclass(frozen=True)
class Exited:
    """Its process is gone with all its descendants. ``reason`` is the diagnosis from its log."""

    reason: str
    remedy: str = ""
    retry_helps: bool = True


@dataclass(frozen=True)
class BackoffOver:
    """The wait before a restart has passed."""


@dataclass(frozen=True)
class Stop:
    """Somebody wants it gone."""


Event = Start | Healthy | Warmed | Failed | Exited | BackoffOver | Stop


# Actions: what the supervisor does about it.


@dataclass(frozen=True)
class Spawn:
    """Start a process and wait for /health."""


@dataclass(frozen=True)
class WarmUp:
    """Send the warm-up requests and the canary."""


@dataclass(frozen=True)
class AnnounceReady:
    """Tell the gateway; begin to watch liveness."""


@dataclass(frozen=True)
class AnnounceDown:
    """Tell the gateway, with the reason."""

    reason: str


@dataclass(frozen=True)
class Kill:
    """End the process and all its descendants at once."""


@dataclass(frozen=True)
class Terminate:
    """Ask the process to stop; kill what is left after the profile's time."""


@dataclass(frozen=True)
class WakeAt:
    """Send BackoffOver at this time."""

    at: float


@dataclass(frozen=True)
class GiveUp:
    """Restarts end here: explain."""


Action = Spawn | WarmUp | AnnounceReady | AnnounceDown | Kill | Terminate | WakeAt | GiveUp


def unasked_end(before: Phase, after: Phase, event: Event) -> str | None:
    """Which end that nobody asked for the event was, by the phases: exited, hung or start; None: it was none."""
    if before not in RUNNING or after in RUNNING or after is Phase.STOPPING:
        return None
    if before is not Phase.READY:
        return "start"
    return "hung" if isinstance(event, Failed) and event.is_hung else "exited"


def transition(
    state: EngineState, event: Event, now: float, policy: RestartPolicy
) -> tuple[EngineState, tuple[Action, ...]]:
    """What becomes of ``state``. An event that means nothing in a phase changes nothing."""
    match event:
        case Start():
            return _start(state, now)
        case Healthy() if state.phase is Phase.STARTING:
            return _enter(state, Phase.WARMING, now), (WarmUp(),)
        case Warmed() if state.phase is Phase.WARMING:
            return _enter(replace(state, ever_ready=True), Phase.READY, now), (AnnounceReady(),)
        case Failed() if state.phase in RUNNING:
            failed = replace(state, reason=event.reason, remedy=event.remedy, retry_helps=event.retry_helps)
            return _enter(failed, Phase.KILLING, now), (AnnounceDown(event.reason), Kill())
        case Exited():
            return _exited(state, event, now, policy)
        case BackoffOver() if state.phase is Phase.BACKOFF:
            return _spawn(state, now)
        case Stop():
            return _stop(state, now)
    return state, ()


def _enter(state: EngineState, phase: Phase, now: float) -> EngineState:
    return replace(state, phase=phase, since=now)


def _start(state: EngineState, now: float) -> tuple[EngineState, tuple[Action, ...]]:
    if state.phase not in FINAL:
        return state, ()
    return _spawn(replace(state, crashes=(), ever_ready=False), now)  # a fresh wish is a fresh budget


def _spawn(state: EngineState, now: float) -> tuple[EngineState, tuple[Action, ...]]:
    fresh = replace(state, attempt=state.attempt + 1, restart_at=None, retry_helps=True, reason="", remedy="")
    return _enter(fresh, Phase.STARTING, now), (Spawn(),)


def _exited(
    state: EngineState, event: Exited, now: float, policy: RestartPolicy
) -> tuple[EngineState, tuple[Action, ...]]:
    if state.phase is Phase.STOPPING:
        return _enter(replace(state, reason="", remedy=""), Phase.STOPPED, now), ()
    if state.phase is Phase.KILLING:  # the reason for the kill stands; what the log says of the kill itself is noise
        return _crashed(state, now, policy)
    if state.phase not in RUNNING:
        return state, ()
    dead = replace(state, reason=event.reason, remedy=event.remedy, retry_helps=event.retry_helps)
    after, actions = _crashed(dead, now, policy)
    return after, (AnnounceDown(event.reason), *actions)


def _crashed(state: EngineState, now: float, policy: RestartPolicy) -> tuple[EngineState, tuple[Action, ...]]:
    crashes = (*recent_crashes(state.crashes, now, policy), now)
    delay_s = restart_delay_s(crashes, policy) if state.retry_helps or state.ever_ready else None
    counted = replace(state, crashes=crashes)
    if delay_s is None:
        return _enter(counted, Phase.FAILED, now), (GiveUp(),)
    at = now + delay_s
    return _enter(replace(counted, restart_at=at), Phase.BACKOFF, now), (WakeAt(at),)


def _stop(state: EngineState, now: float) -> tuple[EngineState, tuple[Action, ...]]:
    if state.phase in RUNNING:
        # only a ready engine has work to finish; one that is still starting is not waited for
        end: Action = Terminate() if state.phase is Phase.READY else Kill()
        return _enter(state, Phase.STOPPING, now), (AnnounceDown("stopping"), end)
    if state.phase is Phase.KILLING:
        return _enter(state, Phase.STOPPING, now), ()
    if state.phase is Phase.BACKOFF:
        return _enter(replace(state, restart_at=None), Phase.STOPPED, now), ()
    return state, ()
