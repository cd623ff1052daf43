"""One look of `launcher top`, for a terminal. What an older launcher does not tell is a dash; foreign text is never markup."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

MIB, GIB = 2**20, 2**30
UNKNOWN = "–"


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
