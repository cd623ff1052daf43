"""The looks at a deployment, for all who watch it: one a second however many they are, none while nobody does."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress

from launcher.errors import LauncherError

log = logging.getLogger("launcher.control")
EVERY_S = 1.0
STREAM_S = 900.0  # a stream ends and is asked for again, so that whoever has lost the right to look is found out
MOST_WATCHERS = 64
RETRY = b"retry: 1000\n\n"  # milliseconds until a browser asks again


class Crowded(LauncherError):
    """As many watch as may."""


class Feed:
    """Written by its event loop only. ``look`` runs in a thread, one at a time, and gives one line of JSON.

    A watcher holds nothing: it is given the newest look when it has taken the one before, and skips those between.
    """

    def __init__(
        self,
        look: Callable[[], bytes],
        *,
        every_s: float = EVERY_S,
        stream_s: float = STREAM_S,
        most_watchers: int = MOST_WATCHERS,
    ) -> None:
        self._look, self._every_s, self._stream_s, self._most = look, every_s, stream_s, most_watchers
        self.watchers = 0
        self.looks = 0
        self._seen = b""  # the newest look; empty: there is none, or the last one failed
        self._began_at = -math.inf  # of that look, in the loop's time
        self._looking = asyncio.Lock()
        self._turn = asyncio.Event()  # set, and replaced, when there is a new look
        self._is_over = asyncio.Event()  # nobody watches, or it is closed
        self._is_closed = False
        self._task: asyncio.Task[None] | None = None

    async def now(self) -> bytes:
        """A look that began less than ``every_s`` ago."""
        async with self._looking:
            return self._seen if self._is_fresh else await self._take()

    @contextmanager
    def place(self) -> Iterator[None]:
        """Meanwhile one more watches. Raises Crowded."""
        if self.watchers >= self._most:
            raise Crowded(
                f"{self.watchers} watch already, which is as many as may.", "Close a page, or try again later."
            )
        self.watchers += 1
        self._is_over.clear()
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            self.watchers -= 1
            if not self.watchers:
                self._is_over.set()

    async def events(self) -> AsyncIterator[bytes]:
        """The looks as server-sent events, for one who has a place."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._stream_s
        yield RETRY
        if self._is_fresh:
            yield event(self._seen)
        while loop.time() < until and not self._is_closed:
            await self._turn.wait()
            if not self._seen or self._is_closed:
                return
            yield event(self._seen)

    def close(self) -> None:
        """Ends all streams."""
        self._is_closed = True
        self._is_over.set()
        self._turn.set()

    @property
    def _is_fresh(self) -> bool:
        return bool(self._seen) and asyncio.get_running_loop().time() - self._began_at < self._every_s

    async def _run(self) -> None:
        """Looks until nobody watches."""
        try:
            while await self._is_due():
                async with self._looking:
                    await self._take()
        except Exception:  # nobody awaits this task: whoever watches is let go, and starts another by asking again
            log.exception("looking at the deployment failed: this is a bug")
            self._seen = b""
            self._tell()
        finally:
            self._task = None

    async def _is_due(self) -> bool:
        """Waits for the time of the next look; False: nobody wants it any more."""
        loop = asyncio.get_running_loop()
        while self.watchers and not self._is_closed:
            wait_s = self._began_at + self._every_s - loop.time()
            if wait_s <= 0:
                return True
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._is_over.wait()
        return False

    async def _take(self) -> bytes:
        began_at = asyncio.get_running_loop().time()
        self._seen = await asyncio.to_thread(self._look)
        self._began_at = began_at
        self.looks += 1
        self._tell()
        return self._seen

    def _tell(self) -> None:
        told, self._turn = self._turn, asyncio.Event()
        told.set()

    def __repr__(self) -> str:
        return f"<Feed watchers={self.watchers} looks={self.looks}>"


def event(seen: bytes) -> bytes:
    """A look as a server-sent event."""
    return b"event: watch\ndata: " + seen + b"\n\n"
