"""How far a measurement is, for people."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Task, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.text import Text


class Count(MofNCompleteColumn):
    """So many of all; nothing where nobody knows how many there will be."""

    def render(self, task: Task) -> Text:
        return Text() if task.total is None else super().render(task)


class Progress:
    """A bar on stderr where that is a terminal, a line for each step elsewhere."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        self._bar = Bar(
            TextColumn("{task.description}", markup=False), BarColumn(), Count(), TimeElapsedColumn(), console=self._console,
            disable=not self._console.is_terminal,
        )  # fmt: skip
        self._task: Any = None

    @contextmanager
    def shown(self) -> Iterator[Progress]:
        with self._bar:
            yield self

    def say(self, text: str) -> None:
        self._console.print(text)

    def begin(self, steps: int | None) -> None:
        """``steps`` None: nobody knows how many there will be."""
        self._task = self._bar.add_task("", total=steps)

    def at(self, text: str) -> None:
        self._bar.update(self._task, description=text)
        if not self._console.is_terminal:
            self.say(text)

    def step(self) -> None:
        self._bar.advance(self._task)
