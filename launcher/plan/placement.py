"""Which cards each replica gets: replicas × tensor parallel × pipeline parallel, laid over the machine's cards in order."""

from __future__ import annotations

from dataclasses import dataclass

from launcher.profile.model import Profile, VllmEngine


@dataclass(frozen=True)
class Placement:
    """One replica and the indices of its cards; on device: cpu, and where nothing is started here, it has none."""

    replica: int
    gpus: tuple[int, ...]


def gpus_needed(profile: Profile) -> int:
    """Cards that the profile's engines take, all in all: replicas × tensor parallel × pipeline parallel."""
    engine = profile.engine
    if not isinstance(engine, VllmEngine) or profile.hardware.device == "cpu":
        return 0
    return engine.replicas * engine.tensor_parallel * engine.pipeline_parallel


def why_not_placed(profile: Profile) -> str | None:
    """A sentence when there are fewer cards than the engines need; None when they fit."""
    needed, present = gpus_needed(profile), profile.hardware.gpus
    if needed <= present or not isinstance(profile.engine, VllmEngine):
        return None
    engine = profile.engine
    return (
        f"engine.replicas {engine.replicas} × engine.tensor_parallel {engine.tensor_parallel} × "
        f"engine.pipeline_parallel {engine.pipeline_parallel} need {needed} cards, but hardware.gpus is {present}"
    )


def place(profile: Profile) -> tuple[Placement, ...]:
    """Each replica on neighbouring cards, from card 0 upwards; () when they do not fit (see ``why_not_placed``).

    Neighbouring indices share a PCIe switch or a socket more often than distant ones do.
    """
    engine = profile.engine
    if not isinstance(engine, VllmEngine) or why_not_placed(profile):
        return ()
    if profile.hardware.device == "cpu":
        return tuple(Placement(replica, ()) for replica in range(engine.replicas))
    width = engine.tensor_parallel * engine.pipeline_parallel
    return tuple(Placement(r, tuple(range(r * width, (r + 1) * width))) for r in range(engine.replicas))
