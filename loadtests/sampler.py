"""Looks at something again and again while a load runs."""

from __future__ import annotations

import threading
from typing import Self


class Sampler:
    """Calls ``look`` every ``every_s`` seconds, in a thread of its own, from its beginning to its end as a context manager."""

    every_s = 1.0

    def __init__(self) -> None:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(self.every_s):
            self.look()

    def look(self) -> None:
        """One look; what it finds is the subclass' to keep."""
        raise NotImplementedError
