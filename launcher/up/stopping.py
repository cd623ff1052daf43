"""Stopping in two steps: told once, what runs finishes; told again, it is ended at once."""

from __future__ import annotations

import asyncio
from typing import Any


class Stopping:
    """What was asked so far. Written by the event loop's signal handlers only."""

    def __init__(self) -> None:
        self._asked, self._hurried = asyncio.Event(), asyncio.Event()

    @property
    def is_hurried(self) -> bool:
        """Whether it was told a second time."""
        return self._hurried.is_set()

    def ask(self) -> bool:
        """Told to stop, or told again; whether it is the first time."""
        is_first = not self._asked.is_set()
        (self._asked if is_first else self._hurried).set()
        return is_first

    async def wait_asked(self) -> None:
        """Until it is told to stop."""
        await self._asked.wait()

    async def unless_hurried(self, work: asyncio.Task[Any], at_most_s: float | None = None) -> None:
        """Until ``work`` is done, or it is told a second time, or the time is over; ``work`` goes on."""
        hurry = asyncio.create_task(self._hurried.wait())
        await asyncio.wait({work, hurry}, return_when=asyncio.FIRST_COMPLETED, timeout=at_most_s)
        hurry.cancel()

    def __repr__(self) -> str:
        return f"<Stopping {'at once' if self.is_hurried else 'asked' if self._asked.is_set() else 'not asked'}>"
