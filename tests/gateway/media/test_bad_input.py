"""Pictures that cannot be used, each refused with a sentence of its own while another stream goes on undisturbed."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from PIL import Image

from launcher.gateway.media.costs import Budgets
from launcher.gateway.price import Pricer
from launcher.plan.image_budget import Budget
from tests.fakes.process import FakeEngine
from tests.gateway.harness import CHAT, Desk, RawClient, gateway_to
from tests.gateway.media.pictures import photo, saved
from tests.gateway.media.test_intake import GLM, LARGE, SMALL, asks, got, size_of, url_of


def png_of(width: int, height: int, rows: bytes = b"") -> bytes:
    """A PNG that says that it is so large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def frames(count: int) -> bytes:
    pictures = [Image.new("P", (40, 30), number % 250) for number in range(count)]
    return saved(pictures[0], "GIF", save_all=True, append_images=pictures[1:])


def as_text(data: bytes) -> str:
    return base64.b64encode(data).decode()


JUNK = as_text(LARGE)[:200] + "*!" + as_text(LARGE)[200:]
BOMB = png_of(50_000, 50_000, bytes(1000))
HALF_BOMB = png_of(7000, 7000, bytes(1000))  # within the pixels, but its rows are not there
CASES: list[tuple[str, str, str, str]] = [
    ("truncated JPEG", url_of(LARGE[: len(LARGE) // 2]), "picture_truncated", "is cut off"),
    ("PNG bomb", url_of(BOMB, "image/png"), "picture_too_large", "50000×50000 pixels"),
    ("PNG without its rows", url_of(HALF_BOMB, "image/png"), "picture_truncated", "is cut off"),
    ("strip", url_of(saved(photo(1, 3000), "PNG"), "image/png"), "picture_shape", "differ more than 200-fold"),
    ("text", "data:image/png;base64," + as_text(b"just text"), "picture_format", "is text"),
    ("HTML", url_of(b"<!doctype html><p>Not found"), "picture_format", "is HTML"),
    ("SVG", url_of(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml"), "picture_format", "an SVG"),
    ("PDF", url_of(b"%PDF-1.7 ..."), "picture_format", "is a PDF"),
    ("junk in base64", "data:image/jpeg;base64," + JUNK, "picture_base64", "base64 cannot be read"),
    ("junk at once", "data:image/jpeg;base64,*&^%$#@!abcdefgh", "picture_base64", "base64 cannot be read"),
    ("zero bytes", "data:image/jpeg;base64,", "picture_empty", "no bytes"),
    ("no comma", "data:image/jpeg", "picture_empty", "no bytes"),
    ("unknown", url_of(bytes(range(64))), "picture_format", "begins with 00 01 02"),
    ("broken JPEG", url_of(LARGE[:300] + bytes(2000) + LARGE[-2:]), "picture_", "The picture"),
]


@pytest.fixture
async def busy(engine: FakeEngine) -> AsyncIterator[tuple[Desk, RawClient]]:
    """A gateway under a budget, with a stream that has begun and is held in its middle."""
    pricer = Pricer(budgets=Budgets(GLM, Budget(max_tokens=324)))
    await engine.set(hold_after=1)
    async with gateway_to(engine.url, parts={"pricer": pricer}) as desk:
        stream = await desk.client()
        await stream.post(CHAT, {"model": "fake-model", "messages": [], "stream": True, "max_tokens": 4})
        await engine.wait("hold")
        yield desk, stream


async def goes_on(busy: tuple[Desk, RawClient], engine: FakeEngine) -> None:
    desk, stream = busy
    await engine.release()
    answer = await stream.read()
    assert (answer.status, answer.body.endswith(b"data: [DONE]\n\n")) == (200, True)
    await desk.at_rest()


@pytest.mark.parametrize(("url", "reason", "words"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
async def test_refused_with_a_sentence(
    busy: tuple[Desk, RawClient], engine: FakeEngine, url: str, reason: str, words: str
) -> None:
    body = asks(SMALL)
    body["messages"][0]["content"].insert(1, {"type": "image_url", "image_url": {"url": url}})
    refused = await busy[0].post(body)
    assert refused.status == 400, refused.body
    assert refused.error["reason"].startswith(reason), refused.error
    assert words in refused.error["message"]
    assert refused.error["message"].endswith(".")
    assert len((await engine.seen())["requests"]) == 1  # the stream's
    await goes_on(busy, engine)


async def test_three_hundred_pictures(busy: tuple[Desk, RawClient], engine: FakeEngine) -> None:
    desk = busy[0]
    desk.gateway.intake._per_prompt = 10
    refused = await desk.post(asks(*[SMALL] * 300))
    assert (refused.status, refused.error["message"]) == (400, "The request has 300 pictures: 10 is the most here.")
    await goes_on(busy, engine)


async def test_of_ten_thousand_frames_the_first(busy: tuple[Desk, RawClient], engine: FakeEngine) -> None:
    body = asks()
    body["messages"][0]["content"].insert(
        0, {"type": "image_url", "image_url": {"url": url_of(frames(10_000), "image/gif")}}
    )
    client = await busy[0].client()
    await client.post(CHAT, body | {"max_tokens": 1})
    await engine.wait("request", 2)
    sent: dict[str, Any] = await got(engine)
    header, size = size_of(sent["messages"][0]["content"][0]["image_url"]["url"])
    assert (header, size) == ("data:image/png;base64", (40, 30))
    await engine.release(2)
    assert (await client.read()).status == 200


async def test_without_a_budget_the_first_bytes_still_count(engine: FakeEngine) -> None:
    """What is no picture, too large or a strip does not reach an engine; what is damaged within is the engine's to refuse."""
    async with gateway_to(engine.url, parts={"pricer": Pricer(image_rule=GLM)}) as desk:
        for name, url, reason, _ in CASES:
            body = asks()
            body["messages"][0]["content"].insert(0, {"type": "image_url", "image_url": {"url": url}})
            answer = await desk.post(json.dumps(body).encode())
            if name in ("truncated JPEG", "PNG without its rows", "junk in base64", "broken JPEG"):
                assert answer.status == 200, (name, answer.body)
            else:
                assert answer.status == 400, (name, answer.body)
                assert name == "junk at once" or answer.error["reason"] == reason
