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
from html import escape
from pathlib import Path
from typing import Any

from launcher.errors import LauncherError
from launcher.probe.gpus import gpu_use
from launcher.profile.load import load_profile
from loadtests.deployment import Deployment, make_room_for_report
from loadtests.driver import INTERRUPTED, Driver, Failed, machine, reason
from loadtests.figures import limits_of
from loadtests.planned import refused
from loadtests.plots import Line, plot
from loadtests.progress import Progress
from loadtests.report import COLUMNS, POLICY, STYLE, html_table, value_of
from loadtests.resumed import earlier, fingerprint
from loadtests.sampler import Sampler
from loadtests.scenarios import SCENARIOS

GIB = 2**30
WARM_UP_S = 5.0
ONCE = "Each row is one round: measure the best ones again before you believe small differences."
Row = dict[str, Any]  # settings, and: figures with memory_gib, or why


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
    load = {"profile": chosen.target, "set": chosen.set, "scenario": chosen.scenario, "users": chosen.users}
    load |= {"seconds": chosen.seconds, "slo": limits_of(chosen.slo), "scale": chosen.scale}
    load |= {"any_event": chosen.any_event}
    try:
        load_profile(Path(chosen.target))
        profile = fingerprint(chosen.target)
        rows = earlier(figures, load, profile, "sweep")
    except LauncherError as error:
        sys.stderr.write(f"error: {error.message}\n→ {error.hint}\n")
        return 1
    except Failed as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    progress = Progress()
    every = combinations(chosen.vary)
    ended = 0
    with progress.shown():
        progress.begin(len(every))
        try:
            for settings in every:
                progress.at(", ".join(f"{key}={value}" for key, value in settings.items()))
                if not any(row["settings"] == settings for row in rows):
                    rows.append(measured(chosen, settings))
                    run = {
                        "version": 1, "measurement": "sweep", "when": time.strftime("%Y-%m-%d %H:%M"), "machine": machine(), "load": load,
                        "profile_sha256": profile, "rows": rows,
                    }  # fmt: skip
                    figures.write_text(json.dumps(run) + "\n")
                    if why := rows[-1].get("why"):
                        progress.say(why)
                progress.step()
        except KeyboardInterrupt:
            if not rows:
                raise
            ended = INTERRUPTED
            progress.say("It was interrupted: run it again with the same --out, and it goes on from there.")
    rows = [row for settings in every for row in rows if row["settings"] == settings]
    chosen.out.write_text(html(load, rows), encoding="utf-8")
    sys.stdout.write(f"{table(rows)}\n\n{ONCE}\n")
    sys.stderr.write(f"report: {chosen.out}, figures: {figures}\n")
    return ended


def measured(chosen: argparse.Namespace, settings: dict[str, str]) -> Row:
    """One combination: its figures, or why there are none."""
    sets = [*chosen.set, *(f"{key}={value}" for key, value in settings.items())]
    if (why := refused(chosen.target, sets)) is not None:
        return {"settings": settings, "why": f"not started: {why}"}
    try:
        with Deployment(str(Path(chosen.target).resolve()), sets) as deployment, Memory(deployment.pid) as memory:
            driver = Driver(chosen, deployment.gateway)
            driver.closed_loop(chosen.users, WARM_UP_S)
            found = driver.closed_loop(chosen.users, chosen.seconds)
    except (SystemExit, Failed) as error:
        return {"settings": settings, "why": reason(error)}
    return {"settings": settings, "figures": found["scenarios"]["all"], "memory_gib": memory.most_bytes / GIB}


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


# What is shown.


def cells(row: Row) -> list[str]:
    """The cells behind the settings."""
    if "why" in row:
        return [row["why"], *[""] * len(COLUMNS)]
    values = [value_of(row["figures"], key) for key, _, _ in COLUMNS]
    shown = [
        "–" if value is None else f"{value * times:.3g}" for value, (_, _, times) in zip(values, COLUMNS, strict=True)
    ]
    return [f"{row['memory_gib']:.2f}", *shown]


def table(rows: Sequence[Row]) -> str:
    """For a terminal, and for Markdown."""
    keys = list(rows[0]["settings"]) if rows else []
    head = [*keys, "memory GiB", *(name for _, name, _ in COLUMNS)]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += [
        "| " + " | ".join([*row["settings"].values(), *(cell.replace("|", "/") for cell in cells(row))]) + " |"
        for row in rows
    ]
    return "\n".join(lines)


def pareto(rows: Sequence[Row]) -> list[Row]:
    """Those that no other beats in both tokens a second and TTFT p99, the quickest first."""
    placed = [
        (value_of(row["figures"], "ttft.p99"), value_of(row["figures"], "output_tokens_per_s"), row)
        for row in rows
        if "figures" in row
    ]
    known = sorted(
        ((ttft, tokens, row) for ttft, tokens, row in placed if ttft is not None and tokens is not None),
        key=lambda one: one[:2],
    )
    best, found = -1.0, []
    for _, tokens, row in known:
        if tokens > best:
            best = tokens
            found.append(row)
    return found


def place(row: Row) -> tuple[float, float]:
    """Where it is in the plot: TTFT p99 in ms, answer tokens a second."""
    figures = row["figures"]
    return 1000 * (value_of(figures, "ttft.p99") or 0), value_of(figures, "output_tokens_per_s") or 0


def html(load: dict[str, Any], rows: Sequence[Row]) -> str:
    """The report."""
    measured_rows = [row for row in rows if "figures" in row]
    front = [place(row) for row in pareto(rows)]
    others = sorted(place(row) for row in measured_rows)
    svg = plot(
        "Answer tokens against the wait for the first",
        "TTFT p99, ms",
        "tokens/s",
        [Line("best of its kind", front), Line("all", others, is_joined=False)],
    )
    lines = [line.strip("| ").split(" | ") for line in table(rows).splitlines()]
    facts = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>"
        for name, value in {**load, "machine": machine()}.items()
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}"><title>Sweep: {escape(str(load["profile"]))}</title><style>{STYLE}</style></head>
<body><h1>Sweep of {escape(str(load["profile"]))}</h1><dl>{facts}</dl>
{html_table(lines[0], lines[2:])}<p>{ONCE}</p><div class="plots"><div>{svg}</div></div></body></html>
"""
