"""A figure of a run, and over the rounds at one rate. Pure."""

from __future__ import annotations

from statistics import median
from typing import Any


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
