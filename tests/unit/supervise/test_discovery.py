"""Servers behind a name: taken in, let go without losing what runs, and kept when the resolver fails."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from launcher.gateway.departures import Departures
from launcher.gateway.replicas import Replicas
from launcher.profile.model import TimeoutsSection
from launcher.supervise import discovery
from launcher.supervise.discovery import ServerName, follow, resolve
from launcher.supervise.external import ExternalWatch, HealthCheck
from launcher.up.hosts import Switchboard

NAME = "dns+http://engines:9"


class Names:
    """A resolver whose answers are set; ``asked`` counts."""

    def __init__(self) -> None:
        self.answer: frozenset[str] | None = frozenset()
        self.asked = 0
        self._again = asyncio.Condition()

    async def __call__(self, host: str, port: int) -> frozenset[str] | None:
        async with self._again:
            self.asked += 1
            self._again.notify_all()
        return self.answer

    async def say(self, *addresses: str, fails: bool = False) -> None:
        """From now on, and until it has been asked twice, so that the first answer has been acted on."""
        self.answer = None if fails else frozenset(addresses)
        async with self._again:
            wanted = self.asked + 2
            await self._again.wait_for(lambda: self.asked >= wanted)


class Cluster:
    def __init__(self) -> None:
        self.names, self.replicas = Names(), Replicas()
        self.departures = Departures(self.replicas)
        self.watch = ExternalWatch(
            [NAME],
            Switchboard(self.replicas),
            health=HealthCheck(every_s=0.01),
            headers={},
            timeouts=TimeoutsSection.model_validate({"probe": "1s"}),
            on_change=lambda server: None,
            departures=self.departures,
            resolver=self.names,
        )

    def hosts(self) -> list[str]:
        return [replica.host for replica in self.replicas.all]

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not holds():
                await self.names.say(*self.names.answer or ())


@pytest.fixture
async def cluster(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cluster]:
    monkeypatch.setattr(discovery, "LOOK_UP_S", 0.005)
    one = Cluster()
    async with running(one):
        yield one


@asynccontextmanager
async def running(one: Cluster) -> AsyncIterator[None]:
    watching = asyncio.create_task(one.watch.run())
    yield
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    one.departures.close()


async def test_servers_come_and_go(cluster: Cluster) -> None:
    await cluster.names.say("127.0.0.1", "127.0.0.2")
    assert cluster.hosts() == ["127.0.0.1", "127.0.0.2"]
    await cluster.names.say("127.0.0.2", "127.0.0.3")
    await cluster.until(lambda: len(cluster.hosts()) == 2)
    assert cluster.hosts() == ["127.0.0.2", "127.0.0.3"]
    assert [server.index for server in cluster.watch.servers] == [1, 2]  # a number is never given twice


async def test_one_that_is_no_longer_listed_finishes_what_it_has(cluster: Cluster) -> None:
    await cluster.names.say("127.0.0.1")
    replica = cluster.replicas.all[0]
    replica.ledger.requests = 1
    await cluster.names.say()
    assert replica.is_draining
    assert cluster.hosts() == ["127.0.0.1"]
    replica.ledger.requests = 0
    await cluster.until(lambda: not cluster.hosts())
    assert cluster.watch.servers == []


async def test_one_that_is_listed_again_in_time_is_the_same(cluster: Cluster) -> None:
    await cluster.names.say("127.0.0.1")
    replica = cluster.replicas.all[0]
    replica.ledger.requests = 1
    await cluster.names.say()
    await cluster.names.say("127.0.0.1")
    assert cluster.replicas.all == [replica]  # with its books: what it has in hand is not forgotten
    assert not replica.is_draining


async def test_a_resolver_that_fails_changes_nothing(cluster: Cluster) -> None:
    await cluster.names.say("127.0.0.1")
    await cluster.names.say(fails=True)
    assert not cluster.replicas.all[0].is_draining
    await cluster.names.say()
    await cluster.until(lambda: not cluster.hosts())


async def test_the_real_resolver() -> None:
    assert await resolve("localhost", 80) in ({"127.0.0.1"}, {"::1"}, {"127.0.0.1", "::1"})
    assert await resolve("127.0.0.5", 80) == {"127.0.0.5"}


async def test_a_name_server_that_does_not_answer_is_not_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def try_again(*_: object, **__: object) -> None:
        raise discovery.socket.gaierror(discovery.socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", try_again)
    with caplog.at_level(logging.WARNING, "launcher"):
        assert await resolve("engines", 8000) is None
    assert "engines cannot be looked up: Temporary failure in name resolution; going on with what was" in caplog.text


async def test_who_follows_hears_of_changes_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "LOOK_UP_S", 0.001)
    names, heard = Names(), list[frozenset[str]]()
    following = asyncio.create_task(follow("gateways", 0, heard.append, names))
    await names.say("10.0.0.1")
    await names.say("10.0.0.1")
    await names.say("10.0.0.1", "10.0.0.2")
    following.cancel()
    assert [len(one) for one in heard if one] == [1, 2]


@pytest.mark.parametrize(
    ("url", "address", "server"),
    [
        ("dns+http://e:8000", "10.0.0.1", "http://10.0.0.1:8000"),
        ("dns+https://e", "10.0.0.1", "https://10.0.0.1:443"),
        ("dns+http://e.ns.svc:80", "fd00::1", "http://[fd00::1]:80"),
    ],
)
def test_where_a_server_is(url: str, address: str, server: str) -> None:
    assert ServerName.parse(url).url_at(address) == server
