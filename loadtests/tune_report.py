"""What `launcher bench tune` found, for people: a table, the lines to paste, and one HTML file without scripts. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from statistics import median
from typing import Any

import yaml

from loadtests.facts import cell, fact
from loadtests.page import facts, page
from loadtests.plots import Line, plot
from loadtests.rounds import value_of
from loadtests.tables import html_table, markdown_table

Rows = Sequence[dict[str, Any]]
COLUMNS = (
    ("goodput_per_s", "goodput/s", 1.0),
    ("ttft.p50", "TTFT p50", 1000.0),
    ("ttft.p99", "TTFT p99", 1000.0),
    ("itl.p50", "ITL p50", 1000.0),
    ("itl.p99", "ITL p99", 1000.0),
)
CLOSED = "as it can"


def is_good(figures: dict[str, Any], percentile: float) -> bool:
    """Whether so many of a hundred requests were answered within the limits. As a product: 999 of 1,000 are 99.9 %."""
    return bool(figures["sent"]) and 100 * figures["good"] >= percentile * figures["sent"] - 1e-6


def table(rows: Rows, keys: Sequence[str], seed: int) -> str:
    """Markdown: every trial in the order of the settings and rates; times in ms. ``keys`` come first, ``seed`` is the search's."""
    return markdown_table(cells(rows, keys, seed))


def cells(rows: Rows, keys: Sequence[str], seed: int | None) -> list[list[str]]:
    """An earlier run may have moved other keys than this one: they have columns too."""
    keys = list(dict.fromkeys([*keys, *sorted({key for row in rows for key in row["settings"]})]))
    head = [*keys, "offered/s", "trial", "good", "refused", *(name for _, name, _ in COLUMNS)]
    ordered = sorted(rows, key=lambda row: (_order(row["settings"]), row["rate"] or 0.0))
    return [head, *(_line(row, keys, len(head), seed) for row in ordered)]


def _order(settings: dict[str, str]) -> tuple[Any, ...]:
    """Numbers as numbers: 1, 128, 1024."""
    return len(settings), [(key, _amount(value)) for key, value in sorted(settings.items())]


def _amount(value: str) -> tuple[float, str]:
    try:
        return float(value), value
    except ValueError:
        return math.inf, value


def _line(row: dict[str, Any], keys: Sequence[str], width: int, seed: int | None) -> list[str]:
    first = [row["settings"].get(key, "·") for key in keys]
    if row["rate"] is None:
        first += ["", ""]
    else:
        kind = "search" if row.get("seed") == seed else "again"
        first += [f"{row['rate']:g}", kind] if row["rate"] else [CLOSED, "capacity"]
    if "why" in row:
        return [*first, row["why"]] + [""] * (width - len(first) - 1)
    figures = row["figures"]
    counts = [f"{figures['good']}/{figures['sent']}", str(figures["refused"])]
    return [*first, *counts, *(cell(value_of(figures, key), times) for key, _, times in COLUMNS)]


def paste(
    best: dict[str, str], rate: float, own: float | None, rows: Rows, load: dict[str, Any], bound: str = ""
) -> str:
    """What was found as lines of the profile, with what they rest on; ``bound``: why it is no more than a lower bound."""
    basis = f"{load['scenario']}, {fact(load['slo'])} for {load['percentile']:g} % of the requests"
    told = f"# {rate:.3g} requests/s held ({basis}); measured again: {_again(rows, best, rate, load)}"
    if bound:
        told += f"\n# This is a lower bound: {bound}"
    if not (is_held := held_again(best, rate, rows, load)):
        told += "\n# It did not hold again: measure longer (--seconds), or ask for less"
    if not best:
        none = "No other setting that was tried was seen to hold more than the profile's own values"
        return f"{told}\n# {none}" + (": nothing to change." if is_held and not bound else ".")
    before = "no rate at all" if own is None else f"{own:.3g}/s; measured again: {_again(rows, {}, own, load)}"
    lines = _nested(best).splitlines()
    return "\n".join(
        [told, f"# the profile's own values held {before}", *(lines if is_held else (f"# {line}" for line in lines))]
    )


def _nested(settings: dict[str, str]) -> str:
    """Dotted keys as the YAML of a profile."""
    nested: dict[str, Any] = {}
    for key, value in settings.items():
        *parents, name = key.split(".")
        place = nested
        for parent in parents:
            place = place.setdefault(parent, {})
        place[name] = yaml.safe_load(value)
    return yaml.safe_dump(nested, sort_keys=False)


def held_again(settings: dict[str, str], rate: float, rows: Rows, load: dict[str, Any]) -> bool:
    """Whether at least half of the rounds hold in which it was measured again; where there are none, nothing speaks against it."""
    held = [is_good(one, load["percentile"]) for one in _later(rows, settings, rate, load)]
    return 2 * sum(held) >= len(held)


def _again(rows: Rows, settings: dict[str, str], rate: float, load: dict[str, Any]) -> str:
    later = _later(rows, settings, rate, load)
    if not later:
        return "not yet"
    held = sum(is_good(one, load["percentile"]) for one in later)
    return f"held in {held} of {len(later)} rounds, {median(one['good'] / one['sent'] for one in later):.1%} good"


def _later(rows: Rows, settings: dict[str, str], rate: float, load: dict[str, Any]) -> list[dict[str, Any]]:
    """The figures of the rounds with other arrivals than the search had."""
    key = {"settings": settings, "rate": float(f"{rate:.4g}")}
    found = [row for row in rows if key.items() <= row.items() and "figures" in row and row["seed"] != load["seed"]]
    return [row["figures"] for row in found if row["figures"]["sent"]]


def html(run: dict[str, Any]) -> str:
    """The report."""
    rows, load = run["rows"], run["load"]
    head, *lines = cells(rows, (), load.get("seed"))
    name = f"Tuning {load['profile']}"
    known: dict[str, Any] = {key: run[key] for key in ("when", "machine", "vllm") if key in run}
    body = f"""<h1>{escape(name)}</h1>{facts({**known, **load})}
<p>Each row is a trial: so many requests a second (open loop), and how many were answered within the limits. A dot: the
profile's own value; again: measured once more, with other arrivals. Times in ms.</p>
{html_table(head, lines)}
<div class="plots"><div>{_good(rows)}</div><div>{_goodput(rows)}</div></div>"""
    return page(name, body)


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
    """One for each setting; where a rate was measured several times, the median."""
    found: dict[str, dict[float, list[float]]] = {}
    for row in sorted(rows, key=lambda row: _order(row["settings"])):
        if row["rate"] and "figures" in row and row["figures"]["sent"]:
            pairs = (f"{key.rpartition('.')[2]}={told}" for key, told in row["settings"].items())
            rates = found.setdefault(", ".join(pairs) or "own", {})
            rates.setdefault(row["rate"], []).append(value(row["figures"]))
    return [
        Line(name, [(rate, median(values)) for rate, values in sorted(rates.items())]) for name, rates in found.items()
    ]
