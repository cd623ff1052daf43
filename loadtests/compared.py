"""What moved between two runs of `launcher bench`. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from loadtests.rounds import middle

MOVED = (
    ("goodput_per_s", "goodput/s", 1.0, True),
    ("served_per_s", "req/s", 1.0, True),
    ("output_tokens_per_s", "tokens/s", 1.0, True),
    ("ttft.p50", "TTFT p50 ms", 1000.0, False),
    ("ttft.p99", "TTFT p99 ms", 1000.0, False),
    ("itl.p50", "ITL p50 ms", 1000.0, False),
    ("e2e.p99", "E2E p99 ms", 1000.0, False),
)
LEAST_ROUNDS = 4  # on each side, for a verdict: by chance, 4 and 4 rounds lie apart once in 35 times, 2 and 2 once in 3
SETTINGS = ("model", "machine", "scale", "seed", "mode", "any_event", "rounds")  # what may differ, but is said


def compared(before: dict[str, Any], after: dict[str, Any]) -> str:
    """What moved from one run to another, at the rates that both have. Raises ValueError where they cannot be compared."""
    for key in ("scenario", "seconds", "slo"):
        if before[key] != after[key]:
            raise ValueError(f"the runs differ in {key}: {before[key]} and {after[key]}; compare runs of the same load")
    theirs = {rate["rate"]: rate for rate in before["rates"]}
    shared = [(rate, theirs[rate["rate"]]) for rate in after["rates"] if rate["rate"] in theirs]
    if not shared:
        raise ValueError("the runs have no rate in common: give the second one --rates of the first")
    lines = [
        f"The runs differ in {key.replace('_', ' ')}: {_set_to(before[key])} before, {_set_to(after[key])} after."
        for key in SETTINGS
        if key in before and key in after and before[key] != after[key]
    ]
    is_short = False
    for new, old in shared:
        rounds = min(len(new["rounds"]), len(old["rounds"]))
        is_short |= rounds < LEAST_ROUNDS
        lines.append(f"at {new['rate']:g}/s")
        for name, shown, times, is_more_better in MOVED:
            a, b = middle(old, name), middle(new, name)
            if a is not None and b is not None:
                lines.append(
                    f"  {shown:12} {_told(a, times)} → {_told(b, times)}  {_verdict(a, b, is_more_better, rounds)}"
                )
    if is_short:
        lines.append(
            f"Fewer than {LEAST_ROUNDS} rounds lie apart by chance too often: measure both with --rounds {LEAST_ROUNDS}."
        )
    return "\n".join(lines)


def _set_to(value: object) -> str:
    return "nothing" if value is None or value == "" else str(value)


def _told(found: Sequence[float], times: float) -> str:
    mid, low, high = (value * times for value in found)
    return f"{mid:.4g}" if low == high else f"{mid:.4g} ({low:.4g} to {high:.4g})"


def _verdict(before: Sequence[float], after: Sequence[float], is_more_better: bool, rounds: int) -> str:
    """Only where enough rounds of the two do not overlap is it more than noise."""
    if not before[0]:
        return ""
    change = f"{100 * (after[0] / before[0] - 1):+.1f} %"
    if rounds < LEAST_ROUNDS:
        return f"{change}, too few rounds to tell"
    if before[1] <= after[2] and after[1] <= before[2]:
        return f"{change}, within the spread"
    return f"{change}, {'better' if (after[0] > before[0]) == is_more_better else 'worse'}"
