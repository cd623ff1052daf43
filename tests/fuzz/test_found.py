"""What the fuzzer has found stays found: its inputs are tried again. And a short run of each target, without guidance."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

import launcher.gateway
from launcher.gateway.build import is_compiled
from tests.fuzz.__main__ import FOUND
from tests.fuzz.mutations import try_mutations
from tests.fuzz.targets import TARGETS

FILES = sorted(FOUND.glob("*.bin"))
GATEWAY = launcher.gateway.__path__[0]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_what_was_found_is_mended(file: Path) -> None:
    TARGETS[file.name.rpartition("-")[0]].run(file.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_a_short_run_finds_nothing(name: str) -> None:
    failure = try_mutations(TARGETS[name], seed=1, executions=400)
    assert failure is None, f"{failure.data!r}\n{failure.error}"


@pytest.mark.skipif(is_compiled(), reason="compiled code does not tell that it is called")
@pytest.mark.parametrize("name", TARGETS)
def test_a_targets_seeds_reach_the_gateways_code(name: str) -> None:
    with calls_of_the_gateway() as called:
        for seed in TARGETS[name].seeds:
            TARGETS[name].run(seed)
    assert len(called) >= 2, called


@contextmanager
def calls_of_the_gateway() -> Iterator[set[CodeType]]:
    """Which of its functions are called meanwhile."""
    called: set[CodeType] = set()

    def note(frame: FrameType, event: str, arg: Any) -> None:
        if frame.f_code.co_filename.startswith(GATEWAY):
            called.add(frame.f_code)

    sys.setprofile(note)
    try:
        yield called
    finally:
        sys.setprofile(None)
