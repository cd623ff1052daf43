"""POST /api/upload: pictures that are sent ahead, what a request makes of them, and who may not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from PIL import Image

from launcher.gateway.auth import Gatekeeper
from launcher.gateway.keyring import KeyRing, keys_of_environment
from launcher.gateway.media.costs import Budgets
from launcher.gateway.media.store import StoreLimits, UploadStore
from launcher.gateway.price import Pricer
from launcher.plan.image_budget import Budget
from launcher.profile.images import ImagesSection
from launcher.profile.media import UploadsSection
from tests.fakes.process import FakeEngine
from tests.gateway.harness import Desk, Response, gateway_to, request_bytes
from tests.gateway.media.pictures import photo, saved
from tests.gateway.media.test_intake import GLM, LARGE, SMALL, got, size_of

JPEG = "Content-Type: image/jpeg"


@pytest.fixture
async def small(engine: FakeEngine) -> AsyncIterator[Desk]:
    """A gateway that brings pictures down to 324 tokens, or a long side of 280 where a client asks for low detail."""
    budgets = Budgets(GLM, Budget(max_tokens=324), {"low": Budget(long_side=280)})
    async with gateway_to(engine.url, parts={"pricer": Pricer(budgets=budgets)}) as desk:
        yield desk


async def upload(desk: Desk, data: bytes, *lines: str, query: str = "") -> Response:
    return await desk.raw(request_bytes("POST", "/api/upload" + query, data, *(lines or (JPEG,))))


async def ready(desk: Desk, upload_id: str, *lines: str) -> dict[str, Any]:
    answer = await desk.get(f"/api/upload/{upload_id}?wait=20", *lines)
    assert answer.status == 200, answer.body
    told: dict[str, Any] = answer.json()
    return told


def names(upload_id: str, detail: str = "auto") -> dict[str, Any]:
    part = {"type": "image_url", "image_url": {"url": f"upload:{upload_id}", "detail": detail}}
    content = [part, {"type": "text", "text": "What is it?"}]
    return {"model": "fake-model", "messages": [{"role": "user", "content": content}]}


async def test_sent_ahead_and_used_twice(small: Desk, engine: FakeEngine) -> None:
    answer = await upload(small, LARGE)
    assert answer.status == 202
    sent = answer.json()
    assert sent["state"] in ("received", "decoding")
    assert sent["url"] == "upload:" + sent["id"]
    told = await ready(small, sent["id"])
    assert {name: told[name] for name in ("state", "format", "width_in", "height_in", "width", "height", "tokens")} == {
        "state": "ready", "format": "jpeg", "width_in": 1920, "height_in": 1080, "width": 672, "height": 364, "tokens": 314,
    }  # fmt: skip
    assert 0 < told["expires_in_s"] <= 900
    for _ in range(2):
        used = await small.post(names(sent["id"]))
        assert (used.status, used.headers["x-launcher-images"]) == (200, "1920x1080>672x364=314"), used.body
        url = (await got(engine))["messages"][0]["content"][0]["image_url"]["url"]
        assert size_of(url) == ("data:image/jpeg;base64", (672, 364))
    assert await small.metric('launcher_media_total{outcome="shrunk"}') == 1
    assert await small.metric("launcher_uploads ") == 1
    await small.at_rest()


async def test_used_before_it_is_ready(small: Desk, engine: FakeEngine) -> None:
    """The request waits for the decoding that is on its way, and for no second one."""
    sent = (await upload(small, LARGE)).json()
    assert (await small.post(names(sent["id"]))).headers["x-launcher-images"] == "1920x1080>672x364=314"


async def test_another_budget_is_made_of_the_picture_as_it_came(small: Desk, engine: FakeEngine) -> None:
    sent = (await upload(small, LARGE)).json()
    await ready(small, sent["id"])
    assert (await small.post(names(sent["id"], "low"))).headers["x-launcher-images"].startswith("1920x1080>280x158=")
    ahead = (await upload(small, saved(photo(1000, 800), "JPEG"), query="?detail=low")).json()
    assert (await ready(small, ahead["id"]))["width"] == 280


async def test_the_price_knows_the_size(small: Desk) -> None:
    sent = (await upload(small, SMALL)).json()
    await ready(small, sent["id"])
    body = json.dumps(names(sent["id"])).encode()
    assert small.gateway.pricer.price("/v1/chat/completions", body).image_tokens == 79


async def test_as_a_form(small: Desk) -> None:
    form = b'--xx\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    body = form + LARGE + b"\r\n--xx--\r\n"
    answer = await upload(small, body, "Content-Type: multipart/form-data; boundary=xx")
    assert answer.status == 202
    bare = await upload(small, LARGE)
    assert bare.json()["id"] == answer.json()["id"]  # the same bytes


async def test_the_same_picture_again(small: Desk) -> None:
    first = (await upload(small, LARGE)).json()
    await ready(small, first["id"])
    again = await upload(small, LARGE)
    assert (again.status, again.json()["id"], again.json()["state"]) == (200, first["id"], "ready")
    assert await small.metric("launcher_uploads ") == 1


async def test_a_bad_picture_says_so_when_it_is_asked_for(small: Desk) -> None:
    sent = (await upload(small, LARGE[: len(LARGE) // 2])).json()
    told = await ready(small, sent["id"])
    assert (told["state"], told["error"]["reason"]) == ("failed", "picture_truncated")
    used = await small.post(names(sent["id"]))
    assert (used.status, used.error["reason"], used.error["param"]) == (400, "picture_truncated", "messages")


@pytest.mark.parametrize(
    ("data", "lines", "status", "reason", "words"),
    [
        (b"", (JPEG,), 400, "upload_empty", "no bytes"),
        (LARGE, ("Content-Type: text/plain",), 400, "upload_type", "text/plain"),
        (LARGE, ("Content-Type: multipart/form-data",), 400, "upload_form_broken", "boundary"),
        (
            saved(photo(20, 20), "BMP"),
            (JPEG,),
            400,
            "picture_format",
            "The picture is a BMP, which this server does not take",
        ),
        (saved(Image.new("L", (4000, 3000)), "PNG"), (JPEG,), 400, "picture_too_large", "4000×3000 pixels"),
        (LARGE + bytes(1_000_000), (JPEG,), 400, "picture_too_large", "MiB is the most here"),
    ],
    ids=["empty", "type", "form", "format", "pixels", "bytes"],
)
async def test_what_is_refused(
    engine: FakeEngine, data: bytes, lines: tuple[str, ...], status: int, reason: str, words: str
) -> None:
    images = ImagesSection().model_copy(
        update={"formats": ("jpeg", "png"), "max_pixels": 3_000_000, "max_bytes": 1_000_000}
    )
    async with gateway_to(engine.url, images=images) as desk:
        answer = await upload(desk, data, *lines)
        assert (answer.status, answer.error["reason"]) == (status, reason), answer.error
        assert words in answer.error["message"]
        assert await desk.metric("launcher_uploads ") == 0


async def test_an_id_that_is_not_here(small: Desk) -> None:
    unknown = "a" * 32
    for answer in (await small.post(names(unknown)), await small.get(f"/api/upload/{unknown}")):
        assert (answer.status, answer.error["reason"]) == (404, "upload_unknown")
        assert "not over a restart. Upload it again." in answer.error["message"]
    assert (await small.get("/api/upload/nonsense")).error["reason"] == "upload_id_invalid"
    answer = await small.get(f"/api/upload/{unknown}?wait=soon")
    assert (answer.status, answer.error["reason"]) == (404, "upload_unknown")
    sent = (await upload(small, SMALL)).json()
    assert (await small.get(f"/api/upload/{sent['id']}?wait=soon")).error["reason"] == "bad_value"


async def test_another_keys_upload_is_not_to_be_had(engine: FakeEngine) -> None:
    ring = KeyRing(None, keys_of_environment("mine=mine-000000000000000,yours=yours-0000000000000"))
    mine, yours = ("Authorization: Bearer mine-000000000000000", "Authorization: Bearer yours-0000000000000")
    async with gateway_to(engine.url, parts={"gatekeeper": Gatekeeper(ring, True)}) as desk:
        assert (await upload(desk, SMALL)).status == 401
        sent = (await upload(desk, SMALL, JPEG, mine)).json()
        assert (await ready(desk, sent["id"], mine))["state"] == "ready"
        assert (await desk.post(names(sent["id"]), mine)).status == 200
        for answer in (await desk.get(f"/api/upload/{sent['id']}", yours), await desk.post(names(sent["id"]), yours)):
            assert (answer.status, answer.error["reason"]) == (404, "upload_unknown")
        assert (await upload(desk, SMALL, JPEG, yours)).json()["id"] != sent["id"]


async def test_the_store_is_bounded(engine: FakeEngine) -> None:
    uploads = UploadsSection().model_copy(update={"memory": 3 * len(SMALL), "per_key": 3 * len(SMALL)})
    async with gateway_to(engine.url, uploads=uploads) as desk:
        ids = []
        for number in range(8):
            sent = (await upload(desk, SMALL + bytes([number]))).json()
            await ready(desk, sent["id"])
            ids.append(sent["id"])
        assert await desk.metric("launcher_upload_bytes ") <= 3 * len(SMALL)
        assert await desk.metric("launcher_upload_evictions_total") > 4
        assert (await desk.get(f"/api/upload/{ids[0]}")).status == 404
        assert (await desk.get(f"/api/upload/{ids[-1]}")).status == 200


async def test_who_leaves_while_waiting_leaves_nothing(engine: FakeEngine) -> None:
    async with gateway_to(engine.url) as desk:
        desk.gateway.intake.store = UploadStore(StoreLimits())
        store = desk.gateway.intake.store
        upload_id = store.id_of("anonymous", b"x")
        store.receive(upload_id, "anonymous", 1, 0.0)
        client = await desk.client()
        await client.send(request_bytes("GET", f"/api/upload/{upload_id}?wait=20"))
        await desk.until(lambda: store.find(upload_id, "anonymous", 0.0).holders == 1)
        client.close()
        await desk.until(lambda: store.find(upload_id, "anonymous", 0.0).holders == 0)


async def test_at_the_end_who_waits_is_told(engine: FakeEngine) -> None:
    async with gateway_to(engine.url) as desk:
        store = desk.gateway.intake.store
        upload_id = store.id_of("anonymous", b"x")
        store.receive(upload_id, "anonymous", 1, desk.gateway.now())
        client = await desk.client()
        await client.post("/v1/chat/completions", names(upload_id))
        await desk.until(lambda: bool(desk.gateway.active))
        closing = asyncio.ensure_future(desk.gateway.close())
        answer = await client.read()
        assert (answer.status, answer.error["reason"]) == (503, "draining")
        await closing
