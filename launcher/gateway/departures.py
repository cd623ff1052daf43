"""Replicas that leave: they are sent nothing more, finish what they have, and are then forgotten."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from launcher.gateway.replicas import Replicas

log = logging.getLogger("launcher.gateway")
CHECK_S = 0.1  # how often one that leaves is looked at: has it finished?


class Departures:
    """Who is leaving. ``leaving`` maps an index to what is to be called once it is gone; written here only."""

    def __init__(self, replicas: Replicas) -> None:
        self.leaving: dict[int, Callable[[], None]] = {}
        self._replicas = replicas
        self._check: asyncio.TimerHandle | None = None

    def begin(self, index: int, gone: Callable[[], None] = lambda: None) -> None:
        """Sends a replica nothing more and forgets it once it is idle. Raises KeyError for one that is not known."""
        if index in self.leaving:
            return
        self._replicas.drain(index)
        self.leaving[index] = gone
        self._look_after(0)

    def cancel(self, index: int) -> None:
        """One that was leaving stays after all, and gets requests again."""
        if self.leaving.pop(index, None) is not None:
            self._replicas.undrain(index)

    def close(self) -> None:
        """Looks no more."""
        if self._check is not None:
            self._check.cancel()

    def _look_after(self, seconds: float) -> None:
        if self._check is None:
            self._check = asyncio.get_running_loop().call_later(seconds, self._forget_idle)

    def _forget_idle(self) -> None:
        self._check = None
        for replica in [replica for replica in self._replicas.all if replica.index in self.leaving]:
            if not replica.in_flight:
                self._replicas.remove(replica.index)
                log.info("replica %d has left", replica.index)
                self.leaving.pop(replica.index)()
        if self.leaving:
            self._look_after(CHECK_S)

    def __repr__(self) -> str:
        return f"<Departures leaving={sorted(self.leaving)}>"
