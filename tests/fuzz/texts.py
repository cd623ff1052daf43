"""What is read within bodies: events and their changes, residue, the thinking switches, usage, and the price."""

from __future__ import annotations

import json
from typing import Any

from launcher.gateway import cutting
from launcher.gateway.answers import EventChanger, change_whole
from launcher.gateway.asked import MOST_TOKENS, SHAPES
from launcher.gateway.compat import Changes, change_chat
from launcher.gateway.price import Price, Pricer
from launcher.gateway.refusal import Refused
from launcher.gateway.residue import ResidueFilter, strip_residue
from launcher.gateway.sse import EventParser, event_data
from launcher.gateway.usage import find_usage
from launcher.plan.image_tokens import ImageRule
from launcher.profile.model import TemplatePolicy
from tests.fuzz.cuts import alike
from tests.fuzz.target import Target

RESIDUES = (("</credit>",), ("aa", "ab", "aab"), ("<|x|>", "<|", "|>"), ("abcabd", "cab"))


def events(data: bytes) -> None:
    """Events are whole, none is lost, and each says what the standard's own way of reading says."""
    found, rest = alike(data, parse_events)
    assert b"".join(found) + rest == data
    assert b"\n\n" not in rest
    for event in found:
        assert event.endswith((b"\n\n", b"\n\r\n"))
        said = [line[5:] for line in event.replace(b"\r\n", b"\n").split(b"\n") if line.startswith(b"data:")]
        expected = b"\n".join(text.removeprefix(b" ") for text in said) if said else None
        if b"\r" not in event.replace(b"\r\n", b""):  # a line end too, says the standard; no engine sends it
            assert event_data(event) == expected


def parse_events(pieces: list[bytes]) -> tuple[list[bytes], bytes]:
    parser = EventParser()
    return [event for piece in pieces for event in parser.feed(piece)], parser.end()


def changes(data: bytes) -> None:
    """A stream of events with its changes, whatever an engine sends; and the same bytes as a whole answer."""
    kind = data[0] if data else 0
    wanted = Changes(b"", bool(kind & 1), RESIDUES[kind >> 1 & 3] if kind & 8 else ())
    alike(data[1:], lambda pieces: change(pieces, wanted, False))
    alike(data[1:], lambda pieces: change(pieces, wanted, True))
    change_whole(data[1:], wanted)


def change(pieces: list[bytes], wanted: Changes, breaks_off: bool) -> bytes:
    changer = EventChanger(wanted)
    out = b"".join(changer.feed(piece) for piece in pieces)
    return out + (changer.broken() if breaks_off else changer.end())


def residue(data: bytes) -> None:
    """Streamed or whole, the text is the same: piece by piece, in events, and in the whole answer."""
    text = data[:200].decode("latin-1")
    for residues in RESIDUES:
        whole = strip_residue(text, residues)
        for size in (1, 2, 3, 7):
            filter_ = ResidueFilter(residues)
            parts = [filter_.feed(text[i : i + size]) for i in range(0, len(text), size)]
            assert "".join(parts) + filter_.end() == whole
        said = [part for part in text.split("\n") if part]
        reasoning, content = "".join(said[::2][:1]), "".join(said[1:])
        told = [{"reasoning": reasoning}, *({"content": part} for part in said[1:])]
        wanted = Changes(b"", True, residues)
        stream = b"".join(event_of(delta) for delta in told) + event_of({}, "stop") + b"data: [DONE]\n\n"
        answer = {
            "choices": [{"index": 0, "message": {"role": "assistant", "content": content, "reasoning": reasoning}}]
        }
        expected = json.loads(change_whole(json.dumps(answer).encode(), wanted))["choices"][0]["message"]["content"]
        assert joined(change([stream], wanted, False)) == expected


def event_of(delta: dict[str, str], finish: str | None = None) -> bytes:
    return (
        b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}).encode() + b"\n\n"
    )


def joined(stream: bytes) -> str:
    found, rest = parse_events([stream])
    assert not rest
    values = [json.loads(event[6:]) for event in found if b"[DONE]" not in event]
    return "".join(value["choices"][0]["delta"].get("content") or "" for value in values)


POLICY = TemplatePolicy(image_first=True, strip=("</credit>",))


def switches(data: bytes) -> None:
    """A chat's body is changed or refused; what is changed means the same but for the switches and the order."""
    try:
        changed = change_chat(data, POLICY)
    except Refused as refused:
        refusal = refused.refusal
    else:
        keeps_the_rest(data, changed.body)
        return
    assert refusal.status == 400
    assert refusal.body()


def keeps_the_rest(data: bytes, body: bytes) -> None:
    if body != data:
        before, after = json.loads(data), json.loads(body)
        assert "enable_thinking" not in after
        assert "return_reasoning" not in after
        ours = {"enable_thinking", "return_reasoning", "chat_template_kwargs", "include_reasoning", "messages"}
        assert repr({k: v for k, v in after.items() if k not in ours}) == repr(
            {k: v for k, v in before.items() if k not in ours}
        )


def usage(data: bytes) -> None:
    found = find_usage(data)
    assert found is None or min(found) >= 0


RULES = (None, ImageRule("glm4v", max_pixels=28 * 28 * 15000))
ROUTES = (*SHAPES, "/v1/audio/transcriptions", "/nowhere")
# Not the chain, which hashes the text with a salt of the process, nor the features' object.
COMPARED = (
    "prompt_tokens", "output_tokens", "image_tokens", "text_bytes", "max_output_tokens", "model", "other_tokens",
    "priority", "sequences", "streams", "wants_usage", "can_resume", "chain", "block_tokens",
)  # fmt: skip


def price(data: bytes) -> None:
    """Never raises, stays within bounds, repeats itself; and what is cut out of a body before it is read changes nothing."""
    route, rule, body = ROUTES[data[0] % len(ROUTES)] if data else ROUTES[0], RULES[len(data) & 1], data[1:]
    whole, cut = priced(route, rule, body, 1 << 60), priced(route, rule, body, 0)
    for name in ("prompt_tokens", "output_tokens", "image_tokens", "text_bytes"):
        assert 0 <= getattr(whole, name) <= MOST_TOKENS, name
    assert whole.sequences >= 1
    assert facts(whole) == facts(priced(route, rule, body, 1 << 60))
    if cutting.decode(body) is not None:  # for what is no JSON nothing is promised
        differ = {
            name: (getattr(cut, name), value) for name, value in facts(whole).items() if getattr(cut, name) != value
        }
        assert not differ, f"cut and uncut differ: {differ}"


def priced(route: str, rule: ImageRule | None, body: bytes, cut_from: int) -> Price:
    before = cutting.CUT_FROM, cutting.MIN_CUT
    cutting.CUT_FROM, cutting.MIN_CUT = cut_from, 64  # shorter ones are told apart by what is behind them
    try:
        return Pricer(image_rule=rule, context_tokens=8192, model="m").price(route, body)
    finally:
        cutting.CUT_FROM, cutting.MIN_CUT = before


def facts(price: Price) -> dict[str, Any]:
    return {name: getattr(price, name) for name in COMPARED}


EVENT = b'data: {"id":"a","choices":[{"index":0,"delta":{"role":"assistant","content":"hi"},"finish_reason":null}]}\n\n'
EVENTS = (
    EVENT + b"data: [DONE]\n\n",
    b": comment\n\ndata: a\r\ndata:b\r\n\r\nevent: x\ndata:  c\n\n",
    EVENT.replace(b'"content":"hi"', b'"reasoning":"hm"') + EVENT + b'data: {"choices":[],"usage":{}}\n\n',
    EVENT.replace(b"hi", b"</cred") + EVENT.replace(b"hi", b"it>x").replace(b"null", b'"stop"') + b"data: [DONE]\n\n",
    b'data: {"choices":[{"index":0,"text":"aab"},{"index":1,"text":"a"}]}\n\ndata: {"error":{"message":"x"}}\n\n',
)
EVENT_WORDS = tuple(
    b'data: |data:|\n\n|\r\n\r\n|\n|\r|: |event: x\n|[DONE]|{"choices":[|{"index":|"delta":{|"content":"|"text":"|"reasoning":"|'
    b'"tool_calls":[]|"finish_reason":"stop"|"message":{|null|0|1|[]|{}|"|}|]|,|</credit>|aab|<||\\u00e9|\\ud800'.split(
        b"|"
    )
)
CHAT = (
    b'{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"a"},%b]}],"max_tokens":9,"stream":true}'
)
PICTURE = (
    b'{"type":"image_url","image_url":{"url":"data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAoAAAAKCAIAAAACUFjqAAAAEklEQVR4%b"}}'
    % (b"A" * 64)
)
CHATS = (
    CHAT % PICTURE,
    CHAT % b'{"type":"input_audio","input_audio":{"data":"AAAAAAAAAAAAAA==","format":"wav"}}',
    b'{"messages":[{"role":"user","content":"hi"}],"enable_thinking":true,"return_reasoning":false,"n":2,"priority":-1}',
    b'{"model":"m","prompt":["a","b"],"max_tokens":"16","truncate_prompt_tokens":5,"stream_options":{"include_usage":true}}',
    b'{"input":[[1,2,3],[4]],"query":"a","documents":["b",{"text":"c"}],"tools":[{"type":"function"}],"system":"s"}',
    b'{"messages":[{"role":"user","content":[{"type":"image","source":{"type":"base64","data":"/9j/4AAQSkZJRgABAQAAAQABAAD%b"}}]}]}'
    % (b"A" * 64),
)
CHAT_WORDS = tuple(
    b'"messages":|"role":"user"|"content":|"type":"text"|"text":"|"type":"image_url"|"image_url":|"url":"data:image/png;base64,|'
    b'"data":"|"data": "|"data:|\\"|\\\\|\\u0022|\\u0064ata|iVBORw0KGgo|/9j/|R0lGODlh|UklGR|==|"prompt":|"input":|'
    b'"max_tokens":|"n":|"stream":true|"tools":|"enable_thinking":|"return_reasoning":|"chat_template_kwargs":|true|false|null|NaN|'
    b'-Infinity|1e999|99999999999999999999|-1|0.5|[|]|{|}|,|:|"|\\ud800|\xc3\xa9|\xff|"priority":|"min_tokens":|"logprobs":'.split(
        b"|"
    )
)
USAGES = (
    b'x"usage":{"prompt_tokens":9,"total_tokens":12,"completion_tokens":3}}',
    b'event: message_delta\ndata: {"usage":{"input_tokens":5,"cache_read_input_tokens":2,"output_tokens":8}}\n\n',
)
USAGE_WORDS = tuple(
    b'"usage"|:|{|"prompt_tokens"|"completion_tokens"|"input_tokens"|"output_tokens"|12|\\|"'.split(b"|")
)
CHAT_WORDS += (b"A" * 80,)
ROUTE_KINDS = tuple(bytes([i]) for i in range(len(ROUTES)))

TARGETS = {
    "events": Target(events, EVENTS, EVENT_WORDS),
    "changes": Target(changes, tuple(b"%c%b" % (kind, seed) for kind in (9, 15, 1) for seed in EVENTS), EVENT_WORDS),
    "residue": Target(
        residue, (b"think\nhello</cre\ndit>x", b"a\naaababab\nb", b"\n<|x\n|>|>"), (b"\n", b"a", b"b", b"aab", b"</credit>", b"<|x|>", b"cab")
    ),
    "switches": Target(switches, CHATS, CHAT_WORDS),
    "usage": Target(usage, USAGES, USAGE_WORDS),
    "price": Target(price, tuple(kind + seed for kind in ROUTE_KINDS for seed in CHATS), CHAT_WORDS),
}  # fmt: skip
