"""The table of what plans said and what vLLM said: one row a start, and how far off the plans were."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import mean
from typing import Any

from launcher.profile.units import GIB

STARTED, ENDED, TIMED_OUT = "started", "ended", "timed out"
# What launcher/engine names an end by which a plan foretells: no memory, or numbers that do not go together. Any other end (a
# kernel that is missing, a port that is taken, a log without a reason) says nothing of the plan.
FORETOLD = frozenset({
    "kv-too-small", "no-kv", "card-in-use", "ram-in-use", "sampler-memory", "cuda-memory", "main-memory", "max-len",
    "batch-below-len", "batch-below-seqs", "heads",
})  # fmt: skip
HEAD = "| setting | verdict | vLLM | KV predicted GiB | KV vLLM GiB | error % |\n|---|---|---|---|---|---|"
Row = Mapping[str, Any]


def error_percent(row: Row) -> float | None:
    """How far the predicted KV bytes are off, signed; None where one is not known or the size was given outright."""
    real = row.get("facts", {}).get("kv_gib")
    if row["kv_is_given"] or row["kv_bytes"] is None or not real:
        return None
    return float(row["kv_bytes"] / GIB / real - 1) * 100


def is_right(row: Row) -> bool | None:
    """Whether the start went as the verdict said; None where the plan could not tell, or how it went says nothing of the plan."""
    if row["verdict"] == "unknown" or row.get("outcome") not in (STARTED, ENDED):
        return None
    if row["outcome"] == ENDED and row.get("diagnosis") not in FORETOLD:
        return None
    return bool((row["verdict"] == "fits") == (row["outcome"] == STARTED))


def table(starts: Mapping[str, Row]) -> str:
    """Markdown. Errors are summed up over the starts that came up: of a cache that is nearly nothing, all is far off."""
    done = {name: row for name, row in starts.items() if "outcome" in row}
    errors = {
        name: error
        for name, row in done.items()
        if row["outcome"] == STARTED and (error := error_percent(row)) is not None
    }
    told = [right for row in done.values() if (right := is_right(row)) is not None]
    undecided = [name for name, row in done.items() if is_right(row) is None]
    lines = [HEAD, *(_line(name, row) for name, row in done.items()), ""]
    lines.append(
        f"Right verdicts: {sum(told)} of {len(told)}." + (f" Undecided: {', '.join(undecided)}." if undecided else "")
    )
    if errors:
        worst = max(errors, key=lambda name: abs(errors[name]))
        lines.append(
            f"KV cache of {len(errors)} starts, predicted against real: mean absolute error "
            f"{mean(abs(error) for error in errors.values()):.2f} %, mean {mean(errors.values()):+.2f} %, "
            f"largest {errors[worst]:+.2f} % ({worst})."
        )
    where = {f"{row['vllm']} on {row['card'] or 'the CPU'}" for row in done.values()}
    return "\n".join([*lines, *(f"{one}." for one in sorted(where)), ""])


def _line(name: str, row: Row) -> str:
    verdict = row["verdict"].replace("_", " ") + (f" ({', '.join(row['errors'])})" if row["errors"] else "")
    if is_right(row) is False:
        verdict = f"**wrong:** {verdict}"
    elif is_right(row) is None and row["verdict"] != "unknown":
        verdict = f"undecided: {verdict}"
    vllm = f"started, {row['seconds']:.0f} s" if row["outcome"] == STARTED else row["why"]
    predicted, real, error = row["kv_bytes"], row["facts"].get("kv_gib"), error_percent(row)
    cells = (
        name,
        verdict,
        vllm,
        "–" if predicted is None else f"{predicted / GIB:.2f}",
        "–" if real is None else f"{real:.2f}",
        "given" if row["kv_is_given"] else "–" if error is None else f"{error:+.2f}",
    )
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
