"""What became of the requests, added up: goodput, percentiles, refusals; and the tables that compare targets. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from loadtests.workloads import Kind, Planned

UNANSWERED = 0  # the status of a request that was never answered


@dataclass
class Record:
    """One request and its answer. Times in seconds from the run's start; None: it never came to that."""

    planned: Planned
    sent_at: float | None = None
    first_event_at: float | None = None
    first_text_at: float | None = None
    ended_at: float | None = None
    status: int = UNANSWERED
    reason: str = ""  # why it was refused or broke
    retry_after_s: float | None = None
    attempts: int = 0
    pieces: int = 0
    prompt_tokens: int | None = None  # as the engine counted them
    output_tokens: int | None = None

    @property
    def is_served(self) -> bool:
        return self.status == 200 and not self.reason

    @property
    def ttft_s(self) -> float | None:
        """From when it was due, not from when it was sent: a client that lags must not make an engine look quick."""
        first_at = self.first_text_at if self.first_text_at is not None else self.first_event_at
        return None if first_at is None else first_at - self.planned.at_s

    @property
    def is_good(self) -> bool:
        ttft_s = self.ttft_s
        return self.is_served and ttft_s is not None and ttft_s <= self.planned.kind.slo_s


def percentile(values: Iterable[float], share: float) -> float | None:
    """The smallest value that this share of the values does not pass; None where there are none."""
    ranked = sorted(values)
    if not ranked:
        return None
    return ranked[max(0, math.ceil(share * len(ranked)) - 1)]


def summary(records: Sequence[Record], seconds: float) -> dict[str, Any]:
    """An open-loop run in figures; ``seconds`` is how long requests arrived."""
    good = sum(record.is_good for record in records)
    served = [record for record in records if record.is_served]
    late = [record.sent_at - record.planned.at_s for record in records if record.sent_at is not None]
    hints = [record.retry_after_s for record in records if record.retry_after_s is not None]
    return {
        "seconds": seconds,
        "offered": len(records),
        "offered_per_s": _rounded(len(records) / seconds),
        "served": len(served),
        "good": good,
        "good_share": _rounded(good / len(records)) if records else None,
        "goodput_per_s": _rounded(good / seconds),
        "served_per_s": _rounded(len(served) / seconds),
        "ttft_ms": _spread_ms(record.ttft_s for record in served),
        "e2e_ms": _spread_ms(
            record.ended_at - record.planned.at_s for record in served if record.ended_at is not None
        ),
        "kinds": _by_kind(records),
        "not_served": dict(Counter(f"{r.status} {r.reason}".strip() for r in records if not r.is_served).most_common()),
        "refused_after_ms": _spread_ms(
            record.ended_at - record.planned.at_s
            for record in records
            if record.ended_at is not None and not record.is_served
        ),
        "retry_after_s": {"count": len(hints), "p50": percentile(hints, 0.5), "max": max(hints, default=None)},
        "prompt_tokens_off": max(
            (abs(r.prompt_tokens - r.planned.prompt_tokens) for r in served if r.prompt_tokens is not None), default=None
        ),
        "sent_late_ms": _spread_ms(late),
    }  # fmt: skip


def _by_kind(records: Sequence[Record]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for kind in dict.fromkeys(record.planned.kind for record in records):
        mine = [record for record in records if record.planned.kind == kind]
        found[kind.name] = {
            "slo_ms": _rounded(kind.slo_s * 1000),
            "offered": len(mine),
            "served": sum(record.is_served for record in mine),
            "good": sum(record.is_good for record in mine),
            "ttft_ms": _spread_ms(record.ttft_s for record in mine if record.is_served),
        }
    return dict(sorted(found.items(), key=lambda item: item[1]["slo_ms"]))


def _spread_ms(values: Iterable[float | None]) -> dict[str, float | None]:
    there = [1000 * value for value in values if value is not None]
    return {f"p{share * 100:g}": _rounded(percentile(there, share)) for share in (0.5, 0.95, 0.99)}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4 if value < 10 else 1)


def fluid_bound(kinds: Sequence[Kind], rate: float, prefill_per_s: float) -> float:
    """The most good answers a second: the shortest prompts first, as many as so many prompt tokens a second carry."""
    good, left = 0.0, prefill_per_s
    for kind in sorted(kinds, key=mean_prompt):
        carried = min(rate * kind.share, left / mean_prompt(kind))
        good, left = good + carried, left - carried * mean_prompt(kind)
    return good


def mean_prompt(kind: Kind) -> float:
    """Tokens."""
    return sum(kind.prompt_tokens) / 2


# Tables.


def medians(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Several summaries of the same target and rate as one: the median of each figure."""
    merged: dict[str, Any] = {}
    for key in runs[0]:
        values = [run[key] for run in runs if run.get(key) is not None]
        if values and isinstance(values[0], Mapping):
            merged[key] = medians(values)
        elif values and isinstance(values[0], int | float):
            merged[key] = median(values)
        else:
            merged[key] = values[0] if values else None
    return merged


def ratios(ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]) -> list[float]:
    """Our goodput over theirs, round by round; infinite where theirs was nothing."""
    pairs = [(one["goodput_per_s"], other["goodput_per_s"]) for one, other in zip(ours, theirs, strict=True)]
    return [one / other if other else float("inf") for one, other in pairs]


def markdown(rows: Sequence[tuple[str, float, Mapping[str, Any], str]]) -> str:
    """The table for RESULTS.md; a row is target, rate, figures and the ratio's text."""
    kinds = list(rows[0][2]["kinds"])
    head = ["in front of the engine", "offered/s", "served", "good", "goodput/s"]
    head += [f"{kind} TTFT p50 / p99 ms" for kind in kinds] + ["goodput of ours over it"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for target, rate, run, ratio in rows:
        cells = [
            target,
            f"{rate:.3g}",
            f"{run['served']:g}/{run['offered']:g}",
            f"{100 * (run['good_share'] or 0):.0f} %",
        ]
        cells.append(f"{run['goodput_per_s']:.3g}")
        for kind in kinds:
            spread = run["kinds"].get(kind, {}).get("ttft_ms", {})
            cells.append(" / ".join(_ms(spread.get(share)) for share in ("p50", "p99")))
        lines.append("| " + " | ".join([*cells, ratio]) + " |")
    return "\n".join(lines)


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"
