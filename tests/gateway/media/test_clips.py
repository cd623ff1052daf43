"""Clips of sound through the gateway: brought to their budget, told of, or refused with a sentence."""

from __future__ import annotations

import base64
import io
from typing import Any

import pytest
import soundfile

from launcher.gateway.media.costs import Budgets, ClipCosts
from launcher.gateway.media.intake import Intake
from launcher.gateway.price import Pricer
from launcher.profile.media import AudioBudget, AudioSection
from tests.fakes.process import FakeEngine
from tests.gateway.harness import gateway_to
from tests.gateway.media.sites import answer, site
from tests.gateway.media.test_audio import clip, tone
from tests.gateway.media.test_intake import got
from tests.gateway.media.test_links import gateway_for, names

LONG = clip(tone(seconds=30))
SHORT = clip(tone(seconds=2))


def gateway(engine: FakeEngine, pad: bool = False, **more: Any) -> Any:
    budget = AudioBudget(max_tokens=100, tokens_per_second=25, pad=pad)
    audio = AudioSection().model_copy(update={"budget": budget, **more})
    pricer = Pricer(budgets=Budgets(None, clip=ClipCosts(100, pad)))
    return gateway_to(engine.url, parts={"pricer": pricer}, audio=audio)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def asks(*clips: bytes) -> dict[str, Any]:
    parts = [{"type": "input_audio", "input_audio": {"data": b64(data), "format": "mp3"}} for data in clips]
    return {"model": "fake-model", "messages": [{"role": "user", "content": [*parts, {"type": "text", "text": "?"}]}]}


def seconds_of(data: str) -> float:
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(data)))
    assert rate == 16_000
    return len(samples) / rate


async def test_a_long_one_is_cut_and_said_so(engine: FakeEngine) -> None:
    async with gateway(engine) as desk:
        done = await desk.post(asks(LONG, SHORT))
        assert (done.status, done.headers["x-launcher-audio"]) == (200, "30.00s>4.00s=100, 2.00s=50"), done.body
        first, second, _ = (await got(engine))["messages"][0]["content"]
        assert (seconds_of(first["input_audio"]["data"]), first["input_audio"]["format"]) == (4.0, "wav")
        assert seconds_of(second["input_audio"]["data"]) == 2.0
        assert await desk.metric('launcher_media_total{outcome="cut"}') == 1
        await desk.at_rest()


async def test_padded(engine: FakeEngine) -> None:
    async with gateway(engine, pad=True) as desk:
        done = await desk.post(asks(SHORT))
        assert done.headers["x-launcher-audio"] == "2.00s>4.00s=100"
        assert seconds_of((await got(engine))["messages"][0]["content"][0]["input_audio"]["data"]) == 4.0


async def test_as_a_data_url(engine: FakeEngine) -> None:
    async with gateway(engine) as desk:
        url = "data:audio/mp3;base64," + b64(LONG)
        done = await desk.post(names(url, kind="audio_url"))
        assert done.headers["x-launcher-audio"] == "30.00s>4.00s=100"
        head, _, data = (await got(engine))["messages"][0]["content"][0]["audio_url"]["url"].partition(",")
        assert (head, seconds_of(data)) == ("data:audio/wav;base64", 4.0)


async def test_by_url(engine: FakeEngine) -> None:
    """Without a budget it is fetched, and passes as it is: an engine fetches nothing itself."""
    async with site(a=answer(SHORT)) as there, gateway_for(engine, there) as desk:
        done = await desk.post(names(f"http://example.org:{there.port}/a", kind="audio_url"))
        assert done.status == 200, done.body
        url = (await got(engine))["messages"][0]["content"][0]["audio_url"]["url"]
        assert base64.b64decode(url.partition(",")[2]) == SHORT


async def test_without_a_budget_it_passes_as_it_came(engine: FakeEngine) -> None:
    async with gateway_to(engine.url) as desk:
        done = await desk.post(asks(SHORT))
        assert "x-launcher-audio" not in done.headers
        assert (await got(engine))["messages"][0]["content"][0]["input_audio"] == {"data": b64(SHORT), "format": "mp3"}


@pytest.mark.parametrize(
    ("clips", "settings", "reason", "words"),
    [
        ((LONG[:-100_000],), {}, "audio_broken", "cut short"),
        ((b"text",), {}, "audio_format", "its first bytes are"),
        ((b"",), {}, "audio_empty", "no bytes"),
        ((SHORT,) * 5, {}, "too_many_clips", "The request has 5 clips: 4 is the most here."),
        ((LONG,), {"max_bytes": 1_000_000}, "audio_too_large", "Clip 1 has 2.7 MiB: 1 MiB is the most here."),
        ((LONG,), {"max_length": 10.0}, "audio_too_long", "10"),
    ],
    ids=["cut short", "text", "empty", "many", "bytes", "long"],
)
async def test_what_is_refused(
    engine: FakeEngine, clips: tuple[bytes, ...], settings: dict[str, Any], reason: str, words: str
) -> None:
    async with gateway(engine, **settings) as desk:
        refused = await desk.post(asks(*clips))
        assert (refused.status, refused.error["reason"]) == (400, reason), refused.error
        assert words in refused.error["message"]
        assert not (await engine.seen())["requests"]
        await desk.at_rest()


async def test_a_model_that_takes_none(engine: FakeEngine) -> None:
    async with gateway_to(engine.url) as desk:
        desk.gateway.intake = Intake(desk.gateway.settings, None, False)
        refused = await desk.post(asks(SHORT))
        assert (refused.status, refused.error["message"]) == (400, "This model takes no clips of sound.")


async def test_an_upload_is_no_clip(engine: FakeEngine) -> None:
    async with gateway(engine) as desk:
        refused = await desk.post(names("upload:" + "a" * 32, kind="audio_url"))
        assert refused.error["reason"] == "upload_kind"


def test_priced_within_the_budget() -> None:
    import json

    with_budget = Pricer(budgets=Budgets(None, clip=ClipCosts(512, False)))
    body = json.dumps(asks(LONG)).encode()
    assert 512 < with_budget.price("/v1/chat/completions", body).prompt_tokens < 540
    assert Pricer().price("/v1/chat/completions", body).prompt_tokens > 2000
