"""The meeting of an engine's launchers at the wire: silence, strangers, nonsense."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from launcher.supervise import crew as crew_module
from launcher.supervise import link as link_module
from launcher.supervise.crew import Crew
from launcher.supervise.link import Link, LinkLost
from launcher.supervise.node_messages import PROTOCOL, Challenge, End, Ended, Hello, Start, Welcome
from tests.process.parts import free_pair

PORT = free_pair()
OURS = Hello(PROTOCOL, 0, 2, "vllm 1", {"name": "x"}, "")


@pytest.fixture
def words() -> list[str]:
    return []


@pytest.fixture
async def crew(words: list[str], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Crew]:
    monkeypatch.setattr(link_module, "BEAT_S", 0.05)
    monkeypatch.setattr(link_module, "SILENCE_S", 0.5)
    monkeypatch.setattr(crew_module, "HELLO_S", 0.3)
    one = Crew(OURS, "127.0.0.1", PORT, on_word=words.append)
    await one.open()
    yield one
    await one.close()


async def join(rank: int = 1) -> Link:
    """As a further host does it."""
    link = await Link.connect("127.0.0.1", PORT)
    assert isinstance(await link.receive(), Challenge)
    link.send(Hello(PROTOCOL, rank, 2, "vllm 1", {"name": "x"}, "nonce"))
    assert isinstance(await link.receive(), Welcome)
    return link


async def test_a_host_that_falls_silent_is_gone_within_the_silence(crew: Crew, words: list[str]) -> None:
    """As with a cable that is pulled: no connection is closed, and nothing comes."""
    link = await join()
    await crew.gather(1, words.append)
    assert await link.receive() == Start(1)
    link._beating.cancel()
    begun = asyncio.get_running_loop().time()
    fallen = await asyncio.wait_for(crew.until_fallen(), 5)
    assert fallen is not None
    assert fallen.reason == "node 1 is gone: nothing was heard of it for 0.5 s"
    assert asyncio.get_running_loop().time() - begun < 2
    assert repr(crew.roll) == "<Roll 1/2 generation=1 nobody>"
    with pytest.raises(LinkLost, match="the connection was closed"):
        await link.receive()


async def test_a_head_that_falls_silent_is_gone_too(crew: Crew) -> None:
    link = await join()
    crew._links[1]._beating.cancel()
    with pytest.raises(LinkLost, match=r"nothing was heard of it for 0\.5 s"):
        await asyncio.wait_for(link.receive(), 5)


async def test_beats_keep_an_idle_line(crew: Crew) -> None:
    link = await join()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(link.receive(), 1.0)  # twice the silence, and nothing to say
    assert crew.roll.missing == ()


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", b"x" * 200_000, b"", b'{"say":"start","generation":1}\n'])
async def test_strangers_change_nothing(crew: Crew, said: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
    writer.write(said)
    with contextlib.suppress(ConnectionResetError):  # the rest of what it said is not read
        await reader.read()  # the challenge, and then the end
    writer.close()
    assert crew.roll.missing == (1,)
    await (await join()).close()


async def test_what_an_end_waits_for(crew: Crew, words: list[str]) -> None:
    """The generation is over for good once every host has said so; who had fallen out is told."""
    link = await join()
    await crew.gather(1, words.append)
    assert await link.receive() == Start(1)
    ending = asyncio.create_task(crew.disband("why"))
    assert await link.receive() == End(1, "why")
    assert not ending.done()
    link.send(Ended(1, by_itself=False))
    assert await asyncio.wait_for(ending, 5) is None
    await crew.gather(2, words.append)
    assert await link.receive() == Start(2)
    link.send(Ended(2, True, "it broke", "mend it", retry_helps=False))
    fallen = await asyncio.wait_for(crew.until_fallen(), 5)
    assert fallen is not None
    assert (fallen.reason, fallen.remedy, fallen.retry_helps) == ("node 1: it broke", "mend it", False)


async def test_a_host_that_comes_back_too_soon_is_sent_to_wait(crew: Crew, words: list[str]) -> None:
    first = await join()
    with pytest.raises(AssertionError):
        await join()
    assert "127.0.0.1 was sent away: node 1 is there already, on another host or not yet known to be gone" in words
    await first.close()
    while crew.roll.runs:  # until the head has read the end of the line
        await crew._moved.wait()
    await (await join()).close()


async def test_waiting_for_hosts_says_for_which(words: list[str]) -> None:
    crew = Crew(Hello(PROTOCOL, 0, 4, "vllm 1", {}, ""), "127.0.0.1", PORT)
    waiting = asyncio.create_task(crew.gather(1, words.append))
    await asyncio.sleep(0)
    crew._now(crew.roll.joined(2))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting.cancel()
    assert words == ["waiting for nodes 1, 2, 3", "waiting for nodes 1, 3"]
