"""The same bytes in several ways: what reads them must not notice."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Any

SINGLE = 256


def cuts(data: bytes) -> Iterator[list[bytes]]:
    """The same bytes in one piece, in single bytes (the first ones), and in pieces that depend on the bytes alone."""
    yield [data]
    single = min(len(data), SINGLE)
    yield [*(data[i : i + 1] for i in range(single)), *(data[i : i + 50] for i in range(single, len(data), 50))]
    state, at, pieces = zlib.crc32(data), 0, []
    while at < len(data):
        state = state * 1103515245 + 12345 & 0x7FFFFFFF
        size = (1, 2, 3, 7, 20, 100, 1000)[state >> 16 & 0xFFFF and (state >> 16) % 7]
        pieces.append(data[at : at + size])
        at += size
    yield pieces


def alike(data: bytes, read: Callable[[list[bytes]], Any]) -> Any:
    """What ``read`` makes of the bytes, which must not depend on how they come."""
    whole, *others = [read(pieces) for pieces in cuts(data)]
    for other in others:
        assert other == whole, f"cut otherwise: {other!r}, in one piece: {whole!r}"
    return whole
