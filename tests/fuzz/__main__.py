"""``python -m tests.fuzz``: fuzzes for a while, and says what it found."""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
from pathlib import Path

from tests.fuzz.loop import Failure, fuzz
from tests.fuzz.targets import TARGETS

FOUND = Path(__file__).with_name("found")


def main() -> int:
    """0: nothing was found. 1: something was, and is kept for the tests."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="time for all targets together (default: 60)")
    parser.add_argument("--target", choices=("all", *TARGETS), default="all", help="what to fuzz (default: all)")
    parser.add_argument("--seed", type=int, help="repeat a run; default: another one each time")
    options = parser.parse_args()
    names = tuple(TARGETS) if options.target == "all" else (options.target,)
    seed = random.SystemRandom().randrange(2**32) if options.seed is None else options.seed
    print(f"seed {seed}")
    failed = False
    for name in names:
        result = fuzz(TARGETS[name], seed=seed, seconds=options.seconds / len(names))
        print(
            f"{name}: {result.executions:,} executions, {result.edges} edges, {result.corpus} inputs kept", flush=True
        )
        if result.failure is not None:
            failed = True
            report(name, result.failure)
    return int(failed)


def report(name: str, failure: Failure) -> None:
    """Says what failed, and saves it: tests/fuzz/test_found.py tries it again from then on."""
    FOUND.mkdir(exist_ok=True)
    file = FOUND / f"{name}-{hashlib.sha256(failure.data).hexdigest()[:8]}.bin"
    file.write_bytes(failure.data)
    print(failure.error)
    print(f"{name}: FAILED on {len(failure.data)} bytes (from {len(failure.original)}): {failure.data[:500]!r}")
    print(f"saved as {file}")


if __name__ == "__main__":
    sys.exit(main())
