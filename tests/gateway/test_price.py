"""What requests of each kind cost, and what is learnt from their answers."""

from __future__ import annotations

import base64
import io
import json
import math
import random
from typing import Any

import pytest
from PIL import Image

from launcher.gateway import cutting
from launcher.gateway.asked import MOST_TOKENS, SHAPES
from launcher.gateway.price import Price, Pricer
from launcher.gateway.routes import ROUTES, Kind
from launcher.plan.image_tokens import ImageRule
from tests.gateway.harness import chat

CHAT = "/v1/chat/completions"
GLM = ImageRule("glm4v")


def price(body: Any, route: str = CHAT, pricer: Pricer | None = None, key: str = "") -> Price:
    return (pricer or Pricer(image_rule=GLM)).price(route, json.dumps(body).encode(), key)


def picture(size: tuple[int, int], seed: int = 0, form: str = "PNG") -> str:
    """A data URL; noise, so that it is long."""
    file = io.BytesIO()
    noise = random.Random(seed).randbytes(size[0] * size[1])
    Image.frombytes("L", size, noise).save(file, form)
    return f"data:image/{form.lower()};base64," + base64.b64encode(file.getvalue()).decode()


def seen(*parts: Any, **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": list(parts)}], **more}


def image_part(url: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


WHAT = {"type": "text", "text": "What is this?"}


# Fields.


def test_what_a_client_asks_for() -> None:
    body = chat("hello", stream=True, stream_options={"include_usage": True}, max_tokens=30, priority=-3)
    found = price(body)
    assert (found.model, found.streams, found.wants_usage, found.priority) == ("fake-model", True, True, -3)
    assert (found.max_output_tokens, found.output_tokens, found.sequences) == (30, 30, 1)
    assert repr(found) == f"<Price prompt={found.prompt_tokens} output=30 sequences=1>"


def test_what_a_client_does_not_ask_for() -> None:
    found = price({"messages": []})
    assert (found.model, found.streams, found.wants_usage, found.priority) == ("", False, False, 0)
    assert (found.max_output_tokens, found.output_tokens, found.sequences) == (None, 256, 1)


def test_the_newer_limit_wins() -> None:
    assert price(chat(max_tokens=30, max_completion_tokens=20)).max_output_tokens == 20
    assert price(chat(max_tokens=30, max_completion_tokens=None)).max_output_tokens == 30


@pytest.mark.parametrize(
    ("given", "taken"),
    [(100, 100), ("100", 100), (100.0, 100), (True, 1), (-5, 0), (10**30, MOST_TOKENS)]
    + [(value, None) for value in ("x", "--5", "", [], {}, 1.5, "9" * 50, "٣٣x")],
)
def test_limits_are_taken_as_vllm_takes_them(given: Any, taken: int | None) -> None:
    assert price(chat(max_tokens=given)).max_output_tokens == taken


@pytest.mark.parametrize(
    ("given", "taken"),
    [(True, True), ("true", True), (1, True), (False, False), ("no", False), (None, False), ([], False)],
)
def test_streams(given: Any, taken: bool) -> None:
    assert price(chat(stream=given)).streams is taken


@pytest.mark.parametrize(("n", "sequences"), [(1, 1), (3, 3), (0, 1), (-1, 1), (10**9, 16384), ("2", 2), (None, 1)])
def test_sequences(n: Any, sequences: int) -> None:
    found = price(chat(n=n, max_tokens=10))
    assert found.sequences == sequences
    assert found.output_tokens == 10 * sequences


def test_a_benchmark_gets_the_length_that_it_asks_for() -> None:
    assert price(chat(max_tokens=5000, ignore_eos=True)).output_tokens == 5000
    assert price(chat(max_tokens=5000)).output_tokens == 256
    assert price(chat(max_tokens=5000, min_tokens=400)).output_tokens == 400
    assert price(chat(max_tokens=5000, min_tokens=9000)).output_tokens == 5000


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"tools": None},
        {"tools": [], "tool_choice": "none", "logprobs": False},
        {"response_format": {"type": "text"}},
        {"modalities": ["text"]},
        {"stream_options": {"include_usage": True}},
        {"stream_options": {"continuous_usage_stats": False}},
        {"n": 1, "temperature": 0.3},
    ],
    ids=str,
)
def test_streams_that_can_be_resumed(more: dict[str, Any]) -> None:
    assert price(chat(stream=True, **more)).can_resume
    assert not price(chat(**more)).can_resume
    assert price({"prompt": "Once", "stream": True, **more}, "/v1/completions").can_resume
    assert not price({"input": "Once", "stream": True, **more}, "/v1/responses").can_resume


@pytest.mark.parametrize(
    "more",
    [
        {"n": 2},
        {"tools": [{"type": "function"}]},
        {"functions": [{}]},
        {"tool_choice": "required"},
        {"logprobs": True},
        {"logprobs": 0},
        {"response_format": {"type": "json_object"}},
        {"structured_outputs": {"regex": "a"}},
        {"guided_json": {"type": "object"}},
        {"grammar": "root ::= x"},
        {"echo": True},
        {"continue_final_message": True},
        {"add_generation_prompt": False},
        {"modalities": ["text", "audio"]},
        {"stream_options": {"continuous_usage_stats": True}},
        {"return_token_ids": True},
    ],
    ids=str,
)
def test_streams_that_cannot_be_resumed(more: dict[str, Any]) -> None:
    assert not price(chat(stream=True, **more)).can_resume


@pytest.mark.parametrize("prompt", [["a", "b"], [1, 2, 3], [[1, 2]]], ids=str)
def test_completions_that_cannot_be_resumed(prompt: Any) -> None:
    assert not price({"prompt": prompt, "stream": True}, "/v1/completions").can_resume


# Text.


def text_bytes(body: Any, route: str = CHAT) -> int:
    return price(body, route).text_bytes


def test_every_inference_route_has_a_shape_or_is_priced_by_its_length() -> None:
    by_length = {"/v1/audio/transcriptions", "/v1/audio/translations", "/v1/systemone"}
    assert {route.engine_path for route in ROUTES.values() if route.kind is Kind.INFERENCE} == set(SHAPES) | by_length


@pytest.mark.parametrize(
    ("route", "body"),
    [
        (CHAT, chat("{}")),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "text", "text": "{}"}]}]}),
        (CHAT, {"messages": [{"role": "user", "content": [{"text": "{}"}]}]}),
        (CHAT, {"messages": [{"role": "user", "content": ["{}"]}]}),
        (CHAT, {"messages": [{"role": "assistant", "content": [{"type": "refusal", "refusal": "{}"}]}]}),
        (CHAT, {"messages": [{"role": "user", "content": "hi", "name": "{}"}]}),
        (CHAT, {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}]}),
        (
            CHAT,
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "{}", "arguments": {"a": 1}}}]}]},
        ),
        (CHAT, {"messages": [], "tools": [{"type": "function", "function": {"name": "{}"}}]}),
        (CHAT, {"messages": [], "documents": [{"text": "{}"}]}),
        ("/v1/chat/completions/batch", {"messages": [[{"role": "user", "content": "{}"}], []]}),
        ("/v1/completions", {"prompt": "{}"}),
        ("/v1/completions", {"prompt": ["a", "{}"]}),
        ("/v1/responses", {"input": "{}"}),
        ("/v1/responses", {"input": [], "instructions": "{}"}),
        ("/v1/responses", {"input": [{"role": "user", "content": [{"type": "input_text", "text": "{}"}]}]}),
        ("/v1/responses", {"input": [{"type": "function_call_output", "call_id": "1", "output": "{}"}]}),
        ("/v1/messages", {"system": "{}", "messages": []}),
        ("/v1/messages", {"system": [{"type": "text", "text": "{}"}], "messages": []}),
        ("/v1/messages", {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": "{}"}]}]}),
        (
            "/v1/messages",
            {
                "messages": [
                    {"role": "user", "content": [{"type": "tool_result", "content": [{"type": "text", "text": "{}"}]}]}
                ]
            },
        ),
        (
            "/v1/messages",
            {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "input": {"a": "{}"}}]}]},
        ),
        ("/v1/embeddings", {"input": "{}"}),
        ("/v1/embeddings", {"input": ["a", "{}"]}),
        ("/v1/embeddings", {"messages": [{"role": "user", "content": "{}"}]}),
        ("/v2/embed", {"texts": ["{}"]}),
        ("/v2/embed", {"inputs": [{"content": [{"type": "text", "text": "{}"}]}]}),
        ("/pooling", {"input": "{}"}),
        ("/classify", {"input": "{}"}),
        ("/rerank", {"query": "{}", "documents": ["a"]}),
        ("/rerank", {"query": "a", "documents": ["b", "{}"]}),
        ("/v1/score", {"text_1": "{}", "text_2": ["a"]}),
        ("/score", {"queries": ["a", "b"], "documents": ["c", "{}"]}),
        ("/score", {"data_1": "a", "data_2": {"content": [{"type": "text", "text": "{}"}]}}),
        ("/generative_scoring", {"query": "{}", "items": ["a"]}),
        ("/v1/systemone", {"anything": "{}"}),
        ("/some/day", {"anything": "{}"}),
    ],
    ids=lambda value: json.dumps(value)[:60],
)
def test_all_text_counts(route: str, body: Any) -> None:
    """1,000 letters where the braces are cost 998 bytes more than the braces."""
    longer = json.loads(json.dumps(body).replace("{}", "x" * 1000))
    assert text_bytes(longer, route) - text_bytes(body, route) in (998, 999)  # 999: JSON within JSON
    assert price(longer, route).prompt_tokens > price(body, route).prompt_tokens + 150


def test_bytes_are_those_of_utf_8() -> None:
    assert text_bytes(chat("数据" * 50)) - text_bytes(chat("")) == 300


def test_token_ids_are_exact() -> None:
    assert price({"prompt": list(range(77))}, "/v1/completions").prompt_tokens == 77
    found = price({"input": [[1] * 40, [2] * 50]}, "/v1/embeddings")
    assert (found.prompt_tokens, found.sequences, found.output_tokens) == (90, 2, 0)
    assert price({"prompt": [10**30, "x", None]}, "/v1/completions").prompt_tokens == 3


@pytest.mark.parametrize("route", ["/v1/embeddings", "/v2/embed", "/pooling", "/classify", "/score", "/rerank"])
def test_routes_that_write_nothing(route: str) -> None:
    assert price({"input": "x"}, route).output_tokens == 0
    assert Pricer().price(route, b"no json").output_tokens == 0


def test_the_default_length_of_completions_is_vllms() -> None:
    found = price({"prompt": "Once"}, "/v1/completions")
    assert (found.output_tokens, found.max_output_tokens) == (16, None)


def test_several_prompts() -> None:
    found = price({"prompt": ["a", "b", "c"], "n": 2, "max_tokens": 5}, "/v1/completions")
    assert (found.sequences, found.output_tokens) == (6, 30)
    assert price({"messages": [[{"role": "user", "content": "a"}]] * 4}, "/v1/chat/completions/batch").sequences == 4


def test_a_query_is_read_with_each_document() -> None:
    one = text_bytes({"query": "q" * 100, "documents": ["d"]}, "/rerank")
    many = price({"query": "q" * 100, "documents": ["d"] * 50}, "/rerank")
    assert many.sequences == 50
    assert many.text_bytes - one == 49 * (100 + 2)  # and the separator


def test_a_long_query_beside_many_documents_is_arithmetic() -> None:
    found = price({"query": "q" * 1_000_000, "documents": ["d"] * 100_000}, "/rerank")
    assert found.text_bytes > 10**11
    assert found.prompt_tokens > 10**10


def test_prompts_are_bounded_by_the_context() -> None:
    pricer = Pricer(context_tokens=1000)
    assert price(chat("word " * 5000), pricer=pricer).prompt_tokens == 1000
    assert price({"prompt": ["word " * 5000] * 3}, "/v1/completions", pricer).prompt_tokens == 3000
    assert price({"input": "word " * 5000, "truncate_prompt_tokens": 77}, "/v1/embeddings").prompt_tokens == 77


def test_answers_are_bounded_by_what_is_left_of_the_context() -> None:
    pricer = Pricer(context_tokens=1000)
    found = price({"prompt": [1] * 900, "max_tokens": 200}, "/v1/completions", pricer)
    assert found.output_tokens == 100
    assert price({"prompt": [1] * 1200, "max_tokens": 200}, "/v1/completions", pricer).output_tokens == 1


def test_an_upload_is_priced_by_its_length() -> None:
    second = 32_000
    found = Pricer().price("/v1/audio/transcriptions", bytes(second * 60))
    assert 1400 < found.prompt_tokens < 1600
    assert found.output_tokens == 256


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b'{"messages":' + b"[" * 100_000], ids=str
)
def test_what_is_no_request_is_priced_by_its_length(body: bytes) -> None:
    found = Pricer().price(CHAT, body)
    assert found.prompt_tokens == math.ceil(len(body) * 0.25)
    assert (found.chain, found.streams, found.can_resume, found.features) == ((), False, False, None)


def test_a_body_of_brackets_is_priced_by_its_length() -> None:
    for unit in ("[]", "{}", '{"role":"user"}'):
        body = '{"model":"m","messages":[' + ",".join([unit] * 60_000) + "]}"
        found = Pricer().price(CHAT, body.encode())
        assert (found.model, found.text_bytes) == ("", len(body))


def test_too_much_json_is_priced_by_its_length(monkeypatch: pytest.MonkeyPatch) -> None:
    body = json.dumps(chat("x" * 50_000)).encode()
    assert Pricer().price(CHAT, body).model == "fake-model"
    monkeypatch.setattr(cutting, "MAX_DECODED", 40_000)
    found = Pricer().price(CHAT, body)
    assert (found.model, found.text_bytes) == ("", len(body))
    pictured = json.dumps(seen(image_part(picture((300, 300))), WHAT)).encode()
    assert Pricer(image_rule=GLM).price(CHAT, pictured).image_tokens > 0  # what is cut out does not count


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","temperature":NaN,"messages":[{"role":"user","content":"hi"}],"max_tokens":7}',
        b'\xef\xbb\xbf{"model":"m","messages":[{"role":"user","content":"hi"}],"max_tokens":7}',
        b'{"model":"m","messages":[{"role":"user","content":"hi \\ud800"}],"max_tokens":7}',
        '{"model":"m","messages":[],"max_tokens":7}'.encode("utf-16"),
        b'{"model":"x","model":"m","messages":[],"max_tokens":9,"max_tokens":7}',
    ],
    ids=["NaN", "BOM", "half a character", "UTF-16", "keys twice"],
)
def test_json_is_read_as_the_engine_reads_it(body: bytes) -> None:
    found = Pricer().price(CHAT, body)
    assert (found.model, found.max_output_tokens) == ("m", 7)


# Pictures.


@pytest.mark.parametrize("size", [(64, 64), (640, 480), (333, 777)], ids=str)
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_a_picture_costs_what_the_rule_says(size: tuple[int, int], form: str) -> None:
    url = picture(size, form=form)
    with_picture, without = price(seen(image_part(url), WHAT)), price(seen(WHAT))
    assert with_picture.image_tokens == GLM.tokens(*size) + 2
    assert with_picture.prompt_tokens - without.prompt_tokens == with_picture.image_tokens
    assert without.text_bytes - with_picture.text_bytes == 1  # a separator


@pytest.mark.parametrize(
    ("route", "body"),
    [
        (CHAT, lambda url: seen(image_part(url))),
        (CHAT, lambda url: seen({"type": "image_url", "image_url": url})),
        (CHAT, lambda url: seen({"image_url": {"url": url}})),
        (CHAT, lambda url: seen({"type": "image_url", "image_url": {"url": url, "detail": "low"}, "uuid": "a"})),
        (
            "/v1/responses",
            lambda url: {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": url}]}]},
        ),
        ("/v2/embed", lambda url: {"images": [url]}),
        ("/v1/messages", lambda url: seen({"type": "image", "source": {"type": "base64", "data": url.split(",")[1]}})),
        (
            "/v1/messages",
            lambda url: seen(
                {"type": "tool_result", "content": [{"type": "image", "source": {"data": url.split(",")[1]}}]}
            ),
        ),
    ],
)
def test_pictures_by_every_api(route: str, body: Any) -> None:
    assert price(body(picture((640, 480))), route).image_tokens == GLM.tokens(640, 480) + 2


@pytest.mark.parametrize(
    "part",
    [
        image_part("https://example.com/a.png"),
        image_part("data:image/png;base64,AAAA"),
        image_part("data:image/png;base64"),
        image_part(""),
        {"type": "image_embeds", "image_embeds": "AAAA"},
        {"type": "image_url", "image_url": None, "uuid": "seen before"},
        {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
    ],
    ids=lambda part: json.dumps(part)[:60],
)
def test_a_picture_whose_size_is_not_to_be_seen_costs_the_most(part: dict[str, Any]) -> None:
    found = price(seen(part, WHAT))
    assert found.image_tokens == GLM.largest_tokens + 2
    assert found.features is None  # nothing is learnt of text beside what is not known


def test_several_pictures() -> None:
    urls = [picture((100 + 50 * index, 200), index) for index in range(4)]
    found = price(seen(*map(image_part, urls), WHAT))
    assert found.image_tokens == sum(GLM.tokens(100 + 50 * index, 200) + 2 for index in range(4))


def test_a_text_that_is_a_data_url_is_text() -> None:
    url = picture((200, 200))
    assert len(url) > cutting.CUT_FROM
    found, short = price(chat(url)), price(chat(""))
    assert found.image_tokens == 0
    assert found.text_bytes - short.text_bytes == len(url)
    tool = {"type": "function", "function": {"parameters": {"properties": {"data": {"const": url}}}}}
    assert text_bytes(chat(tools=[tool])) > len(url)


def test_slashes_may_be_escaped() -> None:
    """As PHP writes them."""
    body = json.dumps(seen(image_part(picture((640, 480), form="JPEG")), WHAT))
    plain = Pricer(image_rule=GLM).price(CHAT, body.encode())
    escaped = Pricer(image_rule=GLM).price(CHAT, body.replace("/", "\\/").encode())
    assert escaped.image_tokens == plain.image_tokens == GLM.tokens(640, 480) + 2
    assert escaped.chain == plain.chain


def test_sound_and_video() -> None:
    second = base64.b64encode(bytes(32_000 * 10)).decode()
    part = {"type": "input_audio", "input_audio": {"data": second, "format": "wav"}}
    assert 240 < price(seen(part)).prompt_tokens - price(seen()).prompt_tokens < 260
    by_url = {"type": "audio_url", "audio_url": {"url": "https://example.com/a.wav"}}
    assert price(seen(by_url)).prompt_tokens - price(seen()).prompt_tokens == 750
    video = {"type": "video_url", "video_url": {"url": "https://example.com/a.mp4"}}
    assert price(seen(video)).prompt_tokens > GLM.largest_tokens
    assert price(seen(video)).image_tokens == 0


# Chains.


def shared(one: Price, other: Price) -> int:
    return next(
        (index for index, (a, b) in enumerate(zip(one.chain, other.chain, strict=False)) if a != b),
        min(len(one.chain), len(other.chain)),
    )


def test_a_growing_dialogue_extends_its_chain() -> None:
    messages: list[dict[str, Any]] = [{"role": "system", "content": "s" * 1500}]
    last = price({"model": "m", "messages": messages})
    for turn in range(6):
        messages.append({"role": "user", "content": f"{turn} question " * 60})
        if turn == 3:
            messages[-1]["content"] = [image_part(picture((640, 480))), WHAT]
        messages.append({"role": "assistant", "content": f"{turn} answer " * 60})
        grown = price({"model": "m", "messages": messages})
        assert shared(last, grown) == len(last.chain) < len(grown.chain)
        last = grown


def test_what_keeps_chains_apart() -> None:
    text = "word " * 1000
    base = price(chat(text))
    assert len(base.chain) == 4
    assert shared(base, price(chat(text))) == 4
    for other in (
        chat(text, model="other"),
        chat(text, cache_salt="s"),
        chat(text, tools=[{"type": "x"}]),
        chat("!" + text),
    ):
        assert shared(base, price(other)) == 0
    assert shared(base, price(chat(text, temperature=0.5, max_tokens=3, stream=True))) == 4


def test_chains_of_completions() -> None:
    texts = [price({"prompt": "word " * 1000 + end}, "/v1/completions") for end in ("a", "b")]
    assert shared(*texts) == len(texts[0].chain) == 4
    ids = [price({"prompt": [7] * 1000}, "/v1/completions"), price({"prompt": [8] * 1000}, "/v1/completions")]
    assert len(ids[0].chain) == 3
    assert shared(*ids) == 0


def test_a_block_stands_for_its_share_of_the_prompt() -> None:
    found = price(seen(image_part(picture((640, 480))), {"type": "text", "text": "word " * 1000}))
    matched = len(found.chain) * found.block_tokens
    assert found.prompt_tokens * 0.9 < matched <= found.prompt_tokens


def test_two_pictures_have_two_chains() -> None:
    one, other = (price(seen(image_part(picture((640, 480), seed)), WHAT)) for seed in (1, 2))
    assert one.image_tokens == other.image_tokens
    assert shared(one, other) == 0 < len(one.chain)
