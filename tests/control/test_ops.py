"""The operator's page's routes, as a client of the gateway and as a reader of the app's own socket meets them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from launcher.control import CONTROL_SOCKET, GATEWAY_SOCKET, models
from launcher.control.__main__ import GRACE_S, Server, listening
from launcher.control.app import make_app
from launcher.control.feed import Feed
from launcher.control.gateway_client import GatewayClient
from launcher.control.ops import NO_PLAN
from launcher.gateway.auth import Gatekeeper
from launcher.gateway.keyring import KeyRing
from launcher.supervise.rundir import PLAN, RECORD
from launcher.up.control_process import command, environment
from tests.control.harness import AdminDesk, admin_desk
from tests.control.test_app import KEYS, App, Engines, listens
from tests.gateway.harness import PATIENCE_S, RawClient, chat, request_bytes

RECORDED = {
    "state": "ready",
    "url": "http://127.0.0.1:8080",
    "engines": [],
    "ends": [{"at": 5.0, "engine": 0, "cause": "hung", "reason": "no token for 60 s", "remedy": "Look at its log."}],
}


@pytest.fixture
async def app(tmp_path: Path, engines: Engines) -> AsyncIterator[App]:
    """A control app of its own, as a process, and the gateway in front of it."""
    process = await asyncio.create_subprocess_exec(
        *command(tmp_path, tmp_path / KEYS, None), env=environment(os.environ)
    )
    (tmp_path / "pid").write_text(str(process.pid))
    (tmp_path / RECORD).write_text(json.dumps(RECORDED))
    try:
        await listens(tmp_path / CONTROL_SOCKET)
        parts = {
            "gatekeeper": Gatekeeper(KeyRing(tmp_path / KEYS), required=False),
            "control_socket": str(tmp_path / CONTROL_SOCKET),
        }
        async with admin_desk(tmp_path, engines[0].url, parts=parts) as admin:
            yield App(admin)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


class Reader:
    """Reads the events of /api/events, over the gateway or from the app's own socket."""

    def __init__(self, client: RawClient) -> None:
        self.client = client
        self._rest = b""

    async def begin(self, *lines: str) -> None:
        await self.client.send(request_bytes("GET", "/api/events", b"", *lines))
        async with asyncio.timeout(PATIENCE_S):
            status, headers, _ = await self.client.read_head()
        assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        assert headers["cache-control"] == "no-store"

    async def event(self) -> str | None:
        """The next event; None: the stream has ended."""
        async with asyncio.timeout(PATIENCE_S):
            while b"\n\n" not in self._rest:
                chunk = await self.client.read_chunk()
                if not chunk:
                    return None
                self._rest += chunk
        one, _, self._rest = self._rest.partition(b"\n\n")
        return one.decode()

    async def look(self) -> dict[str, Any]:
        """The next look."""
        while (one := await self.event()) is not None:
            if one.startswith("event: watch\ndata: "):
                found: dict[str, Any] = json.loads(one.removeprefix("event: watch\ndata: "))
                return found
        raise AssertionError("the stream has ended")


async def reader(admin: AdminDesk, *lines: str) -> Reader:
    """One that has begun, as a page has it."""
    one = Reader(await admin.desk.client())
    await one.begin(*lines)
    return one


async def test_looks_come_by_themselves_as_the_model_says(app: App) -> None:
    one = await reader(app.admin)
    assert await one.event() == "retry: 1000"
    first = await one.look()
    seen = models.Look.model_validate_json(json.dumps(first), strict=True)
    assert (seen.name, seen.state, seen.ends[0].reason) == (app.admin.folder.name, "ready", "no token for 60 s")
    assert seen.live is not None
    assert (seen.live.name, seen.live.totals.served) == ("test", 0)
    assert [(engine.index, engine.phase, engine.running) for engine in seen.engines] == [(0, "ready", 0.0)]
    assert (await app.admin.desk.post(chat(stream=True))).status == 200
    while (later := await one.look())["live"]["totals"]["served"] == 0:
        pass
    assert 0.9 < later["at"] - first["at"] < PATIENCE_S
    minute = later["live"]["last_minute"]
    assert (minute["served"], minute["refused"], minute["ttft_within"][-1]) == (1, 0, [None, 1])


async def test_all_who_watch_get_the_same(app: App) -> None:
    readers = [await reader(app.admin) for _ in range(3)]
    firsts = [await one.look() for one in readers]
    seconds = [await one.look() for one in readers]
    shared = [{look["at"] for look in looks} for looks in zip(firsts, seconds, strict=True)]
    assert len(set.intersection(*shared)) >= 1
    assert len(set.union(*shared)) <= 3  # one watcher may have come a look later


async def test_once(app: App) -> None:
    answer = await app.admin.desk.get("/api/watch")
    assert (answer.status, answer.headers["cache-control"]) == (200, "no-store")
    assert models.Look.model_validate_json(answer.body, strict=True).state == "ready"


async def test_a_gateway_that_is_gone_is_seen_too(app: App) -> None:
    (app.admin.folder / GATEWAY_SOCKET).unlink()
    answer = await app.send("GET", "/api/watch")
    assert (answer.status, answer.json()["live"]) == (200, None)


async def test_it_takes_an_admin_key_where_keys_are_needed(app: App) -> None:
    made = {}
    for name, is_admin in (("user", False), ("ops", True)):
        made[name] = (await app.ask("POST", "/api/keys", {"name": name, "is_admin": is_admin})).json()["secret"]
    for path in ("/api/events", "/api/watch", "/api/plan"):
        assert (await app.admin.desk.get(path)).status == 401
        refused = await app.admin.desk.get(path, f"Authorization: Bearer {made['user']}")
        assert (refused.status, refused.error["src"]) == (403, "gateway")
    assert (await (await reader(app.admin, f"Authorization: Bearer {made['ops']}")).look())["state"] == "ready"


async def test_the_plan(app: App) -> None:
    missing = await app.admin.desk.get("/api/plan")
    assert (missing.status, missing.error["reason"], missing.error["message"]) == (404, "no_plan", NO_PLAN)
    (app.admin.folder / PLAN).write_text('{"verdict": "fits"}')
    assert (await app.admin.desk.get("/api/plan")).json() == {"verdict": "fits"}


async def test_nobody_waits_for_those_who_watch(app: App) -> None:
    """A drain is over although a page is open; at the end its stream ends too."""
    one = await reader(app.admin)
    await one.look()
    gateway = app.admin.gateway
    gateway.stop_admitting("the endpoint is stopping")
    assert (len(gateway.active), len(gateway.visits)) == (0, 1)
    assert await gateway.drained(PATIENCE_S) == 0
    assert (await one.look())["live"]["draining"] is True  # it is told all the while
    await gateway.close()
    while await one.event() is not None:
        pass
    assert not gateway.visits


async def test_told_to_stop_it_ends_the_streams_at_once(app: App) -> None:
    one = await reader(app.admin)
    await one.look()
    began = time.monotonic()
    os.kill(int((app.admin.folder / "pid").read_text()), signal.SIGTERM)
    while await one.event() is not None:
        pass
    assert time.monotonic() - began < GRACE_S  # no time was up
    assert await app.admin.desk.metric('launcher_engine_failures_total{replica="-1"') == 0


@asynccontextmanager
async def served(folder: Path, feed: Feed) -> AsyncIterator[Path]:
    """The app with a feed of the test's own; its socket."""
    app = make_app(GatewayClient(folder / GATEWAY_SOCKET), feed=feed)
    config = uvicorn.Config(app, loop="none", http="h11", ws="none", lifespan="off", log_config=None)
    server = Server(feed, config)
    listener = listening(folder / CONTROL_SOCKET)
    serving = asyncio.create_task(server._serve([listener]))
    try:
        yield folder / CONTROL_SOCKET
    finally:
        server.should_exit = True
        async with asyncio.timeout(PATIENCE_S):
            await serving


async def reader_at(path: Path) -> Reader:
    one = Reader(RawClient(*await asyncio.open_unix_connection(path, limit=2**16)))
    await one.begin()
    return one


async def test_who_leaves_frees_the_place(tmp_path: Path) -> None:
    feed = Feed(lambda: b"1", every_s=0.01, most_watchers=2)
    async with served(tmp_path, feed) as path:
        readers = [await reader_at(path) for _ in range(2)]
        for one in readers:
            assert (await one.event(), await one.event()) == ("retry: 1000", "event: watch\ndata: 1")
        third = RawClient(*await asyncio.open_unix_connection(path))
        await third.send(request_bytes("GET", "/api/events"))
        refused = await third.read()
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert refused.error["reason"] == "too_many_watchers"
        assert refused.error["message"] == (
            "2 watch already, which is as many as may. Close a page, or try again later."
        )
        readers[0].client.close()
        async with asyncio.timeout(PATIENCE_S):
            while feed.watchers == 2:
                await readers[1].event()
        again = await reader_at(path)
        assert await again.event() == "retry: 1000"
        for client in (readers[1].client, again.client, third):
            client.close()
        async with asyncio.timeout(PATIENCE_S):
            while feed._task is not None:  # noqa: ASYNC110  # a task that ends tells nobody
                await asyncio.sleep(0.01)
    assert repr(feed).startswith("<Feed watchers=0 ")


async def test_a_slow_reader_skips_and_holds_nothing(tmp_path: Path) -> None:
    """What is written for it is what the sockets take and one look; the others are not held up."""
    size = 100_000
    looks = iter(range(10**9))
    feed = Feed(lambda: b"%09d" % next(looks) + b"x" * size, every_s=0.001)
    async with served(tmp_path, feed) as path:
        slow, quick = await reader_at(path), await reader_at(path)
        await slow.event()
        while feed.looks < 100:
            assert await quick.event() is not None
        taken = []
        while not taken or taken[-1] < 100:
            one = await slow.event()
            assert one is not None
            taken.append(int(one.removeprefix("event: watch\ndata: ")[:9]))
        held = [number for number in taken if number < 100]
        assert len(held) * size < 2**20  # of the 10 MB that there were
        for one_reader in (slow, quick):
            one_reader.client.close()
