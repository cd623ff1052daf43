"""Starts a target under libFuzzer, and reads what it came to."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from tests.fuzz.target import Failure, Target

ROOT = Path(__file__).resolve().parents[2]
MALLOC_MB = 1024  # of one allocation. Not -rss_limit_mb: it counts the peak of whoever started the process, too
HANGS_S = 20  # of the wall clock, for what ends no call of C and so is not told that it is TooSlow
_STATUS = re.compile(rb"^#(\d+)\t\w+ +cov: (\d+) ft: \d+ corp: (\d+)", re.MULTILINE)


class Result(NamedTuple):
    """What a run came to."""

    executions: int
    edges: int  # of the watched packages' code
    corpus: int  # inputs that are kept, for having reached something
    failure: Failure | None


def is_installed() -> bool:
    return find_spec("atheris") is not None


def fuzz(module: str, name: str, target: Target, *, corpus: Path, seed: int, seconds: float) -> Result:
    """Fuzzes ``module``'s target ``name`` until the time is used up, or an input fails. ``corpus`` is gone on from."""
    corpus.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as made:
        folder = Path(made)
        (folder / "failed").mkdir()
        command = [sys.executable, "-m", "tests.fuzz.guided", module, name, ",".join(target.watched), str(folder)]
        with open(folder / "log", "wb") as log:
            code = subprocess.run(
                [*command, *options(folder, corpus, seed, seconds)], stdout=log, stderr=log
            ).returncode
        return result(folder, code)


def options(folder: Path, corpus: Path, seed: int, seconds: float) -> list[str]:
    return [
        str(corpus),  # the first folder is the one that is written to
        f"-seed={seed or 1}",  # 0: any
        f"-max_total_time={max(1, round(seconds - 1))}",  # it ends within the second after; 0: never
        f"-timeout={HANGS_S}",
        f"-report_slow_units={HANGS_S}",  # else what takes 10 s is saved, too, and is no failure by itself
        "-rss_limit_mb=0",
        f"-malloc_limit_mb={MALLOC_MB}",
        f"-artifact_prefix={folder / 'failed'}/",
    ]


def result(folder: Path, code: int) -> Result:
    log = (folder / "log").read_bytes()
    found = _STATUS.findall(log)
    executions, edges, corpus = map(int, found[-1]) if found else (0, 0, 0)
    if not code:
        return Result(executions, edges, corpus, None)
    error = folder / "error"
    told = error.read_text() if error.exists() else log[-3000:].decode(errors="replace")
    saved = next((folder / "failed").iterdir(), None)
    if saved is None:  # the fuzzer itself is broken, or was killed
        raise RuntimeError(f"exit code {code}, and no input is to blame:\n{told}")
    return Result(executions, edges, corpus, Failure(saved.read_bytes(), told))
