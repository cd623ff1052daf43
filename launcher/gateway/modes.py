"""Modes: presets of the admission settings, and the rules that a profile and its mode come to. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

from launcher.profile.model import AdmissionSection


class Priority(IntEnum):
    """Who goes first. Live dialogue is high, batch work low; X-Priority, the key or vLLM's own field says which."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


PRIORITIES = {"high": Priority.HIGH, "normal": Priority.NORMAL, "low": Priority.LOW}
PRIORITY_NAMES = tuple(PRIORITIES)  # by value


@dataclass(frozen=True, slots=True)
class Rules:
    """How requests are admitted, all of it decided. Times in seconds."""

    mode: str
    deadlines_s: tuple[float, float, float]  # longest wait in the queue, by priority
    deadline_per_1k_s: float  # added for each 1,000 prompt tokens to be computed beyond the first 1,000
    window_s: float
    window_when: str  # when_saturated, always or never
    prefill_budgets: float  # prompt tokens in hand before their first token, in batch token budgets

    def deadline_s(self, priority: int, prefill_tokens: int) -> float:
        """How long a request may wait."""
        return self.deadlines_s[priority] + self.deadline_per_1k_s * max(0, prefill_tokens - 1000) / 1000


# The evidence behind each figure: README, 'How admission works', and tests/simulation.
MODES = {
    rules.mode: rules
    for rules in (
        Rules("low-latency", (0.2, 0.2, 0.5), 0.2, 0.0, "never", 0.75),
        Rules("balanced", (0.2, 0.2, 2.0), 0.2, 0.05, "when_saturated", 1.0),
        Rules("high-throughput", (1.0, 1.0, 30.0), 0.5, 0.05, "when_saturated", 2.0),
    )
}


def rules_of(admission: AdmissionSection, mode: str | None = None) -> Rules:
    """A mode's preset with what the profile says itself. ``mode`` None: the profile's."""
    rules = MODES[mode or admission.mode]
    own: dict[str, object] = {}
    if admission.deadline is not None:
        own["deadlines_s"] = (admission.deadline,) * 3
    if admission.deadline_per_1k is not None:
        own["deadline_per_1k_s"] = admission.deadline_per_1k
    if admission.window is not None:
        own["window_s"] = admission.window
    if admission.window_when is not None:
        own["window_when"] = admission.window_when
    return replace(rules, **own)  # type: ignore[arg-type]
