"""Server-sent events: takes a stream apart into events and leaves the bytes of each as they are."""

from __future__ import annotations

import re

_EVENT_END = re.compile(rb"\n\r?\n").search


class EventParser:
    """Cuts a stream that comes in any pieces into whole events, comments among them; lines end with LF or CRLF."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The events that are complete now, each with the blank line that ends it."""
        overlap = max(0, len(self._held) - 2)  # the end may have begun in what was held
        data = self._held + data
        events, start = [], 0
        found = _EVENT_END(data, overlap)
        while found is not None:
            events.append(data[start : found.end()])
            start = found.end()
            found = _EVENT_END(data, start)
        self._held = data[start:]
        return events

    def end(self) -> bytes:
        """What is left: an event that was never ended."""
        held, self._held = self._held, b""
        return held


def event_data(event: bytes) -> bytes | None:
    """The data of an event, its lines joined; None where it has none, such as a comment."""
    if event.startswith(b"data:") and event.count(b"\n") == 2:  # one line, as vLLM sends
        data = event[5:].strip(b"\r\n")
        return data[1:] if data.startswith(b" ") else data
    lines = [line[5:] for line in event.replace(b"\r\n", b"\n").split(b"\n") if line.startswith(b"data:")]
    return b"\n".join(line[1:] if line.startswith(b" ") else line for line in lines) if lines else None
