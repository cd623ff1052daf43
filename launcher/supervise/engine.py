"""What the supervisor keeps of one engine, and the faces of those it deals with: the gateway and the command."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from launcher.supervise.child import Child, Exit
from launcher.supervise.engine_client import EngineClient
from launcher.supervise.state import EngineState

NO_HEADERS: Mapping[str, str] = MappingProxyType({})
KEPT_ENDS = 20
TAIL_LINES = 2000  # of an engine's log, kept for the diagnosis; vLLM's tracebacks run to hundreds


class Activity(Protocol):
    """What the gateway knows of a replica. ``last_byte_at`` is in the event loop's time."""

    @property
    def in_flight(self) -> int: ...

    @property
    def last_byte_at(self) -> float | None: ...


class ReplicaListener(Protocol):
    """Who is told which replicas can take requests, and tells how those are doing: the gateway, in production."""

    def starting(self, index: int, url: str, headers: Mapping[str, str] = NO_HEADERS) -> None:
        """``headers`` are those that this start of the engine asks for, beside any that all do."""

    def ready(self, index: int) -> None: ...

    def down(self, index: int, reason: str) -> None: ...

    def activity(self, index: int) -> Activity: ...


class Command(Protocol):
    """What to run, and where it will listen."""

    @property
    def argv(self) -> Sequence[str]: ...

    @property
    def url(self) -> str: ...

    @property
    def headers(self) -> Mapping[str, str]:
        """What every request to it needs, such as its API key."""

    def environment(self, inherited: Mapping[str, str]) -> Mapping[str, str]:
        """The whole environment of the process."""


@dataclass(frozen=True)
class Finding:
    """Why an engine ended, for people; ``retry_helps`` is False where a restart would end in the same way."""

    reason: str
    remedy: str = ""
    retry_helps: bool = True


@dataclass(frozen=True)
class EngineEnd:
    """An end that nobody asked for; ``at`` in seconds since the epoch.

    ``cause``: as `state.unasked_end` has it, or lost: a server that runs elsewhere is no longer well.
    """

    at: float
    engine: int
    cause: str
    reason: str
    remedy: str = ""


def new_ends() -> deque[EngineEnd]:
    """For the last few of them."""
    return deque(maxlen=KEPT_ENDS)


class OtherHosts(Protocol):
    """The hosts beside this one that an engine runs on. They start together and end together."""

    async def gather(self, generation: int, on_step: Callable[[str], None]) -> None:
        """Until all are there and have been told to start."""

    async def until_fallen(self) -> Finding | None:
        """Why one of them no longer runs its part; None once all were told to end."""

    async def disband(self, reason: str) -> Finding | None:
        """End their parts. Which of them had ended before, and why; None: none had."""


@dataclass(frozen=True)
class EngineSpec:
    """One engine to keep running. ``command`` is asked anew for every attempt (a fresh port each time)."""

    index: int
    command: Callable[[], Command]
    model: str
    sees_images: bool
    diagnose: Callable[[Sequence[str], Exit], Finding]
    stage_of: Callable[[str], str | None]
    logger: logging.Logger
    others: OtherHosts | None = None


@dataclass
class Engine:
    """One engine's mutable side. ``state`` is written by the supervisor's loop only; ``child`` and ``client`` by the task
    of the running attempt; ``stage`` also by the reader of its log. ``probes`` are the tasks of the present phase."""

    spec: EngineSpec
    state: EngineState = field(default_factory=EngineState)
    child: Child | None = None
    client: EngineClient | None = None
    stage: str = ""
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL_LINES))
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    probes: set[asyncio.Task[None]] = field(default_factory=set)
    last_failure: str = ""
    ends: Counter[str] = field(default_factory=lambda: Counter(exited=0, hung=0, start=0))  # see state.unasked_end
