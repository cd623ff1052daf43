"""`launcher top`: one deployment as it is now, again and again."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.error import URLError
from urllib.request import urlopen

import click

from launcher.cli.figures import look
from launcher.cli.output import OUTPUT_OPTION, out_console, print_json
from launcher.cli.run import choose, describe
from launcher.probe.gpus import gpu_use
from launcher.probe.memory_trend import Trend, warning
from launcher.supervise.rundir import Found

if TYPE_CHECKING:
    from rich.console import RenderableType

ENGINE_TIMEOUT_S = 1.0  # for an engine's own figures: what does not answer is left out
MIB, GIB = 2**20, 2**30
# vLLM's own gauges, by the names that are shown; each may have a line for each of its inner engines
ENGINE_GAUGES = {
    "running": "vllm:num_requests_running",
    "waiting": "vllm:num_requests_waiting",
    "kv_cache": "vllm:kv_cache_usage_perc",
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

    PREFILL is prompt work in hand of what an engine may have, KV CACHE how full it is by its own word, TTFT and ITL are of
    the last minute. A card whose memory grows is told of before it is full. Ends with Ctrl+C.
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
    """Until Ctrl+C, or the deployment's end."""
    from rich.live import Live

    with Live(picture(watch.look()), screen=True, auto_refresh=False) as live:
        try:
            while True:
                live.update(picture(watch.look()), refresh=True)
                time.sleep(every)
        except KeyboardInterrupt:
            pass


class Watch:
    """One deployment, and what was seen of the cards so far."""

    def __init__(self, found: Found) -> None:
        self._found = found
        self._trends: dict[int, Trend] = {}

    def look(self) -> dict[str, Any]:
        """How it is now. What cannot be had is null."""
        found = self._found.again()
        record, live = describe(found), look(found)
        cards = list(self._cards())
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
                for engine in record.get("engines") or []
            ],
            "gpus": cards,
            "warnings": [card["warning"] for card in cards if card["warning"]],
        }

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


def gauges(engine: dict[str, Any]) -> dict[str, float | None]:
    """An engine's own figures; null where it does not tell them."""
    text = ""
    if engine.get("phase") in ("ready", "warming") and engine.get("url"):
        try:
            with urlopen(f"{engine['url']}/metrics", timeout=ENGINE_TIMEOUT_S) as answer:
                text = answer.read().decode("utf-8", "replace")
        except (URLError, OSError, ValueError):
            pass
    return {name: gauge(text, series) for name, series in ENGINE_GAUGES.items()}


def gauge(text: str, series: str) -> float | None:
    """The sum of a series in a page of metrics; None: it is not there."""
    found = re.findall(rf"^{re.escape(series)}(?:\{{[^}}]*\}})? (\S+)$", text, re.MULTILINE)
    return sum(map(float, found)) if found else None


# What is shown.


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

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in head:
        table.add_column(column, header_style="dim")
    for row in rows:
        table.add_row(*row)
    return table


def headline(seen: dict[str, Any]) -> str:
    live = seen["live"]
    if live is None:
        return f"{seen['name']}  {seen['state']}  its gateway does not answer"
    draining = "  draining" if live["draining"] else ""
    return (
        f"{seen['name']}  {seen['state']}{draining}  {live['model']}  mode {live['mode']}  up {span(live['uptime_s'])}  "
        f"{live['connections']} connections"
    )


def engine_rows(seen: dict[str, Any]) -> list[tuple[str, ...]]:
    replicas = {one["index"]: one for one in (seen["live"] or {"replicas": []})["replicas"]}
    rows: list[tuple[str, ...]] = []
    for engine in seen["engines"]:
        replica = replicas.get(engine["index"])
        prefill = "" if replica is None else "{held}/{cap}".format(**replica["ledger"]["prefill_tokens"])
        itl_ms = replica["pace"]["itl_ms"] if replica is not None else None
        in_flight = replica["in_flight"] if replica is not None else 0
        rows.append(
            (
                str(engine["index"]),
                str(engine["stage"] or engine["phase"]),
                "" if replica is None else str(in_flight),
                prefill,
                "" if engine["kv_cache"] is None else f"{engine['kv_cache']:.0%}",
                f"{in_flight * 1000 / itl_ms:.0f}" if itl_ms and in_flight else "",
                str(engine["restarts"] or 0),
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
    queue, minute, totals = live["queue"], live["last_minute"], live["totals"]
    by_priority = ", ".join(f"{count} {name}" for name, count in queue["by_priority"].items() if count) or "nobody"
    waits = f", the oldest for {queue['oldest_s']:.1f} s" if queue["count"] else ""
    refused = {**totals["refusals"], **totals["evictions"]}
    told = ", ".join(f"{count} {reason}" for reason, count in sorted(refused.items(), key=lambda item: -item[1]))
    return [
        f"waiting      {by_priority} ({queue['tokens']} tokens{waits})",
        f"last minute  {minute['requests_s']:.1f} requests/s, {minute['prompt_tokens_s']:.0f} prompt and "
        f"{minute['output_tokens_s']:.0f} answer tokens/s",
        f"TTFT         {pair(minute, 'ttft')}   ITL {pair(minute, 'itl')}   (p50 / p99)",
        f"in all       {totals['served']} served, {totals['failed']} failed, {totals['cancelled']} left, {totals['resumed']} resumed",
        f"refused      {told or 'nobody'}",
    ]


def pair(minute: dict[str, Any], name: str) -> str:
    values = [minute[f"{name}_{share}_ms"] for share in ("p50", "p99")]
    return "–" if None in values else f"{values[0]:.0f} / {values[1]:.0f} ms"


def span(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
