"""One start of a profile for some of the strategies: their rounds, kept after each."""

from __future__ import annotations

import argparse
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loadtests.deployment import ENGINE_KEY, Deployment
from loadtests.driver import Driver, machine, reason
from loadtests.failures import Failed, Late
from loadtests.figures import limits_of
from loadtests.files import write_report
from loadtests.masked import masked
from loadtests.progress import Progress
from loadtests.strategies_known import PLANNED, STRATEGIES, Load, Strategy, filled, planned
from loadtests.strategies_report import Found, Round, html
from loadtests.watch import Watch

SEVERAL = "{} asks a single engine, and behind the gateway are {}: they cannot be compared; with --set engine.replicas=1 they can"


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
                Driver(self._chosen, deployment.gateway).warm_up(seed=self._chosen.seed)
                for number in self._numbers:
                    for load in self._chosen.loads:
                        for name in self._names if number % 2 == 0 else reversed(self._names):
                            self._keep(name, load, self._measured(deployment, STRATEGIES[name], load, number))
        except (SystemExit, Failed, OSError) as error:
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
        """One round; a sentence where the load generator was late twice, or the run failed. Raises Failed: the engine is gone."""
        chosen, seed, engines = self._chosen, self._chosen.seed + number, deployment.engines
        if strategy.is_bare and len(engines) > 1:
            return SEVERAL.format(strategy.name, len(engines))
        driver = Driver(chosen, engines[0], ENGINE_KEY) if strategy.is_bare else Driver(chosen, deployment.gateway)
        why = ""
        for _ in range(2):
            deployment.until_idle()
            self._progress.at(f"{strategy.name}, {load}, round {number + 1}")
            try:
                with Watch("", engines, "") as watch:
                    if load.is_open:
                        one = driver.open_loop(load.amount, chosen.seconds, seed)
                    else:
                        one = driver.closed_loop(int(load.amount), chosen.seconds, seed)
                return {"figures": one["scenarios"]["all"], "watched": busy_means(watch.samples)}
            except Late as error:
                why = reason(error)
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
        "profile": chosen.target, "set": masked(chosen.set), "command": shlex.join(["launcher", "bench", "strategies", *masked(chosen.argv)]),
        "loads": [str(load) for load in chosen.loads], "scenario": chosen.scenario, "slo": limits_of(chosen.slo),
        "seconds": chosen.seconds, "rounds": chosen.rounds, "scale": chosen.scale, "seed": chosen.seed, "any_event": chosen.any_event,
        "strategies": found,
    }  # fmt: skip
    write_report(chosen.out, run, html(run, {name: STRATEGIES[name].what for name in found}))
