"""`launcher bench strategies PROFILE`: what each part brings, by leaving it out; the same load for each.

    launcher bench strategies profiles/cpu-smollm2.yaml --rate 2 --slo ttft=4 --rounds 2

Each strategy is the profile with a few keys changed. They take turns, in the next round in the reverse order; what did not help
is in the table too. A start that fails is a row that says why.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from launcher.errors import LauncherError
from launcher.profile.load import load_profile
from loadtests.bench import INTERRUPTED, Bench, Failed, Progress, check_open_loop, machine
from loadtests.deployment import Deployment, make_room
from loadtests.figures import limits_of
from loadtests.report import COLUMNS, value_of
from loadtests.scenarios import SCENARIOS

NEVER = "24h"


@dataclass(frozen=True)
class Strategy:
    """What is changed in the profile, and what that stands for."""

    name: str
    what: str
    sets: tuple[str, ...]


ALL = Strategy("all", "the profile as it is", ())
STRATEGIES: dict[str, Strategy] = {
    one.name: one
    for one in (
        ALL,
        # How requests were batched before continuous batching, and what they reserved before paged attention.
        Strategy("no-batching", "one sequence at a time", ("engine.max_num_seqs=1", "admission.max_in_flight=1")),
        Strategy("static-8", "eight sequences at most", ("engine.max_num_seqs=8", "admission.max_in_flight=8")),
        Strategy("contiguous", "as many sequences as reserve model.max_len each in the KV cache", ("admission.max_in_flight={contiguous}",)),
        # The gateway's parts, left out one by one.
        Strategy("no-admission", "no cap, no order, no deadline: straight through", (
            "admission.max_prefill=1000000000", "admission.max_in_flight=100000", f"admission.deadline={NEVER}",
        )),
        Strategy("no-cap", "as much prompt work at the engine as comes", ("admission.max_prefill=1000000000",)),
        Strategy("no-order", "first come, first served", ("admission.ageing=1ms",)),
        Strategy("no-deadline", "nobody is refused for having waited", (f"admission.deadline={NEVER}",)),
        Strategy("window-always", "groups are always collected for 50 ms", ("admission.window=50ms", "admission.window_when=always")),
        Strategy("window-never", "groups are never collected", ("admission.window_when=never",)),
        Strategy("adaptive", "caps that move by what TTFT and ITL show", ("admission.adaptive=true",)),
        # The engine's.
        Strategy("no-prefix-cache", "equal beginnings are computed again", ("engine.prefix_caching=false",)),
        Strategy("no-chunked-prefill", "a prompt in one step", (
            "engine.chunked_prefill=false", "engine.max_num_batched_tokens={max_len}",
        )),
        Strategy("eager", "no compilation", ("engine.compile=eager",)),
    )
}  # fmt: skip


def options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="launcher bench strategies", description="What each part brings, by leaving it out."
    )
    add = parser.add_argument
    add("target", metavar="profile")
    add("--rate", type=float, required=True, help="requests/s to offer: 1.7 times the capacity shows most")
    add("--only", default="", metavar="NAME,…", help=f"of {', '.join(STRATEGIES)}")
    add("--scenario", choices=(*SCENARIOS, "mixed"), default="bimodal")
    add("--seconds", type=float, default=30.0, help="how long for each (default: 30)")
    add("--rounds", type=int, default=1, help="how often each is measured (default: 1; 3 show the spread)")
    add("--slo", default="", metavar="ttft=1,itl=0.06", help="what counts as good, in seconds")
    add("--scale", type=float, default=None, help="times all lengths (default: so that they fit the model)")
    add("--seed", type=int, default=1)
    add("--any-event", action="store_true", help="events without text count as pieces: for random weights")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="a key of the profile, for all of them")
    add("--out", type=Path, default=Path("strategies.json"), help="all figures (default: strategies.json)")
    chosen = parser.parse_args(argv)
    chosen.mode, chosen.names = "", [name for name in chosen.only.split(",") if name] or list(STRATEGIES)
    if unknown := [name for name in chosen.names if name not in STRATEGIES]:
        parser.error(f"--only: {unknown[0]!r} is none of {', '.join(STRATEGIES)}")
    if ALL.name not in chosen.names:
        chosen.names.insert(0, ALL.name)  # what the others are compared with
    try:
        limits_of(chosen.slo)
        check_open_loop(chosen.scenario)
        make_room(chosen.out)
    except ValueError as error:
        parser.error(str(error))
    if chosen.rounds < 1 or not (0 < chosen.rate < math.inf and 0 < chosen.seconds < math.inf):
        parser.error("--rate, --rounds and --seconds must be more than 0")
    return chosen


def main(argv: Sequence[str]) -> int:
    """0: done. 1: a sentence says why not. 130: it was interrupted, and what was measured is kept."""
    chosen = options(argv)
    try:
        load_profile(Path(chosen.target))
    except LauncherError as error:
        sys.stderr.write(f"error: {error.message}\n→ {error.hint}\n")
        return 1
    found: dict[str, list[dict[str, Any] | str]] = {name: [] for name in chosen.names}
    progress = Progress()
    ended = 0
    with progress.shown():
        progress.begin(chosen.rounds * len(chosen.names))
        try:
            for number in range(chosen.rounds):
                for name in chosen.names if number % 2 == 0 else reversed(chosen.names):
                    progress.at(f"{name}, round {number + 1}")
                    found[name].append(measured(chosen, STRATEGIES[name], number, progress))
                    save(chosen, found)
                    progress.step()
        except KeyboardInterrupt:
            if not any(found.values()):
                raise
            ended = INTERRUPTED
            progress.say("It was interrupted: what follows is what was measured until then.")
    sys.stdout.write(table(found) + "\n")
    sys.stderr.write(f"figures: {chosen.out}\n")
    return ended


def save(chosen: argparse.Namespace, found: dict[str, list[dict[str, Any] | str]]) -> None:
    run = {
        "version": 1, "when": time.strftime("%Y-%m-%d %H:%M"), "machine": machine(), "profile": chosen.target, "rate": chosen.rate,
        "scenario": chosen.scenario, "slo": limits_of(chosen.slo), "seconds": chosen.seconds, "rounds": chosen.rounds, "strategies": found,
    }  # fmt: skip
    chosen.out.write_text(json.dumps(run) + "\n")


def measured(chosen: argparse.Namespace, strategy: Strategy, number: int, progress: Progress) -> dict[str, Any] | str:
    """One round of one strategy; a sentence where it did not start or run."""
    sets = [*chosen.set, *strategy.sets]
    try:
        if any("{" in one for one in strategy.sets):
            sets = [*chosen.set, *filled(strategy.sets, planned(chosen))]
        with Deployment(str(Path(chosen.target).resolve()), sets) as deployment:
            bench = Bench(chosen, deployment.gateway, deployment.engine, "")
            bench.load("-u", "2", "-r", "2", "-t", "5s")  # warm: the first requests of an engine are slow
            seed = str(chosen.seed + number)
            return bench.load("--open-loop", f"{chosen.rate:g}", "--seconds", f"{chosen.seconds:g}", "--seed", seed)
    except (SystemExit, Failed) as error:
        why = str(error).strip().splitlines()
        reason = next((line for line in why if line.startswith("error: ")), why[-1] if why else "it said nothing")
        progress.say(f"{strategy.name}: {reason}")
        return reason


def planned(chosen: argparse.Namespace) -> dict[str, int]:
    """What the plan says that a strategy depends on. Raises Failed."""
    told = [part for one in chosen.set for part in ("--set", one)]
    plan = subprocess.run(
        [sys.executable, "-m", "launcher", "plan", chosen.target, "-o", "json", *told],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        kv = json.loads(plan.stdout)["kv"]
        # How many sequences of full length the KV cache holds: what was possible before its memory was paged.
        return {"contiguous": max(1, int(kv["requests_at_full_length"])), "max_len": int(kv["max_len"])}
    except (ValueError, KeyError, TypeError):
        raise Failed("the plan does not say how many requests of full length fit") from None


def filled(sets: Sequence[str], known: dict[str, int]) -> list[str]:
    """The settings with the plan's figures in the places of their names."""
    for name, value in known.items():
        sets = [one.replace("{" + name + "}", str(value)) for one in sets]
    return list(sets)


def table(found: dict[str, list[dict[str, Any] | str]]) -> str:
    """A row for each, as Markdown: medians of the rounds (lowest to highest), and goodput against all parts together."""
    base = figure(found[ALL.name], "goodput_per_s")
    head = ["strategy", "what it is", "served", *(name for _, name, _ in COLUMNS), "goodput, × all"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, rounds in found.items():
        whole = [one for one in rounds if not isinstance(one, str)]
        if not rounds:
            continue
        if not whole:
            lines.append(
                f"| {name} | {STRATEGIES[name].what} | {re.sub(r'[|]', '/', str(rounds[0]))} |" + " |" * (len(head) - 3)
            )
            continue
        cells = [_cell(figure(rounds, key), times) for key, _, times in COLUMNS]
        mine = figure(rounds, "goodput_per_s")
        ratio = f"{mine[0] / base[0]:.2f}" if mine and base and base[0] else ""
        groups = [one["scenarios"]["all"] for one in whole]
        share = f"{sum(group['served'] for group in groups)}/{sum(group['sent'] for group in groups)}"
        lines.append("| " + " | ".join((name, STRATEGIES[name].what, share, *cells, ratio)) + " |")
    return "\n".join(lines)


def figure(rounds: Sequence[dict[str, Any] | str], name: str) -> tuple[float, float, float] | None:
    values = [
        value
        for one in rounds
        if not isinstance(one, str) and (value := value_of(one["scenarios"]["all"], name)) is not None
    ]
    return (median(values), min(values), max(values)) if values else None


def _cell(found: tuple[float, float, float] | None, times: float) -> str:
    if found is None:
        return "–"
    mid, low, high = (f"{value * times:.0f}" if value * times >= 100 else f"{value * times:.3g}" for value in found)
    return mid if low == high else f"{mid} ({low}–{high})"
