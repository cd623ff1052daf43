"""Heads that are like the one before but for their length: told by comparing bytes, and not taken apart again."""

from __future__ import annotations

import sys

from launcher.gateway.heads import RequestHead, ResponseHead, parse_request_head, parse_response_head

_LENGTH_BEGINS = b"\r\ncontent-length:"
LONGEST_LENGTH = 18  # digits, and blanks around them


class Frame:
    """The bytes of a head around the number of its Content-Length: another head with the same ones says the same."""

    __slots__ = ("_after", "_around", "_before", "_has_length")

    def __init__(self, raw: bytes) -> None:
        """``raw``: a head that was read and found good, up to the CRLF of its last line; it has one length at most."""
        lower = raw.lower()
        at = lower.find(_LENGTH_BEGINS)
        self._has_length = at >= 0
        start = at + len(_LENGTH_BEGINS) if at >= 0 else len(raw)
        end = raw.find(b"\r\n", start) if at >= 0 else start
        self._before, self._after = raw[:start], raw[end:]
        self._around = len(raw) - (end - start)
        if lower.find(_LENGTH_BEGINS, end) >= 0:  # an engine that says it twice: the two have to be compared each time
            self._around = sys.maxsize

    def length_in(self, raw: bytes) -> int:
        """The Content-Length of a head that is the same but for that, 0 if there is none; -1: it is another head."""
        before, after = self._before, self._after
        if not raw.startswith(before) or not raw.endswith(after):
            return -1
        if not self._has_length:
            return 0 if len(raw) == self._around else -1
        size = len(raw) - self._around
        if size <= 0:
            return -1
        number = raw[len(before) : len(before) + size].strip(b" \t")
        return int(number) if number.isdigit() and size <= LONGEST_LENGTH else -1


NO_FRAME = Frame(b"")


class RequestHeads:
    """Reads the heads of one client. Most are like the one before, but for their length: those are not taken apart.

    Kept for as long as its connection, and no longer: the lines may hold a key.
    """

    __slots__ = ("_frame", "_last")

    def __init__(self) -> None:
        self._frame = NO_FRAME
        self._last: RequestHead | None = None

    def read(self, raw: bytes) -> RequestHead:
        """As ``parse_request_head``."""
        last = self._last
        if last is not None:
            length = self._frame.length_in(raw)
            if length >= 0:
                return last.again(length)
        head = parse_request_head(raw)
        self._frame, self._last = Frame(raw), head.again(head.content_length)
        return head


class ResponseHeads:
    """Reads the heads of engines' answers. Within one second most are alike: the last stream's and the last other's."""

    __slots__ = ("_frames",)

    def __init__(self) -> None:
        self._frames: list[tuple[Frame, ResponseHead]] = []

    def read(self, raw: bytes) -> ResponseHead:
        """As ``parse_response_head``; the lines of what it returns are not to be changed."""
        for frame, known in self._frames:
            length = frame.length_in(raw)
            if length >= 0:
                return known.again(length)
        head = parse_response_head(raw)
        is_counted = head.content_length is not None
        others = [(frame, known) for frame, known in self._frames if (known.content_length is not None) != is_counted]
        self._frames = [(Frame(raw), head), *others]
        return head
