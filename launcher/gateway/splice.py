"""Makes the events of a continuation those of the stream that it continues: its identity, no second role, its usage."""

from __future__ import annotations

import json
from typing import Any

from launcher.gateway.reasons import Reason
from launcher.gateway.resume import Plan, event
from launcher.gateway.sse import EventParser, event_data
from launcher.gateway.transcript import Transcript


class Continuation:
    """Changes the events of the stream that continues another; used like EventChanger, and before it.

    ``failed`` is to be looked at after each ``feed``: once it is set, nothing more comes out, and the stream has to be
    broken off, or, after ENGINE_ERROR, may be continued once more.
    """

    __slots__ = ("_is_checked", "_mark", "_parser", "_plan", "_tail", "_transcript", "failed")

    def __init__(self, transcript: Transcript, plan: Plan, mark: bytes) -> None:
        """``mark``: a comment that goes before the first event; see ``resumed_comment``."""
        self._transcript, self._plan, self._mark = transcript, plan, mark
        self._tail = plan.tail  # still to be repeated
        self._is_checked = not plan.ending  # that the engine's prompt ends with the text so far
        self._parser = EventParser()
        self.failed: Reason | None = None

    def feed(self, data: bytes) -> bytes:
        """The client's part of the events that are complete now."""
        out = []
        for raw in self._parser.feed(data):
            changed = b"" if self.failed else self._change(raw)
            if changed:
                out.append(changed)
        if out and self._mark:
            out.insert(0, self._mark)
            self._mark = b""
        return b"".join(out)

    def end(self) -> bytes:
        """The stream is over; half an event is not passed on."""
        self._parser.end()
        return b""

    broken = end

    def _change(self, raw: bytes) -> bytes:
        data = event_data(raw)
        if data is None:
            return raw
        if data.strip() == b"[DONE]":
            if self._tail:
                self.failed = Reason.DIVERGED
                return b""
            return raw
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            self.failed = Reason.UNREADABLE
            return b""
        if value.get("error") is not None:
            self.failed = Reason.ENGINE_ERROR
            return b""
        return self._change_event(value)

    def _change_event(self, value: dict[str, Any]) -> bytes:
        self._check_prompt(value)
        choices = value.get("choices") or []
        had_choices = bool(choices)
        if not self.failed and choices:
            value["choices"] = choices = [choice for choice in choices if self._passes(choice)]
        if self.failed or (had_choices and not choices):
            return b""
        seen = self._transcript
        if seen.id is not None:
            value["id"], value["created"], value["model"] = seen.id, seen.created, seen.model
        if isinstance(value.get("usage"), dict):
            self._correct(value["usage"])
        return event(value)

    def _check_prompt(self, value: dict[str, Any]) -> None:
        """Whether the prompt, which comes with the first event, ends with the text so far.

        A vLLM that does not tell its prompt has made sure of it itself, but for blanks at the end.
        """
        prompt = value.pop("prompt_text", None)
        value.pop("prompt_token_ids", None)
        if self._is_checked:
            return
        self._is_checked = True
        ending = self._plan.ending
        bare = ending.rstrip()
        if not isinstance(prompt, str):
            self.failed = None if bare == ending else Reason.ALTERED
        elif prompt.endswith(ending):
            return
        elif bare and prompt.endswith(bare):
            self._tail = ending[len(bare) :] + self._tail  # the template took it off: the engine has to make it again
        else:
            self.failed = Reason.ALTERED

    def _passes(self, choice: dict[str, Any]) -> bool:
        """Changes one choice of an event; whether there is something of it for the client."""
        is_chat = isinstance(choice.get("delta"), dict)
        holder, key = (choice["delta"], "content") if is_chat else (choice, "text")
        has_role = is_chat and "role" in holder
        if has_role and self._transcript.has_role:
            del holder["role"]
        text = holder.get(key)
        ends = choice.get("finish_reason") is not None
        if isinstance(text, str) and text and self._tail:
            text = holder[key] = self._without_tail(text)  # without text it is passed on all the same: it is a token
        if ends and self._tail:
            self.failed = Reason.DIVERGED
        # vLLM's first event tells nothing but the role, which the client knows; other empty ones are tokens as well.
        return not (has_role and self._transcript.has_role and not text and not ends and holder.keys() <= {key})

    def _without_tail(self, text: str) -> str:
        """What is new in ``text``, of which the first part repeats what the client has."""
        tail = self._tail
        if text.startswith(tail):
            self._tail = ""
            return text[len(tail) :]
        if tail.startswith(text):
            self._tail = tail[len(text) :]
        else:
            self.failed = Reason.DIVERGED
        return ""

    def _correct(self, usage: dict[str, Any]) -> None:
        """Counts the text so far as answer, not as prompt. The sum is the engine's; the division is as good as
        ``Plan.tokens``. How much of the prompt was cached is left out: the first engine knew that.
        """
        prompt, made, before = usage.get("prompt_tokens"), usage.get("completion_tokens") or 0, self._plan.tokens
        if not isinstance(prompt, int) or not isinstance(made, int):
            return
        known = self._transcript.prompt_tokens
        usage["prompt_tokens"] = known if known is not None else max(0, prompt - before)
        usage["completion_tokens"] = before + made
        usage["total_tokens"] = usage["prompt_tokens"] + usage["completion_tokens"]
        usage.pop("prompt_tokens_details", None)
