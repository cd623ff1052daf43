"""The fuzzer itself: it finds what is wrong, whichever way it shows, makes it small and keeps it."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.gateway.build import is_compiled
from tests.fuzz import __main__ as command
from tests.fuzz import libfuzzer
from tests.fuzz.mutations import try_mutations
from tests.fuzz.planted import TARGETS
from tests.fuzz.target import Failure, failure_of

SEED = 1
guided = pytest.mark.skipif(
    is_compiled() or not libfuzzer.is_installed(),
    reason="atheris (the extra fuzz) is led by the branches that are reached, which compiled code does not show",
)


def fuzzed(name: str, corpus: Path, seconds: float = 30) -> libfuzzer.Result:
    return libfuzzer.fuzz("tests.fuzz.planted", name, TARGETS[name], corpus=corpus, seed=SEED, seconds=seconds)


@guided
def test_what_is_wrong_is_found_and_made_small(tmp_path: Path) -> None:
    failure = fuzzed("fragile", tmp_path).failure
    assert failure is not None
    assert failure.data == b"event: x\n\n"
    assert "AssertionError" in failure.error


@guided
def test_what_takes_too_long_is_a_failure_though_the_code_catches_exceptions(tmp_path: Path) -> None:
    failure = fuzzed("endless", tmp_path).failure
    assert failure is not None
    assert b"event: x" in failure.data
    assert "TooSlow: more than 2 s" in failure.error


@guided
def test_what_kills_the_process_is_kept(tmp_path: Path) -> None:
    failure = fuzzed("deadly", tmp_path).failure
    assert failure is not None
    assert b"event: x" in failure.data
    assert "libFuzzer: deadly signal" in failure.error


@guided
def test_where_nothing_is_wrong_the_corpus_is_kept(tmp_path: Path) -> None:
    result = fuzzed("sound", tmp_path, seconds=1)
    assert result.failure is None
    assert min(result.executions, result.edges, result.corpus) > 1
    assert list(tmp_path.iterdir())


@guided
def test_a_fuzzer_that_does_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"no input is to blame:\n(.*\n)*KeyError: 'nothing'"):
        libfuzzer.fuzz("tests.fuzz.planted", "nothing", TARGETS["sound"], corpus=tmp_path, seed=SEED, seconds=1)


def test_what_is_found_is_saved_for_the_tests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "FOUND", tmp_path / "found")
    command.report("fragile", Failure(b"abc", "Traceback …"))
    (file,) = (tmp_path / "found").iterdir()
    assert (file.name, file.read_bytes()) == ("fragile-ba7816bf.bin", b"abc")
    assert "Traceback …" in capsys.readouterr().out


def test_without_guidance_the_same_seed_finds_the_same() -> None:
    found = [try_mutations(TARGETS["fragile"], seed=SEED, executions=2000) for _ in range(2)]
    assert found[0] is not None
    assert found[0].data == b"event: x\n\n"
    assert found[0] == found[1]


def test_what_takes_too_long_is_made_small(monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(data: bytes) -> None:
        while b"!" in data:
            pass

    monkeypatch.setattr("tests.fuzz.target.MAX_CPU_S", 0.05)
    monkeypatch.setattr("tests.fuzz.target.MINIMISE_S", 1.0)
    failure = failure_of(endless, b"ab!cd")
    assert failure is not None
    assert failure.data == b"!"
