"""Traces: which requests have one, how it goes on into the engine, and the way of what was traced to whoever sends it.

A request is looked at once at its beginning and once at its end, and only where the profile has gateway.tracing. What
is left then waits in a queue of bounded length for a thread, which makes spans of it and sends them: a collector that
is slow or gone makes no request wait, it loses spans, which are counted.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from launcher.gateway.access import AccessEntry

if TYPE_CHECKING:
    from launcher.gateway.heads import RequestHead

log = logging.getLogger("launcher.gateway")
FLUSH_S = 0.5
BATCH = 256  # spans in one message to the collector
MAX_WAITING = 8192  # spans that wait for the collector; more are lost
CLOSE_S = 2.0  # how long close() waits for the collector
PARENT, STATE = b"traceparent:", b"tracestate:"
_SAMPLED = 1
# https://www.w3.org/TR/trace-context/: later versions may have more behind the flags
_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?").fullmatch


class Parent(NamedTuple):
    """The span that a client was in when it asked."""

    trace_id: int
    span_id: int
    is_sampled: bool


class Trace:
    """One request's place in a trace. ``parent_id`` 0: the trace begins here."""

    __slots__ = ("is_sampled", "parent_id", "route", "span_id", "trace_id")

    def __init__(self, trace_id: int, span_id: int, parent_id: int, route: str) -> None:
        self.trace_id, self.span_id, self.parent_id, self.route = trace_id, span_id, parent_id, route
        self.is_sampled = trace_id != 0


NOT_SAMPLED = Trace(0, 0, 0, "")
Ended = tuple[Trace, AccessEntry]


class SpanExporter(Protocol):
    """Whoever makes spans and sends them. Used by the tracer's thread, but for ``shutdown``."""

    def export(self, ended: Sequence[Ended], epoch: float) -> str:
        """Sends them; ``epoch`` is the event loop's zero in wall-clock seconds. Returns why that failed, or ''."""

    def shutdown(self) -> None:
        """Has an ``export`` that goes on give up."""


class Tracer:
    """``begin``, ``refused`` and ``end`` belong to the event loop, the exporter to a thread.

    ``sample`` is the share of requests to trace, of those whose client does not say.
    """

    def __init__(self, exporter: SpanExporter, sample: float) -> None:
        self.sent = 0  # written by the thread
        self._exporter, self._sample = exporter, sample
        self._waiting: deque[Ended] = deque()
        self._too_many = self._failed = 0
        self._is_failing = False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="tracer", daemon=True)
        self._thread.start()

    def begin(self, head: RequestHead, route: str) -> None:
        """Decides whether a request is traced; if so, its head gets the trace, and tells the engine of it."""
        given = [line for line in head.lines if line[:12].lower() == PARENT]
        parent = read_parent(given[0][12:]) if len(given) == 1 else None
        if not (random.random() < self._sample if parent is None else parent.is_sampled):
            head.trace = NOT_SAMPLED  # the engine traces none of its own accord; a client's header passes as it came
            return
        trace_id, parent_id = (parent.trace_id, parent.span_id) if parent is not None else (_new_id(128), 0)
        head.trace = trace = Trace(trace_id, _new_id(64), parent_id, route)
        gone = (PARENT,) if parent is not None else (PARENT, STATE)  # a state belongs to the trace that it came with
        lines = [line for line in head.lines if not line[:12].lower().startswith(gone)]
        head.lines = [*lines, b"traceparent: 00-%032x-%016x-01" % (trace_id, trace.span_id)]

    def end(self, trace: Trace, entry: AccessEntry) -> None:
        """A traced request has ended; ``entry`` is its line in the access log, a copy of its own."""
        if len(self._waiting) >= MAX_WAITING:
            self._too_many += 1
        else:
            self._waiting.append((trace, entry))

    def refused(self, head: RequestHead, entry: AccessEntry) -> None:
        """The same of a request that was refused before much was known of it."""
        if head.trace is None:
            self.begin(head, "")
        assert head.trace is not None
        if head.trace.is_sampled:
            self.end(head.trace, entry)

    @property
    def lost(self) -> int:
        """How many spans did not reach the collector."""
        return self._too_many + self._failed

    async def close(self) -> None:
        """Sends what is left; a collector that does not answer within CLOSE_S is not waited for."""
        self._closing.set()
        await asyncio.to_thread(self._end_thread)

    def _end_thread(self) -> None:
        self._thread.join(CLOSE_S)
        self._exporter.shutdown()
        if self._thread.is_alive():
            log.warning("traces: the collector did not answer in time; %d spans are lost", len(self._waiting))

    def _work(self) -> None:
        is_last = False
        while not is_last:
            is_last = self._closing.wait(FLUSH_S)
            while self._waiting:
                self._send([self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))])

    def _send(self, ended: list[Ended]) -> None:
        try:
            why = self._exporter.export(ended, time.time() - time.monotonic())
        except Exception:  # a bug of ours must cost spans only
            log.exception("traces: spans were lost")
            self._failed += len(ended)
            return
        if why:
            self._failed += len(ended)
            if not self._is_failing:
                log.warning("traces: spans cannot be sent and are dropped: %s", why)
        else:
            self.sent += len(ended)
            if self._is_failing:
                log.warning("traces: spans can be sent again; %d were lost", self.lost)
        self._is_failing = bool(why)

    def __repr__(self) -> str:
        return f"<Tracer waiting={len(self._waiting)} sent={self.sent} lost={self.lost}>"


def read_parent(value: bytes) -> Parent | None:
    """What a traceparent header says; None where it is none, as the standard has it."""
    found = _TRACEPARENT(value.strip(b" \t"))
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == b"ff" or (version == b"00" and more) or not int(trace_id, 16) or not int(span_id, 16):
        return None
    return Parent(int(trace_id, 16), int(span_id, 16), bool(int(flags, 16) & _SAMPLED))


def _new_id(bits: int) -> int:
    return random.getrandbits(bits) or 1  # 0 is none
