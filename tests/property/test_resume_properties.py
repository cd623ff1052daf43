"""Wherever a stream breaks, and however often: the client's text is that of an undisturbed answer."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from hypothesis import event as note
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.gateway.reasons import Reason
from launcher.gateway.resume import CHAT, COMPLETION, Plan, continuation, finish_events
from launcher.gateway.splice import Continuation
from launcher.gateway.sse import EventParser, event_data
from launcher.gateway.transcript import Transcript

PROMPT_TOKENS = 7
HEADER, PROMPT = "<user>hi<assistant>", "Say: "
TOKENS = st.sampled_from(
    ["The", " cat", " sat", "s", ".", ".\n\n", "\n", "\n\n", "   ", "\t", " é", "日", "本", " END", "x" * 80, '"', "{}"]
)


@dataclass
class Engine:
    """Says always the same, token by token; ends where it is told to, or with its last token."""

    tokens: list[str]
    number: int = 0
    interval: int = 1  # tokens in an event
    silent: bool = False  # characters beyond ASCII come in two tokens, the first without text
    trims: bool = False  # the chat template takes blanks off the end
    tells_prompt: bool = True
    off_boundary: list[str] = field(default_factory=list)  # prompts that end within a token

    def stream(self, route: str, body: bytes) -> tuple[list[bytes], str, int]:
        """The events of an answer, its text and how many tokens that took."""
        request = json.loads(body)
        said, prompt = self._said(route, request)
        steps, finish = self._steps(said, request)
        held = max((len(stop) for stop in request.get("stop", [])), default=1) - 1
        frame = {"id": f"id-{self.number}", "object": "o", "created": self.number, "model": f"m{self.number}"}
        events = []
        if route == CHAT:
            first = {"role": "assistant", "content": ""}
            more = {"prompt_text": prompt if self.tells_prompt and request.get("return_prompt_text") else None}
            events.append(frame | {"choices": [choice({"delta": first}, None)]} | more)
        text, sent = "", 0
        groups = [steps[at : at + self.interval] for at in range(0, len(steps), self.interval)] or [[]]
        for number, group in enumerate(groups):
            text += "".join(group)
            ends = number == len(groups) - 1
            upto = len(text) if ends else max(sent, len(text) - held)
            new, sent = text[sent:upto], upto
            holder = {"delta": {"content": new}} if route == CHAT else {"text": new}
            events.append(frame | {"choices": [choice(holder, finish if ends else None)]})
        if request.get("stream_options"):
            prompt_tokens = PROMPT_TOKENS + len(self._until(said))
            usage = {"prompt_tokens": prompt_tokens, "completion_tokens": len(steps)}
            events.append(frame | {"choices": [], "usage": usage | {"total_tokens": prompt_tokens + len(steps)}})
        raw = [b"data: " + json.dumps(one, ensure_ascii=False).encode() + b"\n\n" for one in events]
        return [*raw, b"data: [DONE]\n\n"], text, len(steps)

    def _said(self, route: str, request: dict[str, Any]) -> tuple[str, str]:
        """The part of the answer that the prompt has already, and the prompt."""
        if route == COMPLETION:
            return request["prompt"].removeprefix(PROMPT), request["prompt"]
        if not request.get("continue_final_message"):
            return "", HEADER
        assert request["add_generation_prompt"] is False
        said = request["messages"][-1]["content"]
        said = said.rstrip() if self.trims else said
        return said, HEADER + said

    def _pieces(self) -> list[tuple[str, str]]:
        """Each token's text, and what the client sees of it when it comes."""
        found = []
        for token in self.tokens:
            if self.silent and not token.isascii():
                found.append(("", ""))
            found.append((token, token))
        return found

    def _until(self, said: str) -> list[str]:
        texts = [text for text, _ in self._pieces()]
        ends = list(accumulate(map(len, texts)))
        return [text for text, end in zip(texts, ends, strict=True) if end <= len(said) and (text or end < len(said))]

    def _steps(self, said: str, request: dict[str, Any]) -> tuple[list[str], str]:
        whole = "".join(self.tokens)
        assert whole.startswith(said)
        steps, at = [], 0
        for text, _ in self._pieces():
            if at + len(text) > len(said) or (not text and at >= len(said)):
                if at < len(said):
                    self.off_boundary.append(said)
                steps.append(text[max(0, len(said) - at) :])
            at += len(text)
        limit = request.get("max_tokens") or len(steps)
        return (steps[:limit], "length") if limit < len(steps) else (steps, "stop")


def choice(holder: dict[str, Any], finish: str | None) -> dict[str, Any]:
    return {"index": 0, **holder, "logprobs": None, "finish_reason": finish}


def read(events: list[bytes]) -> list[dict[str, Any]]:
    found = [data for raw in events if (data := event_data(raw)) is not None]
    assert found[-1] == b"[DONE]"
    assert found.count(b"[DONE]") == 1
    return [json.loads(data) for data in found[:-1]]


def text_of(events: list[dict[str, Any]]) -> str:
    holders = [one.get("delta") or {"content": one["text"]} for event in events for one in event["choices"]]
    return "".join(holder["content"] for holder in holders)


def in_chunks(events: list[bytes]) -> list[bytes]:
    return [b"%x\r\n%b\r\n" % (len(event), event) for event in events]


class Client:
    """Has what the gateway wrote, across as many engines as it took."""

    def __init__(self, route: str, request: dict[str, Any], framed: bool, default_temperature: float | None) -> None:
        self.route, self.body = route, json.dumps(request).encode()
        self.transcript = Transcript(framed)
        self.framed, self.default_temperature = framed, default_temperature
        self.got: list[bytes] = []
        self.plans: list[Plan] = []

    def first(self, engine: Engine, cut: int, together: int) -> None:
        events = engine.stream(self.route, self.body)[0][:cut]
        self.got += events
        pieces = in_chunks(events) if self.framed else events
        for at in range(0, len(pieces), together):
            self.transcript.keep(b"".join(pieces[at : at + together]))

    def go_on(self, engine: Engine, cut: int | None, split: int) -> Reason | None:
        """Goes on with another engine, which dies after ``cut`` events. None: went well so far."""
        plan = continuation(self.body, self.route, self.transcript, default_temperature=self.default_temperature)
        if plan is Reason.COMPLETE:
            self.got.append(finish_events(self.body, self.route, self.transcript, PROMPT_TOKENS))
            return plan
        assert isinstance(plan, Plan), plan
        self.plans.append(plan)
        self.transcript.begin_continuation(plan.events)
        change = Continuation(self.transcript, plan, b": resumed\n\n")
        data = b"".join(engine.stream(self.route, plan.body)[0][:cut])
        for at in range(0, len(data), split):
            out = change.feed(data[at : at + split])
            self.got.append(out)
            self.transcript.keep(out)
        self.got.append(change.end())
        return change.failed

    def events(self) -> list[dict[str, Any]]:
        return read(EventParser().feed(b"".join(self.got)))


@st.composite
def situations(draw: st.DrawFn) -> dict[str, Any]:
    tokens = draw(st.lists(TOKENS, min_size=1, max_size=30))
    while tokens and not "".join(tokens).strip():
        tokens.append("word")
    request: dict[str, Any] = {"stream": True}
    route = draw(st.sampled_from([CHAT, COMPLETION]))
    if route == CHAT:
        request["messages"] = [{"role": "user", "content": "hi"}]
        limit = draw(st.none() | st.integers(1, 40))
    else:
        request["prompt"] = PROMPT
        limit = draw(st.integers(1, 40))
    if limit is not None:
        request["max_tokens"] = limit
    if draw(st.booleans()):
        request["stream_options"] = {"include_usage": True}
    return {"tokens": tokens, "route": route, "request": request}


CUTS = st.lists(st.integers(0, 12), max_size=3)


@settings(deadline=None, max_examples=300)
@given(situations(), st.integers(0, 35), CUTS, st.booleans(), st.booleans(), st.integers(1, 5), st.integers(1, 400))
def test_a_greedy_answer_is_the_undisturbed_one(
    situation: dict[str, Any], first: int, cuts: list[int], framed: bool, silent: bool, together: int, split: int
) -> None:
    route, request = situation["route"], situation["request"]
    engine = Engine(situation["tokens"], silent=silent)
    whole = read(engine.stream(route, json.dumps(request).encode())[0])
    client = Client(route, request, framed, 0.0)
    client.first(engine, min(first, len(whole)), together)
    for number, cut in enumerate([*cuts, None], 1):
        engine = Engine(situation["tokens"], number, silent=silent)
        failed = client.go_on(engine, cut, split)
        assert not engine.off_boundary
        if failed is Reason.COMPLETE:
            break
        assert failed is None
        client.transcript.read()
        if client.transcript.is_done:
            break
    note(f"{len(client.plans)} continuations")
    events = client.events()
    assert text_of(events) == text_of(whole)
    assert len({(event["id"], event["created"], event["model"]) for event in events}) == 1
    assert sum("role" in one.get("delta", {}) for event in events for one in event["choices"]) == (route == CHAT)
    assert [one["finish_reason"] for event in events for one in event["choices"] if one["finish_reason"]] == [
        one["finish_reason"] for event in whole for one in event["choices"] if one["finish_reason"]
    ]
    assert [event.get("usage") for event in events if not event["choices"]] == [
        event.get("usage") for event in whole if not event["choices"]
    ]
    assert not any("prompt_text" in event and event["prompt_text"] is not None for event in events)


@settings(deadline=None, max_examples=300)
@given(
    situations(),
    st.integers(1, 30),
    st.sampled_from([0.0, 0.7, None]),
    st.booleans(),
    st.booleans(),
    st.integers(1, 4),
    st.sampled_from([[], ["END"], ["\n\n", "nothing like this"]]),
)
def test_nothing_is_repeated_or_dropped(
    situation: dict[str, Any],
    first: int,
    temperature: float | None,
    trims: bool,
    tells: bool,
    interval: int,
    stop: list[str],
) -> None:
    """With templates that take blanks off, events of several tokens, stop strings: the same text, or a refusal."""
    route, request = situation["route"], {**situation["request"], "stop": stop}
    request.pop("max_tokens", None)  # with events of several tokens it can only be estimated
    if route == COMPLETION:
        request["max_tokens"] = 10_000
    engine = Engine(situation["tokens"], interval=interval, trims=trims, tells_prompt=tells)
    whole = read(engine.stream(route, json.dumps(request).encode())[0])
    client = Client(route, request, True, temperature)
    client.first(engine, min(first, len(whole)), 1)
    other = Engine(situation["tokens"], 1, interval=interval, trims=trims, tells_prompt=tells)
    failed = client.go_on(other, None, 1000)
    note(f"failed: {failed}")
    if failed is not None and failed is not Reason.COMPLETE:
        assert trims or not tells
        seen = [event for event in map(event_data, EventParser().feed(b"".join(client.got))) if event is not None]
        assert text_of(whole).startswith(text_of([json.loads(event) for event in seen]))
        return
    assert text_of(client.events()) == text_of(whole)
    if temperature == 0.0 and not trims and "x" * 80 not in situation["tokens"]:
        assert not other.off_boundary
