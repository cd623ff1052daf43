"""What the fuzzer has found stays found: its inputs are tried again. And a short run of each target, always the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.gateway.build import is_compiled
from tests.fuzz.__main__ import FOUND
from tests.fuzz.loop import Target, fuzz, minimise
from tests.fuzz.targets import TARGETS

FILES = sorted(FOUND.glob("*.bin"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_what_was_found_is_mended(file: Path) -> None:
    TARGETS[file.name.rpartition("-")[0]].run(file.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_a_short_run_finds_nothing(name: str) -> None:
    result = fuzz(TARGETS[name], seed=1, executions=400)
    assert result.failure is None, f"{result.failure.data!r}\n{result.failure.error}"
    assert result.executions == 400
    assert result.edges > 20 or is_compiled()  # the target does reach the gateway's code; compiled code shows no lines


def fragile(data: bytes) -> None:
    """Wrong in one place that no seed reaches."""
    from launcher.gateway.sse import EventParser

    assert not any(b"event: x" in event for event in EventParser().feed(data))


@pytest.mark.skipif(
    is_compiled(), reason="the fuzzer is led by the lines that are reached, which compiled code does not show"
)
def test_the_fuzzer_finds_what_is_wrong_and_makes_it_small() -> None:
    target = Target(fragile, (b"data: a\n\n",), (b"event: x", b"\n\n"))
    result = fuzz(target, seed=1, executions=20_000)
    assert result.failure is not None
    assert result.failure.data == b"event: x\n\n"
    assert "AssertionError" in result.failure.error
    assert fuzz(target, seed=1, executions=20_000) == result  # the same seed finds the same


def test_what_takes_too_long_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(data: bytes) -> None:
        while b"!" in data:
            pass

    monkeypatch.setattr("tests.fuzz.loop.MAX_CPU_S", 0.05)
    monkeypatch.setattr("tests.fuzz.loop.MINIMISE_S", 1.0)
    data, error = minimise(endless, b"ab!cd")
    assert (data, "TooSlow" in error) == (b"!", True)
