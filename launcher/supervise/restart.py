"""When to restart a dead engine and when to give up: exponential back-off within a crash budget. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from launcher.profile.model import RestartSection


@dataclass(frozen=True)
class RestartPolicy:
    """Times in seconds. ``budget`` restarts within ``window_s``; the wait doubles from ``backoff_s`` to ``max_backoff_s``."""

    backoff_s: float
    max_backoff_s: float
    budget: int
    window_s: float

    @classmethod
    def of(cls, section: RestartSection) -> RestartPolicy:
        return cls(section.backoff, section.max_backoff, section.budget, section.window)


def recent_crashes(crashes: Sequence[float], now: float, policy: RestartPolicy) -> tuple[float, ...]:
    """The crash times that still count: those within the window before ``now``."""
    return tuple(at for at in crashes if now - at < policy.window_s)


def restarts_left(crashes: Sequence[float], now: float, policy: RestartPolicy) -> int:
    """Restarts that the budget still allows."""
    return max(0, policy.budget - len(recent_crashes(crashes, now, policy)))


def restart_delay_s(recent: Sequence[float], policy: RestartPolicy) -> float | None:
    """Seconds to wait after the last of ``recent`` crashes, or None when the budget is spent."""
    if len(recent) > policy.budget:
        return None
    doublings = min(max(0, len(recent) - 1), 30)  # 2**30 s is past any max_backoff; keeps the power finite
    return float(min(policy.backoff_s * 2**doublings, policy.max_backoff_s))
