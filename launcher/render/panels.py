"""What the dashboards show: one table a dashboard, rows of panels, each with its PromQL, unit and meaning.

``@`` in an expression stands for the labels by which the reader chooses (see ``Board.chosen``).
"""

from __future__ import annotations

from typing import NamedTuple

RATE = "[$__rate_interval]"


class Query(NamedTuple):
    """``legend`` may name labels, as ``{{replica}}``."""

    expr: str
    legend: str = ""


class Panel(NamedTuple):
    """``unit`` is one of Grafana's; ``kind`` one of timeseries, stat and heatmap; ``width`` is in 24ths."""

    title: str
    unit: str
    queries: tuple[Query, ...]
    description: str
    kind: str = "timeseries"
    width: int = 8


class Row(NamedTuple):
    title: str
    panels: tuple[Panel, ...]


class Variable(NamedTuple):
    """What the reader chooses by: the values of ``label`` in what a selector finds."""

    name: str
    selector: str
    label: str


class Board(NamedTuple):
    """A dashboard. ``chosen``: what ``@`` stands for in its expressions."""

    uid: str
    title: str
    description: str
    variables: tuple[Variable, ...]
    chosen: str
    rows: tuple[Row, ...]


def percentiles(metric: str, by: str = "") -> tuple[Query, ...]:
    """Its median, 95th and 99th percentile; with ``by`` the 95th by that label."""
    if by:
        return (Query(quantile(0.95, metric, f"le, {by}"), f"{{{{{by}}}}}"),)
    return tuple(Query(quantile(share, metric, "le"), f"p{share * 100:.0f}") for share in (0.5, 0.95, 0.99))


def quantile(share: float, metric: str, by: str) -> str:
    return f"histogram_quantile({share}, sum by ({by}) (rate({metric}_bucket{{@}}{RATE})))"


def rates(metric: str, by: str, legend: str = "") -> tuple[Query, ...]:
    """A counter's rate, added up by a label."""
    return (Query(f"sum by ({by}) (rate({metric}{{@}}{RATE}))", legend or f"{{{{{by}}}}}"),)


def share(part: str, whole: str, by: str) -> tuple[Query, ...]:
    """One counter's rate as a share of another's, by a label."""
    top, bottom = (f"sum by ({by}) (rate({metric}{{@}}{RATE}))" for metric in (part, whole))
    return (Query(f"{top} / {bottom}", f"{{{{{by}}}}}"),)


def used(what: str, limit: str) -> tuple[Query, ...]:
    """What each replica has in hand, and how much it may."""
    return (Query(f"{what}{{@}}", "{{replica}}"), Query(f"{limit}{{@}}", "{{replica}}: limit"))


def stat(title: str, unit: str, expr: str, description: str) -> Panel:
    """One number, as it is now."""
    return Panel(title, unit, (Query(expr),), description, "stat", 4)
