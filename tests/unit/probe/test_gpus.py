"""The cards of this machine, where there are any, and a clear sentence where there is no driver."""

from __future__ import annotations

import ctypes.util
import subprocess
import sys

import pytest

from launcher.errors import EXIT_PRECONDITION, PreconditionError
from launcher.probe.gpus import Gpu, find_gpus, visible

HAS_DRIVER = ctypes.util.find_library("nvidia-ml") is not None


@pytest.mark.skipif(HAS_DRIVER, reason="this machine has an NVIDIA driver")
def test_no_driver_is_a_sentence_with_a_remedy() -> None:
    with pytest.raises(PreconditionError) as caught:
        find_gpus()
    assert caught.value.message.startswith("no NVIDIA card can be used: the driver's library does not answer (")
    assert caught.value.hint == (
        "Install the NVIDIA driver (nvidia-smi shows the cards then), in a container start it with --gpus all, or use a "
        "profile with hardware.device: cpu."
    )
    assert caught.value.exit_code == EXIT_PRECONDITION


@pytest.mark.skipif(not HAS_DRIVER, reason="this machine has no NVIDIA driver")
def test_cards_are_listed_in_order() -> None:
    cards = find_gpus()
    assert [card.index for card in cards] == list(range(len(cards)))
    assert all(0 < card.visible_bytes <= card.total_bytes for card in cards)


def test_what_cuda_sees_is_less_than_the_total() -> None:
    card = Gpu(0, "NVIDIA GeForce RTX 3060", 12288 << 20, 380 << 20, 380 << 20, "550.0")
    assert card.visible_bytes / 2**30 == pytest.approx(11.63, abs=0.005)


@pytest.mark.parametrize(
    ("names", "indices"),
    [
        (None, [0, 1, 2]),
        ("1", [1]),
        ("2, 0", [2, 0]),
        ("GPU-b", [1]),
        ("GPU-a", []),  # of two cards
        ("0,7,1", [0]),
        ("-1", []),
        ("", []),
    ],
)
def test_only_the_cards_that_we_may_use_are_watched(names: str | None, indices: list[int]) -> None:
    assert visible(["GPU-a1", "GPU-b1", "GPU-a2"], names) == indices


def test_torch_is_not_imported() -> None:
    code = (
        "import sys\nfrom launcher.errors import LauncherError\nfrom launcher.probe.gpus import find_gpus\n"
        "try:\n    find_gpus()\nexcept LauncherError:\n    pass\nprint('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"
