"""Chunked transfer coding, read strictly: as boundaries only, for bytes that pass through, or as payload."""

from __future__ import annotations

import re

# A chunk's size (to 4 GiB), an extension that is ignored, CRLF; and the beginning of that.
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})(?: {0,8};[\t\x20-\x7e\x80-\xff]{0,1024})?\r\n").match
_SIZE_BEGUN = re.compile(rb"[0-9A-Fa-f]{0,8}(?: {0,8}(?:;[\t\x20-\x7e\x80-\xff]{0,1024})?)\r?").fullmatch
_TRAILER_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*\r\n").match
MAX_TRAILERS = 16384


class FramingError(ValueError):
    """The chunks are not what RFC 9112 allows; the message says what was wrong."""


def scan_chunks(data: bytes, start: int = 0) -> tuple[int, bool, int]:
    """Finds where the last whole chunk ends in ``data``, which begins at a chunk's size.

    Returns (boundary, is_end, needed): the offset after the last whole chunk, whether the body ends there, and how
    many bytes from the boundary the next chunk has in all (0: not known yet).
    """
    position, length = start, len(data)
    while position < length:
        found = _SIZE(data, position)
        if found is None:
            if _SIZE_BEGUN(data, position):
                return position, False, 0
            raise FramingError("a chunk does not begin with its size")
        size, after = int(found[1], 16), found.end()
        if size == 0:
            end = skip_trailers(data, after)
            return (position, False, 0) if end < 0 else (end, True, 0)
        end = after + size + 2
        if end > length:
            return position, False, end - position
        if data[end - 2 : end] != b"\r\n":
            raise FramingError("a chunk is longer than its size")
        position = end
    return position, False, 0


# How one whole chunk begins that is so many bytes long with its framing, if it is written the usual way.
CHUNK_STARTS: dict[int, bytes] = {
    len(start) + size + 2: start for start, size in ((b"%x\r\n" % size, size) for size in range(1, 4096))
}


def is_one_chunk(data: bytes) -> bool:
    """Whether ``data`` is one whole chunk and not the last: how engines send an event, so this is tried first.

    False also for one that is long, or written in an unusual way.
    """
    start = CHUNK_STARTS.get(len(data))
    return start is not None and data.startswith(start) and data.endswith(b"\r\n")


def skip_trailers(data: bytes, position: int) -> int:
    """The offset after the trailer section that begins at ``position``; -1: it is not complete."""
    begin = position
    while True:
        if data.startswith(b"\r\n", position):
            return position + 2
        line = _TRAILER_LINE(data, position)
        if line is None:
            rest = data[position:]
            if b"\n" in rest or len(data) - begin > MAX_TRAILERS:
                raise FramingError("the trailers are not header lines")
            return -1
        position = line.end()


class ChunkDecoder:
    """Takes the payload out of chunks that arrive in any pieces."""

    __slots__ = ("_held", "_left", "ended", "rest")

    def __init__(self) -> None:
        self._left = 0  # bytes left of the chunk at hand with its CRLF; 0: a size comes next
        self._held = b""  # an incomplete size line, chunk end or trailer section
        self.ended = False
        self.rest = b""  # what came after the end

    def feed(self, data: bytes) -> list[bytes]:
        """The payload in ``data``. Raises FramingError."""
        if self._held:
            data, self._held = self._held + data, b""
        pieces: list[bytes] = []
        position, length = 0, len(data)
        while position < length:
            if self._left > 2:
                piece = data[position : position + self._left - 2]
                pieces.append(piece)
                position += len(piece)
                self._left -= len(piece)
            elif self._left:
                if length - position < 2:
                    break
                if data[position : position + 2] != b"\r\n":
                    raise FramingError("a chunk is longer than its size")
                position, self._left = position + 2, 0
            else:
                found = _SIZE(data, position)
                if found is None:
                    if not _SIZE_BEGUN(data, position):
                        raise FramingError("a chunk does not begin with its size")
                    break
                size = int(found[1], 16)
                if size == 0:
                    end = skip_trailers(data, found.end())
                    if end < 0:
                        break
                    self.ended, self.rest = True, data[end:]
                    return pieces
                position, self._left = found.end(), size + 2
        self._held = data[position:]
        return pieces
