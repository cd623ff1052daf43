"""`launcher bench strategies PROFILE`: what each part brings, by leaving it out; the same load for each.

    launcher bench strategies profiles/cpu-smollm2.yaml --rate 2 --slo ttft=4 --rounds 2
    launcher bench strategies profiles/1x4090.yaml --users 50,100,200 --only bare,no-batching,at-most-8

Each strategy is the profile with a few keys changed. They take turns, in the next round in the reverse order; what did not help
is in the table too. A start that fails is a row that says why. Those that change nothing in the profile share a start.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from launcher.errors import LauncherError
from launcher.profile.load import load_profile
from loadtests.driver import INTERRUPTED, check_open_loop
from loadtests.figures import limits_of
from loadtests.files import make_room_for_report
from loadtests.progress import Progress
from loadtests.scenarios import SCENARIOS
from loadtests.strategies_known import STRATEGIES, Load, named, sharing
from loadtests.strategies_report import Found, table
from loadtests.strategies_run import Start


def options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="launcher bench strategies", description="What each part brings, by leaving it out."
    )
    add = parser.add_argument
    add("target", metavar="profile")
    loads = parser.add_mutually_exclusive_group(required=True)
    rate_help = "requests/s to offer (open loop): 1.7 times the capacity shows most"
    loads.add_argument("--rate", type=rates, default=[], metavar="A,B,…", help=rate_help)
    loads.add_argument("--users", type=users, default=[], metavar="A,B,…", help="who ask at once (closed loop)")
    add("--only", default="", metavar="NAME,…", help=f"of {', '.join(STRATEGIES)}")
    add("--scenario", choices=(*SCENARIOS, "mixed"), default="bimodal")
    add("--seconds", type=float, default=30.0, help="how long for each (default: 30)")
    add("--rounds", type=int, default=1, help="how often each is measured (default: 1; 3 show the spread)")
    add("--slo", default="", metavar="ttft=1s,itl=60ms", help="what counts as good")
    add("--scale", type=float, default=None, help="times all lengths (default: so that they fit the model)")
    add("--seed", type=int, default=1)
    add("--any-event", action="store_true", help="events without text count as pieces: for random weights")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="a key of the profile, for all of them")
    add(
        "--out",
        type=Path,
        default=Path("strategies.html"),
        help="the report; figures go beside it as .json (default: strategies.html)",
    )
    chosen = parser.parse_args(argv)
    chosen.argv, chosen.mode = list(argv), ""
    chosen.loads = [Load(one, True) for one in chosen.rate] or [Load(one, False) for one in chosen.users]
    try:
        chosen.names = named(chosen.only, chosen.scenario)
        limits_of(chosen.slo)
        if chosen.rate:
            check_open_loop(chosen.scenario)
        make_room_for_report(chosen.out)
    except ValueError as error:
        parser.error(str(error))
    if chosen.rounds < 1 or not 0 < chosen.seconds < math.inf:
        parser.error("--rounds and --seconds must be more than 0")
    return chosen


def rates(text: str) -> list[float]:
    return ascending(text, "must be numbers of more than 0, such as 1,2,4", is_whole=False)


def users(text: str) -> list[float]:
    return ascending(text, "must be whole numbers of 1 or more, such as 50,100,200", is_whole=True)


def ascending(text: str, rule: str, is_whole: bool) -> list[float]:
    """The loads, the lightest first."""
    try:
        found = sorted(float(part) for part in text.split(","))
    except ValueError:
        found = []
    if not found or not all(0 < one < math.inf and (not is_whole or one.is_integer()) for one in found):
        raise argparse.ArgumentTypeError(f"{text!r}: {rule}")
    if len({f"{one:g}" for one in found}) < len(found):  # as they are named
        raise argparse.ArgumentTypeError(f"{text!r}: names a load twice; --rounds measures each more often")
    return found


def main(argv: Sequence[str]) -> int:
    """0: done. 1: a sentence says why not. 130: it was interrupted, and what was measured is kept."""
    chosen = options(argv)
    try:
        load_profile(Path(chosen.target))
    except LauncherError as error:
        sys.stderr.write(f"error: {error.message}\n→ {error.hint}\n")
        return 1
    found: Found = {name: {str(load): [] for load in chosen.loads} for name in chosen.names}
    progress = Progress()
    starts = sharing(chosen.names)
    ended = 0
    with progress.shown():
        progress.begin(chosen.rounds * len(chosen.names) * len(chosen.loads))
        try:
            if len(starts) == 1:  # nothing to take turns with
                Start(chosen, starts[0], range(chosen.rounds), progress, found).run()
            else:
                for number in range(chosen.rounds):
                    for names in starts if number % 2 == 0 else reversed(starts):
                        Start(chosen, names, [number], progress, found).run()
        except KeyboardInterrupt:
            if not any(any(loads.values()) for loads in found.values()):
                raise
            ended = INTERRUPTED
            progress.say("It was interrupted: what follows is what was measured until then.")
    sys.stdout.write(table(found, {name: STRATEGIES[name].what for name in found}) + "\n")
    sys.stderr.write(f"report: {chosen.out}, figures: {chosen.out.with_suffix('.json')}\n")
    return ended
