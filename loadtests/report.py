"""A run of `launcher bench` for people: one HTML file without scripts, and a table for the terminal. Pure."""

from __future__ import annotations

from html import escape
from typing import Any

from loadtests.facts import fact
from loadtests.page import facts, page
from loadtests.plots import Line, plot
from loadtests.rounds import middle
from loadtests.tables import html_table, text_rows

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
Rates = list[dict[str, Any]]


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
    return text_rows([HEAD, *rows(run)])


def html(run: dict[str, Any]) -> str:
    """The whole report."""
    slo = fact(run["slo"]) if run["slo"] else "none given: every whole answer is good"
    told = {
        "when": run["when"], "machine": run["machine"], "target": run["target"], "model": run["model"], "scenario": run["scenario"],
        "limits (SLO)": slo, "rounds": f"{run['rounds']} of {run['seconds']:g} s at each rate", "command": run["command"],
    }  # fmt: skip
    plots = "\n".join(f"<div>{one}</div>" for one in _plots(run))
    notes = "".join(f"<p>{escape(note)}</p>" for note in run.get("notes", ()))
    what = f"{run['scenario']} on {run['model']}"
    return page(
        f"{what}: load test",
        f"""<h1>Load test: {escape(what)}</h1>{facts(told)}
<h2>At each offered rate</h2>
<p>Open loop: requests come when they are due, whether or not earlier ones have been answered, and are timed from then. Medians of the
rounds; times in ms. Refused are answers 429 and 503, which are told in time; goodput counts whole answers within the limits.</p>
{html_table(HEAD, rows(run))}{notes}{_reasons(run)}
<h2>Plots</h2><div class="plots">
{plots}
</div>""",
    )


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
