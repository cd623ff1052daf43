"""`python -m tests.simulation`: what each policy is worth on the paced engine, as Markdown."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from tests.simulation.arena import Policy
from tests.simulation.baselines import TABLE
from tests.simulation.evidence import CLOSED, OPEN, closed_loop, open_loop_row
from tests.simulation.measure import open_loop
from tests.simulation.ours import EVIDENCE_DEADLINES, Ours
from tests.simulation.pacing import H200

RATES = (16.1, 26.0, 40.0, 80.0)
MODES = ("low-latency", "balanced", "high-throughput")


def of_ours(**settings: Any) -> Callable[[], Policy]:
    return lambda: Ours(**settings)


OURS: Mapping[str, Callable[[], Policy]] = {
    "**launcher**, the evidence's deadlines": of_ours(**EVIDENCE_DEADLINES),
    **{f"**launcher**, {mode}": of_ours(mode=mode) for mode in MODES},
}


def print_policies(seeds: int) -> None:
    print(
        "| in front of the engine | offered/s | served | good | goodput/s | of the fluid bound | short TTFT p50/p99 ms |"
    )
    print("|---|---|---|---|---|---|---|")
    for rate in RATES:
        for name, policy in {**TABLE, **OURS}.items():
            seen = open_loop(policy, rate, seeds=range(seeds))
            print(
                f"| {name} | {rate:g} | {seen.served:.1%} | {seen.good:.1%} | {seen.goodput:.1f} "
                f"| {seen.of_bound:.1%} of {seen.bound:.1f} | {seen.short_p50_ms:,.0f} / {seen.short_p99_ms:,.0f} |"
            )


def print_pacing() -> None:
    print("| row | figure | evidence | paced engine | factor |")
    print("|---|---|---|---|---|")
    rows: list[tuple[str, tuple[float, ...], tuple[float, ...], tuple[str, ...]]] = []
    for sequences, users in CLOSED:
        wanted = CLOSED[sequences, users]
        seen = closed_loop(sequences, users, seconds=37.0 if sequences == 1 else 30.0)
        rows.append((f"max_num_seqs {sequences}, {users} users", wanted, seen, wanted._fields))
    for name, rate in OPEN:
        target = OPEN[name, rate]
        rows.append((f"{name}, {rate}/s", target, open_loop_row(TABLE[name], rate), target._fields))
    for row, wanted_row, seen_row, fields in rows:
        for field, target_value, value in zip(fields, wanted_row, seen_row, strict=True):
            print(f"| {row} | {field} | {target_value:,.1f} | {value:,.1f} | {value / target_value:.2f} |")


def print_wrong() -> None:
    print(
        "| the engine beside its profile | caps | offered/s | goodput/s | of the fluid bound | short TTFT p50/p99 ms |"
    )
    print("|---|---|---|---|---|---|")
    for factor in (0.5, 1.0, 2.0):
        real = replace(
            H200,
            batch_tokens=round(H200.batch_tokens * factor),
            token_s=H200.token_s / factor,
            context_s=H200.context_s / factor,
        )
        for adaptive in (False, True):
            policy = of_ours(adaptive=adaptive, **EVIDENCE_DEADLINES)
            seen = open_loop(policy, 40.0 * factor, pace=real, seconds=120.0)
            print(
                f"| {factor:g} × | {'adaptive' if adaptive else 'fixed'} | {40 * factor:g} | {seen.goodput:.1f} "
                f"| {seen.of_bound:.1%} | {seen.short_p50_ms:,.0f} / {seen.short_p99_ms:,.0f} |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("table", nargs="?", choices=("policies", "pacing", "wrong"), default="policies")
    parser.add_argument("--seeds", type=int, default=3, help="runs of 60 simulated seconds for each figure")
    arguments = parser.parse_args()
    if arguments.table == "policies":
        print_policies(arguments.seeds)
    else:
        {"pacing": print_pacing, "wrong": print_wrong}[arguments.table]()


if __name__ == "__main__":
    main()
