"""Cards by name: the memory that CUDA sees (less than the driver's total), and what the card can do.

vLLM multiplies its utilization with what CUDA sees. The driver keeps a few hundred MiB of the total for itself: 480 MiB
of an RTX 4090's 24564 MiB, 607 MiB of an H200's 143771 MiB. A plan made with the total is wrong by that much.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from launcher.profile.model import HardwareSection
from launcher.profile.units import GIB, MIB


@dataclass(frozen=True)
class Card:
    """One kind of card. ``total_mib`` is nvidia-smi's memory.total, ``visible_gib`` what CUDA reports (torch's 'total
    capacity', vLLM's 'Free memory on device (…/X GiB)')."""

    name: str
    total_mib: int
    visible_gib: float
    capability: tuple[int, int]
    peer_to_peer: bool
    data_center: bool = False

    @property
    def visible_bytes(self) -> int:
        """Memory that CUDA reports, in bytes."""
        return round(self.visible_gib * GIB)

    @property
    def reserved_bytes(self) -> int:
        """What the driver keeps for itself, in bytes."""
        return self.total_mib * MIB - self.visible_bytes

    @property
    def has_fp8(self) -> bool:
        """Whether the card multiplies fp8 numbers (compute capability 8.9 and later)."""
        return self.capability >= (8, 9)


# Visible memory as out-of-memory messages and vLLM's start logs in public issue threads report it, newer drivers
# preferred (they keep more); read on 2026-11-21. Peer-to-peer: NVIDIA's driver has it on for data-centre cards and off
# for GeForce since the RTX 40 series; on RTX 3090 it needs an NVLink bridge.
CARDS: tuple[Card, ...] = (
    Card("RTX 3060", 12288, 11.63, (8, 6), False),
    Card("RTX 3090", 24576, 23.56, (8, 6), False),
    Card("RTX 3090 Ti", 24564, 23.55, (8, 6), False),
    Card("RTX 4060 Ti 16GB", 16380, 15.57, (8, 9), False),
    Card("RTX 4070 Ti SUPER", 16376, 15.57, (8, 9), False),
    Card("RTX 4080", 16376, 15.57, (8, 9), False),
    Card("RTX 4090", 24564, 23.52, (8, 9), False),
    Card("RTX 5090", 32607, 31.36, (12, 0), False),
    Card("RTX A6000", 49140, 47.40, (8, 6), True),
    Card("RTX 6000 Ada", 49140, 47.38, (8, 9), True),
    Card("RTX PRO 6000", 97887, 94.97, (12, 0), True),
    Card("T4", 15360, 14.56, (7, 5), True, data_center=True),
    Card("A10G", 23028, 22.06, (8, 6), True, data_center=True),
    Card("L4", 23034, 22.03, (8, 9), True, data_center=True),
    Card("L40S", 46068, 44.39, (8, 9), True, data_center=True),
    Card("A100 40GB", 40960, 39.38, (8, 0), True, data_center=True),
    Card("A100 80GB", 81920, 79.14, (8, 0), True, data_center=True),
    Card("H100 80GB", 81559, 79.10, (9, 0), True, data_center=True),
    Card("H200", 143771, 139.81, (9, 0), True, data_center=True),
    Card("B200", 183359, 178.35, (10, 0), True, data_center=True),
)


def _key(name: str) -> str:
    words = re.sub(r"nvidia|geforce|[^a-z0-9]+", " ", name.lower()).split()
    return "".join(words)


def find_card(name: str) -> Card | None:
    """The card of this name; 'NVIDIA GeForce RTX 4090', 'rtx4090' and 'RTX 4090' are the same. None if unknown."""
    wanted = _key(name)
    exact = [card for card in CARDS if _key(card.name) == wanted]
    longer = [card for card in CARDS if wanted.startswith(_key(card.name))]
    shorter = [card for card in CARDS if wanted and _key(card.name).startswith(wanted)]
    found = exact or sorted(longer, key=lambda card: -len(_key(card.name))) or (shorter if len(shorter) == 1 else [])
    return found[0] if found else None


def visible_bytes(hardware: HardwareSection) -> int | None:
    """Memory of one card as CUDA sees it, in bytes, from hardware.gpu_memory or the card's name; None if neither tells.

    hardware.gpu_memory is what the driver reports: where the card is known, what its driver keeps is taken off; else
    2.2 %, the mean of the table.
    """
    card = find_card(hardware.gpu) if hardware.gpu else None
    if hardware.gpu_memory is None:
        return card.visible_bytes if card else None
    if card is not None:
        return hardware.gpu_memory - card.reserved_bytes
    return round(hardware.gpu_memory * 0.978)
