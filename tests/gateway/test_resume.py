"""The parts of a stream that outlives its engine: what is kept, what the next engine is asked, what comes of its answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from langchain_openai import ChatOpenAI
from openai import AsyncOpenAI

from launcher.gateway import transcript as transcripts
from launcher.gateway.answers import EventChanger
from launcher.gateway.compat import Changes
from launcher.gateway.reasons import Reason
from launcher.gateway.resume import (
    CHAT,
    COMPLETION,
    Plan,
    continuation,
    count_request,
    finish_events,
    resumed_comment,
    waiting_comment,
)
from launcher.gateway.splice import Continuation
from launcher.gateway.sse import EventParser, event_data
from launcher.gateway.transcript import Transcript, before_error, error_code

IDENTITY = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 5, "model": "m"}
OTHER = {"id": "chatcmpl-2", "object": "chat.completion.chunk", "created": 9, "model": "m-other"}
DONE = b"data: [DONE]\n\n"
MARK = resumed_comment(0, 1, 2)


def raw(value: Any) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


def choice(finish: str | None = None, index: int = 0, logprobs: Any = None, **holder: Any) -> dict[str, Any]:
    return {"index": index, **holder, "logprobs": logprobs, "finish_reason": finish}


def says(text: str, finish: str | None = None, frame: dict[str, Any] = IDENTITY, **more: Any) -> bytes:
    return raw({**frame, "choices": [choice(finish, delta={"content": text})], **more})


def role(frame: dict[str, Any] = IDENTITY, **more: Any) -> bytes:
    return raw({**frame, "choices": [choice(delta={"role": "assistant", "content": ""})], **more})


def usage(prompt: int, made: int, frame: dict[str, Any] = IDENTITY) -> bytes:
    counts = {"prompt_tokens": prompt, "total_tokens": prompt + made, "completion_tokens": made}
    return raw({**frame, "choices": [], "usage": counts})


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def told(*events: bytes, **options: Any) -> Transcript:
    seen = Transcript(False, **options)
    for event in events:
        seen.keep(event)
    seen.read()
    return seen


def chat(text: str = "hi", **more: Any) -> bytes:
    return json.dumps({"model": "m", "stream": True, "messages": [{"role": "user", "content": text}], **more}).encode()


def complete(prompt: Any = "Once", **more: Any) -> bytes:
    return json.dumps({"model": "m", "stream": True, "prompt": prompt, **more}).encode()


def planned(body: bytes, seen: Transcript, route: str = CHAT, **options: Any) -> tuple[Plan, dict[str, Any]]:
    plan = continuation(body, route, seen, **options)
    assert isinstance(plan, Plan), plan
    return plan, json.loads(plan.body)


def data_of(stream: bytes) -> list[Any]:
    found = [data for event in EventParser().feed(stream) if (data := event_data(event)) is not None]
    return [json.loads(data) if data != b"[DONE]" else "[DONE]" for data in found]


# What is kept.

SHAPES = {
    "vllm": lambda event: event,
    "crlf": lambda event: event.replace(b"\n", b"\r\n"),
    "comments": lambda event: b": keep-alive\n\n" + event,
    "named": lambda event: b"event: message\n" + event,
    "lines": lambda event: event.replace(b", ", b",\ndata: "),
    "no blank": lambda event: event.replace(b"data: ", b"data:", 1),
}


@pytest.mark.parametrize("framed", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("together", [1, 2, 100])
def test_every_shape_of_events_reads_the_same(shape: str, framed: bool, together: int) -> None:
    first = [role(), says('a "{data: "'), says("", prompt_text=None), says("日\n\n"), says("")]
    last = [says("b", "stop", system_fingerprint="fp"), usage(7, 5), DONE]
    events = [SHAPES[shape](event) for event in (*first, *last)]
    if framed:
        events = [chunk(event) for event in events]
    seen = Transcript(framed)
    for at in range(0, len(events), together):
        seen.keep(b"".join(events[at : at + together]))
    seen.read()
    assert (seen.text, seen.event_count) == ('a "{data: "日\n\nb', 5)
    assert (seen.id, seen.created, seen.model, seen.fingerprint) == ("chatcmpl-1", 5, "m", "fp")
    assert (seen.has_role, seen.finish_reason, seen.has_usage, seen.is_done) == (True, "stop", True, True)
    assert (seen.prompt_tokens, seen.tokens_of(5), seen.obstacle) == (7, 5, None)


def test_a_chunk_may_end_within_an_event() -> None:
    event = says("hello")
    seen = Transcript(True)
    seen.keep(chunk(event[:20]))
    seen.read()
    assert seen.ends_within_event
    assert continuation(chat(), CHAT, seen) is Reason.HALF_EVENT
    seen.keep(chunk(event[20:]))
    seen.read()
    assert not seen.ends_within_event
    assert seen.text == "hello"


def test_half_an_event_that_never_reaches_the_client_is_no_obstacle() -> None:
    seen = told(role(), says("a"), says("b")[:30], whole_only=True)
    assert not seen.ends_within_event
    seen.begin_continuation(1)
    seen.keep(says("c"))
    seen.read()
    assert seen.text == "ac"


@pytest.mark.parametrize(
    ("event", "why"),
    [
        (raw({"choices": [choice(delta={"reasoning": "hm"})]}), Reason.REASONING),
        (raw({"choices": [choice(delta={"reasoning_content": "hm"})]}), Reason.REASONING),
        (raw({"choices": [choice(delta={"tool_calls": [{"index": 0}]})]}), Reason.TOOL_CALLS),
        (raw({"choices": [choice(delta={"refusal": "no"})]}), Reason.REFUSAL),
        (raw({"choices": [choice(delta={"content": "a"}, index=1)]}), Reason.CHOICES),
        (raw({"choices": [choice(delta={"content": "a"}, logprobs={"content": []})]}), Reason.LOGPROBS),
        (raw({"error": {"message": "x", "code": 500}}), Reason.ENGINE_ERROR),
        (b"data: hello\n\n", Reason.UNREADABLE),
        (b"data: [1]\n\n", Reason.UNREADABLE),
        (b'data: {"choices": [{"delta": {"content": 5}}]}\n\n', Reason.UNREADABLE),
        (b'data: {"choices": [{"delta": {"content": "\xff"}}]}\n\n', Reason.UNREADABLE),
        (b'data: {"choices": [{"delta": {"content": "\\ud800"}}]}\n\n', Reason.UNREADABLE),
    ],
)
def test_what_cannot_be_put_together_is_an_obstacle(event: bytes, why: Reason) -> None:
    for events in ((role(), event, says("b")), (role(), event, DONE)):  # read at once, and one by one
        assert told(*events).obstacle is why
        assert continuation(chat(), CHAT, told(*events)) is why


def test_a_chunk_that_is_none_is_an_obstacle() -> None:
    seen = Transcript(True)
    seen.keep(b"zz\r\nhello\r\n")
    assert continuation(chat(), CHAT, seen) is Reason.UNREADABLE


def test_memory_is_bounded() -> None:
    seen, event = Transcript(True), chunk(says("hello "))
    for _ in range(3 * transcripts.COMPACT_BYTES // len(event)):
        seen.keep(event)
        assert seen._held < transcripts.COMPACT_BYTES
        assert seen.raw_end().endswith(event)
    seen.read()
    assert seen.raw_end().endswith(event * 3)
    assert seen.text == "hello " * seen.event_count
    assert seen.event_count == 3 * transcripts.COMPACT_BYTES // len(event)
    for _ in range(4 + transcripts.MAX_TEXT // 1_000_000):
        seen.keep(chunk(says("x" * 1_000_000)))
    seen.read()
    assert seen.obstacle is Reason.TOO_LONG
    assert seen.text == ""


def test_a_sink_keeps_what_it_writes_until_the_engine_says_that_it_failed() -> None:
    written: list[bytes] = []
    failed: list[bytes] = []
    seen = Transcript(True)
    sink = seen.passing(written.append, failed.append)
    error = raw({"error": {"message": "EngineCore encountered an issue.", "code": 500}})
    good, bad = chunk(role()) + chunk(says('data: {"error"')), chunk(says(" b")) + chunk(error) + chunk(DONE)
    for piece in (good, bad, b"0\r\n\r\n"):
        sink(piece)
    assert written == [good]
    assert failed == [bad, b"0\r\n\r\n"]
    assert before_error(bad, True) == chunk(says(" b"))
    assert before_error(says(" b") + error + DONE, False) == says(" b")
    assert before_error(chunk(error), True) == b""
    assert (error_code(bad), error_code(error), error_code(chunk(raw({"error": {"code": 400}})))) == (500, 500, 400)
    assert error_code(b'data: {"error": nonsense\n\n') == error_code(b'data: {"error": "words"}\n\n') == 0
    seen.read()
    assert seen.text == 'data: {"error"'
    many = 2 * transcripts.COMPACT_BYTES // len(good)
    sink = seen.passing(lambda piece: None, failed.append)
    for _ in range(many):
        sink(good)
        assert seen._held < transcripts.COMPACT_BYTES


# What the next engine is asked.


def test_the_text_so_far_becomes_an_unfinished_message() -> None:
    seen = told(role(), says("Once"), says(" upon"))
    asked = {"max_tokens": 10, "max_completion_tokens": 9, "min_tokens": 1, "seed": 3, "stop": ["\n"], "x": "é"}
    plan, request = planned(chat(**asked), seen)
    assert request["messages"] == [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "Once upon"},
    ]
    assert (request["continue_final_message"], request["add_generation_prompt"]) == (True, False)
    assert request["return_prompt_text"] is True
    assert {name: request[name] for name in asked} == {
        **asked,
        "max_tokens": 8,
        "max_completion_tokens": 7,
        "min_tokens": 0,
    }
    assert (plan.ending, plan.tail, plan.tokens, plan.is_anew) == ("Once upon", "", 2, False)
    assert planned(chat(**asked), seen, tokens=5)[1]["max_tokens"] == 5


def test_the_text_so_far_goes_behind_the_prompt() -> None:
    seen = told(*(raw({**IDENTITY, "choices": [choice(text=text)]}) for text in (" upon", " a")))
    assert planned(complete(), seen, COMPLETION)[1]["prompt"] == "Once upon a"
    assert planned(complete(["Once"]), seen, COMPLETION)[1]["prompt"] == ["Once upon a"]
    assert planned(complete(max_tokens=None), seen, COMPLETION)[1]["max_tokens"] == 14  # vLLM's default is 16
    assert planned(complete(max_tokens=5), seen, COMPLETION)[0].ending == ""  # no template, nothing to be checked


def test_an_unfinished_message_of_the_client_is_continued() -> None:
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Well,", "name": "x"}]
    body = chat(messages=messages, continue_final_message=True, add_generation_prompt=False)
    plan, request = planned(body, told(role(), says(" yes")))
    assert request["messages"] == [messages[0], {"role": "assistant", "content": "Well, yes", "name": "x"}]
    assert plan.ending == "Well, yes"


@pytest.mark.parametrize("events", [(), (role(),), (role(), says(""), says(""))])
def test_without_text_the_request_is_sent_again(events: tuple[bytes, ...]) -> None:
    plan, request = planned(chat(max_tokens=2), told(*events))
    assert plan.is_anew
    assert request == json.loads(chat(max_tokens=2))


def test_tokens_without_text_at_the_end_are_made_again() -> None:
    """Half a character: its bytes come with the event that completes it."""
    half = (role(), says("a"), says(""), says("🦊"), says(""), says(""))
    assert planned(chat(max_tokens=10), told(*half))[1]["max_tokens"] == 7


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"stream": False}, Reason.NOT_A_STREAM),
        ({"n": 2}, Reason.CHOICES),
        ({"use_beam_search": True}, Reason.CHOICES),
        ({"logprobs": True}, Reason.LOGPROBS),
        ({"prompt_logprobs": 0}, Reason.LOGPROBS),
        ({"echo": True}, Reason.ECHO),
        ({"response_format": {"type": "json_object"}}, Reason.STRUCTURED),
        ({"structured_outputs": {"choice": ["a"]}}, Reason.STRUCTURED),
        ({"return_token_ids": True}, Reason.TOKEN_IDS),
        ({"truncate_prompt_tokens": 5}, Reason.TRUNCATION),
        ({"include_reasoning": False}, Reason.REASONING),
        ({"tools": [{"type": "function"}]}, Reason.TOOL_CALLS),
        ({"tools": [{"type": "function"}], "tool_choice": "auto"}, Reason.TOOL_CALLS),
        ({"messages": []}, Reason.NOT_A_STREAM),
        ({"messages": [{"role": "assistant", "content": "a"}]}, Reason.PREFILL),
        ({"add_generation_prompt": False}, Reason.PREFILL),
        ({"messages": [{"role": "user", "content": [{}]}], "continue_final_message": True}, Reason.PREFILL),
        ({"include_stop_str_in_output": True, "stop": ["Once upon", "upon a time"]}, Reason.STOP_STRING),
    ],
)
def test_requests_whose_answers_are_not_continued(asked: dict[str, Any], why: Reason) -> None:
    assert continuation(chat(**asked), CHAT, told(role(), says("Once"), says(" upon"))) is why


@pytest.mark.parametrize(
    ("body", "route", "why"),
    [
        (b"{", CHAT, Reason.NOT_A_STREAM),
        (b"[]", CHAT, Reason.NOT_A_STREAM),
        (b"[" * 100_000, CHAT, Reason.NOT_A_STREAM),
        (chat(), "/v1/responses", Reason.NOT_A_STREAM),
        (complete([1, 2]), COMPLETION, Reason.TOKEN_IDS),
        (complete(["a", "b"]), COMPLETION, Reason.TOKEN_IDS),
        (complete(logprobs=0), COMPLETION, Reason.LOGPROBS),
    ],
)
def test_bodies_whose_answers_are_not_continued(body: bytes, route: str, why: Reason) -> None:
    assert continuation(body, route, told()) is why


@pytest.mark.parametrize(
    "asked",
    [
        {"tools": [{}], "tool_choice": "none"},
        {"response_format": {"type": "text"}},
        {"n": 1, "logprobs": False},
        {"include_stop_str_in_output": True, "stop": "time"},
    ],
)
def test_requests_that_look_alike_are_continued(asked: dict[str, Any]) -> None:
    planned(chat(**asked), told(role(), says("Once"), says(" upon")))


REPEATS = [
    # the events' texts, what is asked, what the engine is made to repeat, the tokens before that
    (["Hi", ".", "\n", "\n"], {}, "\n", 3),
    (["Hi", ".\n\n"], {}, ".\n\n", 1),
    (["Hi", "", "", " "], {"temperature": 0.5}, "", 4),
    (["Hi", " "], {"temperature": 0}, " ", 1),
    (["Hi", " you", ""], {}, "", 2),
    (["Hi", "x" * 70 + "\n"], {}, "", 2),
    (["\n"], {}, "\n", 0),
    # With a stop string of three characters the text is two behind: the tokens ended at 4 ("I kn"), 8 and 12.
    (["", "I ", "know", " Fra"], {"stop": "END"}, "ra", 3),
    (["", "I ", "know", "n Fr"], {"stop": "END"}, "own Fr", 2),  # one back: "I known " ends with a blank
    (["", "I ", "know", " Fra"], {"stop": ["x", "END"], "include_stop_str_in_output": True}, "", 4),
    (["", "I ", "know", " Fra"], {"stop": ["\n"]}, "", 4),
    (["", "I ", "know", " Fra"], {"stop": "END", "temperature": 1}, "", 3),
    (["", "日", "本" * 2], {"stop": "END"}, "", 2),
]


@pytest.mark.parametrize(("texts", "asked", "tail", "tokens"), REPEATS)
def test_a_greedy_answer_goes_on_where_a_token_ends(
    texts: list[str], asked: dict[str, Any], tail: str, tokens: int
) -> None:
    seen = told(role(), *map(says, texts))
    plan, request = planned(chat(**asked), seen, default_temperature=0.0)
    assert (plan.tail, plan.tokens) == (tail, tokens)
    sent = "".join(texts).removesuffix(tail) if tail else "".join(texts)
    assert request["messages"][-1]["content"] == (sent or "hi")
    assert plan.is_anew is (not sent)
    assert planned(chat(**asked), seen)[0].tail == (tail if asked.get("temperature") == 0 else "")
    assert planned(chat(**asked), seen, default_temperature=0.0, may_repeat=False)[0].tail == ""


def test_an_answer_to_which_no_token_is_missing_is_ended() -> None:
    body = chat(max_tokens=2, stream_options={"include_usage": True})
    seen = told(role(), says("a"), says("b"))
    assert continuation(body, CHAT, seen) is Reason.COMPLETE
    first, done = data_of(finish_events(body, CHAT, seen))
    assert done == "[DONE]"
    assert {name: first[name] for name in IDENTITY} == IDENTITY
    assert (first["choices"][0]["finish_reason"], first["choices"][0]["delta"]) == ("length", {"content": ""})
    counts = data_of(finish_events(body, CHAT, seen, prompt_tokens=5))[1]["usage"]
    assert counts == {"prompt_tokens": 5, "total_tokens": 7, "completion_tokens": 2}
    seen = told(role(), says("a", "stop"))
    assert continuation(chat(), CHAT, seen) is Reason.COMPLETE
    assert finish_events(chat(), CHAT, seen, 5) == DONE
    assert finish_events(body, CHAT, told(role(), says("a", "stop"), usage(5, 1)), 5) == DONE
    assert finish_events(body, CHAT, told(role(), says("a", "stop"), usage(5, 1), DONE), 5) == b""
    text = told(raw({**IDENTITY, "choices": [choice(text="a")]}))
    assert continuation(complete(max_tokens=1), COMPLETION, text) is Reason.COMPLETE
    ended = data_of(finish_events(complete(max_tokens=1), COMPLETION, text))[0]
    assert (ended["object"], ended["choices"][0]["text"]) == ("text_completion", "")


def test_the_text_can_be_counted() -> None:
    asked = json.loads(count_request(chat(), told(role(), says("a"), says(" b"))))
    assert asked == {"model": "m", "prompt": "a b", "add_special_tokens": False}


# What comes of its answer.


def resumed(seen: Transcript, body: bytes = chat(), **options: Any) -> Continuation:
    return Continuation(seen, planned(body, seen, **options)[0], MARK)


def test_a_continuation_is_marked_and_looks_like_the_first_stream() -> None:
    change = resumed(told(role(), says("Once"), says(" upon")))
    assert change.feed(role(OTHER, prompt_text="<user>hi<assistant>Once upon")) == b""
    out = change.feed(says(" a", frame=OTHER) + b": ping\n\n" + says(" time", "stop", OTHER))
    assert out.startswith(MARK)
    out += change.feed(usage(22, 2, OTHER) + DONE) + change.end()
    assert out.count(MARK) == 1
    assert b": ping\n\n" in out
    first, last, counts, done = data_of(out)
    assert first == {**IDENTITY, "choices": [choice(delta={"content": " a"})]}
    assert last == {**IDENTITY, "choices": [choice("stop", delta={"content": " time"})]}
    assert counts["usage"] == {"prompt_tokens": 20, "total_tokens": 24, "completion_tokens": 4}
    assert done == "[DONE]"
    assert change.failed is None


def test_the_engines_own_count_of_the_prompt_is_kept() -> None:
    """With continuous_usage_stats it is known; and what was cached is not said, as only the first engine knew it."""
    seen = told(role(), says("a", usage={"prompt_tokens": 30, "completion_tokens": 3, "total_tokens": 33}))
    change = resumed(seen)
    details = {"prompt_tokens_details": {"cached_tokens": 32}}
    counts = {"prompt_tokens": 34, "completion_tokens": 2, "total_tokens": 36, **details}
    out = change.feed(role(OTHER, prompt_text="a") + says("b", frame=OTHER, usage=counts))
    assert data_of(out)[0]["usage"] == {"prompt_tokens": 30, "completion_tokens": 5, "total_tokens": 35}


def test_a_stream_that_had_not_begun_is_passed_on() -> None:
    change = resumed(told())
    stream = role(OTHER) + says("a", "stop", OTHER) + usage(5, 1, OTHER) + DONE
    assert data_of(change.feed(stream)) == data_of(stream)


def test_tokens_that_are_made_again_are_counted_once() -> None:
    """Where the client asked for continuous_usage_stats, and where the text was counted."""
    counts = [{"prompt_tokens": 30, "completion_tokens": made, "total_tokens": 30 + made} for made in (2, 3, 4)]
    texts = ["I am", "\n", ""]  # two tokens, one, and half a character
    seen = told(role(), *(says(text, usage=count) for text, count in zip(texts, counts, strict=True)))
    assert planned(chat(), seen)[0].tokens == 3
    assert planned(chat(temperature=0), seen)[0].tokens == 2
    assert planned(chat(temperature=0), seen, tokens=9)[0].tokens == 8
    seen.begin_continuation(planned(chat(), seen)[0].events)
    assert planned(chat(), seen)[0].tokens == 3


@pytest.mark.parametrize(
    ("prompt", "events", "new", "failed"),
    [
        ("..Hi.\n", ["\n", "You"], "You", None),
        ("..Hi.\n", ["\n\nYou"], "\nYou", None),
        ("..Hi.\n", ["You"], "", Reason.DIVERGED),
        ("..Hi.\n", [], "", Reason.DIVERGED),
        ("..Hi.", ["\n", "\n", "You"], "You", None),  # the template took the line feed off
        ("..Hi.", ["\n\nYou"], "You", None),
        ("..Hi.", ["\n", " You"], "", Reason.DIVERGED),
        ("..Hi", ["\n", "\n", "You"], "", Reason.ALTERED),
        (None, ["\n", "\n", "You"], "", Reason.ALTERED),  # not told, and it may have been taken off
    ],
)
def test_what_the_client_has_is_taken_out(prompt: Any, events: list[str], new: str, failed: Reason | None) -> None:
    change = resumed(told(role(), says("Hi."), says("\n"), says("\n")), default_temperature=0.0)
    stream = b"".join(says(text, frame=OTHER) for text in events)
    out = change.feed(role(OTHER, prompt_text=prompt) + stream + says("", "stop", OTHER) + DONE)
    assert change.failed is failed
    if failed:
        assert change.feed(says("more")) == b""
    given = [event for event in data_of(out) if event != "[DONE]"]
    assert "".join(event["choices"][0]["delta"]["content"] for event in given) == new
    assert (DONE in out) is (b'"stop"' in out) is (failed is None)


def test_an_error_of_the_second_engine_is_not_passed_on() -> None:
    change = resumed(told(role(), says("a")))
    error = raw({"error": {"message": "EngineCore encountered an issue.", "code": 500}})
    out = change.feed(role(OTHER, prompt_text="a") + says("b", frame=OTHER) + error + DONE)
    assert [event["choices"][0]["delta"]["content"] for event in data_of(out)] == ["b"]
    assert change.failed is Reason.ENGINE_ERROR
    change = resumed(told(role(), says("a")))
    assert change.feed(b"data: nonsense\n\n") == b""
    assert change.failed is Reason.UNREADABLE


def test_a_stream_goes_on_twice_and_through_other_changes() -> None:
    """The transcript has what the engines said; residue is taken out behind it, across the breaks."""
    residue = EventChanger(Changes(b"", strip=("[sic]",)))
    seen = Transcript(False, whole_only=True)
    given = b""
    first = role() + says("Once [s")
    seen.keep(first + says("lost")[:20])
    given += residue.feed(first)
    for number, (text, new) in enumerate([("Once [s", "ic] upon [si"), ("Once [sic] upon [si", "c] a time")]):
        plan, request = planned(chat(), seen)
        assert request["messages"][-1]["content"] == text
        seen.begin_continuation(plan.events)
        change = Continuation(seen, plan, resumed_comment(number, number + 1, seen.event_count))
        out = change.feed(role(OTHER, prompt_text=text) + says(new, frame=OTHER) + says("half", frame=OTHER)[:25])
        change.broken()
        seen.keep(out)
        given += residue.feed(out)
    given += residue.feed(says("", "stop") + DONE) + residue.end()
    events = data_of(given)
    assert "".join(event["choices"][0]["delta"]["content"] for event in events[:-1]) == "Once  upon  a time"
    assert {event["id"] for event in events[:-1]} == {"chatcmpl-1"}
    assert given.count(b": launcher resumed") == 2
    assert b"resumed from replica 1 on replica 2 after 2 events" in given


# What clients make of it.

MADE_OF_TWO = role() + says("Once") + waiting_comment() + MARK + says(" upon", "stop") + usage(3, 2) + DONE


@pytest.fixture
async def server() -> AsyncIterator[str]:
    """Answers whatever it is asked with a stream that was put together."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
        kind = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
        writer.write(kind + MADE_OF_TWO)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as running:
        yield f"http://127.0.0.1:{running.sockets[0].getsockname()[1]}/v1"


async def test_openai_and_langchain_see_no_comments(server: str) -> None:
    asked: Any = [{"role": "user", "content": "hi"}]
    async with AsyncOpenAI(base_url=server, api_key="none", max_retries=0) as ai:
        stream = await ai.chat.completions.create(model="m", messages=asked, stream=True)
        chunks = [chunk async for chunk in stream]
    assert [chunk.choices[0].delta.content for chunk in chunks if chunk.choices] == ["", "Once", " upon"]
    assert chunks[-1].usage is not None
    llm = ChatOpenAI(base_url=server, api_key="none", model="m", max_retries=0)  # type: ignore[arg-type]
    answer = [chunk async for chunk in llm.astream("hi")]
    assert "".join(str(chunk.content) for chunk in answer) == "Once upon"
