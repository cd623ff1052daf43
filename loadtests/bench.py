"""`launcher bench`: drives an endpoint at several rates, watches it meanwhile, and writes a report.

    launcher bench http://127.0.0.1:8000 --rates 1,2,4
    launcher bench profiles/cpu-smollm2.yaml --slo ttft=2 --seconds 30
    launcher bench --compare before.json after.json
    launcher bench cross-check http://127.0.0.1:8000
    launcher bench strategies profiles/cpu-smollm2.yaml --rate 2
    launcher bench sweep profiles/cpu-smollm2.yaml --vary engine.max_num_seqs=1,4,8
    launcher bench tune profiles/cpu-smollm2.yaml --slo ttft=4s --percentile 90

A profile is started and stopped; without --rates its capacity is measured first (closed loop) and multiples of that are offered.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from loadtests import crosscheck, strategies, sweep, tune
from loadtests.deployment import Deployment, make_room_for_report, stoppable
from loadtests.driver import INTERRUPTED, Driver, Failed, Late, check_open_loop, machine
from loadtests.figures import limits_of
from loadtests.progress import Progress
from loadtests.report import LEAST_ROUNDS, compared, html, text_table
from loadtests.scenarios import SCENARIOS
from loadtests.watch import Watch

FACTORS = (0.5, 0.8, 1.0, 1.3, 1.7)
WARM_UP_S, CAPACITY_S = 5.0, 20.0
OTHERS = {"strategies": strategies.main, "sweep": sweep.main, "tune": tune.main, "cross-check": crosscheck.main}


class Bench(Driver):
    """One run: its options, and the endpoint that it drives."""

    def __init__(self, chosen: argparse.Namespace, url: str, engine: str, key: str) -> None:
        super().__init__(chosen, url, key)
        self.engine = engine
        self.notes: list[str] = []
        self.ended: Failed | KeyboardInterrupt | None = None  # what ended it early, after something was measured

    def capacity(self) -> float:
        """Answers a second, closed loop."""
        self.closed_loop(self.chosen.users, WARM_UP_S)
        found = self.closed_loop(self.chosen.users, CAPACITY_S)["scenarios"]["all"]
        if not found["served"]:
            raise Failed(f"no answer came within {CAPACITY_S:g} s: {found['not_served'] or 'the endpoint is too slow'}")
        return float(found["served_per_s"])

    def run(self, progress: Progress) -> dict[str, Any]:
        chosen = self.chosen
        rates = chosen.rates
        if not rates:
            progress.say(f"measuring capacity with {chosen.users} users")
            capacity = self.capacity()
            rates = [round(factor * capacity, 3) for factor in FACTORS]
            progress.say(f"capacity {capacity:.3g} requests/s: offering {', '.join(f'{rate:g}' for rate in rates)}")
        else:
            with suppress(Late):
                self.open_loop(rates[0], WARM_UP_S, 0)
        found: list[dict[str, Any]] = [{"rate": rate, "rounds": []} for rate in rates]
        progress.begin(len(rates) * chosen.rounds)
        with Watch(self.url, self.engine, self.key) as watch:
            try:
                self._rounds(found, progress)
            except (Failed, KeyboardInterrupt) as error:
                self.ended = error
                self.notes.append(f"It ended before its last round: {str(error) or 'it was interrupted'}")
        measured = [one for one in found if one["rounds"]]
        if not measured:
            raise self.ended or Failed(f"no round counts, so there is nothing to report. {self.notes[-1]}")
        return {
            "version": 1, "when": time.strftime("%Y-%m-%d %H:%M"), "machine": machine(), "target": chosen.target,
            "model": measured[0]["rounds"][0]["model"], "scenario": chosen.scenario, "slo": limits_of(chosen.slo),
            "seconds": chosen.seconds, "rounds": chosen.rounds, "scale": chosen.scale, "seed": chosen.seed, "mode": chosen.mode,
            "any_event": chosen.any_event, "command": shlex.join(["launcher", "bench", *without_key(chosen.argv)]),
            "notes": self.notes, "rates": measured, "timeline": watch.samples,
        }  # fmt: skip

    def _rounds(self, found: list[dict[str, Any]], progress: Progress) -> None:
        """Puts each round where it belongs. Raises Failed."""
        chosen = self.chosen
        for number in range(chosen.rounds):
            for one in found if number % 2 == 0 else reversed(found):  # so that no rate always comes first
                name = f"{one['rate']:g}/s, round {number + 1}"
                progress.at(name)
                try:
                    one["rounds"].append(self.open_loop(one["rate"], chosen.seconds, chosen.seed + number))
                except Late as error:
                    self.notes.append(f"{name} is left out. {error}")
                    progress.say(self.notes[-1])
                progress.step()


def without_key(argv: Sequence[str]) -> list[str]:
    """The command without the API key's value: ``--key KEY``, ``--key=KEY``, and shorter, as argparse takes it."""
    told, is_next = [], False
    for part in argv:
        name, is_there, _ = part.partition("=")
        is_key = len(name) > 2 and "--key".startswith(name)
        if is_next:
            told.append("…")
            is_next = False
        else:
            told.append(f"{name}=…" if is_key and is_there else part)
            is_next = is_key and not is_there
    return told


@contextmanager
def endpoint(chosen: argparse.Namespace, progress: Progress) -> Iterator[tuple[str, str, str]]:
    """The gateway's URL, its engine's, and the key: of a server that runs, or of a profile that is started for this."""
    if chosen.target.startswith(("http://", "https://")):
        yield chosen.target.rstrip("/"), chosen.engine.rstrip("/"), chosen.key
        return
    progress.say(f"starting {chosen.target}")
    with Deployment(str(Path(chosen.target).resolve()), chosen.set) as deployment:
        yield deployment.gateway, deployment.engine, ""


def options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="launcher bench",
        description="Load-test an endpoint and write a report.",
        epilog=f"Also: launcher bench {' | '.join(OTHERS)}, each with --help.",
    )
    add = parser.add_argument
    add("target", nargs="?", help="a URL such as http://127.0.0.1:8000, or a profile, which is started and stopped")
    add("--compare", nargs=2, metavar=("BEFORE.json", "AFTER.json"), help="say what moved between two runs")
    add("--scenario", choices=(*SCENARIOS, "mixed"), default="chat")
    add(
        "--rates",
        type=rates_of,
        default=[],
        metavar="1,2,4",
        help="requests/s to offer (default: multiples of the capacity)",
    )
    add("--seconds", type=float, default=30.0, help="how long at each rate (default: 30)")
    add(
        "--rounds",
        type=int,
        default=1,
        help=f"how often each rate is measured (default: 1; 3 show the spread, {LEAST_ROUNDS} let --compare tell)",
    )
    add("--users", type=int, default=16, help="for measuring the capacity (default: 16)")
    add("--slo", default="", metavar="ttft=1s,itl=60ms", help="what counts as good")
    add("--mode", default="", help="X-Mode of every request")
    add("--scale", type=float, default=None, help="times all lengths (default: so that they fit the model)")
    add("--seed", type=int, default=1)
    add("--key", default=os.environ.get("OPENAI_API_KEY", ""), help="API key of the endpoint (default: OPENAI_API_KEY)")
    add("--engine", default="", metavar="URL", help="vLLM behind the endpoint, for its own figures")
    add("--any-event", action="store_true", help="events without text count as pieces: for random weights")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="a key of the profile; may be repeated")
    add(
        "--out",
        type=Path,
        default=Path("bench.html"),
        help="the report; figures go beside it as .json (default: bench.html)",
    )
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


def rates_of(text: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of rates such as 1,2,4") from None
    if not all(0 < rate < math.inf for rate in found):
        raise argparse.ArgumentTypeError(f"{text!r}: rates are more than 0")
    return found


def read_run(path: str) -> dict[str, Any]:
    try:
        found = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise Failed(f"{path} is no figures of `launcher bench`: {error}") from None
    if isinstance(found, dict) and "measurement" in found:
        other = f"launcher bench {found['measurement']}"
        raise Failed(f"{path} has figures of `{other}`: --compare takes two of `launcher bench` itself")
    if (
        not isinstance(found, dict)
        or found.get("version") != 1
        or not {"rates", "scenario", "slo", "seconds"} <= set(found)
    ):
        raise Failed(f"{path} is no figures of `launcher bench`: --compare takes the .json beside its report")
    return found


def keep(run: dict[str, Any], out: Path) -> None:
    """The figures and the report."""
    out.with_suffix(".json").write_text(json.dumps(run) + "\n")
    out.write_text(html(run), encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """0: done. 1: a sentence says why not. 130: it was interrupted."""
    with stoppable():
        try:
            return chosen_command(argv)
        except KeyboardInterrupt:
            sys.stderr.write("error: it was interrupted before anything was measured\n")
            return INTERRUPTED


def chosen_command(argv: Sequence[str] | None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv and argv[0] in OTHERS:
        return OTHERS[argv[0]](argv[1:])
    chosen = options(argv)
    try:
        if chosen.compare:
            sys.stdout.write(compared(*map(read_run, chosen.compare)) + "\n")
            return 0
        progress = Progress()
        with progress.shown(), endpoint(chosen, progress) as (url, engine, key):
            bench = Bench(chosen, url, engine, key)
            run = bench.run(progress)
            keep(run, chosen.out)  # before a stop that may take long, or fail
    except (Failed, ValueError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write("\n".join([text_table(run), *run["notes"]]) + "\n")
    sys.stderr.write(f"report: {chosen.out}, figures: {chosen.out.with_suffix('.json')}\n")
    if bench.ended is not None:
        sys.stderr.write(f"error: {bench.notes[-1]}\n")
    return {type(None): 0, KeyboardInterrupt: INTERRUPTED}.get(type(bench.ended), 1)


if __name__ == "__main__":
    sys.exit(main())
