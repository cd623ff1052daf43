"""The shape of an engine's events, as far as it concerns us. Never compiled: msgspec fills no compiled class."""

from __future__ import annotations

from typing import Any

import msgspec


class Usage(msgspec.Struct, gc=False):
    """vLLM's count of tokens; in every event where ``continuous_usage_stats`` is asked for, else in the last."""

    prompt_tokens: int = 0
    completion_tokens: int | None = 0


class Delta(msgspec.Struct, gc=False):
    """What an event of a chat adds."""

    role: str | None = None
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: list[Any] | None = None
    function_call: Any = None


class Choice(msgspec.Struct, gc=False):
    """One answer's part of an event; ``delta`` in a chat, ``text`` in a completion."""

    index: int = 0
    delta: Delta | None = None
    text: str | None = None
    logprobs: Any = None
    finish_reason: str | None = None


class Event(msgspec.Struct, gc=False):
    """One event of a stream, as far as it concerns us."""

    choices: list[Choice] = []
    usage: Usage | None = None
    system_fingerprint: str | None = None
    error: Any = None


class Identity(msgspec.Struct):
    """What all events of a stream have alike."""

    id: str | None = None
    created: int | None = None
    model: str | None = None


read_events = msgspec.json.Decoder(list[Event]).decode
read_event = msgspec.json.Decoder(Event).decode
read_identity = msgspec.json.Decoder(Identity).decode
