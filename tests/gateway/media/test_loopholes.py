"""Ways around the checks that were found by reading, each closed; and what went wrong beside them."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from launcher.gateway.auth import Gatekeeper
from launcher.gateway.compat import number_images
from launcher.gateway.cutting import MAX_DECODED
from launcher.gateway.keyfile import Key, hash_of
from launcher.gateway.keyring import KeyRing
from launcher.gateway.media.costs import Budgets
from launcher.gateway.price import Pricer
from launcher.plan.image_budget import Budget
from launcher.profile.media import UploadsSection
from tests.fakes.process import FakeEngine
from tests.gateway.harness import CHAT, chat, gateway_to, request_bytes
from tests.gateway.media.pictures import photo, saved
from tests.gateway.media.test_intake import GLM, LARGE, SMALL, asks, gateway, url_of

LINK = "http://10.0.0.1/a.jpg"
NAMED = {"type": "image_url", "image_url": {"url": LINK}}


def said(*content: Any, **more: Any) -> dict[str, Any]:
    return {"model": "fake-model", "messages": [{"role": "user", "content": list(content)}], **more}


BRACKETS = "[" * 50_001
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "too many brackets to be read": (CHAT, said(NAMED, {"type": "text", "text": BRACKETS})),
    "too much text to be read": (CHAT, said(NAMED, {"type": "text", "text": "x" * 2_200_000})),
    "an escaped key in what is not read": (CHAT, said({"type": "text", "text": BRACKETS})),
    "tokenize": ("/tokenize", said(NAMED)),
    "count_tokens": ("/v1/messages/count_tokens", said({"type": "image", "source": {"type": "url", "url": LINK}})),
    "messages, with data beside the url": (
        "/v1/messages",
        said({"type": "image", "source": {"type": "url", "url": LINK, "data": "iVBORw0KGgo="}}, max_tokens=5),
    ),
    "a text that is a picture by its uuid": (CHAT, said({"type": "text", "text": "x", "uuid": "u", "image_url": LINK})),
    "responses, in a call's output": (
        "/v1/responses",
        {"model": "fake-model", "input": [{"type": "function_call_output", "call_id": "1", "output": [
            {"type": "input_image", "image_url": LINK}]}]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
async def test_no_url_reaches_an_engine(engine: FakeEngine, name: str) -> None:
    path, body = CASES[name]
    raw = json.dumps(body).encode()
    if name.startswith("an escaped key"):
        raw = raw.replace(b'"type": "text"', rb'"type": "image_url", "\u0069mage_url": "http://10.0.0.1/"')
    async with gateway_to(engine.url) as desk:
        refused = await desk.post(raw, path=path)
        assert refused.status == 400, refused.body
        assert refused.error["reason"] in ("url_fetch_off", "too_much_json")
        assert not (await engine.seen())["requests"]


async def test_much_text_without_pictures_passes(engine: FakeEngine) -> None:
    async with gateway_to(engine.url) as desk:
        assert (await desk.post(chat("{" * 60_000))).status == 200
        assert (await desk.post(chat("hello"), path="/tokenize")).status == 200


@pytest.mark.parametrize("letters", [0, 1, 8, 60, 200])
async def test_wherever_the_first_segment_ends(engine: FakeEngine, letters: int) -> None:
    """A glimpse at a picture whose first bytes have not come yet says nothing."""
    body = said({"type": "text", "text": "x" * 3000}, {"type": "image_url", "image_url": {"url": url_of(LARGE)}})
    raw = request_bytes("POST", CHAT, json.dumps(body).encode())
    at = raw.index(b"base64,") + len(b"base64,") + letters
    async with gateway_to(engine.url) as desk:
        client = await desk.client()
        await client.send(raw[:at])
        await desk.until(lambda: any(c.reader.body is not None for c in desk.gateway.connections))
        await client.send(raw[at:])
        assert (await client.read()).status == 200


async def test_a_glimpse_refuses_nobody_for_being_late(engine: FakeEngine) -> None:
    """How long a request may wait depends on all of it."""
    await engine.set(hold_after=0)
    async with gateway_to(engine.url, max_in_flight=1, deadline=0.001, deadline_per_1k=60.0) as desk:
        running = await desk.client()
        await running.post(CHAT, chat())
        await engine.wait("hold")
        desk.replicas.all[0].pace.stay.add(5.0)
        client = await desk.client()
        await client.post(CHAT, chat("word " * 60_000))
        await desk.until(lambda: desk.gateway.queued == 1)
        await engine.release(2)
        assert (await client.read()).status == 200
        assert (await running.read()).status == 200


async def test_what_is_preparing_counts_as_waiting(engine: FakeEngine) -> None:
    await engine.set(hold_after=0)
    pricer = Pricer(budgets=Budgets(GLM, Budget(max_tokens=324)))
    async with gateway_to(engine.url, max_in_flight=1, max_queued=2, parts={"pricer": pricer}) as desk:
        clients = [await desk.client() for _ in range(12)]
        for client in clients:
            await client.post(CHAT, asks(LARGE))
        await engine.wait("hold")
        await desk.until(lambda: desk.gateway.metrics.refusals["queue_full"] >= 9)
        assert desk.gateway.dispatcher.waiting <= 2
        await engine.release(12)
        statuses = sorted([(await client.read()).status for client in clients])
        assert 2 <= statuses.count(200) <= 3  # the first may run already when the others come
        assert set(statuses) == {200, 429}
        await desk.at_rest()


async def test_forty_pictures_with_one_worker(engine: FakeEngine) -> None:
    async with gateway(engine, workers=1) as desk:
        answer = await desk.post(asks(*[saved(photo(640, 480), "JPEG")] * 40))
        assert answer.status == 200, answer.body
        assert answer.headers["x-launcher-images"].count("640x480>") == 40


async def test_pictures_that_cannot_be_used_cost_their_request(engine: FakeEngine) -> None:
    """Else a key with a rate could have as many decoded as it likes."""
    secret = "sk-launcher-" + "0" * 32
    key = Key(id="1", name="k", sha256=hash_of(secret), created=time.time(), requests_per_minute=2)
    pricer = Pricer(budgets=Budgets(GLM, Budget(max_tokens=324)))
    parts = {"pricer": pricer, "gatekeeper": Gatekeeper(KeyRing(None, [key]), True)}
    async with gateway_to(engine.url, parts=parts) as desk:
        broken = asks(LARGE[: len(LARGE) // 2])
        statuses = [(await desk.post(broken, f"Authorization: Bearer {secret}")).status for _ in range(3)]
        assert statuses == [400, 400, 429]


async def test_uploads_that_are_held_stay_within_the_memory(engine: FakeEngine) -> None:
    """What grows when it is decoded, while somebody waits for it."""
    flat = [saved(photo(900, 700, seed), "TIFF", compression="tiff_lzw") for seed in range(6)]
    most = 3 * max(map(len, flat))
    uploads = UploadsSection().model_copy(update={"memory": most, "per_key": most})
    async with gateway_to(engine.url, uploads=uploads) as desk:
        store = desk.gateway.intake.store
        waiting = []
        for data in flat:
            sent = await desk.raw(request_bytes("POST", "/api/upload", data, "Content-Type: image/tiff"))
            if sent.status == 202:
                client = await desk.client()
                await client.send(request_bytes("GET", f"/api/upload/{sent.json()['id']}?wait=20"))
                waiting.append(client)
        for client in waiting:
            await client.read()
        assert 0 < store.size <= most


async def test_who_waits_for_an_upload_is_answered_at_the_end(engine: FakeEngine) -> None:
    async with gateway_to(engine.url) as desk:
        store = desk.gateway.intake.store
        upload_id = store.id_of("anonymous", b"x")
        store.receive(upload_id, "anonymous", 1, desk.gateway.now())
        client = await desk.client()
        await client.send(request_bytes("GET", f"/api/upload/{upload_id}?wait=20"))
        await desk.until(lambda: store.find(upload_id, "anonymous", desk.gateway.now()).holders == 1)
        closing = asyncio.ensure_future(desk.gateway.close())
        assert (await client.read()).error["reason"] == "draining"
        await closing


@pytest.mark.parametrize("prompt", ["\ud800", "NaN and Infinity"])
async def test_odd_texts_in_plain_json(engine: FakeEngine, prompt: str) -> None:
    async with gateway_to(engine.url) as desk:
        answer = await desk.post(json.dumps({"prompt": prompt}).encode(), path="/api/v1/generate")
        assert answer.status == 200, answer.body


async def test_plain_json_drops_nothing_in_silence(engine: FakeEngine) -> None:
    await engine.set(reasoning="let me see", reply="It is so.")
    async with gateway_to(engine.url) as desk:
        ask = {"prompt": "x", "return_reasoning": True}
        assert (await desk.post(ask, path="/api/v1/generate")).json()["text"].startswith("<think>let me see</think>")
        for name, value in (("tools", [{}]), ("logprobs", True)):
            refused = await desk.post({"prompt": "x", name: value}, path="/api/v1/generate")
            assert (refused.status, refused.error["param"]) == (400, name)
        quiet = {"prompt": "x", "image": url_of(SMALL), "return_image_info": False}
        assert "image_info" not in (await desk.post(quiet, path="/api/v1/generate")).json()


def test_numbering_takes_no_longer_than_its_length() -> None:
    parts = [{"type": "image"} for _ in range(200_000)]
    began = time.process_time()
    assert number_images([{"role": "user", "content": parts}])
    assert time.process_time() - began < 5  # it was hours


async def test_what_is_no_json_is_the_engines_to_refuse(engine: FakeEngine) -> None:
    async with gateway_to(engine.url) as desk:
        answer = await desk.post(b'{"messages": [{"image_url": ')
        assert answer.headers["x-launcher-src"] == "engine"
        for body in (json.dumps({"image_url": LINK}), json.dumps({"image_url": LINK}).replace("/", "\\/")):
            unknown = await desk.post(body.encode(), path="/v1/systemone")
            assert (unknown.status, unknown.error["reason"]) == (400, "url_fetch_off")
        assert (
            await desk.post({"image_url": "data:image/png;base64,iVBORw0KGgo="}, path="/v1/systemone")
        ).status == 200


@pytest.mark.parametrize("coding", ["utf-16", "utf-16-be", "utf-32-le"])
@pytest.mark.parametrize("path", ["/tokenize", "/v1/messages/count_tokens", "/v1/chat/completions", "/v1/systemone"])
async def test_json_of_wide_letters_hides_no_link(engine: FakeEngine, path: str, coding: str) -> None:
    part = {"type": "image", "source": {"type": "url", "url": LINK}}
    if path in ("/tokenize", "/v1/chat/completions", "/v1/systemone"):
        part = {"type": "image_url", "image_url": {"url": LINK}}
    async with gateway_to(engine.url) as desk:
        for text in ("What is this?", "a" * (MAX_DECODED + 1)):
            if path == "/v1/systemone" and len(text) > MAX_DECODED:
                continue
            body = {**said(part, {"type": "text", "text": text}), "max_tokens": 4}
            refused = await desk.post(json.dumps(body).encode(coding), path=path)
            assert refused.status in (400, 413), refused.body
            assert refused.headers["x-launcher-src"] != "engine"
