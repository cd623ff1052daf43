"""What only starts can tell: memory that no formula gives, with the starts that each figure was taken from.

All on H200s, vLLM 0.24, GLM-4.xV-9B with random weights in bfloat16; tests/unit/plan/test_real_starts.py has the starts by
letter. No start on a consumer card has been measured.
"""

from __future__ import annotations

from launcher.plan.known_gpus import find_card
from launcher.plan.settings import Settings
from launcher.profile.model import Profile, VllmEngine
from launcher.profile.units import MIB

# Torch's own small change above the formulas for the profiling run's peak (A to H: 0.07 to 0.18 GiB)
WORKSPACE = 96 * MIB
# Libraries outside torch, as 'non-torch forward increase' has it: what they take after vLLM's first look at the card
OUTSIDE_ONE_CARD = 246 * MIB  # A, B, D, F, V: 0.24 GiB
OUTSIDE_CUSTOM_ALL_REDUCE = 573 * MIB  # G: 0.56 GiB
OUTSIDE_NCCL_ONLY = 154 * MIB  # H, J: 0.15 GiB
# What is gone before vLLM looks: it counts against what is free, not against what vLLM asks for
CONTEXT = 500 * MIB  # the CUDA context; public logs show 0.23 (a 16 GB card) to 0.60 GiB, all starts here 0.51
NCCL_PEER_TO_PEER = 1045 * MIB  # G: 1.53 GiB in all
NCCL_PLAIN = 553 * MIB  # H, J: 1.05 GiB in all
# CUDA graphs as vLLM estimates them: a first capture of each kind and so much for every graph, at 40 layers.
GRAPH_FIRST = 21 * MIB  # piecewise and full each (A, B and three early starts)
PIECEWISE_EACH = 1 * MIB  # vLLM's own least
PIECEWISE_EACH_NCCL = 16.5 * MIB  # NCCL's calls are captured with the graph (H, J)
FULL_EACH = 9 * MIB  # A, B and the early starts
FULL_EACH_PARALLEL = 12 * MIB  # G, H, J
LAYERS = 40


def is_parallel(settings: Settings) -> bool:
    """Whether the cards of a replica talk to each other."""
    return settings.tensor_parallel > 1 or settings.pipeline_parallel > 1


def has_peer_to_peer(profile: Profile) -> bool | None:
    """Whether the cards reach each other's memory, as far as the profile or the card's name tells."""
    card = find_card(profile.hardware.gpu) if profile.hardware.gpu else None
    if profile.hardware.peer_to_peer is not None:
        return profile.hardware.peer_to_peer
    return card.peer_to_peer if card else None


def uses_nccl_only(profile: Profile) -> bool:
    """Whether sums over cards go through NCCL alone: told so, or the cards do not reach each other."""
    engine = profile.engine
    assert isinstance(engine, VllmEngine)
    told = any(item.split("=")[0].replace("_", "-") == "--disable-custom-all-reduce" for item in engine.extra_args)
    return told or has_peer_to_peer(profile) is False


def held_before_start(profile: Profile, settings: Settings) -> int:
    """Bytes of a card that are gone before vLLM looks at what is free: the CUDA context, and NCCL's buffers."""
    if not is_parallel(settings):
        return CONTEXT
    return CONTEXT + (NCCL_PLAIN if uses_nccl_only(profile) else NCCL_PEER_TO_PEER)


def outside_torch(profile: Profile, settings: Settings) -> int:
    """Bytes that libraries take outside torch while vLLM profiles."""
    if not is_parallel(settings):
        return OUTSIDE_ONE_CARD
    return OUTSIDE_NCCL_ONLY if uses_nccl_only(profile) else OUTSIDE_CUSTOM_ALL_REDUCE


def captured_sizes(settings: Settings) -> tuple[int, int]:
    """CUDA graphs that vLLM captures: (piecewise, for every size; full, for those that a pure decode batch can have)."""
    largest = min(2 * settings.max_num_seqs, 512, settings.max_num_batched_tokens)
    sizes = [n for n in (1, 2, 4, *range(8, 256, 8), *range(256, largest + 1, 16)) if n <= largest]
    return len(sizes), sum(1 for size in sizes if size <= settings.max_num_seqs)


def graph_bytes(profile: Profile, settings: Settings, layers: int) -> int:
    """Bytes of the CUDA graphs of a card with so many layers, as vLLM's own estimate before it captures them."""
    if not settings.has_graphs:
        return 0
    piecewise, full = captured_sizes(settings)
    parallel = is_parallel(settings)
    each = PIECEWISE_EACH_NCCL * layers / LAYERS if parallel and uses_nccl_only(profile) else PIECEWISE_EACH
    full_each = (FULL_EACH_PARALLEL if parallel else FULL_EACH) * layers / LAYERS
    return round(2 * GRAPH_FIRST + piecewise * max(each, PIECEWISE_EACH) + full * max(full_each, PIECEWISE_EACH))
