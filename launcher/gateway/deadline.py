"""A deadline that moves often and passes seldom: its timer is touched only when it would come too late."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable


class Deadline:
    """Calls ``passed`` once the deadline has come. Moving it later, or clearing it, costs an assignment."""

    __slots__ = ("_at", "_loop", "_passed", "_timer", "_timer_at")

    def __init__(self, loop: asyncio.AbstractEventLoop, passed: Callable[[], None]) -> None:
        self._loop, self._passed = loop, passed
        self._at: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    def move(self, seconds: float) -> None:
        """The deadline is ``seconds`` from now."""
        self._at = at = self._loop.time() + seconds
        if self._timer is None:
            self._arm(at)
        elif self._timer_at > at:
            self._timer.cancel()
            self._arm(at)

    @property
    def at(self) -> float:
        """When it is, in the loop's time; infinite: there is none."""
        return math.inf if self._at is None else self._at

    def clear(self) -> None:
        """There is no deadline for now; a timer that still runs will find nothing to do."""
        self._at = None

    def cancel(self) -> None:
        """There will be none any more. Its owner is let go of, which so needs no garbage collector."""
        self._at = None
        self._passed = _nothing
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, at: float) -> None:
        self._timer, self._timer_at = self._loop.call_at(at, self._on_timer), at

    def _on_timer(self) -> None:
        self._timer = None
        if self._at is None:
            return
        if self._loop.time() < self._at - 0.001:  # event loops round to milliseconds
            self._arm(self._at)
        else:
            self._at = None
            self._passed()


def _nothing() -> None:
    """What a cancelled deadline does."""
