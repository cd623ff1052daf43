"""The fuzzer itself: mutates inputs, keeps those that reach new lines, and makes what fails as small as it can.

The same seed gives the same inputs, as long as the code is the same. Nothing but the standard library is needed, and it
runs wherever the tests do.
"""

from __future__ import annotations

import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any, NamedTuple

import launcher.gateway

WATCHED = launcher.gateway.__path__[0]
MAX_BYTES = 1024  # of an input, unless a seed is longer
MAX_CPU_S = 2.0  # an input that takes longer than this has failed: time must grow with the length and no faster
MINIMISE_S = 10.0
TRACED = 8  # one run in so many is watched: watching makes it ten times slower
INTERESTING = (
    b"",
    b"\x00",
    b"\xff",
    b"\r",
    b"\n",
    b"\r\n",
    b"\r\n\r\n",
    b" ",
    b"\t",
    b"0",
    b"-1",
    b"ffffffff",
    b"9" * 30,
)
Run = Callable[[bytes], None]
Edge = tuple[CodeType, int, int]


class Target(NamedTuple):
    """What is fuzzed: ``run`` raises where something is wrong; ``words`` are what its inputs are made of."""

    run: Run
    seeds: tuple[bytes, ...]
    words: tuple[bytes, ...]


class Failure(NamedTuple):
    """An input that fails, as small as it could be made."""

    data: bytes
    error: str  # the traceback
    original: bytes


class Result(NamedTuple):
    """What a run came to."""

    executions: int
    edges: int
    corpus: int
    failure: Failure | None


class TooSlow(Exception):
    """The input took more than MAX_CPU_S of this process's time."""


class Coverage:
    """Which steps from line to line the gateway's code has taken."""

    def __init__(self) -> None:
        self.seen: set[Edge] = set()
        self._now: set[Edge] = set()
        self._watched: dict[CodeType, bool] = {}

    def is_new(self, run: Run, data: bytes) -> bool:
        """Runs an input. Raises what it raises. True: it went where none has gone before."""
        self._now = set()
        sys.settrace(self._enter)
        try:
            run(data)
        finally:
            sys.settrace(None)
        fresh = not self._now <= self.seen
        self.seen |= self._now
        return fresh

    def _enter(self, frame: FrameType, event: str, arg: Any) -> Callable[..., Any] | None:
        code = frame.f_code
        watched = self._watched.get(code)
        if watched is None:
            watched = self._watched[code] = code.co_filename.startswith(WATCHED)
        if not watched:
            return None
        note, last = self._now.add, 0

        def step(frame: FrameType, event: str, arg: Any) -> Any:
            nonlocal last
            note((code, last, frame.f_lineno))
            last = frame.f_lineno
            return step

        return step


def fuzz(target: Target, *, seed: int = 0, seconds: float | None = None, executions: int | None = None) -> Result:
    """Runs until the time or the number is used up, or an input fails."""
    chance, coverage, count = random.Random(seed), Coverage(), 0
    until = None if seconds is None else time.monotonic() + seconds
    corpus: list[bytes] = []
    with cpu_limit() as rearm:
        for data in _inputs(target, corpus, chance):
            if (executions is not None and count >= executions) or (until is not None and time.monotonic() >= until):
                break
            count += 1
            if not count % 64:
                rearm()
            try:
                if count > len(target.seeds) and count % TRACED:
                    target.run(data)
                elif coverage.is_new(target.run, data):
                    corpus.append(data)
            except Exception:
                failure = Failure(*minimise(target.run, data), data)
                return Result(count, len(coverage.seen), len(corpus), failure)
    return Result(count, len(coverage.seen), len(corpus), None)


def _inputs(target: Target, corpus: list[bytes], chance: random.Random) -> Iterator[bytes]:
    """The seeds, then mutations of what is in the corpus by then, the recent ones more often."""
    yield from target.seeds
    while True:
        pool = corpus or list(target.seeds)
        recent = chance.random() < 0.5
        parent = chance.choice(pool[-16:] if recent else pool)
        yield mutate(parent, pool, target.words, chance)


def mutate(data: bytes, pool: list[bytes], words: tuple[bytes, ...], chance: random.Random) -> bytes:
    """One to a few changes."""
    longest = max(MAX_BYTES, len(data))
    for _ in range(chance.choice((1, 1, 1, 2, 2, 3, 5, 8))):
        data = _change(data, pool, words, chance)[:longest]
    return data


def _change(data: bytes, pool: list[bytes], words: tuple[bytes, ...], chance: random.Random) -> bytes:
    a, b = sorted((chance.randint(0, len(data)), chance.randint(0, len(data))))
    b = min(b, a + chance.choice((1, 4, 16, 4096)))
    kind = chance.randrange(9)
    if kind == 0:  # a byte becomes another
        return data[:a] + bytes([chance.randrange(256)]) + data[a + 1 :]
    if kind == 1:  # a bit is turned
        return data[:a] + bytes([data[a] ^ 1 << chance.randrange(8)]) + data[a + 1 :] if a < len(data) else data
    if kind == 2:  # a piece goes
        return data[:a] + data[b:]
    if kind == 3:  # a piece comes twice, or many times
        return data[:b] + data[a:b] * chance.choice((1, 2, 50)) + data[b:]
    if kind == 4:  # something odd comes in
        return data[:a] + chance.choice(INTERESTING) + data[a:]
    if kind == 5:  # a piece of another input takes a piece's place
        other = chance.choice(pool)
        c, d = sorted((chance.randint(0, len(other)), chance.randint(0, len(other))))
        return data[:a] + other[c:d] + data[b:]
    if kind == 6:  # a word takes a piece's place
        return data[:a] + chance.choice(words) + data[b:]
    return data[:a] + chance.choice(words) + data[a:]  # a word comes in


def minimise(run: Run, data: bytes) -> tuple[bytes, str]:
    """The smallest input found that fails in the same place, and its traceback."""
    where, error = _fails(run, data)
    until = time.monotonic() + MINIMISE_S
    size = max(1, len(data) // 2)
    while size and time.monotonic() < until:
        at, shorter = 0, False
        while at < len(data) and time.monotonic() < until:
            less = data[:at] + data[at + size :]
            there, told = _fails(run, less)
            if there == where and there:
                data, error, shorter = less, told, True
            else:
                at += size
        size = size if shorter and size == 1 else size // 2
    return data, error


def _fails(run: Run, data: bytes) -> tuple[str, str]:
    """Where an input fails, and the traceback; '' and '' if it does not."""
    try:
        with cpu_limit():
            run(data)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = "" if isinstance(error, TooSlow) else f"{last.filename}:{last.lineno}"
        return f"{type(error).__name__} {place}", traceback.format_exc()
    return "", ""


@contextmanager
def cpu_limit() -> Iterator[Callable[[], None]]:
    """Raises TooSlow when MAX_CPU_S of this process's time are used up; what is given starts them anew."""

    def too_slow(number: int, frame: FrameType | None) -> None:
        raise TooSlow(f"more than {MAX_CPU_S:g} s")

    def rearm() -> None:
        signal.setitimer(signal.ITIMER_VIRTUAL, MAX_CPU_S)

    before = signal.signal(signal.SIGVTALRM, too_slow)
    rearm()
    try:
        yield rearm
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
