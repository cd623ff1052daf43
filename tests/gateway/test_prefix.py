"""Chains of hashes over prompts' beginnings, and the cache that is kept of them."""

from __future__ import annotations

from launcher.gateway.prefix import BLOCK_BYTES, MAX_BLOCKS, TOKEN_BYTES, PrefixCache, Segment, make_chain


def text(length: int, letter: bytes = b"a") -> bytes:
    return letter * length


def shared(one: list[Segment], other: list[Segment]) -> int:
    pairs = zip(make_chain(7, one), make_chain(7, other), strict=False)
    return next(
        (index for index, (a, b) in enumerate(pairs) if a != b), min(len(make_chain(7, one)), len(make_chain(7, other)))
    )


def test_one_hash_for_each_whole_block() -> None:
    assert make_chain(1, []) == make_chain(1, [text(BLOCK_BYTES - 1)]) == ()
    assert len(make_chain(1, [text(BLOCK_BYTES)])) == 1
    assert len(make_chain(1, [text(BLOCK_BYTES * 3 + 5)])) == 3
    assert len(set(make_chain(1, [text(BLOCK_BYTES * 3)]))) == 3  # equal blocks, but not equal beginnings


def test_equal_beginnings_equal_hashes() -> None:
    common = text(BLOCK_BYTES * 2 + 100)
    assert shared([common + text(5000, b"b")], [common + text(5000, b"c")]) == 2
    assert shared([text(5000, b"b") + common], [text(5000, b"c") + common]) == 0


def test_where_a_text_is_divided_makes_no_difference() -> None:
    whole = bytes(range(256)) * 20
    assert make_chain(1, [whole]) == make_chain(1, [whole[:700], whole[700:3000], whole[3000:]])


def test_the_seed_keeps_apart() -> None:
    assert make_chain(1, [text(BLOCK_BYTES)]) != make_chain(2, [text(BLOCK_BYTES)])


def test_a_picture_takes_as_many_blocks_as_its_tokens() -> None:
    tokens = BLOCK_BYTES // TOKEN_BYTES * 10
    assert len(make_chain(1, [(99, tokens)])) == 10
    assert len(make_chain(1, [text(500), (99, tokens), text(BLOCK_BYTES - 500)])) == 11
    small = (99, 10)
    assert len(make_chain(1, [text(BLOCK_BYTES - 40), small])) == 1
    assert len(make_chain(1, [small] * 100)) == 1000 * TOKEN_BYTES // BLOCK_BYTES


def test_pictures_are_told_apart_by_fingerprint() -> None:
    big, before, after = 5000, text(3000), text(3000, b"z")
    assert shared([before, (1, big), after], [before, (1, big), after]) == len(make_chain(7, [before, (1, big), after]))
    assert shared([before, (1, big), after], [before, (2, big), after]) == 2
    assert shared([before, (1, 20), after], [before, (2, 20), after]) == 2


def test_text_after_a_picture_counts() -> None:
    assert make_chain(1, [(1, 5000), text(3000, b"a")]) != make_chain(1, [(1, 5000), text(3000, b"b")])


def test_no_chain_is_longer_than_the_most() -> None:
    assert len(make_chain(1, [text(BLOCK_BYTES * (MAX_BLOCKS + 9))])) == MAX_BLOCKS
    assert len(make_chain(1, [(1, 1 << 40)])) == MAX_BLOCKS
    assert len(make_chain(1, [text(BLOCK_BYTES * 1000), (1, 1 << 40), text(99999)])) == MAX_BLOCKS


def test_a_cache_matches_beginnings() -> None:
    cache = PrefixCache(10)
    assert cache.match((1, 2)) == 0
    cache.add((1, 2, 3))
    assert cache.match((1, 2, 3)) == 3
    assert cache.match((1, 2, 9)) == 2
    assert cache.match((9, 2, 3)) == 0
    assert cache.match(()) == 0
    assert repr(cache) == "<PrefixCache blocks=3/10>"


def test_the_least_recently_used_goes_first_and_an_end_before_its_beginning() -> None:
    cache = PrefixCache(5)
    cache.add((1, 2, 3))
    cache.add((7, 8))
    cache.add((9,))
    assert cache.match((1, 2, 3)) == 2
    assert cache.match((7, 8)) == 2


def test_a_match_is_a_use() -> None:
    cache = PrefixCache(4)
    cache.add((1, 2))
    cache.add((7, 8))
    assert cache.match((1, 2)) == 2
    cache.add((5, 6))
    assert cache.match((1, 2)) == 2
    assert cache.match((7, 8)) == 0


def test_a_chain_longer_than_the_cache_leaves_its_beginning() -> None:
    cache = PrefixCache(3)
    cache.add((1, 2, 3, 4, 5))
    assert cache.match((1, 2, 3, 4, 5)) == 3
    assert repr(cache) == "<PrefixCache blocks=3/3>"


def test_without_room_nothing_is_kept() -> None:
    for capacity in (0, -5):
        cache = PrefixCache(capacity)
        cache.add((1, 2))
        assert cache.match((1, 2)) == 0


def test_cleared() -> None:
    cache = PrefixCache(5)
    cache.add((1, 2))
    cache.clear()
    assert cache.match((1, 2)) == 0
