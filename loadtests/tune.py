"""`launcher bench tune PROFILE --slo ttft=1s,itl=60ms`: the setting that serves most within the limits, and the rate that it holds.

    launcher bench tune profiles/1x4090.yaml --slo ttft=1s,itl=60ms --percentile 99
    launcher bench tune profiles/cpu-smollm2.yaml --slo ttft=4s --percentile 90 --vary engine.max_num_seqs=4,8,16

A rate holds when so many of a hundred requests are answered within the limits; a refused one is not. The profile's own values
come first; then one key after the other is moved, and a setting that does not hold more than the best one so far is given up
after one trial. What the plan says cannot fit is not started; a start that fails is a row that says why. At the end the best
setting and the profile's own are measured again, alternating: where fewer than half of those rounds hold, nothing is printed to
paste. Run again with the same --out, it goes on where it was.

How far to believe it: a trial is as long as --seconds, or as 3 requests in the mean are allowed to miss (300 requests at 99 %).
One whose true share of misses is 2 % in place of 1 % still passes once in ten trials, one of 0.5 % fails once in eight; what held in
one of two more rounds, too, is wrong by so much about once in fifty. More --seconds tell more. Where the load generator itself cannot
keep up, the search ends there, and what it prints is a lower bound.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from launcher.errors import LauncherError
from loadtests.driver import INTERRUPTED, check_open_loop
from loadtests.failures import Failed
from loadtests.figures import limits_of
from loadtests.files import make_room_for_report
from loadtests.planned import in_full, plan_of
from loadtests.progress import Progress
from loadtests.resumed import earlier
from loadtests.scenarios import SCENARIOS
from loadtests.sweep import varied
from loadtests.trials import NotStarted, Trials, shown
from loadtests.tune_report import held_again, paste, table
from loadtests.tune_search import Settings, best_setting

DEFAULTS = {
    # where the profile leaves it to vLLM: which values to try
    "engine.max_num_seqs": ("32", "128"),
    "engine.max_num_batched_tokens": ("2048", "8192"),
}
TIMES = (0.5, 2.0, 4.0)  # the profile's own value


def options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="launcher bench tune", description="The setting that serves most within the limits."
    )
    add = parser.add_argument
    add("target", metavar="profile")
    add("--slo", required=True, metavar="ttft=1s,itl=60ms", help="what counts as good")
    add("--percentile", type=float, default=99.0, help="so many of a hundred requests must be good (default: 99)")
    vary_help = f"what to move; may be repeated (default: {' and '.join(DEFAULTS)})"
    add("--vary", action="append", default=[], type=varied, metavar="KEY=A,B,…", help=vary_help)
    add("--scenario", choices=(*SCENARIOS, "mixed"), default="chat")
    add("--rate", type=float, default=0.0, help="the first to try (default: from the capacity, closed loop)")
    add("--users", type=int, default=16, help="for measuring the capacity (default: 16)")
    add(
        "--seconds",
        type=float,
        default=30.0,
        help="least length of a trial (default: 30); 3 requests must be allowed to miss",
    )
    add("--precision", type=float, default=0.1, help="of the rate, as a share (default: 0.1)")
    add("--rounds", type=int, default=2, help="how often the best is measured again (default: 2)")
    add("--scale", type=float, default=None, help="times all lengths (default: so that they fit the model)")
    add("--seed", type=int, default=1)
    add("--any-event", action="store_true", help="events without text count as pieces: for random weights")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="a key of the profile, for all trials")
    add("--out", type=Path, default=Path("tune.html"), help="the report; figures go beside it as .json (default: tune.html)")  # fmt: skip
    chosen = parser.parse_args(argv)
    chosen.mode = ""
    try:
        if not limits_of(chosen.slo):
            raise ValueError("--slo: name a limit, such as ttft=1s,itl=60ms")
        check_open_loop(chosen.scenario)
        make_room_for_report(chosen.out)
    except ValueError as error:
        parser.error(str(error))
    if not 0 < chosen.percentile < 100:
        parser.error(f"--percentile {chosen.percentile:g}: must be between 0 and 100, such as 99")
    if not 0.01 <= chosen.precision <= 1 or not 0 <= chosen.rate < math.inf:
        parser.error("--precision must be between 0.01 and 1, and --rate a number of 0 or more")
    if chosen.users < 1 or chosen.rounds < 0 or not 0 < chosen.seconds < math.inf:
        parser.error("--users and --seconds must be more than 0, --rounds 0 or more")
    return chosen


def candidates(chosen: argparse.Namespace) -> dict[str, tuple[str, ...]]:
    """Key → the values to try beside the profile's own. Raises Failed where the profile cannot be planned."""
    if chosen.vary:
        return {key: tuple(values) for key, values in chosen.vary}
    settings = plan_of(chosen.target, chosen.set)["settings"]
    own = {key: settings[key]["value"] for key in DEFAULTS}
    return {
        key: DEFAULTS[key] if value is None else tuple(str(max(1, round(value * times))) for times in TIMES)
        for key, value in own.items()
    }


def main(argv: Sequence[str]) -> int:
    """0: a setting was found, and held again. 1: it did not, or a sentence says why not. 130: it was interrupted, and what was measured is kept."""
    chosen = options(argv)
    figures = chosen.out.with_suffix(".json")
    try:
        trials = Trials(chosen, progress := Progress())
        trials.rows += earlier(figures, trials.load, trials.about, "tune")
        with progress.shown():
            progress.begin(None)
            return searched(chosen, trials, progress)
    except LauncherError as error:
        sys.stderr.write(f"error: {error.message}\n→ {error.hint}\n")
    except Failed as error:
        sys.stderr.write(f"error: {in_full(error).removeprefix('error: ')}\n")
    return 1


def searched(chosen: argparse.Namespace, trials: Trials, progress: Progress) -> int:
    """Searches, measures the best again, and says what was found; the exit status. Raises Failed."""
    figures = chosen.out.with_suffix(".json")
    try:
        keys = candidates(chosen)
        best, rate = best_setting(keys, trials.rate_of)
        own = trials.own_rate
        if rate is not None:
            measure_again(trials, [(best, rate), *([({}, own)] if best and own is not None else [])], chosen, progress)
    except KeyboardInterrupt:
        if not trials.rows:
            raise
        progress.say("It was interrupted: run it again with the same --out, and it goes on from there.")
        return INTERRUPTED
    finally:
        trials.close()
    sys.stdout.write(table([*trials.rows, *trials.failed], list(keys), chosen.seed) + "\n")
    sys.stderr.write(f"report: {chosen.out}, figures: {figures}\n")
    if rate is None:
        if trials.ceiling is not None and not any(row["rate"] for row in trials.rows):
            raise Failed(trials.limit_told())
        raise Failed("no setting holds any rate within the limits: allow more with --slo, or fewer with --percentile")
    bound = trials.limit_told() if trials.is_beyond(rate) else ""
    sys.stdout.write("\n" + paste(best, rate, own, trials.rows, trials.load, bound) + "\n")
    return 0 if held_again(best, rate, trials.rows, trials.load) else 1


def measure_again(
    trials: Trials, again: Sequence[tuple[Settings, float]], chosen: argparse.Namespace, progress: Progress
) -> None:
    """Rounds with arrivals of their own, in an order that alternates. A start that fails now costs its round alone."""
    for number in range(1, chosen.rounds + 1):
        for settings, held in again if number % 2 else reversed(again):
            try:
                trials.holds(settings, held, chosen.seed + number)
            except NotStarted as error:
                progress.say(f"{shown(settings)}, measured again: {error}")
