"""A figure of a run, and over the rounds at one rate. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median
from typing import Any

Spread = tuple[float, float, float]  # median, lowest, highest


def value_of(group: dict[str, Any], name: str) -> float | None:
    """A figure by its name, such as ``ttft.p99``; None where there is none."""
    found: Any = group
    for part in name.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found if isinstance(found, int | float) else None


def spread_of(groups: Iterable[dict[str, Any]], name: str) -> Spread | None:
    """Of a figure over those that have it; None where none has."""
    values = [value for one in groups if (value := value_of(one, name)) is not None]
    return (median(values), min(values), max(values)) if values else None


def middle(rate: dict[str, Any], name: str) -> Spread | None:
    """Of the rounds at one rate."""
    return spread_of((one["scenarios"]["all"] for one in rate["rounds"]), name)
