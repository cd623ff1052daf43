"""The strategies side by side for people: a Markdown table, and one HTML file with plots and without scripts. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from statistics import median
from typing import Any

from loadtests.bars import Bar, bars
from loadtests.facts import cell
from loadtests.page import facts, page
from loadtests.plots import Line, plot
from loadtests.report import COLUMNS
from loadtests.rounds import Spread, spread_of
from loadtests.strategies_known import ALL
from loadtests.tables import html_table, markdown_table

Round = dict[str, Any]  # figures of the load client, and what was watched meanwhile
Found = dict[str, dict[str, list[Round | str]]]  # strategy → load → its rounds, or why there is none
WATCHED = (
    # of the engine, while it worked: running sequences, and the shares of its KV cache and of the card's time
    ("in flight", "running", 1.0),
    ("kv cache", "KV %", 1.0),
    ("card busy", "GPU %", 1.0),
)
FACTS = ("when", "machine", "profile", "set", "scenario", "slo", "seconds", "rounds", "seed", "any_event", "command")
PLOTS = (
    ("goodput_per_s", "Goodput", "answers/s within the limits", 1.0),
    ("served_per_s", "Throughput", "answers/s", 1.0),
    ("e2e.p99", "End-to-end latency, p99", "ms", 1000.0),
    ("ttft.p99", "Time to first token, p99", "ms", 1000.0),
    ("itl.p50", "Between tokens, p50", "ms", 1000.0),
)


def figure(rounds: Iterable[Round | str], name: str, place: str = "figures") -> Spread | None:
    """Over the rounds that were measured; None where there is no such figure."""
    return spread_of((one[place] for one in rounds if not isinstance(one, str)), name)


def table(found: Found, what: dict[str, str]) -> str:
    """Markdown: medians of the rounds (lowest to highest), and goodput against all parts together at the same load."""
    return markdown_table(rows(found, what))


def rows(found: Found, what: dict[str, str]) -> list[list[str]]:
    """The head, then a row for each strategy and load that was measured."""
    loads = list(next(iter(found.values()), {}))
    every = [rounds for each in found.values() for rounds in each.values()]
    watched = [
        column for column in WATCHED if figure([one for rounds in every for one in rounds], column[0], "watched")
    ]
    names = [name for _, name, _ in (*COLUMNS, *watched)]
    first = ["strategy", "what it is", *(["load"] if len(loads) > 1 else [])]
    head = [
        *first,
        "served",
        "failed",
        *names,
        f"goodput, × {ALL.name}",
        *(["left out"] if any(map(_left_out, every)) else []),
    ]
    lines = [head]
    for name, each in found.items():
        for load, rounds in each.items():
            if rounds:
                told = [name, what[name], *([load] if len(loads) > 1 else [])]
                line = told + _cells(rounds, found.get(ALL.name, {}).get(load, []), watched)
                lines.append([*line, *[""] * len(head)][: len(head)])
    return lines


def _cells(rounds: Sequence[Round | str], base: Sequence[Round | str], watched: Sequence[tuple[str, str, float]]) -> list[str]:  # fmt: skip
    """What stands behind a row's names: its figures, or why there are none."""
    whole = [one["figures"] for one in rounds if not isinstance(one, str)]
    if not whole:
        return [str(rounds[0])]
    served, sent, failed = (sum(one[name] for one in whole) for name in ("served", "sent", "failed"))
    told = [_cell(figure(rounds, key), times) for key, _, times in COLUMNS]
    seen = [_cell(figure(rounds, key, "watched"), times) for key, _, times in watched]
    ratios = shares(rounds, base)
    return [f"{served}/{sent}", str(failed), *told, *seen, f"{median(ratios):.2f}" if ratios else "", _left_out(rounds)]


def shares(rounds: Sequence[Round | str], base: Sequence[Round | str]) -> list[float]:
    """Goodput against another's in the same round, which had the same requests; of the rounds that both have."""
    pairs = [
        (figure([mine], "goodput_per_s"), figure([other], "goodput_per_s"))
        for mine, other in zip(rounds, base, strict=False)
    ]
    return [mine[0] / other[0] for mine, other in pairs if mine and other and other[0]]


def _left_out(rounds: Sequence[Round | str]) -> str:
    """Why a row rests on fewer rounds than were made; '' where it rests on all, or on none."""
    why = [one for one in rounds if isinstance(one, str)]
    return f"{len(why)} of {len(rounds)} rounds: {why[0]}" if 0 < len(why) < len(rounds) else ""


def _cell(found: Spread | None, times: float) -> str:
    if found is None:
        return cell(None)
    mid, low, high = (cell(value, times) for value in found)
    return mid if low == high else f"{mid} ({low}–{high})"


def html(run: dict[str, Any], what: dict[str, str]) -> str:
    """The report."""
    found: Found = run["strategies"]
    head, *lines = rows(found, what)
    plots = "".join(f"<div>{one}</div>" for one in _plots(found, run["loads"]))
    return page(
        f"Strategies: {run['profile']}",
        f"""<h1>Strategies on {escape(run["profile"])}</h1>{facts({name: run[name] for name in FACTS})}
<p>Each has the same load; medians of the rounds, with the lowest and highest where there are several; times in ms. What did not help
is shown too.</p>
{html_table(head, lines)}
<h2>Plots</h2><div class="plots">{plots}</div>""",
    )


def _plots(found: Found, loads: Sequence[str]) -> list[str]:
    """Bars at the highest load; where there are several, lines over them too."""
    shown = []
    for key, title, unit, times in PLOTS:
        told = [
            Bar(name, mid * times, low * times, high * times, is_reference=name == ALL.name)
            for name, each in found.items()
            if (spread := figure(each[loads[-1]], key)) is not None
            for mid, low, high in [spread]
        ]
        shown.append(bars(f"{title} at {loads[-1]}", unit, told))
        if len(loads) > 1:
            amounts = [float(load.split("/")[0].split()[0]) for load in loads]
            lines = [Line(name, _over(each, loads, amounts, key, times)) for name, each in found.items()]
            shown.append(plot(title, "offered requests/s" if loads[-1].endswith("/s") else "users", unit, lines))
    return shown


def _over(
    each: dict[str, list[Round | str]], loads: Sequence[str], amounts: Sequence[float], key: str, times: float
) -> list[tuple[float, float]]:
    found = [(amount, figure(each[load], key)) for load, amount in zip(loads, amounts, strict=True)]
    return [(amount, spread[0] * times) for amount, spread in found if spread is not None]
