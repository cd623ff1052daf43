"""What a run with Locust came to: exact percentiles, tokens a second, refusals and goodput. No I/O."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from loadtests.streaming import Answer
from loadtests.tally import percentile

SHARES = (0.5, 0.9, 0.95, 0.99)
LIMITS = ("ttft", "itl", "e2e")


def limits_of(text: str) -> dict[str, float]:
    """``ttft=1,itl=60ms`` as seconds by name. Raises ValueError with a sentence."""
    found = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = part.partition("=")
        try:
            if name not in LIMITS:
                raise ValueError
            found[name] = float(value[:-2]) / 1000 if value.endswith("ms") else float(value.removesuffix("s"))
            if not 0 < found[name] < math.inf:
                raise ValueError
        except ValueError:
            raise ValueError(
                f"--slo: {part!r} is none of {', '.join(f'{limit}=SECONDS' for limit in LIMITS)} (or 60ms)"
            ) from None
    return found


class Figures:
    """Of one process, or of all where workers report theirs."""

    def __init__(self, limits: dict[str, float]) -> None:
        self._limits = limits
        self._began_at = 0.0
        self.sent_for_s: float | None = None  # of an open loop: how long requests arrive
        self._rows: list[dict[str, Any]] = []

    def begin(self, now: float, limits: dict[str, float] | None = None) -> None:
        self._began_at = now
        self._limits = self._limits if limits is None else limits
        self._rows.clear()

    def add(self, scenario: str, answer: Answer) -> None:
        gaps = answer.itl_s
        row = {
            "scenario": scenario, "served": answer.is_served, "refused": answer.is_refused, "reason": answer.reason,
            "ttft": answer.ttft_s, "itl": sum(gaps) / len(gaps) if gaps else None, "gap": max(gaps, default=None),
            "e2e": answer.e2e_s, "lag": answer.lag_s, "prompt": answer.prompt_tokens, "output": answer.output_tokens,
            "ended": answer.ended_at - self._began_at,
        }  # fmt: skip
        # An answer without text has come when it is whole.
        times: dict[str, Any] = row | {"ttft": answer.e2e_s if answer.ttft_s is None else answer.ttft_s}
        row["good"] = answer.is_served and all(
            times[name] is None or times[name] <= most for name, most in self._limits.items()
        )
        self._rows.append(row)

    def take(self) -> list[dict[str, Any]]:
        """Gives its rows away, for the master."""
        rows, self._rows = self._rows, []
        return rows

    def merge(self, rows: list[dict[str, Any]]) -> None:
        self._rows += rows

    @property
    def lag_p99_s(self) -> float | None:
        return percentile((row["lag"] for row in self._rows), 0.99)

    def data(self) -> dict[str, Any]:
        """Everything, for a file: times in seconds, rates a second.

        What was offered is by the time in which requests were sent. What was served is by the time to the last answer, and
        goodput by that to the last good one: by the shorter time a server that works off a backlog would seem to keep up.
        Neither is shorter than requests were sent: a server that is good for a second of thirty would seem good throughout.
        """
        seconds = self._span("served")
        spans = {"offered": self.sent_for_s or seconds, "served": seconds, "good": self._span("good")}
        names = sorted({row["scenario"] for row in self._rows})
        groups = {"all": self._rows} | {name: [row for row in self._rows if row["scenario"] == name] for name in names}
        return {
            "seconds": round(seconds, 3),
            "slo": self._limits,
            "lag_p99": self.lag_p99_s,
            "samples": {
                name: [round(row[name], 5) for row in self._rows if row["served"] and row[name] is not None]
                for name in ("ttft", "e2e")
            },
            "scenarios": {name: _group(rows, spans) for name, rows in groups.items()},
        }

    def _span(self, name: str) -> float:
        """Seconds to the last answer that is so, and at least to the last request."""
        ended = [row["ended"] for row in self._rows if row[name]] or [row["ended"] for row in self._rows]
        # Nobody says of a closed loop how long it sends: until its last request was due.
        sent = [row["ended"] - row["e2e"] for row in self._rows]
        found: float = max([1e-9, *([self.sent_for_s] if self.sent_for_s else sent), *ended])
        return found

    def table(self) -> str:
        """The same for people."""
        data = self.data()
        lines = [
            f"\n{data['seconds']:.1f} s to the last answer; times in ms, p50 / p95 / p99; GAP: an answer's longest"
        ]
        head = (
            "scenario",
            "sent",
            "served",
            "refused",
            "failed",
            "req/s",
            "good/s",
            "tok/s",
            "TTFT",
            "ITL",
            "GAP",
            "E2E",
        )
        rows = [head, *(_line(name, group) for name, group in data["scenarios"].items())]
        widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
        lines += ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        for reason, count in data["scenarios"]["all"]["not_served"].items():
            lines.append(f"not served: {count} × {reason}")
        return "\n".join(lines) + "\n"


def _group(rows: Sequence[dict[str, Any]], spans: dict[str, float]) -> dict[str, Any]:
    served = [row for row in rows if row["served"]]
    refused = [row for row in rows if row["refused"]]
    return {
        "sent": len(rows),
        "served": len(served),
        "refused": len(refused),
        "failed": len(rows) - len(served) - len(refused),
        "good": sum(row["good"] for row in rows),
        "offered_per_s": len(rows) / spans["offered"],
        "served_per_s": len(served) / spans["served"],
        "goodput_per_s": sum(row["good"] for row in rows) / spans["good"],
        "prompt_tokens_per_s": sum(row["prompt"] for row in served) / spans["served"],
        "output_tokens_per_s": sum(row["output"] for row in served) / spans["served"],
        "ttft": _spread(served, "ttft"),
        "itl": _spread(served, "itl"),
        "longest_gap": _spread(served, "gap"),
        "e2e": _spread(served, "e2e"),
        "refused_after": _spread(refused, "e2e"),
        "not_served": dict(Counter(row["reason"] for row in rows if not row["served"]).most_common()),
    }


def _spread(rows: Sequence[dict[str, Any]], name: str) -> dict[str, float | None]:
    values = [row[name] for row in rows if row[name] is not None]
    return {f"p{share * 100:g}": percentile(values, share) for share in SHARES}


def _line(name: str, group: dict[str, Any]) -> tuple[str, ...]:
    counts = (group[key] for key in ("sent", "served", "refused", "failed"))
    rates = (group[key] for key in ("served_per_s", "goodput_per_s", "output_tokens_per_s"))
    times = (_ms(group[key]) for key in ("ttft", "itl", "longest_gap", "e2e"))
    return (name, *map(str, counts), *(f"{rate:.3g}" for rate in rates), *times)


def _ms(spread: dict[str, float | None]) -> str:
    return " / ".join(
        "–" if (value := spread[share]) is None else f"{value * 1000:.0f}" for share in ("p50", "p95", "p99")
    )
