"""The trials of `launcher bench tune`: made once, remembered, and kept in a file after each."""

from __future__ import annotations

import argparse
import time
from http.client import HTTPException
from pathlib import Path
from typing import Any

from loadtests.deployment import Deployment
from loadtests.driver import Driver
from loadtests.failures import Failed, Late
from loadtests.files import write_report
from loadtests.planned import in_full, in_short, refused
from loadtests.progress import Progress
from loadtests.resumed import Rows, identity, load_of
from loadtests.tune_report import html, is_good
from loadtests.tune_search import Settings, highest_rate

FIRST_SHARE = 0.7  # of the capacity: the first rate that is tried
# The requests that may miss in a trial, in the mean. Arrivals are Poisson, so that their number varies too; at 99 % a setting
# whose true share of misses is 0.5, 1 or 2 % passes one trial with so much chance:
#   1 (100 requests)   77 %   56 %   26 %
#   2 (200 requests)   84 %   54 %   16 %
#   3 (300 requests)   88 %   54 %   10 %
# A miss rate twice the allowed one must be the exception, also before the best is measured again: 3. At 1/s a trial so takes
# 5 minutes, from 10/s on no more than --seconds.
MISSES = 3
FAULTS = (Failed, SystemExit, OSError, HTTPException)  # of a deployment, or of asking it


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
        self.ceiling: float | None = (
            None  # the lowest rate at which the load generator was late: no figure is beyond it
        )
        self.load = load_of(chosen, "scenario", "seed", "percentile", "seconds", "scale", "any_event")
        self.about = identity(chosen.target, chosen.set)

    def close(self) -> None:
        if self._running is not None:
            running, self._running = self._running, None
            running[1].__exit__()

    def rate_of(self, settings: Settings, to_beat: float | None) -> float | None:
        """The highest rate that a setting holds; None where it does not start, or holds no more than ``to_beat``.

        Raises Failed where the profile itself does not run: then there is nothing to compare with.
        """
        try:
            if to_beat is not None and self.is_beyond(to_beat):
                return None  # whatever it does, nobody here could see it
            self._check_plan(settings)
            first = self._first() if to_beat is None else to_beat * (1 + self._chosen.precision)
            if to_beat is not None and not self.holds(settings, first):
                return None
            return highest_rate(lambda rate: self.holds(settings, rate), first, self._chosen.precision)
        except NotStarted as error:
            if not settings:
                raise Failed(f"the profile as it is: {str(error).removeprefix('error: ')}") from None
            self._progress.say(f"{shown(settings)}: {error}")
            return None

    def is_beyond(self, rate: float) -> bool:
        """Whether a rate better than this one is more than the load generator can offer."""
        return self.ceiling is not None and rate * (1 + self._chosen.precision) >= self.ceiling

    def limit_told(self) -> str:
        """That the load generator set a limit; empty where it did not."""
        if self.ceiling is None:
            return ""
        return (
            f"the load generator cannot keep up at {self.ceiling:g}/s: the figures say nothing beyond it "
            "(more cores, or another machine for the load)"
        )

    @property
    def own_rate(self) -> float | None:
        """The highest rate that the profile's own values were seen to hold in the search."""
        own = [row for row in self.rows if not row["settings"] and row["rate"] and row["seed"] == self._chosen.seed]
        return max((row["rate"] for row in own if self._is_good(row)), default=None)

    def holds(self, settings: Settings, rate: float, seed: int | None = None) -> bool:
        """Whether enough requests are seen to be answered within the limits at ``rate`` requests a second. Raises NotStarted.

        A load generator that is late bounds the search (without ``seed``): that rate and those above it are not asked for again.
        """
        rate = float(f"{rate:.4g}")  # as it is written down
        if seed is None and self.ceiling is not None and rate >= self.ceiling:
            return False
        name = f"{shown(settings)} at {rate:g}/s"
        self._progress.at(name)
        row = self._trial(settings, rate, self._chosen.seed if seed is None else seed)
        if row.get("is_late") and seed is None:
            self.ceiling = rate
            self._progress.say(f"{name}: {self.limit_told()}")
            return False
        if "why" in row:
            self._progress.say(f"{name}: {row['why']}")
            return False
        is_held = self._is_good(row)
        self._progress.say(f"{name}: {share(row):.1%} good, {'holds' if is_held else 'too much'}")
        return is_held

    def _is_good(self, row: dict[str, Any]) -> bool:
        return is_good(row["figures"], self._chosen.percentile)

    def _first(self) -> float:
        """The rate to begin with."""
        chosen = self._chosen
        if chosen.rate:
            return float(chosen.rate)
        self._progress.at(f"capacity with {chosen.users} users")
        row = self._trial({}, 0.0, chosen.seed)
        if row.get("is_late"):
            raise Failed(
                f"the load generator cannot keep up with {chosen.users} users: take fewer (--users), or name the first rate (--rate)"
            )
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
        """``why``: the sentence, and its remedy on a line of its own."""
        self.failed.append({"settings": settings, "rate": None, "why": in_short(why)})
        self.save()
        return NotStarted(why)

    def _trial(self, settings: Settings, rate: float, seed: int) -> dict[str, Any]:
        """The row of a trial, made or remembered. Raises NotStarted."""
        key = {"settings": settings, "rate": rate, "seed": seed}
        key |= {} if rate else {"users": self._chosen.users}
        for row in [*self.rows, *self.failed]:
            if key.items() <= row.items():
                return row
        driver = self._started(settings)
        try:
            row = {**key, "figures": self._measured(driver, rate, seed)}
            self.rows.append(row)
        except Late as error:  # the engine is well
            row = {**key, "why": in_short(in_full(error)), "is_late": True}
            self.failed.append(row)
        except FAULTS as error:
            row = {**key, "why": in_short(in_full(error))}
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
                Driver(self._chosen, deployment.gateway).warm_up(seed=self._chosen.seed)
            except FAULTS as error:
                self.close()
                raise self._not_started(settings, in_full(error)) from None
        return Driver(self._chosen, self._running[1].gateway)

    def _measured(self, driver: Driver, rate: float, seed: int) -> dict[str, Any]:
        """The figures of one trial on an idle engine; a load generator that was late has a second try. Raises Failed."""
        if not rate:
            return group(driver.capacity(self._chosen.users, seed))
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
        """Long enough for MISSES requests in the mean to be allowed to miss: fewer requests hardly have such a percentile."""
        return max(float(self._chosen.seconds), MISSES * 100 / (100 - float(self._chosen.percentile)) / rate)

    def save(self) -> None:
        run = {
            "version": 1, "measurement": "tune", "when": time.strftime("%Y-%m-%d %H:%M"), **self.about, "load": self.load,
            "rows": [*self.rows, *self.failed],
        }  # fmt: skip
        write_report(self._chosen.out, run, html(run))


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
