"""`launcher top`: one deployment as it is now, again and again."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPException
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import click

from launcher.cli.figures import look
from launcher.cli.output import OUTPUT_OPTION, out_console, print_json
from launcher.cli.run import choose, describe
from launcher.errors import LauncherError
from launcher.probe.gpus import gpu_use
from launcher.probe.memory_trend import Trend, warning
from launcher.supervise.rundir import ENDED, Found

if TYPE_CHECKING:
    from rich.console import RenderableType

ENGINE_TIMEOUT_S = 1.0  # for an engine's own figures: what does not answer is left out
MIB, GIB = 2**20, 2**30
UNKNOWN = "–"


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


# vLLM's own gauges, by the names that are shown; each may have a line for each of its inner engines, made one by the second
ENGINE_GAUGES: dict[str, tuple[str, Callable[[list[float]], float]]] = {
    "running": ("vllm:num_requests_running", sum),
    "waiting": ("vllm:num_requests_waiting", sum),
    "kv_cache": ("vllm:kv_cache_usage_perc", mean),
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
    """Until Ctrl+C, or the deployment's end. Raises LauncherError if its launcher was killed."""
    from rich.live import Live

    with suppress(KeyboardInterrupt):
        with Live(screen=True, auto_refresh=False) as live:
            while (seen := watch.look())["state"] != "dead":
                live.update(picture(seen), refresh=True)
                time.sleep(every)
        watch.tell_end()


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
    return {name: gauge(text, series, merge) for name, (series, merge) in ENGINE_GAUGES.items()}


def gauge(text: str, series: str, merge: Callable[[list[float]], float]) -> float | None:
    """A series in a page of metrics, its lines made one; None: it is not there."""
    found = re.findall(rf"^{re.escape(series)}(?:\{{[^}}]*\}})? (\S+)$", text, re.MULTILINE)
    return merge([float(value) for value in found]) if found else None


# What is shown: what an older launcher does not tell is a dash, and foreign text is never markup.


def picture(seen: dict[str, Any]) -> RenderableType:
    """One look, for a terminal."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [Text(headline(seen), style="bold")]
    parts += [Text(f"! {line}", style="yellow") for line in seen["warnings"]]
    parts.append(
        grid(
            ("ENGINE", "STATE", "IN FLIGHT", "PREFILL", "KV CACHE", "TOKENS/S", "RESTARTS", "LAST FAILURE"),
            engine_rows(seen),
        )
    )
    if seen["gpus"]:
        parts.append(grid(("CARD", "MEMORY", "USED", "BUSY", "TREND"), card_rows(seen)))
    if seen["live"] is not None:
        parts.append(Text("\n".join(lines(seen["live"]))))
    return Group(*parts)


def grid(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in head:
        table.add_column(column, header_style="dim")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def part(value: Any, *path: str) -> Any:
    """What lies at a path; None where it is not told."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def told(pattern: str, *values: Any) -> str:
    """The values in a pattern; a dash where one is not known."""
    return UNKNOWN if None in values else pattern.format(*values)


def headline(seen: dict[str, Any]) -> str:
    live = seen["live"]
    if live is None:
        return f"{seen['name']}  {seen['state']}  its gateway does not answer"
    draining = "  draining" if live.get("draining") else ""
    model, mode, uptime_s, connections = map(live.get, ("model", "mode", "uptime_s", "connections"))
    return (
        f"{seen['name']}  {seen['state']}{draining}  {told('{}', model)}  mode {told('{}', mode)}  "
        f"up {UNKNOWN if uptime_s is None else span(uptime_s)}  {told('{}', connections)} connections"
    )


def engine_rows(seen: dict[str, Any]) -> list[tuple[str, ...]]:
    replicas = {part(one, "index"): one for one in part(seen["live"], "replicas") or []}
    rows: list[tuple[str, ...]] = []
    for engine in seen["engines"]:
        replica = replicas.get(engine["index"])
        prefill = [part(replica, "ledger", "prefill_tokens", name) for name in ("held", "cap")]
        itl_ms, in_flight = part(replica, "pace", "itl_ms"), part(replica, "in_flight")
        rows.append(
            (
                told("{}", engine["index"]),
                told("{}", engine["stage"] or engine["phase"]),
                told("{}", in_flight),
                told("{}/{}", *prefill),
                told("{:.0%}", engine["kv_cache"]),
                f"{in_flight * 1000 / itl_ms:.0f}" if itl_ms and in_flight else "",
                told("{}", engine["restarts"]),
                str(engine["last_failure"] or ""),
            )
        )
    return rows


def card_rows(seen: dict[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            f"{card['index']} {card['name']}",
            f"{card['used_bytes'] / GIB:.1f} of {card['total_bytes'] / GIB:.1f} GiB",
            f"{card['used_bytes'] / card['total_bytes']:.0%}",
            "" if card["utilization"] is None else f"{card['utilization']} %",
            "" if card["growth_bytes_per_s"] is None else f"{card['growth_bytes_per_s'] * 60 / MIB:+.0f} MiB/min",
        )
        for card in seen["gpus"]
    ]


def lines(live: dict[str, Any]) -> list[str]:
    """The queue, the last minute, and what was not served."""
    queue, minute, totals = (part(live, name) or {} for name in ("queue", "last_minute", "totals"))
    waiting = part(queue, "by_priority")
    by_priority = ", ".join(f"{count} {name}" for name, count in (waiting or {}).items() if count)
    waits = told(", the oldest for {:.1f} s", queue.get("oldest_s")) if queue.get("count") else ""
    refused = {**(totals.get("refusals") or {}), **(totals.get("evictions") or {})}
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(refused.items(), key=lambda item: -item[1]))
    ends = {"served": "served", "failed": "failed", "cancelled": "left", "resumed": "resumed"}
    return [
        f"waiting      {by_priority or told('nobody', waiting)} ({told('{}', queue.get('tokens'))} tokens{waits})",
        f"last minute  {told('{:.1f}', minute.get('requests_s'))} requests/s, "
        f"{told('{:.0f}', minute.get('prompt_tokens_s'))} prompt and "
        f"{told('{:.0f}', minute.get('output_tokens_s'))} answer tokens/s",
        f"TTFT         {pair(minute, 'ttft')}   ITL {pair(minute, 'itl')}   (p50 / p99)",
        "in all       " + ", ".join(f"{told('{}', totals.get(name))} {word}" for name, word in ends.items()),
        f"refused      {reasons or told('nobody', totals.get('refusals'))}",
    ]


def pair(minute: dict[str, Any], name: str) -> str:
    return told("{:.0f} / {:.0f} ms", *(minute.get(f"{name}_{share}_ms") for share in ("p50", "p99")))


def span(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
