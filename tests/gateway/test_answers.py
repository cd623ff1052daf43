"""Changed requests and answers: thinking switches, folded reasoning, images first, residue; whole and streamed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.gateway.answers import EventChanger, change_whole
from launcher.gateway.compat import Changes, change_chat, change_completion
from launcher.gateway.refusal import Refused
from launcher.gateway.residue import ResidueFilter, strip_residue
from launcher.gateway.sse import EventParser, event_data
from launcher.profile.model import TemplatePolicy
from tests.fakes.process import FakeEngine
from tests.gateway.harness import Desk, chat, events, gateway_to

PLAIN = TemplatePolicy()


def changed(value: dict[str, Any], policy: TemplatePolicy = PLAIN) -> tuple[dict[str, Any], Changes]:
    changes = change_chat(json.dumps(value).encode(), policy)
    return json.loads(changes.body), changes


@pytest.mark.parametrize(
    ("asked", "sent", "fold"),
    [
        ({"enable_thinking": True}, {"chat_template_kwargs": {"enable_thinking": True}}, False),
        ({"enable_thinking": False}, {"chat_template_kwargs": {"enable_thinking": False}}, False),
        ({"return_reasoning": True}, {"include_reasoning": True}, True),
        ({"return_reasoning": False}, {"include_reasoning": False}, False),
        ({"return_reasoning": None, "enable_thinking": None}, {}, False),
        (
            {"enable_thinking": True, "chat_template_kwargs": {"other": 1}},
            {"chat_template_kwargs": {"other": 1, "enable_thinking": True}},
            False,
        ),
        (
            {"enable_thinking": True, "chat_template_kwargs": {"enable_thinking": True}},
            {"chat_template_kwargs": {"enable_thinking": True}},
            False,
        ),
        ({"return_reasoning": True, "include_reasoning": True}, {"include_reasoning": True}, True),
    ],
)
def test_switches_go_where_vllm_reads_them(asked: dict[str, Any], sent: dict[str, Any], fold: bool) -> None:
    body, changes = changed(chat(**asked))
    assert body == chat(**sent)
    assert changes.fold_reasoning is fold


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            {"enable_thinking": True, "chat_template_kwargs": {"enable_thinking": False}},
            "enable_thinking is true but chat_template_kwargs.enable_thinking is false: give one of them, or the same "
            "value in both.",
        ),
        (
            {"return_reasoning": True, "include_reasoning": False},
            "return_reasoning is true but include_reasoning is false: give one of them, or the same value in both.",
        ),
        ({"enable_thinking": "yes"}, 'enable_thinking must be true or false, not "yes".'),
        ({"return_reasoning": 1}, "return_reasoning must be true or false, not 1."),
        ({"enable_thinking": True, "chat_template_kwargs": [1]}, "chat_template_kwargs must be an object."),
    ],
)
def test_switches_that_cannot_be_meant(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(Refused) as refused:
        changed(chat(**asked))
    assert refused.value.refusal.message == message
    assert refused.value.refusal.status == 400


@pytest.mark.parametrize(
    "body",
    [
        b'{"messages":[]  , "chat_template_kwargs":{"enable_thinking" : true}}',
        b'{"messages":[{"role":"user","content":"what is \\"enable_thinking\\"?"}]}',
        b'{"enable_thinking": true, broken',
        b'["enable_thinking"]',
        b"",
    ],
)
def test_other_bodies_keep_their_bytes(body: bytes) -> None:
    assert change_chat(body, PLAIN).body is body


TEXT, IMAGE, IMAGE2 = (
    {"type": "text", "text": "t"},
    {"type": "image_url", "image_url": {"url": "u"}},
    {"image_url": "v"},
)


def test_deeply_nested_json_is_the_engines_to_judge() -> None:
    body = b'{"enable_thinking": true, "messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert change_chat(body, PLAIN).body == body


def test_images_come_first() -> None:
    policy = TemplatePolicy(image_first=True)
    messages = [{"role": "user", "content": [TEXT, IMAGE, {"type": "text", "text": "u"}, IMAGE2]}]
    body, _ = changed({"messages": messages}, policy)
    assert body["messages"][0]["content"] == [IMAGE, IMAGE2, TEXT, {"type": "text", "text": "u"}]
    assert changed({"messages": messages})[0] == {"messages": messages}
    tidy = json.dumps({"messages": [{"role": "user", "content": [IMAGE, TEXT]}]}).encode()
    assert change_chat(tidy, policy).body is tidy
    for odd in (b'{"messages": "image"}', b'{"messages": [1, {"content": ["image", 2]}]}', b'["image"]'):
        assert change_chat(odd, policy).body is odd


def test_several_images_are_numbered_where_the_profile_says_so() -> None:
    policy = TemplatePolicy(number_images=True)
    later = {"role": "user", "content": [IMAGE2, TEXT]}
    messages = [{"role": "user", "content": [TEXT, IMAGE]}, {"role": "assistant", "content": "A cat."}, later]
    body, _ = changed({"messages": messages}, policy)
    number = lambda count: {"type": "text", "text": f"Image {count}:"}  # noqa: E731
    assert body["messages"][0]["content"] == [TEXT, number(1), IMAGE]
    assert body["messages"][2]["content"] == [number(2), IMAGE2, TEXT]
    first = TemplatePolicy(number_images=True, image_first=True)
    body, _ = changed({"messages": [{"role": "user", "content": [TEXT, IMAGE, IMAGE2]}]}, first)
    assert body["messages"][0]["content"] == [number(1), IMAGE, number(2), IMAGE2, TEXT]
    single = json.dumps({"messages": [{"role": "user", "content": [TEXT, IMAGE]}]}).encode()
    assert change_chat(single, policy).body is single


@pytest.mark.parametrize(
    ("asked", "stops"),
    [
        ({}, ["</credit>", "<|user|>"]),
        ({"stop": None}, ["</credit>", "<|user|>"]),
        ({"stop": "END"}, ["END", "</credit>", "<|user|>"]),
        ({"stop": ["<|user|>"]}, ["<|user|>", "</credit>"]),
        ({"stop": 5}, 5),
    ],
)
def test_the_profiles_stop_strings_are_added(asked: dict[str, Any], stops: Any) -> None:
    policy = TemplatePolicy(stop=("</credit>", "<|user|>"))
    assert changed({"messages": [], **asked}, policy)[0]["stop"] == stops
    completion = change_completion(json.dumps({"prompt": "x", **asked}).encode(), policy)
    assert json.loads(completion.body)["stop"] == stops


async def test_reasoning_is_folded_in_both_ways_alike(desk: Desk, engine: FakeEngine) -> None:
    await engine.set(reasoning="let me see", reply="It is so.", crlf=True, split_bytes=11)
    asked = chat(enable_thinking=True, return_reasoning=True, n=2)
    whole = (await desk.post(asked)).json()
    told = events((await desk.post(asked | {"stream": True})).body)
    streamed = {0: "", 1: ""}
    for event in told[:-1]:
        for choice in event["choices"]:
            streamed[choice["index"]] += choice["delta"].get("content") or ""
    expected = "<think>let me see</think>\n\nIt is so."
    assert [choice["message"]["content"] for choice in whole["choices"]] == [expected, expected]
    assert streamed == {0: expected, 1: expected}
    assert whole["choices"][0]["message"]["reasoning"] == "let me see"
    assert [e["choices"][0]["delta"]["reasoning"] for e in told[:-1] if "reasoning" in e["choices"][0]["delta"]]
    seen = json.loads((await engine.seen())["requests"][-1]["body"])
    assert seen["chat_template_kwargs"] == {"enable_thinking": True}
    assert seen["include_reasoning"] is True
    assert not {"enable_thinking", "return_reasoning"} & set(seen)


async def test_no_reasoning_when_it_is_not_wanted(desk: Desk, engine: FakeEngine) -> None:
    await engine.set(reasoning="let me see", reply="It is so.")
    for asked in ({"return_reasoning": False}, {"enable_thinking": False, "return_reasoning": True}):
        message = (await desk.post(chat(**asked))).json()["choices"][0]["message"]
        assert (message["content"], message["reasoning"]) == ("It is so.", None)
    message = (await desk.post(chat(enable_thinking=True))).json()["choices"][0]["message"]
    assert (message["content"], message["reasoning"]) == ("It is so.", "let me see")


async def test_thinking_is_closed_before_a_tool_call(desk: Desk, engine: FakeEngine) -> None:
    await engine.set(reasoning="let me see", reply=" ", tool_call=True)
    told = events((await desk.post(chat(return_reasoning=True, stream=True))).body)[:-1]
    position = next(i for i, event in enumerate(told) if event["choices"][0]["delta"].get("tool_calls"))
    before = "".join(event["choices"][0]["delta"].get("content") or "" for event in told[: position + 1])
    assert before.startswith("<think>let me see</think>\n\n")


async def test_a_refused_switch_leaves_the_connection_open(desk: Desk, engine: FakeEngine) -> None:
    client = await desk.client()
    await client.post("/v1/chat/completions", chat(enable_thinking="yes"))
    answer = await client.read()
    assert (answer.status, answer.error["param"], answer.error["src"]) == (400, "enable_thinking", "gateway")
    await client.post("/v1/chat/completions", chat())
    assert (await client.read()).status == 200
    await desk.at_rest()


async def test_errors_to_a_request_with_switches_pass_untouched(desk: Desk, engine: FakeEngine) -> None:
    await engine.set(fault="error_500")
    answer = await desk.post(chat(return_reasoning=True, stream=True))
    assert (answer.status, answer.error["type"]) == (500, "InternalServerError")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_residue_is_taken_out_of_answers(engine: FakeEngine, path: str) -> None:
    await engine.set(reply="It is </cre dit> so.</credit> Yes.<|end|>", split_bytes=5)
    async with gateway_to(engine.url, template=TemplatePolicy(strip=("</credit>", "<|end|>", " Yes"))) as desk:
        choice = (await desk.post(chat(prompt="x"), path=path)).json()["choices"][0]
        told = events((await desk.post(chat(prompt="x", stream=True), path=path)).body)
    whole = choice["message"]["content"] if "message" in choice else choice["text"]
    streamed = "".join(
        c["delta"].get("content") or "" if "delta" in c else c["text"] for e in told[:-1] for c in e["choices"]
    )
    assert whole == streamed == "It is </cre dit> so.."
    assert told[-1] == "[DONE]"


def test_a_reasoning_that_nothing_follows_is_closed() -> None:
    """The stream ends without the choice's last delta, or breaks: the tag is closed either way."""
    event = b'data: {"id":"1","choices":[{"index":0,"delta":{"reasoning":"hm"}}]}\n\n'
    for ended in (lambda c: c.feed(b"data: [DONE]\n\n"), lambda c: c.end(), lambda c: c.broken()):
        changer = EventChanger(Changes(b"", fold_reasoning=True))
        text = "".join(
            e["choices"][0]["delta"]["content"] for e in events(changer.feed(event) + ended(changer)) if e != "[DONE]"
        )
        assert text == "<think>hm</think>\n\n"


def test_events_that_need_no_change_keep_their_bytes() -> None:
    changer = EventChanger(Changes(b"", fold_reasoning=True, strip=("</credit>",)))
    stream = (
        b": ping\n\n"
        b'data: {"choices" : [ {"index":0, "delta":{"role":"assistant","content":""}}]}\n\n'
        b'data:{"choices":[{"index":0,"delta":{"content":"caf\\u00e9"}}]}\r\n\r\n'
        b'event: x\ndata: {"error":{"message":"m"}}\n\n'
        b'data: {"choices":[],"usage":{"prompt_tokens":1}}\n\n'
        b"data: not json\n\n"
        b"data: [DONE]\n\n"
    )
    assert changer.feed(stream) + changer.end() == stream


def test_whole_answers_that_are_no_answers_stay() -> None:
    changes = Changes(b"", fold_reasoning=True, strip=("x",))
    for body in (b"", b"x", b"[1]", b'{"choices": null}', b'{"choices":[{"message":{"content":null}}]}', b'{"a": "x"}'):
        assert change_whole(body, changes) is body


RESIDUES = ("</credit>", "</cr", "<|end|>", "aab", "ab")


@given(
    st.lists(st.sampled_from([*RESIDUES, "a", "b", "<", "/", "</", "</credi", "|", "x", ""]), max_size=12), st.data()
)
def test_streamed_residue_filter_equals_the_whole_one(parts: list[str], data: st.DataObject) -> None:
    text = "".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    stream = ResidueFilter(RESIDUES)
    assert "".join([stream.feed(piece) for piece in pieces]) + stream.end() == strip_residue(text, RESIDUES)


@given(st.text(alphabet="<>/credit abx|", max_size=30))
def test_the_filter_holds_back_no_more_than_a_beginning(text: str) -> None:
    stream = ResidueFilter(RESIDUES)
    out = stream.feed(text)
    held = stream.end()
    assert not held or any(residue.startswith(held) or held in residue for residue in RESIDUES) or len(held) < 9
    assert len(out) + 9 > len(strip_residue(text, RESIDUES))


EVENTS = (
    b"data: {}\n\n",
    b": comment\n\n",
    b"data: a\r\ndata: b\r\n\r\n",
    b"event: e\ndata: x\n\n",
    b"\n\n",
    b"data: \n\n",
)


@given(st.lists(st.sampled_from(EVENTS), max_size=8), st.data())
def test_events_are_found_wherever_the_stream_is_cut(parts: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(parts) + b"data: unfini"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    whole, cut = EventParser(), EventParser()
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    found = [event for piece in pieces for event in cut.feed(piece)]
    assert found == whole.feed(stream)
    assert b"".join(found) + cut.end() == stream


def test_event_data() -> None:
    assert event_data(b"data: a\r\ndata:b\r\n\r\n") == b"a\nb"
    assert event_data(b"data: [DONE]\n\n") == b"[DONE]"
    assert event_data(b": comment\n\n") is None


@given(
    st.lists(st.sampled_from(["r1", "r2 ", "", "\n"]), max_size=4),
    st.lists(st.sampled_from(["c1", " c2", "</credit>", "</cre", "dit>", ""]), max_size=6),
    st.booleans(),
    st.data(),
)
def test_a_stream_says_what_the_whole_answer_says(
    reasoning: list[str], content: list[str], finishes: bool, data: st.DataObject
) -> None:
    """Property: the deltas joined are the whole answer's content, for any cut of the stream's bytes."""
    changes = Changes(b"", fold_reasoning=True, strip=("</credit>",))
    deltas = [
        {"role": "assistant", "content": ""},
        *({"reasoning": r} for r in reasoning),
        *({"content": c} for c in content),
    ]
    choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    if finishes:
        choices.append({"index": 0, "delta": {}, "finish_reason": "stop"})
    stream = b"".join(b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n" for choice in choices)
    stream += b"data: [DONE]\n\n"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    changer = EventChanger(changes)
    out = (
        b"".join(changer.feed(stream[a:b]) for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True))
        + changer.end()
    )
    text = "".join(e["choices"][0]["delta"].get("content") or "" for e in events(out) if e != "[DONE]")
    message = {"role": "assistant", "content": "".join(content), "reasoning": "".join(reasoning)}
    whole = json.loads(change_whole(json.dumps({"choices": [{"message": message}]}).encode(), changes))
    assert text == whole["choices"][0]["message"]["content"]
