"""What a run was told and what it found, as people write it: settings in a report's head, figures in a cell. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NAMES = {"slo": "limits (SLO)", "set": "keys set", "any_event": "events without text count", "vllm": "vLLM"}


def fact(value: Any) -> str:
    """``{'ttft': 1.0}`` is a limit; nothing at all is ``none``."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value in ("", [], (), {}):
        return "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} ≤ {limit:g} s" for name, limit in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def facts_of(told: Mapping[str, Any]) -> dict[str, str]:
    """For the head of a report: names and values in words."""
    return {NAMES.get(name, name.replace("_", " ")): fact(value) for name, value in told.items()}


def cell(value: float | None, times: float = 1.0) -> str:
    """Three digits, and never an exponent: ``1050``, not ``1.05e+03``."""
    if value is None:
        return "–"
    return f"{value * times:.0f}" if abs(value * times) >= 100 else f"{value * times:.3g}"
