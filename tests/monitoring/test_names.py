"""Every metric and label in the rules and dashboards is one that the gateway, vLLM or Prometheus really has."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache

import pytest

from launcher.gateway.admit import EVICTED
from launcher.gateway.histograms import LENGTH_GROUPS, TTFT_S
from launcher.gateway.metrics import OUTCOMES
from launcher.gateway.ticket import Verdict
from launcher.render.dashboards import BOARDS, dashboard
from launcher.supervise.engine import Engine
from tests.monitoring.expressions import EXPRESSIONS, RECORDS
from tests.monitoring.promql import Selector, asked
from tests.monitoring.promtool import ROOT
from tests.monitoring.sources import (
    PROMETHEUS_OWN,
    TARGET_LABELS,
    gateway_series,
    process_series,
    vllm_folder,
    vllm_series,
)


@cache
def known() -> dict[str, set[str]]:
    """Series → labels. vLLM's only where it is installed."""
    recorded = {name: set[str]() for name in RECORDS}
    engines = vllm_series() if vllm_folder() else {}
    return {**gateway_series(), **process_series(), **PROMETHEUS_OWN, **recorded, **engines}


@pytest.mark.parametrize(("where", "expr"), EXPRESSIONS.items(), ids=EXPRESSIONS)
def test_what_is_asked_for_exists(where: str, expr: str) -> None:
    found = asked(expr)
    if any(selector.metric.startswith("vllm:") for selector in found.selectors) and not vllm_folder():
        pytest.skip("vLLM is not installed")
    have = known()
    assert found.selectors
    assert {selector.metric for selector in found.selectors} <= set(have)
    for metric, matched in found.selectors:
        assert set(matched) <= have[metric] | TARGET_LABELS, metric
    labels = set[str]().union(*(have[selector.metric] for selector in found.selectors))
    assert found.grouped <= labels | TARGET_LABELS


def test_the_legends_name_labels_that_are_left() -> None:
    for board in BOARDS:
        for panel in dashboard(board)["panels"]:
            for target in panel.get("targets", ()):
                named = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
                found = asked(target["expr"])
                have = found.grouped or set[str]().union(*(labels_of(selector) for selector in found.selectors))
                assert named <= have | (set() if found.grouped else TARGET_LABELS), panel["title"]


def labels_of(selector: Selector) -> set[str]:
    return known().get(selector.metric, set())


def test_the_readers_choices_are_labels() -> None:
    for board in BOARDS:
        for variable in board.variables:
            [(metric, _)] = asked(variable.selector).selectors
            assert metric in known() or not vllm_folder()
            assert variable.label in known().get(metric, {variable.label}) | TARGET_LABELS
            assert f'{variable.label}=~"${variable.name}"' in board.chosen


# Values of labels, which no table of metrics tells.


def compared(metric: str, label: str) -> set[str]:
    """The values that a label is compared with anywhere, patterns taken apart at |."""
    found: set[str] = set()
    for expr in EXPRESSIONS.values():
        for name, matched in asked(expr).selectors:
            if name == metric and label in matched:
                found |= set(matched[label].split("|"))
    return found


def test_the_bound_of_each_length_is_a_bucket() -> None:
    bucket = "launcher_time_to_first_token_seconds_bucket"
    assert {float(bound) for bound in compared(bucket, "le")} <= set(TTFT_S)
    groups = [matched["length"] for name, matched in asked(RECORDS["launcher:streams_in_time:rate5m"]).selectors]
    assert "|".join(groups).split("|") == list(LENGTH_GROUPS)


def test_outcomes_and_causes_are_those_that_are_counted() -> None:
    assert compared("launcher_tickets_total", "outcome") <= set(OUTCOMES)
    ends = next(field for field in Engine.__dataclass_fields__.values() if field.name == "ends")
    assert compared("launcher_engine_ends_total", "cause") <= set(ends.default_factory())  # type: ignore[misc]
    assert compared("launcher_evictions_total", "reason") <= {EVICTED, Verdict.NOT_READY.value}


# Refusals that are not the deployment's failing to answer, with 429 or 5xx all the same.
NOT_OWED = {
    "rate_requests", "rate_tokens",  # over the limit that its key has
    "uploads_busy", "uploads_full", "control_down", "no_control_app",  # of what is no inference
    "engine_failed", "engine_out_of_memory",  # counted as failed or evicted tickets
}  # fmt: skip


def test_each_refusal_for_want_of_room_or_of_an_engine_is_counted_as_owed() -> None:
    """A new reason belongs into launcher:requests_unserved:rate5m or into NOT_OWED."""
    literal = {reason for status, reason in refusals() if status >= 429 and status != 431 and status != 505}
    told = {Verdict.QUEUE_FULL.value, Verdict.TOO_LATE.value, Verdict.NOT_READY.value, "rate_requests", "rate_tokens"}
    owed = set(asked(RECORDS["launcher:requests_unserved:rate5m"]).selectors[1].matchers["reason"].split("|"))
    assert owed | NOT_OWED == literal | told
    assert not owed & NOT_OWED


def refusals() -> Iterator[tuple[int, str]]:
    """``Refusal(503, "reason", …)`` in the gateway's source."""
    for path in (ROOT / "launcher" / "gateway").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Refusal":
                match [argument.value for argument in node.args[:2] if isinstance(argument, ast.Constant)]:
                    case [int(status), str(reason)]:
                        yield status, reason
