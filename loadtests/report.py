"""A run of `launcher bench` for people: one HTML file without scripts, a table for the terminal, and what moved between two. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from statistics import median
from typing import Any

from loadtests.plots import Line, plot

STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --soft: #59636e; --line: #d1d9e0; --paper: #fff }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9198a1; --line: #3d444d; --paper: #0d1117 } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 1180px; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem }
h2 { font-size: 1.15rem; margin-top: 2rem }
p, li { max-width: 75ch }
h1, p, li, dd { overflow-wrap: anywhere }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 480px), 1fr)); gap: 1rem; margin-top: 1rem }
svg { width: 100%; height: auto; font-size: 13px }
svg text { fill: var(--soft) }
svg .title { fill: var(--ink); font-size: 14px; font-weight: 600 }
.grid { stroke: var(--line); stroke-width: .6 }
.axis { stroke: var(--soft); fill: none }
.line { fill: none; stroke-width: 1.8 }
.spread { stroke-width: 1; opacity: .8 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14px; display: block; overflow-x: auto }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap }
th { color: var(--soft); font-weight: 600 }
td.sentence { text-align: left; white-space: normal; min-width: 24ch }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .1rem 1rem }
dt, figure.empty { color: var(--soft) }
figure { margin: 0 }
figcaption { color: var(--ink); font-size: 14px; font-weight: 600 }
dd { margin: 0 }
"""
# The policy of the page: nothing is loaded, nothing runs.
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
HEAD = (
    "offered/s", "sent", "served", "refused", "failed", "req/s", "goodput/s", "tokens/s",
    "TTFT p50", "p95", "p99", "ITL p50", "p99", "E2E p50", "p99",
)  # fmt: skip
# What the tables of strategies and sweep show of a group: where it lies, its name, and times what.
COLUMNS = (
    ("served_per_s", "req/s", 1.0),
    ("goodput_per_s", "goodput/s", 1.0),
    ("output_tokens_per_s", "tokens/s", 1.0),
    ("ttft.p50", "TTFT p50", 1000.0),
    ("ttft.p99", "TTFT p99", 1000.0),
    ("itl.p50", "ITL p50", 1000.0),
    ("e2e.p99", "E2E p99", 1000.0),
)
MOVED = (
    ("goodput_per_s", "goodput/s", 1.0, True),
    ("served_per_s", "req/s", 1.0, True),
    ("output_tokens_per_s", "tokens/s", 1.0, True),
    ("ttft.p50", "TTFT p50 ms", 1000.0, False),
    ("ttft.p99", "TTFT p99 ms", 1000.0, False),
    ("itl.p50", "ITL p50 ms", 1000.0, False),
    ("e2e.p99", "E2E p99 ms", 1000.0, False),
)
SENTENCE = 24  # characters; a longer cell is no figure and no name
LEAST_ROUNDS = 4  # on each side, for a verdict: by chance, 4 and 4 rounds lie apart once in 35 times, 2 and 2 once in 3
SETTINGS = ("model", "machine", "scale", "seed", "mode", "any_event", "rounds")  # what may differ, but is said
Rates = list[dict[str, Any]]


def value_of(group: dict[str, Any], name: str) -> float | None:
    """A figure by its name, such as ``ttft.p99``; None where there is none."""
    found: Any = group
    for part in name.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found if isinstance(found, int | float) else None


def middle(rate: dict[str, Any], name: str) -> tuple[float, float, float] | None:
    """Median, lowest and highest of the rounds at one rate."""
    values = [value for one in rate["rounds"] if (value := value_of(one["scenarios"]["all"], name)) is not None]
    return (median(values), min(values), max(values)) if values else None


def rows(run: dict[str, Any]) -> list[tuple[str, ...]]:
    """A row of HEAD for each rate: medians over the rounds."""
    return [_row(rate) for rate in run["rates"]]


def _row(rate: dict[str, Any]) -> tuple[str, ...]:
    def number(name: str, times: float = 1.0, digits: str = ".3g") -> str:
        found = middle(rate, name)
        return "–" if found is None else format(found[0] * times, digits)

    counts = tuple(number(name, digits=".0f") for name in ("sent", "served", "refused", "failed"))
    per_s = tuple(number(name) for name in ("served_per_s", "goodput_per_s", "output_tokens_per_s"))
    times = ("ttft.p50", "ttft.p95", "ttft.p99", "itl.p50", "itl.p99", "e2e.p50", "e2e.p99")
    return (f"{rate['rate']:g}", *counts, *per_s, *(number(name, 1000, ".0f") for name in times))


def text_table(run: dict[str, Any]) -> str:
    """The rows for a terminal; times in ms."""
    cells = [HEAD, *rows(run)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(HEAD))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)


def html_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A row may end early, or in empty cells: where a sentence is its last word, that takes their place."""
    titles = "".join(f"<th scope=col>{escape(cell)}</th>" for cell in head)
    body = "".join(f"<tr>{_html_cells(line, len(head))}</tr>" for line in lines)
    return f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"


def _html_cells(line: Sequence[str], width: int) -> str:
    told = list(line)
    while told and not told[-1]:
        told.pop()
    *before, last = told or [""]
    rest = width - len(before)
    end = _html_cell(last, rest) if len(last) > SENTENCE else _html_cell(last) + "<td></td>" * (rest - 1)
    return "".join(map(_html_cell, before)) + end


def _html_cell(text: str, columns: int = 1) -> str:
    marks = (" class=sentence" if len(text) > SENTENCE else "") + (f" colspan={columns}" if columns > 1 else "")
    return f"<td{marks}>{escape(text)}</td>"


def html(run: dict[str, Any]) -> str:
    """The whole report."""
    slo = (
        ", ".join(f"{name} ≤ {value:g} s" for name, value in run["slo"].items())
        or "none given: every whole answer is good"
    )
    facts = {
        "when": run["when"], "machine": run["machine"], "target": run["target"], "model": run["model"], "scenario": run["scenario"],
        "limits (SLO)": slo, "rounds": f"{run['rounds']} of {run['seconds']:g} s at each rate", "command": run["command"],
    }  # fmt: skip
    listed = "".join(f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in facts.items())
    plots = "\n".join(f"<div>{one}</div>" for one in _plots(run))
    reasons = _reasons(run)
    notes = "".join(f"<p>{escape(note)}</p>" for note in run.get("notes", ()))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{escape(run["scenario"])} on {escape(run["model"])}: load test</title><style>{STYLE}</style></head>
<body><h1>Load test: {escape(run["scenario"])} on {escape(run["model"])}</h1><dl>{listed}</dl>
<h2>At each offered rate</h2>
<p>Open loop: requests come when they are due, whether or not earlier ones have been answered, and are timed from then. Medians of the
rounds; times in ms. Refused are answers 429 and 503, which are told in time; goodput counts whole answers within the limits.</p>
{html_table(HEAD, rows(run))}{notes}{reasons}
<h2>Plots</h2><div class="plots">
{plots}
</div></body></html>
"""


def _reasons(run: dict[str, Any]) -> str:
    found: dict[str, int] = {}
    for rate in run["rates"]:
        for one in rate["rounds"]:
            for reason, count in one["scenarios"]["all"]["not_served"].items():
                found[reason] = found.get(reason, 0) + count
    if not found:
        return "<p>Every request was served.</p>"
    told = "".join(
        f"<li>{count} × {escape(reason)}</li>" for reason, count in sorted(found.items(), key=lambda item: -item[1])
    )
    return f"<p>Not served, in all rounds:</p><ul>{told}</ul>"


def _plots(run: dict[str, Any]) -> list[str]:
    rates: Rates = run["rates"]
    offered = "offered requests/s"
    found = [
        plot(
            "Time to first token",
            offered,
            "ms",
            [_over(rates, f"ttft.{share}", share, 1000) for share in ("p50", "p95", "p99")],
        ),
        plot(
            "Goodput",
            offered,
            "answers/s",
            [_over(rates, "goodput_per_s", "good"), _over(rates, "served_per_s", "served")],
        ),
        plot(
            "Between tokens",
            offered,
            "ms",
            [_over(rates, f"itl.{share}", share, 1000) for share in ("p50", "p95", "p99")],
        ),
        plot("Time to first token, all of them", "ms", "% of answers", [_cdf(rate) for rate in rates], x_log=True),
    ]
    timeline = run["timeline"]
    for title, unit, names in (
        ("Waiting and running", "requests", ("queued", "in flight")),
        ("Prompt tokens in hand", "tokens", ("prefill",)),
        ("KV cache in use", "%", ("kv cache",)),
        ("Card memory in use", "GiB", ("card memory",)),
        ("Cards busy", "%", ("card busy",)),
    ):
        lines = [
            Line(name, [(one["at"], one[name]) for one in timeline if one.get(name) is not None]) for name in names
        ]
        if any(line.points for line in lines):
            found.append(plot(title, "seconds", unit, lines))
    return found


def _over(rates: Rates, name: str, shown: str, times: float = 1.0) -> Line:
    points, spread = [], []
    for rate in rates:
        if (found := middle(rate, name)) is not None:
            points.append((rate["rate"], found[0] * times))
            spread.append((found[1] * times, found[2] * times))
    return Line(shown, points, spread if any(low != high for low, high in spread) else ())


def _cdf(rate: dict[str, Any]) -> Line:
    values = sorted(value * 1000 for one in rate["rounds"] for value in one["samples"]["ttft"] if value > 0)
    step = max(1, len(values) // 200)
    points = [(value, 100 * (index + 1) / len(values)) for index, value in enumerate(values)]
    return Line(f"{rate['rate']:g}/s", points[::step] + points[-1:] if points else [])


def compared(before: dict[str, Any], after: dict[str, Any]) -> str:
    """What moved from one run to another, at the rates that both have. Raises ValueError where they cannot be compared."""
    for key in ("scenario", "seconds", "slo"):
        if before[key] != after[key]:
            raise ValueError(f"the runs differ in {key}: {before[key]} and {after[key]}; compare runs of the same load")
    theirs = {rate["rate"]: rate for rate in before["rates"]}
    shared = [(rate, theirs[rate["rate"]]) for rate in after["rates"] if rate["rate"] in theirs]
    if not shared:
        raise ValueError("the runs have no rate in common: give the second one --rates of the first")
    lines = [
        f"The runs differ in {key.replace('_', ' ')}: {_set_to(before[key])} before, {_set_to(after[key])} after."
        for key in SETTINGS
        if key in before and key in after and before[key] != after[key]
    ]
    is_short = False
    for new, old in shared:
        rounds = min(len(new["rounds"]), len(old["rounds"]))
        is_short |= rounds < LEAST_ROUNDS
        lines.append(f"at {new['rate']:g}/s")
        for name, shown, times, is_more_better in MOVED:
            a, b = middle(old, name), middle(new, name)
            if a is not None and b is not None:
                lines.append(
                    f"  {shown:12} {_told(a, times)} → {_told(b, times)}  {_verdict(a, b, is_more_better, rounds)}"
                )
    if is_short:
        lines.append(
            f"Fewer than {LEAST_ROUNDS} rounds lie apart by chance too often: measure both with --rounds {LEAST_ROUNDS}."
        )
    return "\n".join(lines)


def _set_to(value: object) -> str:
    return "nothing" if value is None or value == "" else str(value)


def _told(found: Sequence[float], times: float) -> str:
    mid, low, high = (value * times for value in found)
    return f"{mid:.4g}" if low == high else f"{mid:.4g} ({low:.4g} to {high:.4g})"


def _verdict(before: Sequence[float], after: Sequence[float], is_more_better: bool, rounds: int) -> str:
    """Only where enough rounds of the two do not overlap is it more than noise."""
    if not before[0]:
        return ""
    change = f"{100 * (after[0] / before[0] - 1):+.1f} %"
    if rounds < LEAST_ROUNDS:
        return f"{change}, too few rounds to tell"
    if before[1] <= after[2] and after[1] <= before[2]:
        return f"{change}, within the spread"
    return f"{change}, {'better' if (after[0] > before[0]) == is_more_better else 'worse'}"
