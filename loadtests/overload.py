"""Overload on a real engine: the same arrivals for the bare engine, for its own queue caps, and for the gateway.

    python -m loadtests.overload profiles/cpu-smollm2.yaml --workload cpu --rounds 3 --markdown overload.md

Starts the profile with `launcher up`, measures capacity (closed loop) and the unloaded TTFT on the bare engine, starts
it again with deadlines that follow from them, and then alternates the targets at multiples of the capacity. Bare engine
and gateway share one engine: only the port differs. Nothing else may run on the machine meanwhile; what did shows in
the load average, which is written down with each run.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from loadtests.deployment import ENGINE_KEY, ROOT, Deployment, publish, say, stoppable
from loadtests.openloop import parse_limits
from loadtests.tally import fluid_bound, markdown, mean_prompt, medians, ratios
from loadtests.workloads import WORKLOADS, Kind, with_limits

BARE, GATEWAY, CAPPED = "nothing", "the gateway", "vLLM's own queue caps"
DEADLINE_SHARE = 0.8  # of the limit for the first token: what is sent later would come too late
SHORT_LIMIT_TIMES, LONG_LIMIT_TIMES = 5.0, 3.0


@dataclass
class Bench:
    """One comparison: what to send, and what has come of it."""

    chosen: argparse.Namespace
    kinds: tuple[Kind, ...]
    capacity: float = 0.0
    runs: dict[tuple[str, float], list[dict[str, Any]]] = field(default_factory=dict)
    _count: int = 0
    _folder: tempfile.TemporaryDirectory[str] = field(default_factory=tempfile.TemporaryDirectory)

    def client(self, url: str, *options: str) -> dict[str, Any]:
        """One run of the load client, in a process of its own, with words that no earlier run had."""
        self._count += 1
        folder = Path(self._folder.name)
        out = folder / f"{self._count}.json"
        command = [
            sys.executable, "-m", "loadtests.openloop", "--url", url, "--workload", self.chosen.workload,
            "--api", self.chosen.api, "--speech", str(folder / "speech.json"), "--json", str(out),
            "--text-seed", str(os.getpid() * 1000 + self._count), "--first-token", self.chosen.first_token,
            "--header", f"Authorization: Bearer {ENGINE_KEY}", *options,
        ]  # fmt: skip
        if self.chosen.pin is not None:
            command += ["--pin", str(self.chosen.pin)]
        load = os.getloadavg()[0]
        subprocess.run(command, cwd=ROOT, check=True)
        return {**json.loads(out.read_text()), "load_average": [load, os.getloadavg()[0]]}

    def warm_up(self, url: str) -> None:
        """The first requests of an engine are slow, and teach the gateway its prices."""
        self.client(url, "--users", "2", "--seconds", str(self.chosen.warm_up))

    def calibrate(self, deployment: Deployment) -> None:
        """Capacity and unloaded TTFT, where they are not given."""
        url, seconds = deployment.engine, str(self.chosen.calibrate_seconds)
        self.warm_up(url)
        deployment.until_idle()
        if any(not kind.slo_s for kind in self.kinds):
            alone = self.client(url, "--users", "1", "--seconds", seconds)["median_ttft_s"]
            times = {"short": SHORT_LIMIT_TIMES, "long": LONG_LIMIT_TIMES, **parse_limits(self.chosen.slo_times)}
            if missing := {kind.name for kind in self.kinds} - set(alone):
                raise SystemExit(f"No unloaded answer for {', '.join(missing)}: raise --calibrate-seconds.")
            self.kinds = with_limits(self.kinds, {name: round(times[name] * s, 3) for name, s in alone.items()})
            say(f"unloaded TTFT {alone}; limits " + ", ".join(f"{k.name} {k.slo_s:g} s" for k in self.kinds))
            deployment.until_idle()
        if not (self.capacity or self.chosen.rates):
            for users in self.chosen.users:
                run = self.client(url, "--users", str(users), "--seconds", seconds)
                say(f"{users} users: {run['throughput_per_s']:g} requests/s")
                self.capacity = max(self.capacity, run["throughput_per_s"])
                deployment.until_idle()
            say(f"capacity {self.capacity:.3g} requests/s")

    def deadlines(self) -> tuple[str, ...]:
        """The gateway's settings that follow from the limits: a base, and what longer prompts have on top."""
        if self.chosen.no_deadlines:
            return ()
        short, long = min(self.kinds, key=mean_prompt), max(self.kinds, key=mean_prompt)
        base_s = DEADLINE_SHARE * short.slo_s
        per_1k_s = DEADLINE_SHARE * (long.slo_s - short.slo_s) / ((mean_prompt(long) - mean_prompt(short)) / 1000)
        return f"admission.deadline={base_s * 1000:.0f}ms", f"admission.deadline_per_1k={max(0, per_1k_s) * 1000:.0f}ms"

    @property
    def prefill_per_s(self) -> float:
        """Prompt tokens a second at capacity."""
        return self.capacity * sum(kind.share * mean_prompt(kind) for kind in self.kinds)

    def caps(self) -> tuple[str, ...]:
        """vLLM's flags for its own caps; the setting that starts an engine with them."""
        flags = list(self.chosen.cap)
        if self.chosen.own_caps:
            # vllm/config/scheduler.py: "setting it to target_TTFT * prefill_throughput"; the tightest target is meant.
            tokens = min(kind.slo_s for kind in self.kinds) * self.prefill_per_s
            flags.append(f"--max-num-queued-tokens={tokens:.0f}")
        return (f"engine.extra_args={json.dumps([*self.chosen.engine_arg, *flags])}",) if flags else ()

    @property
    def rates(self) -> list[float]:
        """Requests/s to offer."""
        return self.chosen.rates or [round(factor * self.capacity, 3) for factor in self.chosen.factors]

    def measure(self, deployment: Deployment, target: str, rate: float, number: int) -> None:
        """One open-loop run: in the same round each target has the same arrivals and lengths."""
        url = deployment.gateway if target == GATEWAY else deployment.engine
        limits = ",".join(f"{kind.name}={kind.slo_s}" for kind in self.kinds)
        run = self.client(
            url, "--rate", str(rate), "--seconds", str(self.chosen.seconds), "--slo", limits,
            "--seed", str(number), "--patience", str(self.chosen.patience),
        )  # fmt: skip
        self.runs.setdefault((target, rate), []).append(run)
        ttft = {name: kind["ttft_ms"]["p50"] for name, kind in run["kinds"].items()}
        say(
            f"round {number}, {rate:g}/s, {target}: {run['good']}/{run['offered']} good, "
            f"{run['goodput_per_s']:.3g}/s, TTFT p50 {ttft} ms, not served {run['not_served']}, "
            f"load average {run['load_average'][1]:.1f}"
        )
        deployment.until_idle()

    def report(self) -> str:
        """The tables, a block for each multiple of the capacity."""
        rows = []
        for rate in self.rates:
            for target in (BARE, CAPPED, GATEWAY):
                if mine := self.runs.get((target, rate)):
                    ours = self.runs.get((GATEWAY, rate), [])
                    comparable = target != GATEWAY and len(ours) == len(mine)
                    rows.append((target, rate, medians(mine), _times(ratios(ours, mine)) if comparable else ""))
        loads = [run["load_average"][1] for runs in self.runs.values() for run in runs] or [0.0]
        limits = ", ".join(f"{kind.slo_s * 1000:.0f} ms ({kind.name})" for kind in self.kinds)
        most = max((len(runs) for runs in self.runs.values()), default=0)
        short = [f"{target} at {rate:.3g}/s" for (target, rate), runs in self.runs.items() if len(runs) < most]
        stopped = f" Stopped before the last round of {', '.join(short)}: compare the others only." if short else ""
        return "\n".join(
            (
                f"{most} rounds of {self.chosen.seconds:g} s each, alternating; medians. Good: first token within "
                f"{limits} of the arrival. {self._bounds()}Load average while measuring: {min(loads):.1f} to "
                f"{max(loads):.1f} on {os.cpu_count()} cores.{stopped}",
                "",
                markdown(rows) if rows else "(no run was completed)",
            )
        )  # fmt: skip

    def _bounds(self) -> str:
        """What the capacity is, and what it could carry at best."""
        if not self.capacity:
            return ""
        prefill = self.prefill_per_s
        bounds = (f"{fluid_bound(self.kinds, rate, prefill):.3g} at {rate:.3g}/s" for rate in self.rates)
        return (
            f"Capacity (closed loop, bare engine): {self.capacity:.3g} requests/s, so {prefill:,.0f} prompt tokens/s; "
            f"fluid bound by these: {', '.join(bounds)}. "
        )


def _times(values: Sequence[float]) -> str:
    return f"{median(values):.2f}× ({min(values):.2f} to {max(values):.2f})".replace("inf", "∞")


def compare(bench: Bench) -> None:
    """Calibrates, then goes through the rounds."""
    chosen = bench.chosen
    if not (bench.capacity or chosen.rates) or any(not kind.slo_s for kind in bench.kinds):
        with Deployment(chosen.profile, chosen.set) as deployment:
            bench.calibrate(deployment)
    plain = bench.deadlines()
    capped = bench.caps()
    for number in range(1, chosen.rounds + 1):
        order = [BARE, GATEWAY] if number % 2 else [GATEWAY, BARE]
        phases = [(plain, order), (capped, [CAPPED])] if capped else [(plain, order)]
        for sets, targets in phases if number % 2 else reversed(phases):
            with Deployment(chosen.profile, (*chosen.set, *sets)) as deployment:
                for url in (deployment.engine, deployment.gateway):
                    bench.warm_up(url)
                deployment.until_idle()
                for rate in bench.rates:
                    for target in targets:
                        bench.measure(deployment, target, rate, number)


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtests.overload", description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("profile", help="the profile to start")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="as for `launcher up`")
    add("--workload", choices=sorted(WORKLOADS), default="cpu")
    add("--api", choices=("chat", "completions"), default="chat")
    add("--factors", type=float, nargs="+", default=[0.7, 1.7, 3.5], help="multiples of the capacity")
    add("--rates", type=float, nargs="+", help="requests/s, instead of the multiples")
    add("--seconds", type=float, default=30.0, help="how long requests arrive in each run")
    add("--patience", type=float, default=30.0, help="for answers after that; what is left counts as not served")
    add("--rounds", type=int, default=3)
    add("--capacity", type=float, default=0.0, help="requests/s; default: measured")
    add("--users", type=int, nargs="+", default=[16, 32], help="closed-loop users to measure it with")
    add("--warm-up", type=float, default=5.0, help="seconds, after each start")
    add("--calibrate-seconds", type=float, default=30.0)
    add("--first-token", choices=("text", "event"), default="text", help="event: for random weights")
    add("--slo", default="", help="short=1,long=3: seconds to the first token; default: multiples of the unloaded TTFT")
    add("--slo-times", default="", help=f"the multiples; default short={SHORT_LIMIT_TIMES:g},long={LONG_LIMIT_TIMES:g}")
    add("--no-deadlines", action="store_true", help="leave the profile's own deadlines to the gateway")
    add("--cap", action="append", default=[], metavar="FLAG", help="vLLM's own: --cap=--max-num-queued-tokens=1024")
    add(
        "--own-caps",
        action="store_true",
        help="vLLM's cap on queued tokens by its own rule: TTFT target × prefill rate",
    )
    add("--engine-arg", action="append", default=[], metavar="FLAG", help="engine.extra_args to keep beside --cap")
    add("--pin", type=int, help="the CPU core of the load client")
    add("--json", type=Path, help="write every run's figures here")
    add("--markdown", type=Path, help="write the tables here (else to the terminal)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    chosen = arguments(argv)
    if chosen.own_caps and chosen.rates and not chosen.capacity:
        raise SystemExit("--own-caps needs the engine's capacity: give --capacity, or --factors instead of --rates.")
    kinds = with_limits(WORKLOADS[chosen.workload], parse_limits(chosen.slo))
    bench = Bench(chosen, kinds, capacity=chosen.capacity)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that the engine is stopped too
    try:
        compare(bench)
    finally:  # what was measured is kept, whatever stopped the rest
        if chosen.json:
            runs = [{"target": t, "rate": rate, "runs": runs} for (t, rate), runs in bench.runs.items()]
            chosen.json.write_text(json.dumps({"capacity_per_s": bench.capacity, "runs": runs}, indent=1) + "\n")
        text = bench.report() + "\n"
        publish(text, chosen.markdown)


if __name__ == "__main__":
    with stoppable():
        main()
