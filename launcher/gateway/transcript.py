"""What a client has been given of a streamed answer: kept as raw bytes at next to no cost, read only when it is needed.

The text counts, not the tokens: vLLM sends one event for each token as a rule, but puts the tokens of several steps into
one where the stream is read slowly or ``--stream-interval`` says so. The events with content are thus a lower bound of
the tokens. An event without text is a token as well: half a character, or text that is held back for a stop string.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable
from typing import Final

import msgspec

from launcher.gateway.events import Choice, Event, read_event, read_events, read_identity
from launcher.gateway.framing import ChunkDecoder, FramingError
from launcher.gateway.reasons import Reason
from launcher.gateway.sse import EventParser, event_data

COMPACT_BYTES: Final = 128 * 1024  # raw bytes held before they are read into text: about 530 events of vLLM's
MAX_TEXT: Final = 4 * 1024 * 1024  # characters; a longer answer is not kept, and cannot be continued
RAW_END: Final = 1024  # bytes; vLLM's usage and what follows it take 300
ERROR_EVENT: Final = b'data: {"error"'  # within JSON a quote is escaped, so no text can look like this

_BETWEEN_CHUNKS = re.compile(rb"\n\n\r\n[0-9a-fA-F]{1,8}\r\ndata: ").sub
_FIRST_CHUNK = re.compile(rb"[0-9a-fA-F]{1,8}\r\ndata: ").match
_ERROR_CHUNK = re.compile(rb'[0-9a-fA-F]{1,8}\r\ndata: \{"error"').search


class Transcript:
    """One stream as its client has it. Written by the exchange that relays the stream."""

    __slots__ = (
        "_chunks",
        "_ends",
        "_events",
        "_framed",
        "_held",
        "_part",
        "_pieces",
        "_read_end",
        "_text",
        "_text_size",
        "_whole_only",
        "completion_tokens",
        "created",
        "fingerprint",
        "finish_reason",
        "has_role",
        "has_usage",
        "id",
        "is_done",
        "model",
        "obstacle",
        "prompt_tokens",
    )

    def __init__(self, framed: bool, whole_only: bool = False) -> None:
        """``framed``: the pieces are whole HTTP chunks as they came, else payload.

        ``whole_only``: an EventChanger stands between us and the client, so that half an event never gets there.
        """
        self._framed, self._whole_only = framed, whole_only
        self._pieces: list[bytes] = []
        self._held = 0  # bytes in them
        self._read_end = b""  # the last of the bytes that were read and dropped
        self._chunks = ChunkDecoder()
        self._events = EventParser()
        self._part = 0  # bytes of an event that has begun and not ended
        self._text: list[str] = []
        self._text_size = 0
        self._ends = array("I")  # for each event with content the text's length behind it; 0: it had no text
        self.id: str | None = None  # None: no event has come yet
        self.created: int | None = None
        self.model: str | None = None
        self.fingerprint: str | None = None
        self.has_role = False  # the event that only tells the role has been sent
        self.finish_reason: str | None = None
        self.has_usage = False  # the event with the final usage has been sent
        self.is_done = False  # [DONE] has been sent
        self.prompt_tokens: int | None = None  # as the engine counted them, where the client asked for that
        self.completion_tokens: int | None = None
        self.obstacle: Reason | None = None  # why this stream cannot be continued

    # Keeping.

    def keep(self, piece: bytes) -> None:
        """Takes note of bytes that the client has been given."""
        self._pieces.append(piece)
        self._held += len(piece)
        if self._held >= COMPACT_BYTES:
            self.read()

    def passing(self, write: Callable[[bytes], None], failed: Callable[[bytes], None]) -> Callable[[bytes], None]:
        """A sink that keeps what it writes, in one call a piece.

        ``failed`` gets a piece with an event by which the engine says that it failed, in place of ``write``, and then
        all that follows; see ``before_error``.
        """
        append = self._pieces.append
        has_failed = False

        def sink(piece: bytes) -> None:
            nonlocal has_failed
            if has_failed or piece.find(ERROR_EVENT) >= 0:
                has_failed = True
                failed(piece)
                return
            append(piece)
            self._held = held = self._held + len(piece)
            write(piece)
            if held >= COMPACT_BYTES:
                self.read()

        return sink

    def begin_continuation(self, events: int) -> None:
        """From now on the pieces are another engine's, and payload, since we write the chunks ourselves.

        ``events``: how many of the first events with content its prompt has; it makes the others again.
        """
        self.read()
        self._events.end()  # half an event, which whole_only kept from the client
        self._part = 0
        self._framed = False
        if self.completion_tokens is not None:
            self.completion_tokens = self.tokens_of(events)
        del self._ends[events:]

    # Reading.

    def read(self) -> None:
        """Reads all that was kept into the properties; the raw bytes are dropped."""
        pieces, self._held = self._pieces, 0
        data = b"".join(pieces)
        self._read_end = (self._read_end + data)[-RAW_END:]
        pieces.clear()  # the same list: a sink holds its append
        if not data or self.obstacle is not None:
            return
        events = None if self._part else self._read_quickly(data)
        try:
            if events is None:
                self._read_each(data)
            else:
                self._take(events)
        except (FramingError, msgspec.MsgspecError, UnicodeDecodeError):
            self._give_up(Reason.UNREADABLE)
        if self._text_size > MAX_TEXT:
            self._give_up(Reason.TOO_LONG)

    def _read_quickly(self, data: bytes) -> list[Event] | None:
        """The events, where each is one line of data, and one chunk, as vLLM sends them. None: they are not like that.

        What stands between two events is made a comma, and all of it read as one list. JSON has no bare line feeds, so
        that any that are left mean another shape.
        """
        start, end = 6, -2
        if self._framed:
            first = _FIRST_CHUNK(data)
            if first is None:
                return None
            start, end = first.end(), -4
        if not data.startswith(b"data: ", start - 6) or not data.endswith(b"\n\n\r\n" if self._framed else b"\n\n"):
            return None
        body = data[start:end]
        body = _BETWEEN_CHUNKS(b",", body) if self._framed else body.replace(b"\n\ndata: ", b",")
        if b"\n" in body:
            return None
        try:
            events = read_events(b"[%b]" % body)
            self._identify(data[start : data.index(b"\n\n")])
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None
        return events

    def _read_each(self, data: bytes) -> None:
        if self._framed:
            data = b"".join(self._chunks.feed(data))
        self._part += len(data)
        for raw in self._events.feed(data):
            self._part -= len(raw)
            value = event_data(raw)
            if value is None:
                continue
            if value.strip() == b"[DONE]":
                self.is_done = True
            else:
                self._identify(value)
                self._take([read_event(value)])

    def _identify(self, value: bytes) -> None:
        if self.id is None:
            first = read_identity(value)
            self.id, self.created, self.model = first.id, first.created, first.model

    def _take(self, events: list[Event]) -> None:
        for event in events:
            for choice in event.choices:
                self._take_choice(choice)
            if event.usage is not None:
                self.prompt_tokens, self.completion_tokens = event.usage.prompt_tokens, event.usage.completion_tokens
                self.has_usage = self.has_usage or not event.choices
            elif event.error is not None:
                self._give_up(Reason.ENGINE_ERROR)
            if event.system_fingerprint is not None:
                self.fingerprint = event.system_fingerprint

    def _take_choice(self, choice: Choice) -> None:
        delta, text = choice.delta, choice.text
        if delta is not None:
            text = delta.content
            if delta.role is not None:
                self.has_role = True
                if not text:  # vLLM's first event, which has no token
                    text = None
            if delta.reasoning or delta.reasoning_content:
                self._give_up(Reason.REASONING)
            if delta.tool_calls or delta.function_call is not None:
                self._give_up(Reason.TOOL_CALLS)
            if delta.refusal:
                self._give_up(Reason.REFUSAL)
        if choice.index:
            self._give_up(Reason.CHOICES)
        if choice.logprobs is not None:
            self._give_up(Reason.LOGPROBS)
        if choice.finish_reason is not None:
            self.finish_reason = choice.finish_reason
        if text:
            self._text.append(text)
            self._text_size += len(text)
            self._ends.append(self._text_size)
        elif text is not None:
            self._ends.append(0)

    def _give_up(self, why: Reason) -> None:
        if self.obstacle is None:
            self.obstacle = why
            self._text.clear()

    # What was read.

    def raw_end(self) -> bytes:
        """The last bytes as they came, where the engine's usage is."""
        return (self._read_end + b"".join(self._pieces[-RAW_END // 64 :]))[-RAW_END:]

    @property
    def text(self) -> str:
        """The answer's text so far. Call ``read`` first."""
        self._text = ["".join(self._text)]
        return self._text[0]

    @property
    def event_count(self) -> int:
        """Events with content so far."""
        return len(self._ends)

    def token_end(self, held_back: int, limit: int) -> tuple[int, int]:
        """The last place in the text, up to ``limit``, where a token ended; and how many events that took.

        ``held_back``: by how many characters the text lags behind the tokens.
        """
        for index in range(len(self._ends) - 1, -1, -1):
            end = self._ends[index]
            if end and end + held_back <= limit:
                return end + held_back, index + 1
        return 0, 0

    def tokens_of(self, events: int) -> int:
        """The tokens of the first events: the engine's own count where it is known, else their number."""
        later = len(self._ends) - events
        return events if self.completion_tokens is None else max(0, self.completion_tokens - later)

    @property
    def ends_within_event(self) -> bool:
        """The client has half an event: nothing can be put behind it."""
        return self._part > 0 and not self._whole_only

    def __repr__(self) -> str:
        what = self.obstacle.value if self.obstacle else f"{len(self._ends)} events"
        return f"<Transcript {what}{' done' if self.is_done else ''} held={self._held}>"


def before_error(piece: bytes, framed: bool) -> bytes:
    """The part of a piece before the event by which the engine says that it failed; to be written and kept."""
    if not framed:
        return piece[: piece.find(ERROR_EVENT)]
    found = _ERROR_CHUNK(piece)
    return piece[: found.start()] if found else b""


def error_code(piece: bytes) -> int:
    """The HTTP status that an error's event tells: from 500 on it is the engine's failure. 0: none can be read."""
    start = piece.find(ERROR_EVENT)
    if start < 0:
        return 0
    line = piece[start + 6 : piece.find(b"\n", start)]
    try:
        error = read_event(line).error
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return 0
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, int) else 0
