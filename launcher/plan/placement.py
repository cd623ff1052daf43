"""Which cards each replica gets: replicas × tensor parallel × pipeline parallel, laid over a machine's cards in order."""

from __future__ import annotations

from dataclasses import dataclass

from launcher.profile.model import Profile, VllmEngine


@dataclass(frozen=True)
class Placement:
    """One replica and the indices of its cards, which are the same on each of its ``nodes`` hosts.

    On device: cpu, and where nothing is started here, it has no cards.
    """

    replica: int
    gpus: tuple[int, ...]
    nodes: int = 1


def gpus_needed(profile: Profile) -> int:
    """Cards that the profile's engines take on one machine: replicas × tensor parallel × pipeline parallel ÷ nodes."""
    engine = profile.engine
    if not isinstance(engine, VllmEngine) or profile.hardware.device == "cpu":
        return 0
    return engine.replicas * cards_of_replica(engine)


def cards_of_replica(engine: VllmEngine) -> int:
    """Cards that one replica takes on each of its hosts; the profile's rules see to it that this comes out even."""
    return engine.tensor_parallel * engine.pipeline_parallel // engine.nodes


def why_not_placed(profile: Profile) -> str | None:
    """A sentence when a machine has fewer cards than the engines need there; None when they fit."""
    needed, present = gpus_needed(profile), profile.hardware.gpus
    if needed <= present or not isinstance(profile.engine, VllmEngine):
        return None
    engine = profile.engine
    product = (
        f"engine.replicas {engine.replicas} × engine.tensor_parallel {engine.tensor_parallel} × "
        f"engine.pipeline_parallel {engine.pipeline_parallel}"
    )
    if engine.nodes > 1:
        return (
            f"{product} over engine.nodes {engine.nodes} need {needed} cards on each host, but hardware.gpus, which counts "
            f"those of one, is {present}"
        )
    return f"{product} need {needed} cards, but hardware.gpus is {present}"


def place(profile: Profile) -> tuple[Placement, ...]:
    """Each replica on neighbouring cards, from card 0 upwards; () when they do not fit (see ``why_not_placed``).

    Neighbouring indices share a PCIe switch or a socket more often than distant ones do.
    """
    engine = profile.engine
    if not isinstance(engine, VllmEngine) or why_not_placed(profile):
        return ()
    nodes = engine.nodes
    if profile.hardware.device == "cpu":
        return tuple(Placement(replica, (), nodes) for replica in range(engine.replicas))
    width = cards_of_replica(engine)
    return tuple(Placement(r, tuple(range(r * width, (r + 1) * width)), nodes) for r in range(engine.replicas))
