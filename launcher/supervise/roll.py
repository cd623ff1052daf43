"""Who of an engine's hosts is there and what each of them runs; and who may come in. Pure: no I/O, no clock.

A generation is one start of the whole engine. It runs on every host or on none: where one has fallen out, it is over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from launcher.supervise.node_messages import PROTOCOL, Challenge, Hello, Refused, is_proof, proof_of

SHOWN_KEYS = 4


@dataclass(frozen=True)
class Roll:
    """The hosts beside the head: ranks 1 to ``nodes`` - 1.

    ``runs``: rank → the generation that it runs, None while it is idle; who is not there is not in it.
    ``generation``: what was started on all of them and is not over; None: nothing.
    """

    nodes: int
    runs: Mapping[int, int | None] = field(default_factory=dict)
    generation: int | None = None

    def __repr__(self) -> str:
        there = " ".join(f"{rank}:{'idle' if runs is None else runs}" for rank, runs in sorted(self.runs.items()))
        return f"<Roll {len(self.runs) + 1}/{self.nodes} generation={self.generation} {there or 'nobody'}>"

    @property
    def ranks(self) -> range:
        """All hosts but the head."""
        return range(1, self.nodes)

    @property
    def missing(self) -> tuple[int, ...]:
        """Hosts that are not there."""
        return tuple(rank for rank in self.ranks if rank not in self.runs)

    @property
    def awaited(self) -> tuple[int, ...]:
        """Hosts that cannot start anything yet: not there, or with something of an earlier generation left."""
        return tuple(rank for rank in self.ranks if self.runs.get(rank, 0) is not None)

    @property
    def fallen(self) -> tuple[int, ...]:
        """Hosts that should run the present generation and do not."""
        if self.generation is None:
            return ()
        return tuple(rank for rank in self.ranks if self.runs.get(rank) != self.generation)

    def joined(self, rank: int) -> Roll:
        """With a host that came in, idle."""
        return replace(self, runs={**self.runs, rank: None})

    def left(self, rank: int) -> Roll:
        """Without a host whose line is gone. Its launcher ends what it runs, or is gone itself."""
        return replace(self, runs={other: runs for other, runs in self.runs.items() if other != rank})

    def started(self, generation: int) -> Roll:
        """With a generation on all of them, which are all there and idle."""
        assert not self.awaited, f"{self!r}: not all are idle"
        return replace(self, runs=dict.fromkeys(self.ranks, generation), generation=generation)

    def ended(self, rank: int, generation: int) -> Roll:
        """With a host that says that nothing is left of a generation. Late word of another one changes nothing."""
        if self.runs.get(rank) != generation:
            return self
        return replace(self, runs={**self.runs, rank: None})

    def over(self) -> Roll:
        """With no generation wanted; those who run it still do until they say otherwise."""
        return replace(self, generation=None)


def refusal(roll: Roll, ours: Hello, theirs: Hello, challenge: Challenge, key: str) -> Refused | None:
    """Why a host may not come in; None: it may. ``ours`` is what the head itself would say."""
    who = f"node {theirs.rank}"
    if theirs.protocol != PROTOCOL:
        return Refused(
            f"{who} speaks version {theirs.protocol} of the protocol between launchers, the head version {PROTOCOL}",
            "Install the same launcher on every host.",
        )
    if not is_proof(theirs.proof, proof_of(key, "follower", challenge, theirs.nonce, theirs.rank)):
        return _wrong_key(who, has_key=bool(key), gave_proof=bool(theirs.proof))
    if theirs.nodes != ours.nodes or theirs.rank not in roll.ranks:
        return Refused(
            f"{who} of {theirs.nodes} has no place among the {ours.nodes} of the head: they are 0 to {ours.nodes - 1}, "
            "and 0 is the head itself",
            "Give each host a --node-rank of its own, and all the same profile.",
        )
    if theirs.settings != ours.settings:
        return Refused(
            f"{who} has another profile than the head: {_difference(ours.settings, theirs.settings)}",
            "Give every host the same profile file, with the same --set and environment.",
        )
    if theirs.vllm != ours.vllm:
        return Refused(
            f"{who} has {theirs.vllm}, the head has {ours.vllm}",
            "Install the same vLLM on every host: they share one engine.",
        )
    if theirs.rank in roll.runs:
        return Refused(
            f"{who} is there already, on another host or not yet known to be gone",
            "Give each host a --node-rank of its own.",
            retry_helps=True,
        )
    return None


def _wrong_key(who: str, *, has_key: bool, gave_proof: bool) -> Refused:
    if not has_key:
        return Refused(
            f"{who} has a LAUNCHER_ENGINE_KEY, and the head has none", "Set the same on every host, or on none of them."
        )
    how = "another LAUNCHER_ENGINE_KEY than the head" if gave_proof else "no LAUNCHER_ENGINE_KEY, and the head has one"
    return Refused(f"{who} has {how}", "Set the same on every host.")


def _difference(ours: Mapping[str, str], theirs: Mapping[str, str]) -> str:
    keys = sorted(key for key in {*ours, *theirs} if ours.get(key) != theirs.get(key))
    more = f" and {len(keys) - SHOWN_KEYS} more" if len(keys) > SHOWN_KEYS else ""
    return f"{', '.join(keys[:SHOWN_KEYS])}{more} {'differ' if len(keys) > 1 else 'differs'}"


def names(ranks: tuple[int, ...]) -> str:
    """``node 1``, ``nodes 1, 2``."""
    return f"node{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"
