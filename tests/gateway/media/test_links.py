"""What a request names by URL: fetched where the profile allows it, refused with a sentence elsewhere, never left to an engine."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from launcher.gateway.media.costs import Budgets
from launcher.gateway.media.fetch import Fetcher
from launcher.gateway.media.hop import FetchLimits
from launcher.gateway.media.targets import Allowed
from launcher.gateway.price import Pricer
from launcher.plan.image_budget import Budget
from launcher.profile.media import FetchSection
from tests.fakes.process import FakeEngine
from tests.gateway.harness import CHAT, Desk, gateway_to
from tests.gateway.media.sites import Names, Site, answer, site
from tests.gateway.media.test_fetch import but_here
from tests.gateway.media.test_intake import GLM, LARGE, asks, got, size_of

ANY = FetchSection(hosts=("*",), http=True)


def names(*urls: str, kind: str = "image_url") -> dict[str, Any]:
    content = [{"type": kind, kind: {"url": url}} for url in urls]
    return {"model": "fake-model", "messages": [{"role": "user", "content": [*content, {"type": "text", "text": "?"}]}]}


@asynccontextmanager
async def gateway_for(
    engine: FakeEngine, there: Site, names: Names | None = None, **limits: float
) -> AsyncIterator[Desk]:
    """A gateway that may fetch from anywhere; example.org is ``there``."""
    pricer = Pricer(budgets=Budgets(GLM, Budget(max_tokens=324)))
    async with gateway_to(engine.url, parts={"pricer": pricer}, fetch=ANY) as desk:
        desk.gateway.intake.fetcher = Fetcher(
            Allowed.of(("*",), http=True, more_ports=[there.port]),
            FetchLimits(**limits),
            resolve=names or Names(example_org=["127.0.0.1"]),
            fault_of=but_here,
        )
        yield desk


async def test_fetched_brought_down_and_put_into_the_body(engine: FakeEngine) -> None:
    async with site(a=answer(LARGE, "Content-Type: text/html")) as there, gateway_for(engine, there) as desk:
        done = await desk.post(names(f"http://example.org:{there.port}/a"))
        assert (done.status, done.headers["x-launcher-images"]) == (200, "1920x1080>672x364=314"), done.body
        stages = [stage.partition(";")[0] for stage in done.headers["server-timing"].split(", ")]
        assert stages == ["sniff", "fetch", "decode", "scale", "encode", "media", "queue", "engine"]
        url = (await got(engine))["messages"][0]["content"][0]["image_url"]["url"]
        assert size_of(url) == ("data:image/jpeg;base64", (672, 364))
        assert await desk.metric('launcher_media_seconds_count{stage="fetch"}') == 1
        await desk.at_rest()


async def test_beside_pictures_in_the_body(engine: FakeEngine) -> None:
    async with site(a=answer(LARGE)) as there, gateway_for(engine, there) as desk:
        body = asks(LARGE)
        body["messages"][0]["content"][1:1] = names(f"http://example.org:{there.port}/a")["messages"][0]["content"][:1]
        done = await desk.post(body)
        assert done.headers["x-launcher-images"] == ", ".join(["1920x1080>672x364=314"] * 2)
        parts = (await got(engine))["messages"][0]["content"]
        assert [size_of(part["image_url"]["url"])[1] for part in parts[:2]] == [(672, 364)] * 2


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.2/a.jpg", "url_address_refused"),
        ("http://[::1]/a.jpg", "url_address_refused"),
        ("http://169.254.169.254/latest/meta-data", "url_address_refused"),
        ("http://2130706433/", "url_invalid"),
        ("http://both.example.org/", "url_address_refused"),
        ("http://example.org:{port}/redirect", "url_address_refused"),
        ("http://example.org:{port}/loop", "url_redirects"),
        ("http://example.org:{port}/text", "picture_format"),
        ("http://example.org:{port}/gone", "url_status"),
        ("http://example.org:{port}/drip", "url_too_slow"),
        ("http://example.org:{port}/endless", "url_too_large"),
        ("http://nowhere.example.org/", "url_unknown_host"),
        ("file:///etc/passwd", "url_scheme_refused"),
        ("ftp://example.org/a.jpg", "url_scheme_refused"),
        ("gopher://example.org/", "url_scheme_refused"),
        ("no url at all", "url_scheme_refused"),
    ],
)
async def test_what_is_refused_while_a_stream_goes_on(engine: FakeEngine, url: str, reason: str) -> None:
    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x")
            await asyncio.sleep(0.02)

    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    scripts = {
        "redirect": answer(b"", "Location: http://10.0.0.1/a.jpg", status="302 Found"),
        "loop": answer(b"", "Location: /loop", status="302 Found"),
        "text": answer(b"just text"),
        "gone": answer(b"", status="404 Not Found"),
        "drip": drip,
        "endless": endless,
    }
    table = Names(example_org=["127.0.0.1"], both_example_org=["93.184.215.14", "10.0.0.1"])
    await engine.set(hold_after=1)
    async with site(**scripts) as there, gateway_for(engine, there, table, total_s=1.0, max_bytes=1_000_000) as desk:
        other = await desk.client()
        await other.post(CHAT, {"model": "fake-model", "messages": [], "stream": True, "max_tokens": 3})
        await engine.wait("hold")
        refused = await desk.post(names(url.format(port=there.port)))
        assert (refused.status, refused.error["reason"]) == (400, reason), refused.error
        assert refused.error["param"] == "messages"
        assert len((await engine.seen())["requests"]) == 1  # the other stream's
        await engine.release()
        assert (await other.read()).body.endswith(b"data: [DONE]\n\n")
        await desk.at_rest()


@pytest.mark.parametrize("url", ["https://example.org/a.jpg", "http://127.0.0.1/", "file:///etc/passwd", ""])
async def test_without_hosts_nothing_is_fetched(engine: FakeEngine, url: str) -> None:
    async with gateway_to(engine.url) as desk:
        refused = await desk.post(names(url))
        if not url:
            assert refused.error["reason"] == "picture_empty"
            return
        assert (refused.status, refused.error["reason"]) == (400, "url_fetch_off")
        assert "gateway.fetch.hosts" in refused.error["message"]
        assert not (await engine.seen())["requests"]


async def test_videos_are_never_fetched(engine: FakeEngine) -> None:
    async with site(a=answer(LARGE)) as there, gateway_for(engine, there) as desk:
        refused = await desk.post(names(f"http://example.org:{there.port}/a", kind="video_url"))
        assert (refused.status, refused.error["reason"]) == (400, "url_fetch_off")
        assert not there.heads
        data = "data:video/mp4;base64," + base64.b64encode(b"x").decode()
        assert (await desk.post(names(data, kind="video_url"))).status == 200


async def test_a_refused_request_fetches_nothing(engine: FakeEngine) -> None:
    """Admission comes first."""
    async with site(a=answer(LARGE)) as there, gateway_for(engine, there) as desk:
        desk.replicas.down(0, "gone")
        refused = await desk.post(names(f"http://example.org:{there.port}/a"))
        assert refused.status == 503
        assert not there.heads


async def test_who_leaves_ends_the_fetch_and_holds_no_room_meanwhile(engine: FakeEngine) -> None:
    async def never(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(3600)

    async with site(a=never) as there, gateway_for(engine, there) as desk:
        client = await desk.client()
        await client.post(CHAT, names(f"http://example.org:{there.port}/a"))
        async with asyncio.timeout(10):
            await there.begun.wait()
        assert desk.gateway.queued == 1
        assert desk.replicas.all[0].in_flight == 0  # a slow site holds no engine
        assert (await desk.post({"model": "fake-model", "messages": []})).status == 200
        client.close()
        async with asyncio.timeout(10):
            await there.closed.wait()
        await desk.until(lambda: not desk.gateway.queued)
        await desk.at_rest()


async def test_a_body_with_a_link_keeps_its_numbers(engine: FakeEngine) -> None:
    async with site(a=answer(LARGE)) as there, gateway_for(engine, there) as desk:
        body = json.dumps(names(f"http://example.org:{there.port}/a") | {"seed": 12345678901234, "temperature": 0.1})
        assert (await desk.post(body.encode())).status == 200
        sent = await got(engine)
        assert (sent["seed"], sent["temperature"]) == (12345678901234, 0.1)
