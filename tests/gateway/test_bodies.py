"""Large bodies, which are read straight into their place: whole, in order, and with all limits of small ones."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from itertools import pairwise

import pytest

from launcher.gateway.bodies import AHEAD, LARGE, SMALL, CountedBody
from tests.fakes.process import FakeEngine
from tests.gateway.harness import CHAT, Desk, chat, gateway_to, request_bytes

SIZES = [LARGE - 1, LARGE, LARGE + 1, 1_000_003, 9_000_000]


def filler(size: int) -> str:
    return "".join(random.Random(size).choices("abcdefgh", k=1000)) * (size // 1000) + "x" * (size % 1000)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def arrived(engine: FakeEngine) -> list[str]:
    """The bodies of the requests that came to the engine."""
    return [one["sha256"] for one in (await engine.seen())["requests"]]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("step", [70_000, 300_000])
def test_a_body_is_what_was_fed_and_written_into_its_room(size: int, step: int) -> None:
    sent = filler(size).encode()
    body = CountedBody(size)
    at = min(size, step)
    is_whole = body.feed(sent[:at])
    while not is_whole:
        room = body.room()
        assert len(room) <= max(AHEAD * max(at, SMALL) - at, 0)  # not more than what was promised and shown to be meant
        assert len(room) <= body.left == size - at
        count = min(len(room), step)
        room[:count] = sent[at : at + count]
        del room
        at += count
        is_whole = body.grow(count)
    whole = body.whole()
    assert whole == sent
    assert type(whole) is bytes  # nothing that could still change, or not be hashed


def test_a_body_in_its_place_is_given_without_a_copy() -> None:
    body = CountedBody(LARGE)
    assert body.grow(len(body.room())) is (AHEAD * SMALL >= LARGE)
    while body.left:
        body.grow(len(body.room()))
    assert body.whole() is body.whole()


@pytest.mark.parametrize("size", SIZES)
async def test_large_bodies_and_what_follows_them(desk: Desk, engine: FakeEngine, size: int) -> None:
    """The next request may come in the same breath; it is the answer that shows whether all arrived."""
    client = await desk.client()
    data = json.dumps(chat(filler(size))).encode()
    await client.post(CHAT, data)
    await client.send(request_bytes("GET", "/health"))
    await client.post(CHAT, data)
    for status in (200, 200, 200):
        assert (await client.read()).status == status
    assert await arrived(engine) == [digest(data), digest(data)]


async def test_a_large_body_may_come_in_any_pieces(desk: Desk, engine: FakeEngine) -> None:
    client, body = await desk.client(), json.dumps(chat(filler(600_000))).encode()
    data = request_bytes("POST", CHAT, body)
    cuts = [0, 10, 150, 151, 5000, 200_000, 200_001, 590_000, len(data) - 1, len(data)]
    for start, end in pairwise(cuts):
        await client.send(data[start:end])
        await desk.get("/health")  # what was sent has been read
    assert (await client.read()).status == 200
    assert await arrived(engine) == [digest(body)]


async def test_a_large_body_that_stops_coming_is_refused_in_time(engine: FakeEngine) -> None:
    async with gateway_to(engine.url, body_timeout=0.2) as desk:
        client = await desk.client()
        await client.send(request_bytes("POST", CHAT, b"x" * 2_000_000)[:1_000_000])
        answer = await client.read()
        assert (answer.status, answer.error["reason"]) == (408, "body_timeout")
        await client.send(b"x" * 300_000)  # thrown away, so that the answer is not lost in a reset
        assert await client.at_end()
        await desk.until(lambda: not [c for c in desk.gateway.connections if c.reader.body is not None])


async def test_a_client_that_leaves_within_a_large_body_leaves_nothing(desk: Desk, engine: FakeEngine) -> None:
    client = await desk.client()
    await client.send(request_bytes("POST", CHAT, b"x" * 2_000_000)[:1_000_000])
    await desk.until(lambda: any(c.reader.body and c.reader.body.size > 500_000 for c in desk.gateway.connections))
    client.close()
    await desk.until(lambda: len(desk.gateway.connections) == 1)  # the one that asks
    await desk.at_rest()
    assert await arrived(engine) == []


async def test_closing_the_gateway_ends_a_large_body(engine: FakeEngine) -> None:
    async with gateway_to(engine.url) as desk:
        client = await desk.client()
        await client.send(request_bytes("POST", CHAT, b"x" * 2_000_000)[:1_000_000])
        await desk.until(lambda: any(c.reader.body and c.reader.body.size > 500_000 for c in desk.gateway.connections))
        async with asyncio.timeout(10):
            await desk.gateway.close()
        assert await client.at_end()
