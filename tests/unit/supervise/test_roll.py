"""Who of an engine's hosts is there, who may come in, and when a generation is over."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.profile.model import Profile
from launcher.supervise.node_messages import (
    PROTOCOL,
    Challenge,
    End,
    Ended,
    Hello,
    Malformed,
    Start,
    decode,
    encode,
    proof_of,
    settings_of,
)
from launcher.supervise.roll import Roll, names, refusal

CHALLENGE = Challenge(PROTOCOL, "head's nonce")
OURS = Hello(PROTOCOL, 0, 3, "vllm 0.33.0", {"name": "a", "model.id": "b", "engine.nodes": "c"}, "")


def hello(rank: int = 1, key: str = "", **changes: object) -> Hello:
    said = Hello(PROTOCOL, rank, 3, OURS.vllm, OURS.settings, "nonce")
    said = msgspec.structs.replace(said, **changes)
    return msgspec.structs.replace(said, proof=proof_of(key, "follower", CHALLENGE, said.nonce, said.rank))


def reason(theirs: Hello, roll: Roll | None = None, key: str = "") -> str:
    refused = refusal(roll or Roll(3), OURS, theirs, CHALLENGE, key)
    assert refused is not None, "it was let in"
    return refused.reason


def test_all_start_when_the_last_is_there() -> None:
    roll = Roll(3)
    assert (roll.missing, roll.awaited) == ((1, 2), (1, 2))
    roll = roll.joined(2).joined(1)
    assert roll.awaited == ()
    roll = roll.started(1)
    assert (roll.fallen, roll.awaited) == ((), (1, 2))  # busy: nothing else can be started
    assert repr(roll) == "<Roll 3/3 generation=1 1:1 2:1>"


def test_one_that_ends_has_fallen_and_the_others_are_waited_for() -> None:
    roll = Roll(3).joined(1).joined(2).started(1).ended(1, 1)
    assert roll.fallen == (1,)
    over = roll.over()
    assert (over.fallen, over.awaited) == ((), (2,))
    assert over.ended(2, 1).awaited == ()


def test_one_that_is_gone_has_fallen_and_comes_back_idle() -> None:
    roll = Roll(2).joined(1).started(4).left(1)
    assert (roll.fallen, roll.missing) == ((1,), (1,))
    assert roll.over().joined(1).awaited == ()


def test_late_word_of_an_earlier_generation_changes_nothing() -> None:
    roll = Roll(2).joined(1).started(1).ended(1, 1).over().started(2)
    assert roll.ended(1, 1) == roll


@given(st.lists(st.tuples(st.sampled_from(["join", "leave", "end", "over", "start"]), st.integers(1, 3)), max_size=40))
def test_a_generation_starts_only_where_nothing_runs(events: list[tuple[str, int]]) -> None:
    """Whatever comes in whatever order: what runs on a host is the present generation, or one that is being ended."""
    roll, generation = Roll(4), 0
    for kind, rank in events:
        if kind == "join" and rank not in roll.runs:
            roll = roll.joined(rank)
        elif kind == "leave":
            roll = roll.left(rank)
        elif kind == "end":
            roll = roll.ended(rank, roll.runs.get(rank) or 0)
        elif kind == "over":
            roll = roll.over()
        elif kind == "start" and not roll.awaited:
            generation += 1
            roll = roll.started(generation)
        assert all(runs is None or runs == generation for runs in roll.runs.values())
        assert set(roll.missing).isdisjoint(roll.runs)
        if roll.generation is not None:
            assert not roll.awaited or roll.fallen or set(roll.runs.values()) == {roll.generation}


def test_the_same_profile_and_vllm_come_in() -> None:
    assert refusal(Roll(3), OURS, hello(), CHALLENGE, "") is None
    assert refusal(Roll(3), OURS, hello(2, key="k"), CHALLENGE, "k") is None


def test_another_vllm() -> None:
    assert reason(hello(vllm="vllm 0.32.0")) == "node 1 has vllm 0.32.0, the head has vllm 0.33.0"


def test_another_profile_is_told_by_its_keys() -> None:
    other = {**OURS.settings, "model.id": "x", "engine.nodes": "y"}
    assert reason(hello(settings=other)) == ("node 1 has another profile than the head: engine.nodes, model.id differ")
    many = {**OURS.settings, **dict.fromkeys(("a", "b", "c", "d", "e"), "z")}
    assert reason(hello(settings=many)).endswith("a, b, c, d and 1 more differ")


@pytest.mark.parametrize("rank", [0, 3, -1])
def test_a_rank_that_there_is_not(rank: int) -> None:
    assert reason(hello(rank)) == (
        f"node {rank} of 3 has no place among the 3 of the head: they are 0 to 2, and 0 is the head itself"
    )


def test_a_rank_that_is_taken_may_be_tried_again() -> None:
    refused = refusal(Roll(3).joined(1), OURS, hello(), CHALLENGE, "")
    assert refused is not None
    assert refused.retry_helps
    assert refused.reason == "node 1 is there already, on another host or not yet known to be gone"


def test_keys() -> None:
    assert reason(hello(), key="k") == "node 1 has no LAUNCHER_ENGINE_KEY, and the head has one"
    assert reason(hello(key="other"), key="k") == "node 1 has another LAUNCHER_ENGINE_KEY than the head"
    assert reason(hello(key="k")) == "node 1 has a LAUNCHER_ENGINE_KEY, and the head has none"


def test_a_proof_is_of_one_conversation_and_one_side() -> None:
    mine = proof_of("k", "follower", CHALLENGE, "n", 1)
    assert mine != proof_of("k", "follower", Challenge(PROTOCOL, "another"), "n", 1)
    assert mine != proof_of("k", "follower", CHALLENGE, "n", 2)
    assert mine != proof_of("k", "head", CHALLENGE, "n", 1)


def test_an_older_launcher() -> None:
    assert reason(hello(protocol=0)) == (
        "node 1 speaks version 0 of the protocol between launchers, the head version 1"
    )


@pytest.mark.parametrize("message", [Start(3), End(3, "x"), Ended(3, True, "y"), hello(), CHALLENGE])
def test_a_message_is_one_line_and_reads_back(message: Start | End | Ended | Hello | Challenge) -> None:
    line = encode(message)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode(line) == message


@pytest.mark.parametrize("line", [b"", b"GET / HTTP/1.1\r\n", b'{"say":"start"}\n', b'{"say":"dance"}\n', b"\xff\n"])
def test_what_is_no_message(line: bytes) -> None:
    with pytest.raises(Malformed):
        decode(line)


def test_what_hosts_must_have_alike() -> None:
    def of(**engine: object) -> dict[str, str]:
        return settings_of(Profile.model_validate({"name": "x", "model": {"id": "a/b"}, "engine": engine}))

    assert of() == of(python="elsewhere/bin/python", env={"NCCL_SOCKET_IFNAME": "eth1"})
    changed = of(max_num_seqs=8)
    assert {key for key, digest in of().items() if changed[key] != digest} == {"engine.max_num_seqs"}


def test_names() -> None:
    assert names((1,)) == "node 1"
    assert names((1, 3)) == "nodes 1, 3"
