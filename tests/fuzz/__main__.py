"""``python -m tests.fuzz``: fuzzes for a while, and says what it found."""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
from pathlib import Path

from tests.fuzz.libfuzzer import fuzz, is_installed
from tests.fuzz.target import Failure
from tests.fuzz.targets import TARGETS

FOUND = Path(__file__).with_name("found")
CORPUS = Path(__file__).resolve().parents[2] / ".cache" / "fuzz"
NEEDS = (
    "The fuzzer is atheris, which is not installed: make fuzz does it on Linux with x86-64, where there are wheels."
    " Elsewhere there are the short runs of pytest tests/fuzz."
)


def main() -> int:
    """0: nothing was found. 1: something was, and is kept for the tests. 2: there is no fuzzer."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="time for all targets together (default: 60)")
    parser.add_argument("--target", choices=("all", *TARGETS), default="all", help="what to fuzz (default: all)")
    parser.add_argument("--seed", type=int, help="repeat a run, from the same corpus; default: another one each time")
    options = parser.parse_args()
    if not is_installed():
        print(NEEDS, file=sys.stderr)
        return 2
    names = tuple(TARGETS) if options.target == "all" else (options.target,)
    seed = random.SystemRandom().randrange(2**32) if options.seed is None else options.seed
    print(f"seed {seed}, corpus {CORPUS}", flush=True)
    failures = [run(name, seed, options.seconds / len(names)) for name in names]
    return int(any(failures))


def run(name: str, seed: int, seconds: float) -> bool:
    """Fuzzes one target. True: something was found."""
    found = fuzz("tests.fuzz.targets", name, TARGETS[name], corpus=CORPUS / name, seed=seed, seconds=seconds)
    verdict = "FAILED" if found.failure else "nothing found"
    numbers = f"{found.executions:,} executions, {found.edges:,} edges, {found.corpus:,} inputs kept"
    print(f"{name}: {numbers}: {verdict}", flush=True)
    if found.failure:
        report(name, found.failure)
    return found.failure is not None


def report(name: str, failure: Failure) -> None:
    """Says what failed, and saves it: tests/fuzz/test_found.py tries it again from then on."""
    FOUND.mkdir(exist_ok=True)
    file = FOUND / f"{name}-{hashlib.sha256(failure.data).hexdigest()[:8]}.bin"
    file.write_bytes(failure.data)
    print(failure.error)
    print(f"{name} fails on {len(failure.data)} bytes: {failure.data[:500]!r}")
    print(f"saved as {file}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
