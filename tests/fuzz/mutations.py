"""Mutations of a target's seeds, which nothing guides: for short runs in the tests, wherever these run.

The same seed gives the same inputs. What looks for long is libFuzzer (atheris), which has no wheel for some machines.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice

from tests.fuzz.target import Failure, Target, failure_of

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


def try_mutations(target: Target, *, seed: int, executions: int) -> Failure | None:
    """The first failure among so many inputs."""
    tried = (failure_of(target.run, data) for data in islice(inputs(target, random.Random(seed)), executions))
    return next((failure for failure in tried if failure), None)


def inputs(target: Target, chance: random.Random) -> Iterator[bytes]:
    """The seeds, then mutations of them, without end."""
    yield from target.seeds
    while True:
        data = chance.choice(target.seeds)
        for _ in range(chance.choice((1, 1, 1, 2, 2, 3, 5, 8))):
            data = _change(data, target, chance)[: target.max_bytes]
        yield data


def _change(data: bytes, target: Target, chance: random.Random) -> bytes:
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
        other = chance.choice(target.seeds)
        c, d = sorted((chance.randint(0, len(other)), chance.randint(0, len(other))))
        return data[:a] + other[c:d] + data[b:]
    if kind == 6:  # a word takes a piece's place
        return data[:a] + chance.choice(target.words) + data[b:]
    return data[:a] + chance.choice(target.words) + data[a:]  # a word comes in
