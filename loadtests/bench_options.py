"""What `launcher bench` itself can be told."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from loadtests.compared import LEAST_ROUNDS
from loadtests.driver import check_open_loop
from loadtests.figures import limits_of
from loadtests.files import make_room_for_report
from loadtests.scenarios import SCENARIOS

ROUNDS_HELP = f"how often each rate is measured (default: 1; 3 show the spread, {LEAST_ROUNDS} let --compare tell)"


def options(argv: Sequence[str], others: Iterable[str]) -> argparse.Namespace:
    """Checked; ``others`` are the commands beside it, for its help."""
    parser = parser_of(others)
    chosen = parser.parse_args(argv)
    chosen.argv = list(argv)
    if (chosen.target is None) == (chosen.compare is None):
        parser.error("give a URL or a profile, or --compare BEFORE.json AFTER.json")
    try:
        limits_of(chosen.slo)
        check_open_loop(chosen.scenario)
        if not chosen.compare:
            make_room_for_report(chosen.out)
    except ValueError as error:
        parser.error(str(error))
    if chosen.rounds < 1 or chosen.users < 1 or not 0 < chosen.seconds < math.inf:
        parser.error("--rounds, --users and --seconds must be more than 0")
    return chosen


def parser_of(others: Iterable[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="launcher bench",
        description="Load-test an endpoint and write a report.",
        epilog=f"Also: launcher bench {' | '.join(others)}, each with --help.",
    )
    add, out_help = parser.add_argument, "the report; figures go beside it as .json (default: bench.html)"
    add("target", nargs="?", help="a URL such as http://127.0.0.1:8000, or a profile, which is started and stopped")
    add("--compare", nargs=2, metavar=("BEFORE.json", "AFTER.json"), help="say what moved between two runs")
    add("--scenario", choices=(*SCENARIOS, "mixed"), default="chat")
    rates_help = "requests/s to offer (default: multiples of the capacity)"
    add("--rates", type=rates_of, default=[], metavar="1,2,4", help=rates_help)
    add("--seconds", type=float, default=30.0, help="how long at each rate (default: 30)")
    add("--rounds", type=int, default=1, help=ROUNDS_HELP)
    add("--users", type=int, default=16, help="for measuring the capacity (default: 16)")
    add("--slo", default="", metavar="ttft=1s,itl=60ms", help="what counts as good")
    add("--mode", default="", help="X-Mode of every request")
    add("--scale", type=float, default=None, help="times all lengths (default: so that they fit the model)")
    add("--seed", type=int, default=1)
    add("--key", default=os.environ.get("OPENAI_API_KEY", ""), help="API key of the endpoint (default: OPENAI_API_KEY)")
    engine_help = "vLLM behind the endpoint, for its own figures; may be repeated"
    add("--engine", action="append", default=[], metavar="URL", help=engine_help)
    add("--any-event", action="store_true", help="events without text count as pieces: for random weights")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="a key of the profile; may be repeated")
    add("--out", type=Path, default=Path("bench.html"), help=out_help)
    return parser


def rates_of(text: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of rates such as 1,2,4") from None
    if not all(0 < rate < math.inf for rate in found):
        raise argparse.ArgumentTypeError(f"{text!r}: rates are more than 0")
    return found
