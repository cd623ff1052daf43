"""Every PromQL expression of the rules and dashboards, by where it stands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from launcher.render.dashboards import BOARDS, dashboard
from tests.monitoring.promql import asked
from tests.monitoring.promtool import RULES
from tests.monitoring.sources import TARGET_LABELS

GROUPS: list[dict[str, Any]] = yaml.safe_load(RULES.read_text())["groups"]
RECORDS = {rule["record"]: rule["expr"] for group in GROUPS for rule in group["rules"] if "record" in rule}
ALERTS = {rule["alert"]: rule["expr"] for group in GROUPS for rule in group["rules"] if "alert" in rule}


def panel_expressions() -> Iterator[tuple[str, str]]:
    for board in BOARDS:
        for panel in dashboard(board)["panels"]:
            for target in panel.get("targets", ()):
                yield f"{board.uid}: {panel['title']} {target['refId']}", target["expr"]


EXPRESSIONS = {**RECORDS, **ALERTS, **dict(panel_expressions())}


def engine_metrics_asked_for() -> dict[str, set[str]]:
    """vLLM's series, and its process's, that any expression asks for, with the labels that it picks them by."""
    found: dict[str, set[str]] = {}
    for expr in EXPRESSIONS.values():
        for metric, matched in asked(expr).selectors:
            if metric.startswith(("vllm:", "process_")):
                found[metric] = found.get(metric, set()) | (set(matched) - TARGET_LABELS)
    return found
