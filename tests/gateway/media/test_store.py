"""The store of uploads: whose they are, how long and how much is kept, and what a request that comes early gets."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.gateway.media.store import ENTRY_BYTES, StoreLimits, UploadState, UploadStore
from launcher.gateway.refusal import Refusal, Refused

BROKEN = Refusal(400, "picture_truncated", "The picture ends early.")
Store = UploadStore[str]


def ready(store: Store, data: bytes, key: str = "alice", now: float = 0.0, size: int | None = None) -> str:
    """Uploads and finishes; the id."""
    one = store.id_of(key, data)
    if store.receive(one, key, len(data), now):
        store.start(one)
        store.finish(one, f"{key}:{data[:8]!r}", len(data) if size is None else size, now)
    return one


def refusal_of(caught: pytest.ExceptionInfo[Refused]) -> tuple[int, str]:
    return caught.value.refusal.status, caught.value.refusal.reason


async def test_the_states_in_their_order() -> None:
    store = Store()
    one = store.id_of("alice", b"picture")
    assert store.receive(one, "alice", 7, now=1.0)
    assert store.find(one, "alice", now=1.0).state is UploadState.RECEIVED
    store.start(one)
    assert store.find(one, "alice", now=1.0).state is UploadState.DECODING
    store.finish(one, "small", 3, now=2.0)
    assert store.find(one, "alice", now=2.0).state is UploadState.READY
    assert await store.wait(one, "alice", now=2.0) == "small"
    assert store.size == 3 + ENTRY_BYTES
    assert not store.receive(one, "alice", 7, now=3.0), "it is here: nothing to decode"
    assert repr(store) == f"<UploadStore 1 uploads, {3 + ENTRY_BYTES}/256000000 bytes, evicted=0>"


async def test_a_request_that_comes_early_waits() -> None:
    store = Store()
    one = store.id_of("alice", b"picture")
    store.receive(one, "alice", 7, now=0.0)
    waiting = [asyncio.create_task(store.wait(one, "alice", now=0.0)) for _ in range(3)]
    cancelled = asyncio.create_task(store.wait(one, "alice", now=0.0))
    await asyncio.sleep(0)
    upload = store.find(one, "alice", now=0.0)
    assert upload.holders == 4
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    assert upload.holders == 3
    store.start(one)
    store.finish(one, "small", 3, now=1.0)
    assert await asyncio.gather(*waiting) == ["small"] * 3
    assert upload.holders == 0


async def test_a_failed_one_tells_why_and_can_be_tried_again() -> None:
    store = Store()
    one = store.id_of("alice", b"broken")
    store.receive(one, "alice", 6, now=0.0)
    early = asyncio.create_task(store.wait(one, "alice", now=0.0, param="messages.0"))
    await asyncio.sleep(0)
    store.start(one)
    store.fail(one, BROKEN, now=0.0)
    for asked in (early, store.wait(one, "alice", now=0.0, param="messages.1")):
        with pytest.raises(Refused) as caught:
            await asked
        assert (caught.value.refusal.reason, caught.value.refusal.message) == ("picture_truncated", BROKEN.message)
    assert caught.value.refusal.param == "messages.1"
    assert store.size == ENTRY_BYTES

    with store.hold(store.find(one, "alice", now=0.0), now=0.0):
        assert store.receive(one, "alice", 6, now=1.0)
    store.finish(one, "small", 3, now=1.0)
    assert await store.wait(one, "alice", now=1.0) == "small"
    assert store.size == 3 + ENTRY_BYTES


async def test_another_key_cannot_read_it_nor_learn_that_it_is_there() -> None:
    store = Store()
    mine, others = ready(store, b"picture"), ready(store, b"picture", key="bob")
    assert mine != others
    assert len(store) == 2
    with pytest.raises(Refused) as stolen:
        await store.wait(mine, "bob", now=0.0)
    never = store.id_of("bob", b"something else")
    with pytest.raises(Refused) as unknown:
        await store.wait(never, "bob", now=0.0)
    assert refusal_of(stolen) == refusal_of(unknown) == (404, "upload_unknown")
    assert stolen.value.refusal.message.replace(mine, "") == unknown.value.refusal.message.replace(never, "")
    assert await store.wait(others, "bob", now=0.0) == "bob:b'picture'"


def test_ids_are_the_contents_under_one_key_and_one_start() -> None:
    store = Store()
    one = store.id_of("alice", b"picture")
    assert one == store.id_of("alice", memoryview(b"picture"))
    others = [
        store.id_of("alice", b"picture."),
        store.id_of("alice", b"picture", "324 tokens"),
        store.id_of("alicep", b"icture"),
        store.id_of("", b"picture"),
        Store().id_of("alice", b"picture"),
    ]
    assert len({one, *others}) == 6
    assert all(len(one) == 32 and one.isalnum() and one.islower() for one in (one, *others))


def test_an_unknown_id_and_what_is_none() -> None:
    store = Store(StoreLimits(kept_s=900))
    with pytest.raises(Refused) as unknown:
        store.find("a" * 32, "alice", now=0.0, param="messages.0")
    assert refusal_of(unknown) == (404, "upload_unknown")
    assert "kept for 15 minutes after their last use" in unknown.value.refusal.message
    assert "not over a restart. Upload it again." in unknown.value.refusal.message
    assert unknown.value.refusal.param == "messages.0"
    for one in ("", "1" * 32, "A" * 32, "../../etc/passwd", "a" * 9000):
        with pytest.raises(Refused) as invalid:
            store.find(one, "alice", now=0.0)
        assert refusal_of(invalid) == (400, "upload_id_invalid")
        assert len(invalid.value.refusal.message) < 150


def test_age_counts_from_the_last_use_and_not_while_it_is_held() -> None:
    store = Store(StoreLimits(kept_s=100))
    held, used, left = (ready(store, data) for data in (b"held", b"used", b"left"))
    decoding = store.id_of("alice", b"decoding")
    store.receive(decoding, "alice", 8, now=0.0)
    with store.hold(store.find(held, "alice", now=0.0), now=0.0):
        with store.hold(store.find(used, "alice", now=60.0), now=60.0):
            pass
        assert store.expire(99.9) == 0
        assert store.expire(100.0) == 1
        assert [one in store._uploads for one in (held, used, left, decoding)] == [True, True, False, True]
        assert store.expire(160.0) == 1
    assert store.expire(160.0) == 1
    with pytest.raises(Refused, match="is unknown here"):
        store.find(held, "alice", now=160.0)
    assert len(store) == 1


def test_the_least_recently_used_goes_first_but_nothing_in_use() -> None:
    store = Store(StoreLimits(total_bytes=3 * (1000 + ENTRY_BYTES), key_bytes=10**6))
    first, second, third = (ready(store, bytes([number]) * 1000, key=f"key{number}") for number in range(3))
    with store.hold(store.find(first, "key0", now=1.0), now=1.0):
        pass  # the second is the oldest now
    ready(store, b"3" * 1000, key="key3", now=4.0)
    assert [one in store._uploads for one in (first, second, third)] == [True, False, True]
    with store.hold(store.find(third, "key2", now=5.0), now=5.0):
        store.find(first, "key0", now=6.0)  # to look is not to use
        store.expire(6.0)
        for number in range(4, 8):
            ready(store, b"%d" % number * 1000, key="key4", now=6.0 + number)
        assert [one in store._uploads for one in (first, third)] == [False, True]
    assert store.evicted == 5


def test_a_key_that_is_full_loses_its_own_oldest_and_nobody_elses() -> None:
    store = Store(StoreLimits(total_bytes=10**6, key_bytes=2 * (1000 + ENTRY_BYTES)))
    others = ready(store, b"o" * 1000, key="bob")
    first, second, third = (ready(store, bytes([number]) * 1000) for number in range(3))
    assert [one in store._uploads for one in (others, first, second, third)] == [True, False, True, True]


def test_what_finds_no_room_is_refused_and_nothing_is_lost_for_it() -> None:
    store = Store(StoreLimits(total_bytes=3 * (1000 + ENTRY_BYTES), key_bytes=2 * (1000 + ENTRY_BYTES)))
    with pytest.raises(Refused) as caught:
        store.receive(store.id_of("alice", b"x"), "alice", 5000, now=0.0)
    assert refusal_of(caught) == (413, "upload_too_large")
    assert f"has 5000 bytes: at most {2 * (1000 + ENTRY_BYTES) - ENTRY_BYTES}" in caught.value.refusal.message

    idle = ready(store, b"i" * 1000)
    busy = store.id_of("alice", b"busy")
    store.receive(busy, "alice", 1000, now=0.0)
    with pytest.raises(Refused) as caught:
        store.receive(store.id_of("alice", b"y"), "alice", 2000, now=0.0)
    assert refusal_of(caught) == (503, "uploads_full")
    assert "this key's uploads may have 4048 bytes together" in caught.value.refusal.message
    assert caught.value.refusal.retry_after_s
    assert idle in store._uploads
    store.receive(store.id_of("bob", b"b"), "bob", 1000, now=0.0)
    with store.hold(store.find(idle, "alice", now=0.0), now=0.0), pytest.raises(Refused) as caught:
        store.receive(store.id_of("carol", b"c"), "carol", 1000, now=0.0)
    assert refusal_of(caught) == (503, "uploads_full")
    assert "all uploads may have" in caught.value.refusal.message


def test_small_ones_are_bounded_too() -> None:
    store = Store(StoreLimits(total_bytes=100 * ENTRY_BYTES, key_bytes=50 * ENTRY_BYTES))
    for number in range(1000):
        ready(store, b"%d" % number, key=f"key{number % 5}", size=0)
    assert len(store) <= 100
    assert store.size <= 100 * ENTRY_BYTES


def test_what_grew_in_decoding_pushes_others_out() -> None:
    store = Store(StoreLimits(total_bytes=10**6, key_bytes=2 * (1000 + ENTRY_BYTES)))
    old, grown = ready(store, b"o" * 500), ready(store, b"g" * 500, size=1600)
    assert [one in store._uploads for one in (old, grown)] == [False, True]


async def test_at_the_end_those_who_wait_are_refused() -> None:
    store = Store()
    one = store.id_of("alice", b"picture")
    store.receive(one, "alice", 7, now=0.0)
    waiting = asyncio.create_task(store.wait(one, "alice", now=0.0))
    await asyncio.sleep(0)
    store.close(Refusal(503, "shutting_down", "The gateway stops."))
    with pytest.raises(Refused, match=r"The gateway stops\."):
        await waiting


ACTS = st.sampled_from(["receive", "finish", "fail", "hold", "release", "expire"])


@given(st.lists(st.tuples(ACTS, st.integers(0, 7), st.sampled_from("ab"), st.integers(0, 3000)), max_size=60))
def test_the_books_agree_whatever_happens(acts: list[tuple[str, int, str, int]]) -> None:
    limits = StoreLimits(total_bytes=12_000, key_bytes=8_000, kept_s=20)
    store, held = Store(limits), []
    for now, (act, number, key, size) in enumerate(acts):
        one = store.id_of(key, bytes([number]))
        upload = store._uploads.get(one)
        if act == "receive":
            with suppress(Refused):
                store.receive(one, key, size, now)
        elif act in ("finish", "fail") and upload and not upload.done.is_set():
            if act == "finish":
                store.finish(one, "x", min(size, upload.size - ENTRY_BYTES), now)
            else:
                store.fail(one, BROKEN, now)
        elif act == "hold" and upload:
            holding = store.hold(upload, now)
            held.append((holding, holding.__enter__()))
        elif act == "release" and held:
            held.pop()[0].__exit__(None, None, None)
        elif act == "expire":
            store.expire(now)
        uploads = list(store._uploads.values())
        assert store.size == sum(upload.size for upload in uploads) <= limits.total_bytes
        for each in "ab":
            mine = sum(upload.size for upload in uploads if upload.key == each)
            assert store._key_bytes.get(each, 0) == mine <= limits.key_bytes
        assert [upload.used for upload in uploads] == sorted(upload.used for upload in uploads)
        kept = {one for one, upload in store._uploads.items()}
        assert all(upload.id in kept for _, upload in held if upload.state is not UploadState.FAILED)
    for holding, _ in held:
        holding.__exit__(None, None, None)
    assert all(upload.holders == 0 for upload in store._uploads.values())
