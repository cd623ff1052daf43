"""A sweep for people: a table, and one HTML file without scripts. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from loadtests.facts import cell
from loadtests.page import facts, page
from loadtests.plots import Line, plot
from loadtests.report import COLUMNS
from loadtests.rounds import value_of
from loadtests.tables import html_table, markdown_table

ONCE = "Each row is one round: measure the best ones again before you believe small differences."
Row = dict[str, Any]  # settings, and: figures with memory_gib, or why


def lines_of(rows: Sequence[Row]) -> list[list[str]]:
    """The head, then a line for each row; one without figures ends with the reason."""
    keys = list(rows[0]["settings"]) if rows else []
    head = [*keys, "memory GiB", *(name for _, name, _ in COLUMNS)]
    return [head, *([*row["settings"].values(), *cells(row)] for row in rows)]


def cells(row: Row) -> list[str]:
    """The cells behind the settings."""
    if "why" in row:
        return [row["why"], *[""] * len(COLUMNS)]
    shown = [cell(value_of(row["figures"], key), times) for key, _, times in COLUMNS]
    return [f"{row['memory_gib']:.2f}", *shown]


def table(rows: Sequence[Row]) -> str:
    """For a terminal, and for Markdown."""
    return markdown_table(lines_of(rows))


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


def html(load: dict[str, Any], rows: Sequence[Row], about: dict[str, str] | None = None) -> str:
    """The report; ``about``: what else the figures are of, such as the machine."""
    measured_rows = [row for row in rows if "figures" in row]
    front = [place(row) for row in pareto(rows)]
    others = sorted(place(row) for row in measured_rows)
    svg = plot(
        "Answer tokens against the wait for the first",
        "TTFT p99, ms",
        "tokens/s",
        [Line("best of its kind", front), Line("all", others, is_joined=False)],
    )
    head, *lines = lines_of(rows)
    name = f"Sweep of {load['profile']}"
    told = facts({**load, **(about or {})})
    body = f"""<h1>{escape(name)}</h1>{told}
{html_table(head, lines)}<p>{ONCE}</p><div class="plots"><div>{svg}</div></div>"""
    return page(name, body)
