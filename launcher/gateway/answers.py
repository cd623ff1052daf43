"""Changes answers on their way to the client: reasoning folded into the content, training residue taken out, pictures told of,
and the form of /api/v1/generate.

Only used for requests that ask for it. Both ways of answering give the same text: the deltas of a stream, joined, are
the content of the whole answer.
"""

from __future__ import annotations

import json
from typing import Any

from launcher.gateway.compat import Changes
from launcher.gateway.generate import plain_answer, plain_event
from launcher.gateway.residue import ResidueFilter, strip_residue
from launcher.gateway.sse import EventParser, event_data

THINK, THINK_END = "<think>", "</think>\n\n"
REASONING_FIELDS = ("reasoning", "reasoning_content")  # vLLM's name, and the one that SGLang and older vLLM use


def _reasoning(holder: dict[str, Any]) -> str:
    for name in REASONING_FIELDS:
        text = holder.get(name)
        if isinstance(text, str) and text:
            return text
    return ""


def change_whole(body: bytes, changes: Changes) -> bytes:
    """A whole answer with its changes; one that is no answer of choices stays as it is."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return body
    choices = answer.get("choices") if isinstance(answer, dict) else None
    changed = False
    for choice in choices if isinstance(choices, list) else ():
        if not isinstance(choice, dict):
            continue
        holder, key = choice.get("message"), "content"
        if not isinstance(holder, dict):
            holder, key = choice, "text"
        before = holder.get(key)
        text = before
        if changes.strip and isinstance(text, str):
            text = strip_residue(text, changes.strip)
        if changes.fold_reasoning and key == "content" and (reasoning := _reasoning(holder)):
            text = f"{THINK}{reasoning}{THINK_END}{text or ''}"
        if text != before:
            holder[key] = text
            changed = True
    if isinstance(choices, list) and changes.image_info is not None:
        answer["image_info"] = changes.image_info
        changed = True
    if changes.plain and isinstance(answer, dict):
        return json.dumps(plain_answer(answer)).encode()
    return json.dumps(answer).encode() if changed else body


class ChoiceText:
    """The text of one choice as it streams."""

    __slots__ = ("_fold", "_residue", "_thinking")

    def __init__(self, changes: Changes) -> None:
        self._fold = changes.fold_reasoning
        self._residue = ResidueFilter(changes.strip) if changes.strip else None
        self._thinking = False

    def next(self, content: str, reasoning: str, ends_thinking: bool, ends: bool) -> str:
        """The content to send for a delta's content and reasoning.

        ``ends_thinking``: the delta has something after the reasoning, such as a tool call. ``ends``: it is the last.
        """
        if self._residue is not None:
            content = self._residue.feed(content) + (self._residue.end() if ends else "")
        if not self._fold:
            return content
        opened = ""
        if reasoning:
            opened = reasoning if self._thinking else THINK + reasoning
            self._thinking = True
        if self._thinking and (content or ends_thinking or ends):
            self._thinking = False
            opened += THINK_END
        return opened + content

    def end(self) -> str:
        """What is still to be sent when the stream ends without the choice's last delta."""
        return self.next("", "", False, True)


class EventChanger:
    """Changes a stream of events. Events that need no change keep their bytes."""

    __slots__ = ("_changes", "_choices", "_ended", "_image_info", "_last", "_parser")

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self._parser = EventParser()
        self._choices: dict[int, ChoiceText] = {}
        self._ended: set[int] = set()
        self._last: dict[str, Any] = {}  # an event of the stream, as the pattern for one of ours
        self._image_info = changes.image_info  # for the first event that there is

    def feed(self, data: bytes) -> bytes:
        return b"".join([self._change(event) for event in self._parser.feed(data)])

    def end(self) -> bytes:
        """What is left when the stream is over, also when it broke off; an unfinished event is dropped with it."""
        left = self._parser.end()
        return self._close() + (left if left.strip() else b"")

    def broken(self) -> bytes:
        """What was held back, when the engine broke off; half an event is not passed on."""
        self._parser.end()
        return self._close()

    def drop_half(self) -> None:
        """Half an event will not be completed: another stream goes on."""
        self._parser.end()

    def _change(self, event: bytes) -> bytes:
        data = event_data(event)
        if data is None:
            return event
        if data.strip() == b"[DONE]":
            return self._close() + event
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            return event
        choices = value.get("choices") if isinstance(value, dict) else None
        if not isinstance(choices, list) or not choices:
            return self._event(value) if self._changes.plain and isinstance(value, dict) else event
        changed = [self._change_choice(choice) for choice in choices if isinstance(choice, dict)]
        self._last = value
        if self._image_info is not None:
            value = {**value, "image_info": self._image_info}
            self._image_info = None
            changed.append(True)
        return self._event(value) if any(changed) or self._changes.plain else event

    def _event(self, value: dict[str, Any]) -> bytes:
        told = plain_event(value) if self._changes.plain else value
        return b"" if told is None else b"data: " + json.dumps(told).encode() + b"\n\n"

    def _change_choice(self, choice: dict[str, Any]) -> bool:
        index = choice.get("index", 0)
        if not isinstance(index, int):  # no engine's: it passes as it came
            return False
        holder, key = (choice["delta"], "content") if isinstance(choice.get("delta"), dict) else (choice, "text")
        state = self._choices.get(index)
        if state is None:
            state = self._choices[index] = ChoiceText(self._changes)
        before = holder.get(key)
        ends = choice.get("finish_reason") is not None
        content = before if isinstance(before, str) else ""
        reasoning = _reasoning(holder) if key == "content" else ""
        text = state.next(content, reasoning, bool(holder.get("tool_calls")), ends)
        if ends:
            self._ended.add(index)
        if text == content:
            return False
        holder[key] = text
        return True

    def _close(self) -> bytes:
        """Events for choices that had no last delta and still hold text back."""
        out = b""
        for index, state in self._choices.items():
            text = "" if index in self._ended else state.end()
            if text:
                is_chat = any("delta" in choice for choice in self._last["choices"] if isinstance(choice, dict))
                choice = {"index": index, **({"delta": {"content": text}} if is_chat else {"text": text})}
                choice |= {"logprobs": None, "finish_reason": None}
                out += self._event({**self._last, "choices": [choice]})
        self._choices.clear()
        return out
