"""What is fuzzed, what counts as a failure, and how a failing input is made small. Standard library only."""

from __future__ import annotations

import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NamedTuple

MAX_BYTES = 1024  # of an input, unless a seed is longer
MAX_CPU_S = 2.0  # an input that takes longer than this has failed: time must grow with the length and no faster
MINIMISE_S = 10.0
Run = Callable[[bytes], None]


class Target(NamedTuple):
    """What is fuzzed: ``run`` raises where something is wrong; ``words`` are what its inputs are made of."""

    run: Run
    seeds: tuple[bytes, ...]
    words: tuple[bytes, ...]
    watched: tuple[str, ...] = ("launcher",)  # packages whose branches lead the fuzzer; each takes time to instrument

    @property
    def max_bytes(self) -> int:
        """Of an input."""
        return max(MAX_BYTES, *map(len, self.seeds))


class Fault(NamedTuple):
    """How an input fails."""

    place: str  # type and line: two inputs with the same one fail for the same reason
    error: str  # the traceback


class Failure(NamedTuple):
    """An input that fails, as small as it could be made."""

    data: bytes
    error: str


class TooSlow(BaseException):
    """The input took more than MAX_CPU_S of this process's time. No Exception: what is fuzzed catches those."""


def failure_of(run: Run, data: bytes) -> Failure | None:
    """Runs an input; None: nothing is wrong."""
    fault = fault_of(run, data)
    return minimise(run, data, fault) if fault else None


def fault_of(run: Run, data: bytes) -> Fault | None:
    try:
        with cpu_limit():
            run(data)
    except (Exception, TooSlow) as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = "" if isinstance(error, TooSlow) else f"{last.filename}:{last.lineno}"
        return Fault(f"{type(error).__name__} {place}", traceback.format_exc())
    return None


def minimise(run: Run, data: bytes, fault: Fault) -> Failure:
    """The smallest input found that fails in the same place."""
    error, until = fault.error, time.monotonic() + MINIMISE_S
    size = max(1, len(data) // 2)
    while size and time.monotonic() < until:
        at, shorter = 0, False
        while at < len(data) and time.monotonic() < until:
            less = data[:at] + data[at + size :]
            other = fault_of(run, less)
            if other and other.place == fault.place:
                data, error, shorter = less, other.error, True
            else:
                at += size
        size = size if shorter and size == 1 else size // 2
    return Failure(data, error)


@contextmanager
def cpu_limit() -> Iterator[None]:
    """Raises TooSlow when MAX_CPU_S of this process's time are used up."""

    def too_slow(number: int, frame: FrameType | None) -> None:
        raise TooSlow(f"more than {MAX_CPU_S:g} s")

    before = signal.signal(signal.SIGVTALRM, too_slow)
    signal.setitimer(signal.ITIMER_VIRTUAL, MAX_CPU_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
