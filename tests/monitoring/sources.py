"""Which metrics there are, with their labels: the gateway's own table, what the installed vLLM's source registers, and others'."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import CollectorRegistry

from launcher.gateway.metrics import TABLE

TARGET_LABELS = {"job", "instance", "namespace", "service"}  # Prometheus adds them; the last two on Kubernetes
PROMETHEUS_OWN = {"up": set[str](), "ALERTS": {"alertname", "alertstate", "severity"}}
ENGINE_LABELS = ["model_name", "engine"]  # what loggers.py hands to the modules that name none
VLLM_SOURCES = ("v1/metrics/loggers.py", "v1/spec_decode/metrics.py")


class Metric(NamedTuple):
    kind: str  # counter, gauge or histogram
    labels: frozenset[str]


def series(metrics: dict[str, Metric]) -> dict[str, set[str]]:
    """Names as they are stored → labels: counters with _total, histograms in their three parts."""
    found: dict[str, set[str]] = {}
    for name, (kind, labels) in metrics.items():
        match kind:
            case "counter":
                found[name if name.endswith("_total") else f"{name}_total"] = set(labels)
            case "histogram":
                found |= {f"{name}_count": set(labels), f"{name}_sum": set(labels), f"{name}_bucket": {*labels, "le"}}
            case _:
                found[name] = set(labels)
    return found


def gateway_series() -> dict[str, set[str]]:
    return series({name: Metric(kind, frozenset(labels)) for name, (kind, labels, _) in TABLE.items()})


def process_series() -> dict[str, set[str]]:
    """Of a Python process: prometheus_client puts them into every page that is not of several processes."""
    families = ProcessCollector(registry=CollectorRegistry()).collect()
    return {sample.name: set(sample.labels) for family in families for sample in family.samples}


def vllm_folder() -> Path | None:
    """Where the installed vLLM is; nothing of it is imported."""
    spec = find_spec("vllm")
    return Path(spec.origin).parent if spec is not None and spec.origin else None


@cache
def vllm_series() -> dict[str, set[str]]:
    folder = vllm_folder()
    assert folder is not None
    found = dict(metric for name in VLLM_SOURCES for metric in registered(ast.parse((folder / name).read_text())))
    return series(found)


def registered(tree: ast.Module) -> Iterator[tuple[str, Metric]]:
    """Calls such as ``self._gauge_cls(name="vllm:…", labelnames=labelnames + ["reason"])``."""
    base = next((found for node in ast.walk(tree) if (found := assigned(node))), ENGINE_LABELS)
    for node in ast.walk(tree):
        if isinstance(node, ast.Tuple) and len(node.elts) == 2 and (name := text_of(node.elts[0])).startswith("vllm:"):
            yield name, Metric("counter", frozenset(base))  # a list of counters that are made in a loop
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        name, kind = text_of(given.get("name")), node.func.attr.removeprefix("_").removesuffix("_cls")
        if name.startswith("vllm:") and kind in ("counter", "gauge", "histogram"):
            yield name, Metric(kind, frozenset(labels_of(given["labelnames"], base)))


def assigned(node: ast.AST) -> list[str] | None:
    """The list in ``labelnames = [...]``."""
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "labelnames":
        return [text_of(element) for element in node.value.elts] if isinstance(node.value, ast.List) else None
    return None


def labels_of(node: ast.expr, base: list[str]) -> list[str]:
    if isinstance(node, ast.List):
        return [text_of(element) for element in node.elts]
    if isinstance(node, ast.BinOp):
        return labels_of(node.left, base) + labels_of(node.right, base)
    return base


def text_of(node: ast.expr | None) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
