"""`launcher bench`: hands over to loadtests/bench.py, which is beside the package in a checkout and no part of it."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import click

from launcher.errors import PreconditionError

ROOT = Path(__file__).resolve().parents[2]


@click.command(
    "bench",
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    epilog="Example: launcher bench http://127.0.0.1:8000 --rates 1,2,4",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def bench_command(arguments: tuple[str, ...]) -> None:
    """Load-test an endpoint, or a profile that is started for it, and write a report."""
    if not (ROOT / "loadtests" / "bench.py").is_file():
        raise PreconditionError(
            "the load tests are not installed with the package",
            "Run launcher bench from a checkout: git clone, then make up.",
        )
    if find_spec("locust") is None:
        raise PreconditionError(
            "launcher bench needs Locust, which is not installed",
            f"{sys.executable} -m pip install -e '{ROOT}[loadtest]'",
        )
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    sys.exit(import_module("loadtests.bench").main(arguments))
