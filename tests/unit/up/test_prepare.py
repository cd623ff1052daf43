"""What is refused or said before anything is started."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from launcher.errors import PreconditionError
from launcher.probe.gpus import Gpu
from launcher.profile.load import load_profile
from launcher.up.prepare import check_address, check_card, make_checked_plan

GIB = 2**30
PROFILE = Path(__file__).resolve().parents[3] / "profiles" / "2x4090.yaml"


def test_too_few_cards_cannot_be_forced() -> None:
    loaded = load_profile(PROFILE, sets=["hardware.gpus=1"], env={})
    with pytest.raises(PreconditionError, match=r"need 2 cards, but hardware\.gpus is 1") as refused:
        make_checked_plan(loaded, force=True)
    assert "--force" not in refused.value.hint


def test_what_does_not_fit_can_be_forced() -> None:
    loaded = load_profile(PROFILE, sets=["hardware.gpu_memory=8GiB"], env={})
    with pytest.raises(PreconditionError, match="the plan does not fit") as refused:
        make_checked_plan(loaded, force=False)
    assert "--force starts all the same" in refused.value.hint
    assert make_checked_plan(loaded, force=True).verdict == "does_not_fit"


def said_of(gpu: Gpu) -> list[str]:
    said: list[str] = []
    check_card(load_profile(PROFILE, env={}).profile, gpu, said.append)
    return said


def test_the_planned_card_is_not_worth_a_word() -> None:
    assert said_of(Gpu(0, "NVIDIA GeForce RTX 4090", 24 * GIB, GIB // 2, 0, "580")) == []


def test_another_card_than_planned() -> None:
    assert said_of(Gpu(1, "NVIDIA L4", 23 * GIB, 0, 0, "580")) == [
        "note: card 1 is a NVIDIA L4, the plan is for RTX 4090: its memory figures differ"
    ]


def test_a_card_that_others_use() -> None:
    assert said_of(Gpu(0, "NVIDIA GeForce RTX 4090", 24 * GIB, 6 * GIB, 0, "580")) == [
        "warning: card 0 (NVIDIA GeForce RTX 4090) already has 6.0 of 24.0 GiB in use by other processes; "
        "the plan counts on an empty card"
    ]


def test_a_taken_address_is_found_before_any_download() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(PreconditionError, match=f"gateway.listen: {address}: the port is in use"):
            check_address(address)
    check_address(address)
