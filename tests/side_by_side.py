"""How `pytest -n 2` (pytest-xdist), which `make test` is, puts the tests side by side.

A real engine keeps one core busy, and a test of one mostly waits for it. So one process has all of these, and the other has
the rest, folder by folder; whichever is through takes the next folder. A test that is marked ``alone`` has the machine to
itself: it begins once the other process is between two tests, and the other goes on once the last of several such tests in
a row is over.
"""

from __future__ import annotations

import fcntl
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

FIRST = ("e2e", "engine")  # with real engines
LAST = ("loadtests", "process")  # they measure paces, or call an engine hung within seconds: they are all alone


def folder_of(nodeid: str) -> str:
    """The folder of tests/ in which a test lies; its file's name where that is tests/ itself."""
    return nodeid.partition("::")[0].removeprefix("tests/").partition("/")[0]


def unit_of(nodeid: str) -> str:
    """Tests of one unit run in one process, in their order, and share its fixtures: those of a folder without its folders."""
    return "engines" if folder_of(nodeid) in FIRST else nodeid.partition("::")[0].rpartition("/")[0]


def place(item: pytest.Item) -> tuple[bool, bool, bool]:
    """Sorts by what comes first."""
    folder = folder_of(item.nodeid)
    return folder in LAST, folder not in FIRST, is_alone(item)


def is_alone(item: pytest.Item) -> bool:
    return folder_of(item.nodeid) in LAST or item.get_closest_marker("alone") is not None


def scheduler(config: pytest.Config, log: Any) -> Any:
    """What hands the units to the processes, in their order."""
    from xdist.scheduler import LoadScopeScheduling

    class Units(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return unit_of(nodeid)

    config.option.loadscopereorder = False
    return Units(config, log)


class Turns:
    """Whether other tests may run beside those of this process.

    Locks of the kernel, which a process that dies gives back. Whoever wants to be alone holds the door while it waits, so
    that nobody who comes later gets in first.
    """

    def __init__(self) -> None:
        self._door, self._room = (Path(__file__).with_name(name).open() for name in ("conftest.py", "__init__.py"))
        self._is_alone = False

    def begin(self, is_alone: bool) -> None:
        if self._is_alone:
            return
        fcntl.flock(self._door, fcntl.LOCK_EX)
        fcntl.flock(self._room, fcntl.LOCK_EX if is_alone else fcntl.LOCK_SH)
        if not is_alone:
            fcntl.flock(self._door, fcntl.LOCK_UN)
        self._is_alone = is_alone

    def end(self, stays_alone: bool) -> None:
        if self._is_alone and stays_alone:
            return
        self._is_alone = False
        for lock in (self._room, self._door):
            fcntl.flock(lock, fcntl.LOCK_UN)


class OneOfSeveral:
    """A plugin for the processes among which the tests are shared out."""

    def __init__(self) -> None:
        self._turns = Turns()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=place)

    # First, so as to be around the time limit too: waiting for a turn is not the test's time.
    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Generator[None, object, object]:
        self._turns.begin(is_alone(item))
        try:
            return (yield)
        finally:
            self._turns.end(nextitem is not None and is_alone(nextitem))
