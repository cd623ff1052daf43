"""Watches an endpoint, its engine and the cards while a load runs: queue, work in hand, KV cache, memory."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from http.client import HTTPException
from statistics import fmean
from urllib.error import URLError
from urllib.request import Request, urlopen

from launcher.engine.metrics_page import samples
from launcher.probe.gpus import gpu_use
from loadtests.sampler import Sampler

EVERY_S = 1.0
GIB = 2**30
# Series → what the timeline calls them. The gateway's own, then vLLM's where it can be asked.
GATEWAY_SERIES = {
    "launcher_queued": "queued",
    "launcher_in_flight": "in flight",
    "launcher_ledger_prefill_tokens": "prefill",
}
ENGINE_SERIES = {
    "vllm:num_requests_running": "in flight",
    "vllm:num_requests_waiting": "queued",
    "vllm:kv_cache_usage_perc": "kv cache",
}
MEANS = {"kv cache"}  # a share of each engine's own: of several, their mean


class Watch(Sampler):
    """Looks at the gateway, its engines and the cards every second.

    ``url``: the endpoint, where its own figures are wanted, and the engine's where it is one; '' where only engines are.
    """

    every_s = EVERY_S

    def __init__(self, url: str, engines: Sequence[str], key: str) -> None:
        super().__init__()
        self._url, self._engines, self._key = url, engines, key
        self.samples: list[dict[str, float]] = []
        self._began = time.monotonic()

    def look(self) -> None:
        self.samples.append({"at": round(time.monotonic() - self._began, 2), **self._look()})

    def _look(self) -> dict[str, float]:
        own = page(self._url + "/metrics", self._key) if self._url else ""
        pages = [page(engine + "/metrics", "") for engine in self._engines] or [own]
        # Of some of the engines the sum would be too little.
        found = sums("\n".join(pages), ENGINE_SERIES) if all(pages) else {}
        found |= sums(own, GATEWAY_SERIES)
        if "kv cache" in found:
            found["kv cache"] *= 100
        if cards := gpu_use():
            found["card memory"] = sum(card.used_bytes for card in cards) / GIB
            busy = [card.utilization for card in cards if card.utilization is not None]
            if busy:
                found["card busy"] = fmean(busy)
        return found


def page(url: str, key: str) -> str:
    """A page of metrics; '' where there is none."""
    try:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        with urlopen(Request(url, headers=headers), timeout=EVERY_S) as answer:
            text: str = answer.read().decode("utf-8", "replace")
            return text
    except (URLError, OSError, ValueError, HTTPException):
        return ""


def sums(text: str, series: dict[str, str]) -> dict[str, float]:
    """Each series added up over its labels (a share: their mean), under the name that is shown."""
    known = {name: [*filter(math.isfinite, samples(text, one))] for one, name in series.items()}
    return {name: fmean(values) if name in MEANS else sum(values) for name, values in known.items() if values}
