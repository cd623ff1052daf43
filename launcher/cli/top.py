"""`launcher top`: one deployment as it is now, again and again."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPException
from statistics import fmean
from typing import Any
from urllib.request import urlopen

import click

from launcher.cli.figures import look
from launcher.cli.output import OUTPUT_OPTION, out_console, print_json
from launcher.cli.run import choose, describe
from launcher.cli.top_view import part, picture
from launcher.engine.metrics_page import samples
from launcher.errors import LauncherError
from launcher.probe.gpus import gpu_use
from launcher.probe.memory_trend import Trend, warning
from launcher.supervise.rundir import ENDED, Found

ENGINE_TIMEOUT_S = 1.0  # for an engine's own figures: what does not answer is left out


# vLLM's own gauges, by the names that are shown; each may have a line for each of its inner engines, made one by the second
ENGINE_GAUGES: dict[str, tuple[str, Callable[[list[float]], float]]] = {
    "running": ("vllm:num_requests_running", sum),
    "waiting": ("vllm:num_requests_waiting", sum),
    "kv_cache": ("vllm:kv_cache_usage_perc", fmean),
}


@click.command("top", epilog="Example: launcher top --once -o json")
@click.argument("name", required=False)
@click.option("--once", is_flag=True, help="Show it once and end.")
@click.option(
    "--every", type=click.FloatRange(min=0.2), default=2.0, show_default=True, help="Seconds between two looks."
)
@OUTPUT_OPTION
def top_command(name: str | None, once: bool, every: float, output: str) -> None:
    """Watch a deployment: engines, queue, memory, latencies, refusals.

    PREFILL is prompt work in hand of what an engine may have, KV CACHE how full it is by its own word (the mean of its
    inner engines), TTFT and ITL are of the last minute. A card whose memory grows steadily is told of before it is full.
    Ends with Ctrl+C, or with the deployment.
    """
    watch = Watch(choose(name))
    if output == "json":
        if not once:
            raise click.UsageError("-o json shows one moment: add --once")
        print_json(watch.look())
        return
    if once or not sys.stdout.isatty():
        if not once:
            raise click.UsageError("top draws on a terminal; for a file or a pipe add --once")
        out_console().print(picture(watch.look()))
        return
    draw(watch, every)


def draw(watch: Watch, every: float) -> None:
    """Until Ctrl+C, or the deployment's end. Raises LauncherError if its launcher was killed.

    Ctrl+C is waited for, not caught: raised in the midst of a look, in a destructor say, it would be lost.
    """
    from rich.live import Live

    ctrl_c = {signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ctrl_c)
    try:
        with Live(screen=True, auto_refresh=False) as live:
            while (seen := watch.look())["state"] != "dead":
                live.update(picture(seen), refresh=True)
                if signal.sigtimedwait(ctrl_c, every):
                    return
        watch.tell_end()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ctrl_c)


class Watch:
    """One deployment, and what was seen of the cards so far."""

    def __init__(self, found: Found) -> None:
        self._found = found
        self._trends: dict[int, Trend] = {}

    def look(self) -> dict[str, Any]:
        """How it is now. What cannot be had is null."""
        found = self._found.again()
        record, live = describe(found), look(found)
        engines, cards = [*(record.get("engines") or []), *outsiders(record, live)], list(self._cards())
        return {
            "name": found.name,
            "state": record["state"],
            "url": record.get("url"),
            "live": live,
            "engines": [
                {
                    **{key: engine.get(key) for key in ("index", "phase", "stage", "url", "restarts", "last_failure")},
                    **gauges(engine),
                }
                for engine in engines
            ],
            "gpus": cards,
            "warnings": [card["warning"] for card in cards if card["warning"]],
        }

    def tell_end(self) -> None:
        """A sentence once it runs no more. Raises LauncherError if its launcher was killed."""
        found = self._found.again()  # the last look may have read the record just before its end was written
        if found.record.get("state", ENDED) != ENDED:
            raise LauncherError(
                f"{found.name} runs no more: its launcher was killed", f"`launcher down {found.name}` cleans up."
            )
        click.echo(f"{found.name}: the deployment has ended", err=True)

    def _cards(self) -> Iterator[dict[str, Any]]:
        now = time.monotonic()
        for card in gpu_use():
            trend = self._trends.setdefault(card.index, Trend())
            trend.note(now, card.used_bytes)
            full_in_s = trend.full_in_s(card.total_bytes)
            yield {
                "index": card.index,
                "name": card.name,
                "used_bytes": card.used_bytes,
                "total_bytes": card.total_bytes,
                "utilization": card.utilization,
                "growth_bytes_per_s": trend.growth,
                "full_in_s": full_in_s,
                "warning": warning(f"card {card.index} ({card.name})", full_in_s),
            }


def outsiders(record: dict[str, Any], live: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    """The replicas that the gateway sends to and the record does not name: servers that run elsewhere."""
    ours = {engine.get("index") for engine in record.get("engines") or []}
    for replica in part(live, "replicas") or []:
        if replica.get("index") not in ours:
            phase = "ready" if replica.get("ready") else "down"
            standing = next((name for name in ("leaving", "draining") if replica.get(name)), "")
            yield {
                "index": replica.get("index"),
                "phase": phase,
                "stage": standing or replica.get("reason") or phase,
                "url": replica.get("url"),
            }


def gauges(engine: dict[str, Any]) -> dict[str, float | None]:
    """An engine's own figures; null where it does not tell them."""
    text = ""
    if engine.get("phase") in ("ready", "warming") and engine.get("url"):
        page = f"{engine['url']}/metrics"
        with suppress(OSError, ValueError, HTTPException), urlopen(page, timeout=ENGINE_TIMEOUT_S) as answer:
            text = answer.read().decode("utf-8", "replace")
    found = {name: (samples(text, series), merge) for name, (series, merge) in ENGINE_GAUGES.items()}
    return {name: merge(values) if values else None for name, (values, merge) in found.items()}
