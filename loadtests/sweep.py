"""`launcher bench sweep PROFILE --vary KEY=A,B,C`: the profile with each combination of settings, under the same load.

    launcher bench sweep profiles/1x3090.yaml --vary engine.max_num_seqs=1,2,4,8 --scenario pictures --users 8

What the plan says cannot fit is not started; a start or a run that fails is a row with its reason. Memory is the cards', or on
the CPU the engine's own. Run again with the same --out, it goes on where it was, and tries again what failed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from http.client import HTTPException
from pathlib import Path

from launcher.errors import LauncherError
from launcher.probe.gpus import gpu_use
from loadtests.deployment import Deployment
from loadtests.driver import INTERRUPTED, Driver
from loadtests.failures import Failed
from loadtests.figures import limits_of
from loadtests.files import make_room_for_report, write_whole
from loadtests.planned import in_full, refused
from loadtests.progress import Progress
from loadtests.resumed import earlier, identity, load_of
from loadtests.sampler import Sampler
from loadtests.scenarios import SCENARIOS
from loadtests.sweep_report import ONCE, Row, html, table

GIB = 2**30


def options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="launcher bench sweep", description="Each combination of settings under the same load."
    )
    add = parser.add_argument
    add("target", metavar="profile")
    add(
        "--vary",
        action="append",
        required=True,
        type=varied,
        metavar="KEY=A,B,…",
        help="may be repeated: then all combinations",
    )
    add("--scenario", choices=(*SCENARIOS, "mixed"), default="chat")
    add("--users", type=int, default=8, help="who ask at once, closed loop (default: 8)")
    add("--seconds", type=float, default=30.0, help="how long for each (default: 30)")
    add("--slo", default="", metavar="ttft=1s,itl=60ms", help="what counts as good")
    add("--scale", type=float, default=None, help="times all lengths (default: so that they fit the model)")
    add("--any-event", action="store_true", help="events without text count as pieces: for random weights")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="a key of the profile, for all of them")
    add(
        "--out",
        type=Path,
        default=Path("sweep.html"),
        help="the report; figures go beside it as .json (default: sweep.html)",
    )
    chosen = parser.parse_args(argv)
    chosen.mode = ""
    try:
        limits_of(chosen.slo)
        make_room_for_report(chosen.out)
    except ValueError as error:
        parser.error(str(error))
    if chosen.users < 1 or not 0 < chosen.seconds < math.inf:
        parser.error("--users and --seconds must be more than 0")
    return chosen


def varied(text: str) -> tuple[str, list[str]]:
    key, is_there, values = text.partition("=")
    if not is_there or not key or not all(values.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=A,B,… such as engine.max_num_seqs=1,2,4")
    return key, values.split(",")


def combinations(vary: Sequence[tuple[str, list[str]]]) -> list[dict[str, str]]:
    """Every setting with every other."""
    keys = [key for key, _ in vary]
    return [dict(zip(keys, values, strict=True)) for values in itertools.product(*(values for _, values in vary))]


def main(argv: Sequence[str]) -> int:
    """0: done. 1: a sentence says why not. 130: it was interrupted, and what was measured is kept."""
    chosen = options(argv)
    figures = chosen.out.with_suffix(".json")
    load = load_of(chosen, "scenario", "users", "seconds", "scale", "any_event")
    try:
        about = identity(chosen.target, chosen.set)
        rows = earlier(figures, load, about, "sweep")
    except LauncherError as error:
        sys.stderr.write(f"error: {error.message}\n→ {error.hint}\n")
        return 1
    except Failed as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    run = {"version": 1, "measurement": "sweep", "when": "", **about, "load": load, "rows": rows}
    progress, every, ended = Progress(), combinations(chosen.vary), 0
    with progress.shown():
        progress.begin(len(every))
        try:
            for settings in every:
                progress.at(", ".join(f"{key}={value}" for key, value in settings.items()))
                if not any(row["settings"] == settings for row in rows):
                    rows.append(measured(chosen, settings))
                    run["when"] = time.strftime("%Y-%m-%d %H:%M")
                    write_whole(figures, json.dumps(run) + "\n")
                    if "why" in rows[-1]:
                        progress.say("\n".join(filter(None, (rows[-1]["why"], rows[-1].get("remedy")))))
                progress.step()
        except KeyboardInterrupt:
            if not rows:
                raise
            ended = INTERRUPTED
            progress.say("It was interrupted: run it again with the same --out, and it goes on from there.")
    rows = [row for settings in every for row in rows if row["settings"] == settings]
    write_whole(chosen.out, html(load, rows, {"machine": about["machine"], "vllm": about["vllm"]}))
    sys.stdout.write(f"{table(rows)}\n\n{ONCE}\n")
    sys.stderr.write(f"report: {chosen.out}, figures: {figures}\n")
    return ended


def measured(chosen: argparse.Namespace, settings: dict[str, str]) -> Row:
    """One combination: its figures, or why there are none."""
    sets = [*chosen.set, *(f"{key}={value}" for key, value in settings.items())]
    if (why := refused(chosen.target, sets)) is not None:
        return not_measured(settings, f"not started: {why}")
    try:
        with Deployment(str(Path(chosen.target).resolve()), sets) as deployment, Memory(deployment.pid) as memory:
            driver = Driver(chosen, deployment.gateway)
            driver.warm_up(chosen.users)
            found = driver.closed_loop(chosen.users, chosen.seconds)
    except (SystemExit, Failed, OSError, HTTPException) as error:
        return not_measured(settings, in_full(error))
    return {"settings": settings, "figures": found["scenarios"]["all"], "memory_gib": memory.most_bytes / GIB}


def not_measured(settings: dict[str, str], told: str) -> Row:
    """The sentence is for the table, its remedy for the terminal."""
    why, _, remedy = told.partition("\n")
    return {"settings": settings, "why": why, **({"remedy": remedy} if remedy else {})}


class Memory(Sampler):
    """The most memory that was in use: of all cards together, or where there are none of the engine and its children."""

    every_s = 0.5

    def __init__(self, pid: int) -> None:
        super().__init__()
        self.most_bytes, self._pid = 0, pid

    def look(self) -> None:
        cards = gpu_use()
        used = sum(card.used_bytes for card in cards) if cards else sum(map(resident, family(self._pid)))
        self.most_bytes = max(self.most_bytes, used)


def family(pid: int) -> Iterator[int]:
    """A process and all below it."""
    yield pid
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = path.read_text().split()
        except OSError:  # gone meanwhile
            continue
        for child in children:
            yield from family(int(child))


def resident(pid: int) -> int:
    """Bytes in main memory; 0 for a process that is gone."""
    try:
        fields = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    _, found, rest = fields.partition("VmRSS:")
    return int(rest.split()[0]) * 1024 if found else 0
