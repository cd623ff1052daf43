"""Pictures through the gateway: what the engine gets, what the client is told, and what is refused at the door."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from PIL import Image

from launcher.gateway.media.costs import Budgets
from launcher.gateway.media.intake import Intake
from launcher.gateway.price import Pricer
from launcher.plan.image_budget import Budget
from launcher.plan.image_tokens import ImageRule
from launcher.profile.images import ImagesSection
from tests.fakes.process import FakeEngine
from tests.gateway.harness import CHAT, Desk, Response, chat, events, gateway_to, request_bytes
from tests.gateway.media.pictures import photo, saved

GLM = ImageRule("glm4v", max_pixels=9633792)
LARGE = saved(photo(1920, 1080), "JPEG", quality=85)
SMALL = saved(photo(300, 200), "JPEG", quality=85)
FLAT = saved(Image.new("RGB", (1600, 1600), (10, 200, 30)), "PNG")  # few bytes, many pixels


def url_of(data: bytes, mime: str = "image/jpeg") -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def asks(*pictures: bytes, **more: Any) -> dict[str, Any]:
    parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": url_of(data)}} for data in pictures]
    content = [*parts, {"type": "text", "text": "What is it?"}]
    return {"model": "fake-model", "messages": [{"role": "user", "content": content}], **more}


def gateway(engine: FakeEngine, budgets: Budgets | None = None, **settings: Any) -> Any:
    pricer = Pricer(budgets=budgets or Budgets(GLM, Budget(max_tokens=324)))
    return gateway_to(engine.url, images=ImagesSection().model_copy(update=settings), parts={"pricer": pricer})


@pytest.fixture
async def small(engine: FakeEngine) -> AsyncIterator[Desk]:
    """A gateway that brings pictures down to 324 tokens."""
    async with gateway(engine) as desk:
        yield desk


async def got(engine: FakeEngine) -> dict[str, Any]:
    """The last body that the engine was sent."""
    body: dict[str, Any] = json.loads((await engine.seen())["requests"][-1]["body"])
    return body


def size_of(url: str) -> tuple[str, tuple[int, int]]:
    header, _, data = url.partition(",")
    return header, Image.open(io.BytesIO(base64.b64decode(data))).size


async def test_a_large_picture_reaches_the_engine_within_its_budget(small: Desk, engine: FakeEngine) -> None:
    answer = await small.post(asks(LARGE, max_tokens=5, seed=12345678901234))
    assert answer.status == 200
    assert answer.headers["x-launcher-images"] == "1920x1080>672x364=314"
    assert "media;dur=" in answer.headers["server-timing"]
    body = await got(engine)
    assert size_of(body["messages"][0]["content"][0]["image_url"]["url"]) == ("data:image/jpeg;base64", (672, 364))
    assert (body["max_tokens"], body["seed"], body["messages"][0]["content"][1]["text"]) == (
        5,
        12345678901234,
        "What is it?",
    )
    assert await small.metric('launcher_media_total{outcome="shrunk"}') == 1
    assert await small.metric('launcher_media_seconds_count{stage="decode"}') == 1
    await small.at_rest()


async def test_what_is_within_the_budget_passes_byte_for_byte(small: Desk, engine: FakeEngine) -> None:
    raw = json.dumps(asks(SMALL), indent=1).encode()
    answer = await small.post(raw)
    assert answer.headers["x-launcher-images"] == "300x200=79"
    assert (await engine.seen())["requests"][-1]["body"].encode() == raw
    assert await small.metric("launcher_media_total") == 0  # not even decoded


async def test_all_else_keeps_its_bytes(small: Desk, engine: FakeEngine) -> None:
    """Odd blanks, escapes and numbers beside a large picture stay as the client wrote them."""
    picture, text = '{"type":"image_url","image_url":{"url": "%s"}}', '{"type":"text","text":"\\u00e9"}'
    message = '{"role":"user","content":[' + picture + ", " + text + "]}"
    marks = '{"messages": [ ' + message + '], "temperature": 1e-1, "model":"fake-model"}'
    answer = await small.post((marks % url_of(LARGE)).encode())
    assert answer.status == 200
    before, _, after = (await engine.seen())["requests"][-1]["body"].partition("data:image/jpeg;base64,")
    assert before == marks.partition("%s")[0]
    assert after.partition('"')[2] == marks.partition('%s"')[2]


async def test_several_and_small_bodies(small: Desk, engine: FakeEngine) -> None:
    answer = await small.post(asks(LARGE, SMALL, FLAT))
    assert answer.headers["x-launcher-images"] == "1920x1080>672x364=314, 300x200=79, 1600x1600>504x476=308"
    sizes = [size_of(part["image_url"]["url"])[1] for part in (await got(engine))["messages"][0]["content"][:3]]
    assert sizes[:2] == [(672, 364), (300, 200)]
    assert GLM.tokens(*sizes[2]) + 2 <= 324
    answer = await small.post(asks(FLAT))
    assert len(FLAT) < 16_384  # so that the body is decoded whole, and nothing was cut out of it
    assert size_of((await got(engine))["messages"][0]["content"][0]["image_url"]["url"])[1] == sizes[2]


async def test_detail_and_mode_choose_the_budget(engine: FakeEngine) -> None:
    budgets = Budgets(GLM, Budget(), {"low": Budget(long_side=280)}, {"low-latency": Budget(long_side=560)})
    async with gateway(engine, budgets) as desk:
        plain = await desk.post(asks(LARGE))
        assert "x-launcher-images" not in plain.headers
        quick = await desk.post(asks(LARGE), "X-Mode: low-latency")
        assert quick.headers["x-launcher-images"].startswith("1920x1080>560x315=")
        low = asks(LARGE)
        low["messages"][0]["content"][0]["image_url"]["detail"] = "low"
        assert (await desk.post(low)).headers["x-launcher-images"].startswith("1920x1080>280x158=")


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_embeds", "image_embeds": "AAAA"},
        {"type": "video_url", "video_url": {"url": "https://example.org/a.mp4"}},
    ],
    ids=lambda part: part["type"],
)
def test_what_passes_as_it_is_costs_what_it_cost_without_a_budget(part: dict[str, Any]) -> None:
    """Nobody makes it smaller, so it must not be priced as if somebody did."""
    body = json.dumps({"messages": [{"role": "user", "content": [part]}]}).encode()
    within, without = Pricer(budgets=Budgets(GLM, Budget(max_tokens=324))), Pricer(image_rule=GLM)
    assert within.price(CHAT, body).prompt_tokens == without.price(CHAT, body).prompt_tokens > GLM.largest_tokens


async def test_messages_api(small: Desk, engine: FakeEngine) -> None:
    """/v1/messages: the base64 alone, with its media type beside it."""
    source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(LARGE).decode()}
    content = [{"type": "image", "source": source}, {"type": "text", "text": "?"}]
    body = {"model": "fake-model", "max_tokens": 5, "messages": [{"role": "user", "content": content}]}
    answer = await small.post(body, path="/v1/messages")
    assert answer.headers["x-launcher-images"] == "1920x1080>672x364=314"
    sent = (await got(engine))["messages"][0]["content"][0]["source"]
    assert sent["media_type"] == "image/jpeg"
    assert Image.open(io.BytesIO(base64.b64decode(sent["data"]))).size == (672, 364)


@pytest.mark.parametrize(
    ("data", "settings", "reason", "words"),
    [
        (LARGE[: len(LARGE) // 2], {}, "picture_truncated", "cut off"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", {}, "picture_format", "SVG"),
        (b"just text", {}, "picture_format", "text"),
        (b"", {}, "picture_empty", "no bytes"),
        (LARGE, {"max_bytes": 10_000}, "picture_too_large", "is the most here"),
        (LARGE, {"max_pixels": 1_000_000}, "picture_too_large", "1920×1080 pixels: 1 million is the most here"),
        (LARGE, {"formats": ("png",)}, "picture_format", "is a JPEG, which this server does not take: send PNG."),
    ],
    ids=["truncated", "svg", "text", "empty", "bytes", "pixels", "format"],
)
async def test_what_is_refused(
    engine: FakeEngine, data: bytes, settings: dict[str, Any], reason: str, words: str
) -> None:
    async with gateway(engine, **settings) as desk:
        answer = await desk.post(asks(data))
        assert (answer.status, answer.error["reason"]) == (400, reason), answer.error
        assert words in answer.error["message"]
        assert not (await engine.seen())["requests"]
        await desk.at_rest()


async def test_too_many(engine: FakeEngine) -> None:
    async with gateway(engine, max_count=2) as desk:
        answer = await desk.post(asks(SMALL, SMALL, SMALL))
        assert answer.error["message"] == "The request has 3 pictures: 2 is the most here."


async def test_as_many_a_prompt_as_the_engine_takes(engine: FakeEngine) -> None:
    async with gateway_to(engine.url) as desk:
        desk.gateway.intake = Intake(desk.gateway.settings, 1)
        chats = [asks(SMALL)["messages"], asks(SMALL)["messages"]]
        several = {"model": "fake-model", "messages": chats}
        assert (await desk.post(several, path="/v1/chat/completions/batch")).status == 200
        assert (await desk.post(asks(SMALL, SMALL))).error["reason"] == "too_many_pictures"


async def test_none_at_all(engine: FakeEngine) -> None:
    async with gateway_to(engine.url) as desk:
        desk.gateway.intake = Intake(desk.gateway.settings, 0)
        answer = await desk.post(asks(SMALL))
        assert answer.error["message"] == "Pictures are not taken here (model.images_per_prompt is 0)."


async def test_who_leaves_meanwhile_leaves_nothing(small: Desk) -> None:
    client = await small.client()
    await client.post(CHAT, asks(*[LARGE] * 4))
    await small.until(lambda: bool(small.gateway.active))
    client.close()
    await small.until(lambda: not small.gateway.active)
    await small.at_rest()
    assert await small.metric('launcher_tickets_total{outcome="cancelled"}') == 1
    assert (await small.post(asks(LARGE))).status == 200


async def test_they_are_made_smaller_while_the_request_waits(engine: FakeEngine) -> None:
    await engine.set(hold_after=0)
    pricer = Pricer(budgets=Budgets(GLM, Budget(max_tokens=324)))
    async with gateway_to(engine.url, max_in_flight=1, parts={"pricer": pricer}) as desk:
        running, waiting = await desk.client(), await desk.client()
        await running.post(CHAT, {"model": "fake-model", "messages": []})
        await engine.wait("hold")
        await waiting.post(CHAT, asks(LARGE))
        await desk.until(lambda: desk.gateway.metrics.media["shrunk"] == 1)
        assert desk.gateway.queued == 1
        await engine.release(2)
        assert (await running.read()).status == 200
        assert (await waiting.read()).headers["x-launcher-images"] == "1920x1080>672x364=314"
        await desk.at_rest()


async def test_told_in_the_answer_where_it_is_asked_for(small: Desk, engine: FakeEngine) -> None:
    large = {"width_in": 1920, "height_in": 1080, "width": 672, "height": 364, "tokens": 314}
    unchanged = {"width_in": 300, "height_in": 200, "width": 300, "height": 200, "tokens": 79}
    answer = await small.post(asks(LARGE, SMALL, return_image_info=True))
    assert answer.json()["image_info"] == [large, unchanged]
    assert "return_image_info" not in await got(engine)
    stream = await small.post(asks(LARGE, return_image_info=True, stream=True, max_tokens=3))
    first, *others, _ = events(stream.body)
    assert first["image_info"] == [large]
    assert not any("image_info" in event for event in others)
    text_only = chat(return_image_info=True)
    assert (await small.post(text_only)).json()["image_info"] == []
    assert "image_info" not in (await small.post(asks(LARGE, return_image_info=False))).json()
    assert (await small.post(asks(LARGE, return_image_info="yes"))).error["param"] == "return_image_info"


async def test_stages(small: Desk, engine: FakeEngine) -> None:
    answer = await small.post(asks(LARGE))
    stages = [stage.partition(";")[0] for stage in answer.headers["server-timing"].split(", ")]
    assert stages[-6:] == ["decode", "scale", "encode", "media", "queue", "engine"]
    assert "sniff" in stages
    client = await small.client()
    raw = request_bytes("POST", CHAT, json.dumps(asks(LARGE)).encode())
    await client.send(raw[:-1000])
    await small.until(lambda: any(c.reader.body is not None for c in small.gateway.connections))
    await client.send(raw[-1000:])
    assert (await client.read()).headers["server-timing"].startswith("receive;dur=")


class TestBeforeTheBodyIsIn:
    """A large body is refused by its beginning where all of it would be."""

    NOISE = saved(photo(3000, 3000), "JPEG", quality=95)

    async def begun(self, desk: Desk, body: bytes, *lines: str, length: int | None = None) -> Response:
        """The answer to a body of which only a tenth is sent."""
        whole = request_bytes("POST", CHAT, body, *lines)
        client = await desk.client()
        await client.send(whole[: len(whole) // 10])
        answer = await client.read()
        assert answer.headers["connection"] == "close"
        return answer

    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"max_pixels": 1_000_000}, "Picture 1 has 3000×3000 pixels"),
            ({"formats": ("png",)}, "Picture 1 is a JPEG"),
        ],
    )
    async def test_a_picture_that_is_not_taken(self, engine: FakeEngine, settings: dict[str, Any], words: str) -> None:
        async with gateway(engine, **settings) as desk:
            refused = await self.begun(desk, json.dumps(asks(self.NOISE)).encode())
            assert refused.status == 400
            assert words in refused.error["message"]

    async def test_no_engine(self, engine: FakeEngine) -> None:
        async with gateway(engine) as desk:
            desk.replicas.down(0, "gone")
            refused = await self.begun(desk, json.dumps(asks(self.NOISE)).encode())
            assert (refused.status, refused.error["reason"]) == (503, "not_ready")
            assert refused.headers["retry-after"]

    async def test_a_full_queue(self, engine: FakeEngine) -> None:
        await engine.set(hold_after=0)
        async with gateway_to(engine.url, max_in_flight=1, max_queued=0) as desk:
            running = await desk.client()
            await running.post(CHAT, chat())
            await engine.wait("hold")
            refused = await self.begun(desk, json.dumps(asks(self.NOISE)).encode())
            assert (refused.status, refused.error["reason"]) == (429, "queue_full")
            await engine.release()
            assert (await running.read()).status == 200
            await desk.at_rest()

    async def test_before_a_byte_of_it_is_sent(self, engine: FakeEngine) -> None:
        """Expect: 100-continue."""
        async with gateway(engine) as desk:
            desk.replicas.down(0, "gone")
            client = await desk.client()
            head = request_bytes("POST", CHAT, b"x" * 1_000_000, "Expect: 100-continue")[:-1_000_000]
            await client.send(head)
            assert (await client.read()).status == 503

    async def test_an_upload_that_is_too_large(self, engine: FakeEngine) -> None:
        async with gateway(engine, max_bytes=100_000) as desk:
            client = await desk.client()
            whole = request_bytes("POST", "/api/upload", self.NOISE, "Content-Type: image/jpeg")
            await client.send(whole[:5000])
            assert (await client.read()).error["reason"] == "picture_too_large"

    async def test_what_would_be_taken_is(self, engine: FakeEngine) -> None:
        async with gateway(engine) as desk:
            body = json.dumps(asks(self.NOISE)).encode()
            client = await desk.client()
            whole = request_bytes("POST", CHAT, body)
            for at in range(0, len(whole), 100_000):
                await client.send(whole[at : at + 100_000])
            assert (await client.read()).headers["x-launcher-images"].startswith("3000x3000>")

    async def test_text_that_looks_like_a_picture_is_none(self, engine: FakeEngine) -> None:
        """A quoted URL within a text is no picture, whatever it begins with."""
        async with gateway(engine, formats=("png",)) as desk:
            text = 'See "data:image/bmp;base64,Qk0=" and ' + "more " * 50_000
            assert (await desk.post(chat(text))).status == 200
