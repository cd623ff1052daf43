"""What `launcher bench tune` found, for people: a table, the lines to paste, and one HTML file without scripts. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from statistics import median
from typing import Any

import yaml

from loadtests.plots import Line, plot
from loadtests.report import POLICY, STYLE, html_table, value_of

Rows = Sequence[dict[str, Any]]
COLUMNS = (
    ("goodput_per_s", "goodput/s", 1.0),
    ("ttft.p50", "TTFT p50", 1000.0),
    ("ttft.p99", "TTFT p99", 1000.0),
    ("itl.p50", "ITL p50", 1000.0),
    ("itl.p99", "ITL p99", 1000.0),
)
CLOSED = "as it can"


def table(rows: Rows, keys: Sequence[str]) -> str:
    """Markdown: every trial in the order of the settings and rates; times in ms."""
    head, *lines = cells(rows, keys)
    shown = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in shown)


def cells(rows: Rows, keys: Sequence[str]) -> list[list[str]]:
    head = [*keys, "offered/s", "good", "refused", *(name for _, name, _ in COLUMNS)]
    ordered = sorted(rows, key=lambda row: (len(row["settings"]), sorted(row["settings"].items()), row["rate"] or 0.0))
    return [head, *(_line(row, keys, len(head)) for row in ordered)]


def _line(row: dict[str, Any], keys: Sequence[str], width: int) -> list[str]:
    first = [row["settings"].get(key, "·") for key in keys]
    if "why" in row:
        told = [*first, "" if row["rate"] is None else f"{row['rate']:g}", row["why"]]
        return told + [""] * (width - len(told))
    figures = row["figures"]
    values = [(value_of(figures, key), times) for key, _, times in COLUMNS]
    rate = f"{row['rate']:g}" if row["rate"] else CLOSED
    counts = [f"{figures['good']}/{figures['sent']}", str(figures["refused"])]
    return [*first, rate, *counts, *("–" if value is None else f"{value * times:.3g}" for value, times in values)]


def paste(best: dict[str, str], rate: float, own: float | None, rows: Rows, load: dict[str, Any]) -> str:
    """What was found as lines of the profile, with what they rest on."""
    limits = ", ".join(f"{name} ≤ {value:g} s" for name, value in load["slo"].items())
    basis = f"{load['scenario']}, {limits} for {load['percentile']:g} % of the requests"
    told = f"# {rate:.3g} requests/s held ({basis}); measured again: {_again(rows, best, rate, load)}"
    if not best:
        return f"{told}\n# No other setting that was tried holds more than the profile's own values: nothing to change."
    before = "no rate at all" if own is None else f"{own:.3g}/s; measured again: {_again(rows, {}, own, load)}"
    nested: dict[str, Any] = {}
    for key, value in best.items():
        *parents, name = key.split(".")
        place = nested
        for parent in parents:
            place = place.setdefault(parent, {})
        place[name] = yaml.safe_load(value)
    return f"{told}\n# the profile's own values held {before}\n{yaml.safe_dump(nested, sort_keys=False).rstrip()}"


def _again(rows: Rows, settings: dict[str, str], rate: float, load: dict[str, Any]) -> str:
    """Of the rounds with other arrivals than the search had."""
    key = {"settings": settings, "rate": float(f"{rate:.4g}")}
    later = [
        row["figures"]
        for row in rows
        if key.items() <= row.items() and "figures" in row and row["seed"] != load["seed"]
    ]
    shares = [one["good"] / one["sent"] for one in later if one["sent"]]
    if not shares:
        return "not yet"
    held = sum(share >= load["percentile"] / 100 for share in shares)
    return f"held in {held} of {len(shares)} rounds, {median(shares):.1%} good"


def html(run: dict[str, Any]) -> str:
    """The report."""
    rows, load = run["rows"], run["load"]
    keys = sorted({key for row in rows for key in row["settings"]})
    head, *lines = cells(rows, keys)
    facts = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>"
        for name, value in {"when": run["when"], "machine": run["machine"], **load}.items()
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}"><title>Tuning {escape(str(load["profile"]))}</title><style>{STYLE}</style></head>
<body><h1>Tuning {escape(str(load["profile"]))}</h1><dl>{facts}</dl>
<p>Each row is a trial: so many requests a second (open loop), and how many were answered within the limits. A dot: the
profile's own value. Times in ms.</p>
{html_table(head, lines)}
<div class="plots"><div>{_good(rows)}</div><div>{_goodput(rows)}</div></div></body></html>
"""


def _good(rows: Rows) -> str:
    return plot(
        "Answered within the limits",
        "offered requests/s",
        "%",
        _lines(rows, lambda one: 100 * one["good"] / one["sent"]),
    )


def _goodput(rows: Rows) -> str:
    return plot("Goodput", "offered requests/s", "answers/s", _lines(rows, lambda one: one["goodput_per_s"]))


def _lines(rows: Rows, value: Any) -> list[Line]:
    """One for each setting."""
    found: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if row["rate"] and "figures" in row and row["figures"]["sent"]:
            name = ", ".join(row["settings"].values()) or "own"
            found.setdefault(name, []).append((row["rate"], value(row["figures"])))
    return [Line(name, sorted(points)) for name, points in found.items()]
