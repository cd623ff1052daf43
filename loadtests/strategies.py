"""`launcher bench strategies PROFILE`: what each part brings, by leaving it out; the same load for each.

    launcher bench strategies profiles/cpu-smollm2.yaml --rate 2 --slo ttft=4 --rounds 2
    launcher bench strategies profiles/1x4090.yaml --users 50,100,200 --only bare,no-batching,static-8

Each strategy is the profile with a few keys changed. They take turns, in the next round in the reverse order; what did not help
is in the table too. A start that fails is a row that says why. Those that change nothing in the profile share a start.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.errors import LauncherError
from launcher.profile.load import load_profile
from loadtests.deployment import ENGINE_KEY, Deployment, make_room_for_report
from loadtests.driver import INTERRUPTED, Driver, Failed, Late, check_open_loop, machine, reason
from loadtests.figures import limits_of
from loadtests.planned import plan_of
from loadtests.progress import Progress
from loadtests.scenarios import MIXED, SCENARIOS
from loadtests.strategies_report import Found, Round, html, table
from loadtests.watch import Watch

NEVER = "24h"
WARM_UP_USERS, WARM_UP_S = 2, 5.0


@dataclass(frozen=True)
class Strategy:
    """What is changed in the profile, and what that stands for. ``is_bare``: the engine is asked, past the gateway."""

    name: str
    what: str
    sets: tuple[str, ...] = ()
    is_bare: bool = False
    needs_pictures: bool = False


ALL = Strategy("all", "the profile as it is")
STRATEGIES: dict[str, Strategy] = {
    one.name: one
    for one in (
        ALL,
        Strategy("bare", "the same engine, asked past the gateway", is_bare=True),
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
        Strategy("no-image-budget", "pictures as they come", ("gateway.images.budget=original",), needs_pictures=True),
        Strategy("image-budget-324", "pictures of at most 324 tokens", ("gateway.images.budget={max_tokens: 324}",), needs_pictures=True),
        # The engine's.
        Strategy("no-prefix-cache", "equal beginnings are computed again", ("engine.prefix_caching=false",)),
        Strategy("no-chunked-prefill", "a prompt in one step", (
            "engine.chunked_prefill=false", "engine.max_num_batched_tokens={max_len}",
        )),
        Strategy("eager", "no compilation", ("engine.compile=eager",)),
    )
}  # fmt: skip
PLANNED = ("contiguous", "max_len")  # names in braces, for which the plan has the value


@dataclass(frozen=True)
class Load:
    """So many requests a second (open loop), or so many users who wait for their answers (closed loop)."""

    amount: float
    is_open: bool

    def __str__(self) -> str:
        return f"{self.amount:g}/s" if self.is_open else f"{self.amount:g} users"


def options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="launcher bench strategies", description="What each part brings, by leaving it out."
    )
    add = parser.add_argument
    add("target", metavar="profile")
    loads = parser.add_mutually_exclusive_group(required=True)
    rate_help = "requests/s to offer (open loop): 1.7 times the capacity shows most"
    loads.add_argument("--rate", type=amounts, default=[], metavar="A,B,…", help=rate_help)
    loads.add_argument("--users", type=amounts, default=[], metavar="A,B,…", help="who ask at once (closed loop)")
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
    chosen.mode = ""
    chosen.loads = [Load(one, True) for one in chosen.rate] or [Load(round(one), False) for one in chosen.users]
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


def amounts(text: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(0 < one < math.inf for one in found):
        raise argparse.ArgumentTypeError(f"{text!r}: must be numbers of more than 0, such as 1,2,4")
    return found


def named(only: str, scenario: str) -> list[str]:
    """The strategies to measure; the whole profile is always among them. Raises ValueError with a sentence."""
    has_pictures = any(SCENARIOS[name].pictures for name in dict(MIXED if scenario == "mixed" else [(scenario, 1)]))
    names = [name for name in only.split(",") if name]
    for name in names:
        if name not in STRATEGIES:
            raise ValueError(f"--only: {name!r} is none of {', '.join(STRATEGIES)}")
        if STRATEGIES[name].needs_pictures and not has_pictures:
            raise ValueError(f"--only: {name} changes nothing without pictures; take --scenario pictures or mixed")
    names = names or [name for name, one in STRATEGIES.items() if has_pictures or not one.needs_pictures]
    return list(dict.fromkeys([ALL.name, *names]))


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


def sharing(names: Sequence[str]) -> list[list[str]]:
    """The names, those together that need the same start."""
    starts: dict[tuple[str, ...], list[str]] = {}
    for name in names:
        starts.setdefault(STRATEGIES[name].sets, []).append(name)
    return list(starts.values())


class Start:
    """A start of the profile, and all that is measured on it."""

    def __init__(
        self, chosen: argparse.Namespace, names: Sequence[str], numbers: Sequence[int], progress: Progress, found: Found
    ) -> None:
        self._chosen, self._names, self._numbers = chosen, list(names), numbers
        self._progress, self._found = progress, found

    def run(self) -> None:
        """Puts a round of each number, or a sentence where there is none, to each name and load."""
        (sets,) = {STRATEGIES[name].sets for name in self._names}
        self._progress.at(f"{', '.join(self._names)}: starting")
        try:
            with Deployment(str(Path(self._chosen.target).resolve()), self._filled(sets)) as deployment:
                # The first requests of an engine are slow.
                Driver(self._chosen, deployment.gateway).closed_loop(WARM_UP_USERS, WARM_UP_S)
                for number in self._numbers:
                    for load in self._chosen.loads:
                        for name in self._names if number % 2 == 0 else reversed(self._names):
                            deployment.until_idle()
                            self._keep(name, load, self._measured(deployment, STRATEGIES[name], load, number))
        except (SystemExit, Failed, OSError) as error:  # OSError: the engine is gone
            for name in self._names:
                for load in self._chosen.loads:
                    for _ in range(len(self._found[name][str(load)]), self._numbers[-1] + 1):
                        self._keep(name, load, reason(error))

    def _filled(self, sets: Sequence[str]) -> list[str]:
        """All settings. Raises Failed where the plan has no value for one of them."""
        chosen = self._chosen
        if not any("{" + name + "}" in one for one in sets for name in PLANNED):
            return [*chosen.set, *sets]
        return [*chosen.set, *filled(sets, planned(chosen.target, chosen.set))]

    def _measured(self, deployment: Deployment, strategy: Strategy, load: Load, number: int) -> Round | str:
        """One round; a sentence where the load generator was late twice, or the run failed."""
        chosen, engine = self._chosen, deployment.engine
        driver = Driver(chosen, engine, ENGINE_KEY) if strategy.is_bare else Driver(chosen, deployment.gateway)
        why = ""
        for _ in range(2):
            self._progress.at(f"{strategy.name}, {load}, round {number + 1}")
            try:
                with Watch(engine, engine, "") as watch:
                    if load.is_open:
                        one = driver.open_loop(load.amount, chosen.seconds, chosen.seed + number)
                    else:
                        one = driver.closed_loop(int(load.amount), chosen.seconds)
                return {"figures": one["scenarios"]["all"], "watched": busy_means(watch.samples)}
            except Late as error:
                why = reason(error)
                deployment.until_idle()
            except Failed as error:
                return reason(error)
        return why

    def _keep(self, name: str, load: Load, one: Round | str) -> None:
        if isinstance(one, str):
            self._progress.say(f"{name}: {one}")
        self._found[name][str(load)].append(one)
        save(self._chosen, self._found)
        self._progress.step()


def busy_means(samples: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean of each figure over the samples at which the engine worked."""
    busy = [one for one in samples if one.get("in flight")]
    names = {name for one in busy for name in one} - {"at"}
    return {
        name: sum(values) / len(values)
        for name in sorted(names)
        if (values := [one[name] for one in busy if name in one])
    }


def save(chosen: argparse.Namespace, found: Found) -> None:
    run: dict[str, Any] = {
        "version": 1, "measurement": "strategies", "when": time.strftime("%Y-%m-%d %H:%M"), "machine": machine(),
        "profile": chosen.target, "set": chosen.set,
        "loads": [str(load) for load in chosen.loads], "scenario": chosen.scenario, "slo": limits_of(chosen.slo),
        "seconds": chosen.seconds, "rounds": chosen.rounds, "scale": chosen.scale, "strategies": found,
    }  # fmt: skip
    chosen.out.with_suffix(".json").write_text(json.dumps(run) + "\n")
    chosen.out.write_text(html(run, {name: STRATEGIES[name].what for name in found}), encoding="utf-8")


def planned(profile: str, sets: Sequence[str]) -> dict[str, int]:
    """What the plan says that a strategy depends on. Raises Failed."""
    try:
        kv = plan_of(profile, sets)["kv"]
        # How many sequences of full length the KV cache holds: what was possible before its memory was paged.
        return {"contiguous": max(1, int(kv["requests_at_full_length"])), "max_len": int(kv["max_len"])}
    except (KeyError, TypeError):
        raise Failed("the plan does not say how many requests of full length fit") from None


def filled(sets: Sequence[str], known: dict[str, int]) -> list[str]:
    """The settings with the plan's figures in the places of their names."""
    for name, value in known.items():
        sets = [one.replace("{" + name + "}", str(value)) for one in sets]
    return list(sets)
