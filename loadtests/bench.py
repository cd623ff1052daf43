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
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from loadtests import crosscheck, driver, strategies, sweep, tune
from loadtests.bench_options import options
from loadtests.compared import compared
from loadtests.deployment import Deployment, stoppable
from loadtests.driver import INTERRUPTED, Driver, machine
from loadtests.failures import Failed, Late
from loadtests.figures import limits_of
from loadtests.files import write_report
from loadtests.masked import masked
from loadtests.progress import Progress
from loadtests.report import html, text_table
from loadtests.watch import Watch

FACTORS = (0.5, 0.8, 1.0, 1.3, 1.7)
OTHERS = {"strategies": strategies.main, "sweep": sweep.main, "tune": tune.main, "cross-check": crosscheck.main}


class Bench(Driver):
    """One run: its options, and the endpoint that it drives."""

    def __init__(self, chosen: argparse.Namespace, url: str, engines: Sequence[str], key: str) -> None:
        super().__init__(chosen, url, key)
        self.engines = engines
        self.notes: list[str] = []
        self.ended: Failed | KeyboardInterrupt | None = None  # what ended it early, after something was measured

    def served_per_s(self) -> float:
        """As much as is answered. Raises Failed where nothing is."""
        users, seed = self.chosen.users, self.chosen.seed
        self.warm_up(users, seed)
        found = self.capacity(users, seed)["scenarios"]["all"]
        if not found["served"]:
            raise Failed(
                f"no answer came within {driver.CAPACITY_S:g} s: {found['not_served'] or 'the endpoint is too slow'}"
            )
        return float(found["served_per_s"])

    def run(self, progress: Progress) -> dict[str, Any]:
        chosen = self.chosen
        rates = chosen.rates
        if not rates:
            progress.say(f"measuring capacity with {chosen.users} users")
            capacity = self.served_per_s()
            rates = [round(factor * capacity, 3) for factor in FACTORS]
            progress.say(f"capacity {capacity:.3g} requests/s: offering {', '.join(f'{rate:g}' for rate in rates)}")
        else:
            with suppress(Late):
                self.open_loop(rates[0], driver.WARM_UP_S, 0)
        found: list[dict[str, Any]] = [{"rate": rate, "rounds": []} for rate in rates]
        progress.begin(len(rates) * chosen.rounds)
        with Watch(self.url, self.engines, self.key) as watch:
            try:
                self._rounds(found, progress)
            except (Failed, KeyboardInterrupt) as error:
                self.ended = error
                self.notes.append(f"It ended before its last round: {str(error) or 'it was interrupted'}")
        measured = [one for one in found if one["rounds"]]
        if not measured:
            raise self.ended or Failed(f"no round counts, so there is nothing to report. {self.notes[-1]}")
        return {
            "version": 1, "when": time.strftime("%Y-%m-%d %H:%M"), "machine": machine(), "target": masked([chosen.target])[0],
            "model": measured[0]["rounds"][0]["model"], "scenario": chosen.scenario, "slo": limits_of(chosen.slo),
            "seconds": chosen.seconds, "rounds": chosen.rounds, "scale": chosen.scale, "seed": chosen.seed, "mode": chosen.mode,
            "any_event": chosen.any_event, "command": shlex.join(["launcher", "bench", *masked(chosen.argv)]),
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


@contextmanager
def endpoint(chosen: argparse.Namespace, progress: Progress) -> Iterator[tuple[str, list[str], str]]:
    """The gateway's URL, its engines', and the key: of a server that runs, or of a profile that is started for this."""
    if chosen.target.startswith(("http://", "https://")):
        yield chosen.target.rstrip("/"), [one.rstrip("/") for one in chosen.engine], chosen.key
        return
    progress.say(f"starting {chosen.target}")
    with Deployment(str(Path(chosen.target).resolve()), chosen.set) as deployment:
        yield deployment.gateway, deployment.engines, ""


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
    write_report(out, run, html(run))


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
    chosen = options(argv, OTHERS)
    try:
        if chosen.compare:
            sys.stdout.write(compared(*map(read_run, chosen.compare)) + "\n")
            return 0
        progress = Progress()
        with progress.shown(), endpoint(chosen, progress) as (url, engines, key):
            bench = Bench(chosen, url, engines, key)
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
