"""One deployment as it is now: its record, its gateway's word, its engines' own figures and the cards of this machine.

`launcher top` draws it and the operator's page shows it. A look blocks while it asks; what does not answer is null.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from launcher.control import GATEWAY_SOCKET
from launcher.control.engine_figures import EngineFigures
from launcher.control.gateway_client import GatewayClient
from launcher.control.record import LOOK_TIMEOUT_S, describe, live_state
from launcher.probe.gpus import gpu_use
from launcher.probe.memory_trend import Trend, warning
from launcher.supervise.rundir import Found

ENGINE_KEYS = ("index", "phase", "stage", "since", "url", "restarts", "last_failure")


class Watch:
    """One deployment, and what was seen of the cards so far. Not for two threads at once."""

    def __init__(self, find: Callable[[], Found], gateway: GatewayClient) -> None:
        """``find``: its run directory as it is at each look."""
        self._find, self._gateway = find, gateway
        self._engines = EngineFigures()
        self._trends: dict[int, Trend] = {}

    @classmethod
    def of(cls, found: Found) -> Watch:
        """From outside, by its run directory."""
        return cls(found.again, GatewayClient(found.path / GATEWAY_SOCKET, LOOK_TIMEOUT_S))

    def look(self) -> dict[str, Any]:
        """How it is now: `Look` in launcher/control/models.py. What cannot be had is null."""
        found = self._find()
        record, live = describe(found), live_state(self._gateway) if found.alive else None
        engines, cards = [*(record.get("engines") or []), *outsiders(record, live)], list(self._cards())
        return {
            "at": round(time.time(), 3),
            "name": found.name,
            "state": record["state"],
            "url": record.get("url") or None,
            "live": live,
            "engines": [
                {**{key: engine.get(key) for key in ENGINE_KEYS}, **figures}
                for engine, figures in zip(engines, self._engines.of(engines), strict=True)
            ],
            "gpus": cards,
            "warnings": [card["warning"] for card in cards if card["warning"]],
            "ends": record.get("ends") or [],
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


def outsiders(record: dict[str, Any], live: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    """The replicas that the gateway sends to and the record does not name: servers that run elsewhere."""
    ours = {engine.get("index") for engine in record.get("engines") or []}
    for replica in (live or {}).get("replicas") or []:
        if replica.get("index") not in ours:
            phase = "ready" if replica.get("ready") else "down"
            standing = next((name for name in ("leaving", "draining") if replica.get(name)), "")
            yield {
                "index": replica.get("index"),
                "phase": phase,
                "stage": standing or replica.get("reason") or phase,
                "url": replica.get("url"),
            }
