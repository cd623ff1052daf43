"""The trials of `launcher bench tune`: made once, remembered, and kept in a file after each."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from loadtests.deployment import Deployment
from loadtests.driver import Driver, Failed, Late, machine, reason
from loadtests.figures import limits_of
from loadtests.planned import refused
from loadtests.progress import Progress
from loadtests.resumed import Rows, fingerprint
from loadtests.tune_report import html
from loadtests.tune_search import Settings, highest_rate

FIRST_SHARE = 0.7  # of the capacity: the first rate that is tried
WARM_UP_S, CAPACITY_S = 5.0, 20.0
WARM_UP_USERS = 2


class NotStarted(Failed):
    """This setting does not run at all."""


class Trials:
    """Asks a deployment of each setting, one at a time: that of the last trial is kept for the next.

    A row is a setting and a rate (0: as much as it can do, closed loop; None: whatever the rate) with its figures, or why not.
    """

    def __init__(self, chosen: argparse.Namespace, progress: Progress) -> None:
        self._chosen, self._progress = chosen, progress
        self.rows: Rows = []
        self.failed: Rows = []  # of this run: not tried a second time, but by the next run
        self._running: tuple[Settings, Deployment] | None = None
        self.load = {
            "profile": chosen.target, "set": chosen.set, "scenario": chosen.scenario, "slo": limits_of(chosen.slo), "seed": chosen.seed,
            "percentile": chosen.percentile, "seconds": chosen.seconds, "scale": chosen.scale, "any_event": chosen.any_event,
        }  # fmt: skip
        self._profile = fingerprint(chosen.target)

    def close(self) -> None:
        if self._running is not None:
            running, self._running = self._running, None
            running[1].__exit__()

    def rate_of(self, settings: Settings, to_beat: float | None) -> float | None:
        """The highest rate that a setting holds; None where it does not start, or holds no more than ``to_beat``.

        Raises Failed where the profile itself does not run: then there is nothing to compare with.
        """
        try:
            self._check_plan(settings)
            first = self._first() if to_beat is None else to_beat * (1 + self._chosen.precision)
            if to_beat is not None and not self.holds(settings, first):
                return None
            return highest_rate(lambda rate: self.holds(settings, rate), first, self._chosen.precision)
        except NotStarted as error:
            self._progress.say(f"{shown(settings)}: {error}")
            if not settings:
                raise Failed(f"the profile as it is: {str(error).removeprefix('error: ')}") from None
            return None

    @property
    def own_rate(self) -> float | None:
        """The highest rate that the profile's own values were seen to hold in the search."""
        own = [row for row in self.rows if not row["settings"] and row["rate"] and row["seed"] == self._chosen.seed]
        return max((row["rate"] for row in own if self._is_good(row)), default=None)

    def holds(self, settings: Settings, rate: float, seed: int | None = None) -> bool:
        """Whether enough requests are answered within the limits at ``rate`` requests a second. Raises NotStarted."""
        rate = float(f"{rate:.4g}")  # as it is written down
        name = f"{shown(settings)} at {rate:g}/s"
        self._progress.at(name)
        row = self._trial(settings, rate, self._chosen.seed if seed is None else seed)
        if "why" in row:
            self._progress.say(f"{name}: {row['why']}")
            return False
        is_held = self._is_good(row)
        self._progress.say(f"{name}: {share(row):.1%} good, {'holds' if is_held else 'too much'}")
        return is_held

    def _is_good(self, row: dict[str, Any]) -> bool:
        return share(row) >= float(self._chosen.percentile) / 100

    def _first(self) -> float:
        """The rate to begin with."""
        chosen = self._chosen
        if chosen.rate:
            return float(chosen.rate)
        self._progress.at(f"capacity with {chosen.users} users")
        row = self._trial({}, 0.0, chosen.seed)
        if "why" in row or not row["figures"]["served"]:
            raise NotStarted(f"it answered nothing: {row.get('why') or row['figures']['not_served']}")
        return FIRST_SHARE * float(row["figures"]["served_per_s"])

    def _check_plan(self, settings: Settings) -> None:
        """Raises NotStarted for what cannot fit."""
        if any(row["settings"] == settings for row in self.rows):
            return
        if (why := refused(self._chosen.target, [*self._chosen.set, *pairs(settings)])) is not None:
            raise self._not_started(settings, f"not started: {why}")

    def _not_started(self, settings: Settings, why: str) -> NotStarted:
        self.failed.append({"settings": settings, "rate": None, "why": why})
        self.save()
        return NotStarted(why)

    def _trial(self, settings: Settings, rate: float, seed: int) -> dict[str, Any]:
        """The row of a trial, made or remembered. Raises NotStarted."""
        key = {"settings": settings, "rate": rate, "seed": seed}
        for row in [*self.rows, *self.failed]:
            if key.items() <= row.items():
                return row
        driver = self._started(settings)
        try:
            row = {**key, "figures": self._measured(driver, rate, seed)}
            self.rows.append(row)
        except (Failed, SystemExit, OSError) as error:
            row = {**key, "why": reason(error)}
            self.failed.append(row)
            self.close()  # who knows what is left of it
        self.save()
        return row

    def _started(self, settings: Settings) -> Driver:
        """A driver for a deployment of this setting. Raises NotStarted."""
        if self._running is None or self._running[0] != settings:
            self.close()
            sets = [*self._chosen.set, *pairs(settings)]
            try:
                deployment = Deployment(str(Path(self._chosen.target).resolve()), sets).__enter__()
                self._running = (settings, deployment)
                Driver(self._chosen, deployment.gateway).closed_loop(WARM_UP_USERS, WARM_UP_S)
            except (Failed, SystemExit) as error:
                self.close()
                raise self._not_started(settings, reason(error)) from None
        return Driver(self._chosen, self._running[1].gateway)

    def _measured(self, driver: Driver, rate: float, seed: int) -> dict[str, Any]:
        """The figures of one trial on an idle engine; a load generator that was late has a second try. Raises Failed."""
        if not rate:
            return group(driver.closed_loop(self._chosen.users, CAPACITY_S))
        seconds = self.seconds_at(rate)
        self._until_idle()
        try:
            return group(driver.open_loop(rate, seconds, seed))
        except Late:
            self._until_idle()
            return group(driver.open_loop(rate, seconds, seed))

    def _until_idle(self) -> None:
        assert self._running is not None
        self._running[1].until_idle()

    def seconds_at(self, rate: float) -> float:
        """Long enough for one request in the mean to be allowed to miss: fewer requests have no such percentile."""
        return max(float(self._chosen.seconds), 100 / (100 - self._chosen.percentile) / rate)

    def save(self) -> None:
        run = {
            "version": 1, "measurement": "tune", "when": time.strftime("%Y-%m-%d %H:%M"), "machine": machine(), "load": self.load,
            "profile_sha256": self._profile, "rows": [*self.rows, *self.failed],
        }  # fmt: skip
        self._chosen.out.with_suffix(".json").write_text(json.dumps(run) + "\n")
        self._chosen.out.write_text(html(run), encoding="utf-8")


def group(found: dict[str, Any]) -> dict[str, Any]:
    """The figures of all scenarios together."""
    figures: dict[str, Any] = found["scenarios"]["all"]
    return figures


def share(row: dict[str, Any]) -> float:
    """Of the requests that were sent, those that were answered within the limits."""
    figures = row["figures"]
    return float(figures["good"] / figures["sent"]) if figures["sent"] else 0.0


def pairs(settings: Settings) -> list[str]:
    return [f"{key}={value}" for key, value in settings.items()]


def shown(settings: Settings) -> str:
    return ", ".join(pairs(settings)) or "as the profile has it"
