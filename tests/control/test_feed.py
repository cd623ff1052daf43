"""The feed of looks: shared, begun with the first watcher, ended with the last, and never more than one look for a slow one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack

import pytest

from launcher.control.feed import RETRY, Crowded, Feed, event
from tests.gateway.harness import PATIENCE_S

SOON_S = 0.01


class Numbered:
    """Looks that count themselves; ``holding`` stops them."""

    def __init__(self) -> None:
        self.count, self.most_at_once, self._at_once = 0, 0, 0
        self.may_go = threading.Event()
        self.may_go.set()

    def __call__(self) -> bytes:
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        assert self.may_go.wait(PATIENCE_S)
        self.count += 1
        self._at_once -= 1
        return b"%d" % self.count


async def taken(events: AsyncIterator[bytes], count: int) -> list[bytes]:
    """The next looks of a stream."""
    async with asyncio.timeout(PATIENCE_S):
        found: list[bytes] = []
        async for one in events:
            if one != RETRY:
                found.append(one)
            if len(found) == count:
                break
    return found


async def until(holds: Callable[[], bool]) -> None:
    """Turns of the loop until it holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not holds():  # noqa: ASYNC110  # a task that ends tells nobody
            await asyncio.sleep(SOON_S)


async def test_two_watchers_get_the_same_looks() -> None:
    look = Numbered()
    feed = Feed(look, every_s=SOON_S)
    with feed.place(), feed.place():
        one, other = await asyncio.gather(taken(feed.events(), 3), taken(feed.events(), 3))
        assert one == other == [event(b"1"), event(b"2"), event(b"3")]
        assert repr(feed) == f"<Feed watchers=2 looks={look.count}>"
    assert look.most_at_once == 1


async def test_it_looks_while_somebody_watches_only() -> None:
    feed = Feed(Numbered(), every_s=SOON_S)
    assert feed.looks == 0
    with feed.place():
        await taken(feed.events(), 2)
    await until(lambda: not others())
    looks = feed.looks
    await asyncio.sleep(5 * SOON_S)
    assert feed.looks == looks


def others() -> set[asyncio.Task[object]]:
    return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}


async def test_who_comes_and_goes_quickly_makes_no_more_looks() -> None:
    feed = Feed(Numbered(), every_s=60.0)
    for _ in range(20):
        with feed.place():
            assert await taken(feed.events(), 1) == [event(b"1")]
        await asyncio.sleep(0)
    assert feed.looks == 1


async def test_so_many_and_no_more() -> None:
    feed = Feed(Numbered(), every_s=SOON_S, most_watchers=3)
    with ExitStack() as places:
        for _ in range(3):
            places.enter_context(feed.place())
        with pytest.raises(Crowded, match="3 watch already, which is as many as may"), feed.place():
            pass
    with feed.place():
        assert feed.watchers == 1


async def test_a_slow_one_skips_looks() -> None:
    feed = Feed(Numbered(), every_s=SOON_S)
    with feed.place(), feed.place():
        slow = feed.events()
        (first,) = await taken(slow, 1)
        await taken(feed.events(), 10)
        (second,) = await taken(slow, 1)
        assert first == event(b"1")
        assert int(second.split(b" ")[-1]) >= 10


async def test_a_look_once_is_shared_too() -> None:
    feed = Feed(Numbered(), every_s=60.0)
    assert await asyncio.gather(feed.now(), feed.now(), feed.now()) == [b"1", b"1", b"1"]
    with feed.place():
        assert await taken(feed.events(), 1) == [event(b"1")]
    assert feed.looks == 1


async def test_looks_at_once_are_told_to_those_who_watch() -> None:
    """Whoever asks again and again must not keep the looks from the others."""
    feed = Feed(Numbered(), every_s=SOON_S)

    async def ask() -> None:
        while True:
            await feed.now()
            await asyncio.sleep(0)

    asking = asyncio.create_task(ask())
    with feed.place():
        assert len(await taken(feed.events(), 5)) == 5
    asking.cancel()


async def test_a_stream_has_an_end() -> None:
    feed = Feed(Numbered(), every_s=SOON_S, stream_s=5 * SOON_S)
    with feed.place():
        async with asyncio.timeout(PATIENCE_S):
            assert len([one async for one in feed.events()]) >= 2


async def test_closing_ends_all_streams() -> None:
    look = Numbered()
    feed = Feed(look, every_s=60.0)
    with feed.place():
        events = feed.events()
        assert await taken(events, 1) == [event(b"1")]
        rest = asyncio.create_task(taken(events, 1))
        await asyncio.sleep(0)
        feed.close()
        assert await rest == []
        assert await taken(feed.events(), 1) == [event(b"1")]  # who comes later gets what there is, and the end
        await until(lambda: not others())


async def test_a_look_that_fails_ends_the_streams_and_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    faults = [RuntimeError("a bug"), None]

    def look() -> bytes:
        if (fault := faults.pop(0)) is not None:
            raise fault
        return b"well"

    feed = Feed(look, every_s=SOON_S)
    with feed.place():
        assert await taken(feed.events(), 1) == []
        assert "a bug" in caplog.text
    with feed.place():
        assert await taken(feed.events(), 1) == [event(b"well")]
        feed.close()
