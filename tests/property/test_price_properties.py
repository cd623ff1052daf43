"""What must hold of every price, whatever the body."""

from __future__ import annotations

import base64
import io
import json
import math
import random
from typing import Any
from unittest.mock import patch

from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from launcher.gateway import cutting
from launcher.gateway.asked import MOST_TOKENS, SHAPES, UPLOADS
from launcher.gateway.cutting import Body
from launcher.gateway.learning import LEAST_WEIGHTS, MOST_WEIGHTS, TextRate
from launcher.gateway.pictures import picture_size
from launcher.gateway.prefix import BLOCK_BYTES, PrefixCache, make_chain
from launcher.gateway.price import Price, Pricer, find_usage
from launcher.plan.image_tokens import ImageRule

fast = settings(max_examples=150, deadline=None)
GLM = ImageRule("glm4v")
routes = st.sampled_from([*SHAPES, *UPLOADS, "/v1/systemone"])
awkward = st.sampled_from([
    '"data:', '"data', '"data":"', "data:", '"', "\\", '\\"', "\\\\", '"data:image/png;base64,', ";base64,", "\ud800", "\x00", "cut:",
    "数据", "é", "🙂", "/", "\n",
])  # fmt: skip
texts = st.lists(awkward | st.text(max_size=20), max_size=8).map("".join)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts | st.sampled_from([10**30, -(10**30), "12", 1e300]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
FIELDS = [
    "model", "messages", "prompt", "input", "instructions", "system", "tools", "functions", "documents", "query", "queries",
    "text_1", "text_2", "data_1", "items", "texts", "images", "inputs", "data", "max_tokens", "max_completion_tokens",
    "max_output_tokens", "n", "stream", "stream_options", "priority", "cache_salt", "ignore_eos", "min_tokens",
    "truncate_prompt_tokens", "suffix", "logprobs", "response_format", "modalities", "tool_choice",
]  # fmt: skip
KINDS = ["text", "image_url", "input_image", "image", "image_embeds", "input_audio", "audio_url", "video_url", "tool_use",
         "tool_result", "refusal", "thinking", "no such kind"]  # fmt: skip
parts = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(KINDS) | json_values,
        **{
            key: json_values | st.fixed_dictionaries({}, optional={"url": json_values, "data": json_values})
            for key in (
                "text",
                "image_url",
                "input_audio",
                "source",
                "video_url",
                "audio_url",
                "content",
                "input",
                "name",
            )
        },
    },
)
messages = st.fixed_dictionaries(
    {}, optional={"role": json_values, "content": st.lists(parts, max_size=3) | json_values, "tool_calls": json_values}
)
odd_bodies = st.dictionaries(
    st.sampled_from(FIELDS),
    st.lists(messages, max_size=3) | messages | st.lists(parts, max_size=2) | json_values,
    max_size=8,
)


def check(price: Price) -> None:
    counts = (price.prompt_tokens, price.output_tokens, price.image_tokens, price.text_bytes, price.sequences)
    assert all(type(count) is int and count >= 0 for count in counts)
    assert price.prompt_tokens <= MOST_TOKENS
    assert price.output_tokens <= MOST_TOKENS
    assert price.image_tokens <= price.prompt_tokens
    assert price.sequences >= 1
    assert price.max_output_tokens is None or 0 <= price.max_output_tokens <= MOST_TOKENS
    assert abs(price.priority) <= MOST_TOKENS
    assert type(price.streams) is type(price.wants_usage) is type(price.can_resume) is bool
    assert type(price.model) is str
    assert math.isfinite(price.block_tokens)
    assert len(price.chain) * price.block_tokens <= price.prompt_tokens * 1.01 + 1


@fast
@given(routes, st.binary(max_size=300), st.booleans())
@example("/v1/chat/completions", b'{"messages":' + b"[" * 50_000, False)
@example("/v1/chat/completions", b'{"messages":[{"content":' + b'[{"type":"tool_result","content":' * 900, False)
@example("/v1/completions", b'{"max_tokens":' + b"9" * 5000 + b"}", False)
def test_any_bytes_have_a_price(route: str, body: bytes, padded: bool) -> None:
    check(Pricer().price(route, body + b" " * cutting.CUT_FROM if padded else body))


@settings(max_examples=80, deadline=None)
@given(routes, odd_bodies, st.sampled_from([None, 100, 65536]))
def test_any_json_has_a_price(route: str, body: dict[str, Any], context_tokens: int | None) -> None:
    pricer = Pricer(image_rule=GLM, context_tokens=context_tokens)
    raw = json.dumps(body).encode()
    for padded in (raw, raw + b" " * cutting.CUT_FROM):
        price = pricer.price(route, padded, "key")
        check(price)
        if context_tokens:
            assert price.prompt_tokens <= context_tokens * max(1, price.sequences)
        pricer.learn(price, "key", 50, 20)


def nested(kind: str, depth: int) -> bytes:
    part: Any = {"type": "text", "text": "x"}
    for _ in range(depth):
        part = {"type": kind, "input" if kind == "tool_use" else "content": [part]}
    return json.dumps({"messages": [{"role": "user", "content": [part]}], "tools": part}).encode()


@fast
@given(st.sampled_from(["tool_result", "tool_use"]), st.integers(0, 150))
def test_contents_within_contents_have_a_price(kind: str, depth: int) -> None:
    check(Pricer().price("/v1/messages", nested(kind, depth)))


# The cut: the price of the body without its base64 is the price of the whole.


def noise(size: tuple[int, int], seed: int, form: str) -> str:
    file = io.BytesIO()
    Image.frombytes("L", size, random.Random(seed).randbytes(size[0] * size[1])).save(file, form)
    return base64.b64encode(file.getvalue()).decode()


_PICTURES = [
    noise((90, 60), 1, "PNG"),
    noise((200, 90), 2, "JPEG"),
    noise((40, 40), 3, "BMP"),
    noise((90, 90), 4, "GIF"),
]
pictures = st.integers(0, len(_PICTURES) - 1).map(lambda index: _PICTURES[index])
data_urls = st.builds(
    lambda before, picture, after: before + picture + after,
    st.sampled_from(["data:image/png;base64,", "data:;base64,", "data:,", "data:", "", "x", 'x"data:', '"data": "']),
    pictures,
    st.sampled_from(["", "=", "é", " ", '"', "\\", '\\"', '"data:', "\n", "AAAA"]),
)
strings = texts | data_urls
values = st.recursive(
    strings | st.integers(-9, 9) | st.none(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["data", "url", "a"]) | strings, inner, max_size=3)
    ),
    max_leaves=5,
)
real_parts = st.one_of(
    st.fixed_dictionaries({"type": st.just("text"), "text": strings}),
    st.fixed_dictionaries({"type": st.just("image_url"), "image_url": st.fixed_dictionaries({"url": strings})}),
    st.fixed_dictionaries({"type": st.just("input_audio"), "input_audio": st.fixed_dictionaries({"data": strings})}),
    st.fixed_dictionaries({"type": st.just("image"), "source": st.fixed_dictionaries({"data": strings})}),
)
real_bodies = st.fixed_dictionaries(
    {
        "messages": st.lists(
            st.fixed_dictionaries({"role": st.just("user"), "content": strings | st.lists(real_parts, max_size=3)}),
            max_size=3,
        )
    },
    optional={"model": strings, "tools": values, "data": values, "cache_salt": strings, "instructions": strings},
)


def write(value: Any, ascii_only: bool, spaced: bool, slashes: bool) -> bytes:
    separators = (" ,\n", " :\t") if spaced else (",", ":")
    text = json.dumps(value, ensure_ascii=ascii_only, separators=separators)
    return (text.replace("/", "\\/") if slashes else text).encode("utf-8", "surrogatepass")


def restored(body: Body, value: Any) -> Any:
    if isinstance(value, str):
        return body.text(value)
    if isinstance(value, list):
        return [restored(body, item) for item in value]
    if isinstance(value, dict):
        return {body.text(key): restored(body, item) for key, item in value.items()}
    return value


@settings(max_examples=300, deadline=None)
@given(real_bodies | values, st.booleans(), st.booleans(), st.booleans())
def test_the_cut_changes_no_value(value: Any, ascii_only: bool, spaced: bool, slashes: bool) -> None:
    raw = write(value, ascii_only, spaced, slashes)
    try:
        whole = json.loads(raw)
    except ValueError:  # a lone surrogate, written raw, is no UTF-8: the engine refuses it
        return
    with patch.object(cutting, "CUT_FROM", 0):
        body = Body(raw)
    assert restored(body, body.value) == whole
    for start, end in body.cuts:
        assert end - start >= cutting.MIN_CUT


@settings(max_examples=300, deadline=None)
@given(
    real_bodies,
    st.sampled_from(["/v1/chat/completions", "/v1/messages", "/v1/responses"]),
    st.booleans(),
    st.booleans(),
)
def test_the_price_with_the_cut_is_the_price_without(value: Any, route: str, spaced: bool, slashes: bool) -> None:
    raw = write(value, True, spaced, slashes)
    with patch.object(cutting, "CUT_FROM", 0):
        cut = Pricer(image_rule=GLM).price(route, raw)
    with patch.object(cutting, "CUT_FROM", len(raw) + 1):
        whole = Pricer(image_rule=GLM).price(route, raw)
    # A sound's length, and a picture's fingerprint, are those of the escaped letters where only the middle has escapes.
    assert figures(cut) == figures(whole)


def figures(price: Price) -> dict[str, Any]:
    """All that a price says."""
    return {name: getattr(price, name) for name in dir(price) if not name.startswith("_")}


@fast
@given(
    st.binary(max_size=200), st.lists(st.sampled_from([b'"data:', b'"data":"', b'"', b"\\", b"A" * 1100]), max_size=12)
)
def test_the_cut_of_anything_is_made_of_its_pieces(start: bytes, pieces: list[bytes]) -> None:
    raw = start + b"".join(pieces)
    copy, cuts = cutting.cut(raw)
    assert all(0 < a < b <= len(raw) for a, b in cuts)
    assert sorted(cuts) == cuts
    assert len(copy) == len(raw) - sum(b - a for a, b in cuts) + sum(
        len(cutting._MARK) + len(str(index)) for index in range(len(cuts))
    )


def test_no_body_takes_more_than_its_length() -> None:
    """Bodies that are made to be slow to search: the places looked at are bounded, and so is the work at each."""
    for piece in (b'"data:', b'"data":"', b'\\"data:', b'"data:\\"', b'"data" ' + b" " * 40, b"\\" * 50 + b'"data:'):
        raw = piece * (200_000 // len(piece))
        copy, cuts = cutting.cut(raw)
        assert (copy, cuts) == (raw, [])
        check(Pricer().price("/v1/chat/completions", raw))


# Pictures, chains, learning, usage.


MAGIC = [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF....WEBPVP8 ", b"RIFF....WEBPVP8L", b"GIF89a", b"BM"]


@fast
@given(st.sampled_from(MAGIC), st.binary(max_size=700))
def test_any_bytes_may_be_a_picture(magic: bytes, data: bytes) -> None:
    for text in (base64.b64encode(magic + data), magic + data):
        size = picture_size(text, 0, len(text))
        assert size is None or (size[0] > 0 and size[1] > 0)


@fast
@given(pictures, st.integers(0, 5000), st.integers(0, 5000))
def test_a_picture_cut_off_anywhere(picture: str, begin: int, length: int) -> None:
    data = picture.encode()
    size = picture_size(data, min(begin, len(data)), min(begin + length, len(data)))
    assert size is None or min(size) > 0


segments = st.lists(
    st.binary(max_size=3000) | st.tuples(st.integers(-(2**63), 2**63 - 1), st.integers(1, 3000)), max_size=8
)


@fast
@given(segments, segments)
def test_what_is_added_extends_the_chain(first: list[Any], more: list[Any]) -> None:
    before, after = make_chain(3, first), make_chain(3, first + more)
    assert after[: len(before)] == before
    assert len(after) >= len(before)


@fast
@given(st.binary(min_size=BLOCK_BYTES, max_size=6000), st.data())
def test_a_change_ends_what_is_shared(text: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(text) - 1))
    changed = text[:at] + bytes([text[at] ^ 1]) + text[at + 1 :]
    one, other = make_chain(3, [text]), make_chain(3, [changed])
    same = at // BLOCK_BYTES
    assert one[:same] == other[:same]
    assert all(a != b for a, b in zip(one[same:], other[same:], strict=True))


@fast
@given(st.integers(0, 20), st.lists(st.tuples(st.booleans(), st.lists(st.integers(0, 5), max_size=8)), max_size=40))
def test_a_cache_never_holds_more_than_it_can(capacity: int, steps: list[tuple[bool, list[int]]]) -> None:
    cache = PrefixCache(capacity)
    for adds, path in steps:
        chain = tuple(hash((0, *path[: index + 1])) for index in range(len(path)))
        found = cache.match(chain)
        assert found <= min(capacity, len(chain))
        if adds:
            cache.add(chain)
            assert cache.match(chain) == min(capacity, len(chain))


counts = st.integers(0, 10**7)


@fast
@given(st.lists(st.tuples(counts, counts, counts, st.integers(0, 999), counts), max_size=150))
def test_rates_stay_finite_and_within_bounds(answers: list[tuple[int, int, int, int, int]]) -> None:
    rate = TextRate()
    for *features, tokens in answers:
        rate.learn(tuple(features), tokens)  # type: ignore[arg-type]
        for weight, least, most in zip(rate.weights, LEAST_WEIGHTS, MOST_WEIGHTS, strict=True):
            assert least <= weight <= most
        assert math.isfinite(rate.tokens((1000, 10, 5, 3)))


@fast
@given(st.lists(st.integers(50, 5000), min_size=100, max_size=150), st.floats(0.1, 1.0), st.floats(0, 60))
def test_a_steady_rate_is_found(lengths: list[int], per_character: float, per_message: float) -> None:
    rate = TextRate()
    for length in lengths:
        rate.learn((length, 0, 0, 1), round(per_character * length + per_message))
    mean = sum(lengths) / len(lengths)
    real = per_character * mean + per_message
    assert abs(rate.tokens((round(mean), 0, 0, 1)) - real) <= 0.1 * real + 5


usages = st.builds(
    lambda prompt, completion: {
        "prompt_tokens": prompt,
        "total_tokens": prompt + completion,
        "completion_tokens": completion,
    },
    st.integers(0, 10**6),
    st.integers(0, 10**6),
)
tricky = st.lists(
    st.sampled_from(['"usage"', '{"usage":{"prompt_tokens":7,"completion_tokens":7}}', "\\", ":{", "\n\n", "data: "]) | st.text(max_size=9),
    max_size=9,
).map("".join)  # fmt: skip


@fast
@given(usages, tricky, st.booleans(), st.integers(0, 400))
def test_the_text_of_an_answer_is_no_usage(usage: dict[str, int], text: str, streams: bool, cut_off: int) -> None:
    choice = {"index": 0, "message": {"content": text}, "logprobs": {"content": [{"token": text}, {"token": "usage"}]}}
    whole = json.dumps({"choices": [choice], "usage": usage, "after": text}).encode()
    if streams:
        last = json.dumps({"choices": [], "usage": usage})
        whole = b"data: %b\n\ndata: %b\n\ndata: [DONE]\n\n" % (
            json.dumps({"choices": [choice]}).encode(),
            last.encode(),
        )
    assert find_usage(whole) == (usage["prompt_tokens"], usage["completion_tokens"])
    found = find_usage(whole[cut_off:])
    assert found in (None, (usage["prompt_tokens"], usage["completion_tokens"]))


@fast
@given(st.binary(max_size=300))
def test_any_bytes_may_be_an_answer(tail: bytes) -> None:
    assert find_usage(tail) is None
