"""The engines' own figures, from vLLM's /metrics. All are asked side by side: one that hangs holds up nobody."""

from __future__ import annotations

import http.client
import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from statistics import fmean
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

from launcher.engine.metrics_page import samples

TIMEOUT_S = 1.0  # for each step of asking one engine, and for all its page
PATIENCE_S = 1.5  # for all engines: a name's look-up has no time-out of its own
MOST_BYTES = 8 * 2**20  # of a page; vLLM's are some 100 kB
ALIVE = ("ready", "warming")  # the phases in which an engine answers

Figures = dict[str, float | None]
# By the names that are shown. Each may have a line for each of an engine's inner engines, made one by the second.
FIGURES: dict[str, tuple[str, Callable[[Sequence[float]], float]]] = {
    "running": ("vllm:num_requests_running", sum),
    "waiting": ("vllm:num_requests_waiting", sum),
    "kv_cache": ("vllm:kv_cache_usage_perc", fmean),
    "preemptions": ("vllm:num_preemptions_total", sum),
}
PREFIX_HITS, PREFIX_QUERIES = "vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total"  # in tokens


class EngineFigures:
    """Asks engines, and remembers whom it waits for still, so that one that never answers has one thread, not many."""

    def __init__(self) -> None:
        self._asking: dict[str, Asking] = {}

    def of(self, engines: Iterable[dict[str, Any]]) -> list[Figures]:
        """Of each engine, in their order; null what it does not tell, or not in time."""
        urls = [one.get("url") or "" if one.get("phase") in ALIVE else "" for one in engines]
        self._asking = {url: asking for url, asking in self._asking.items() if asking.is_alive()}
        fresh = {url: Asking(url) for url in urls if url and url not in self._asking}
        self._asking |= fresh
        until = time.monotonic() + PATIENCE_S
        for asking in fresh.values():
            asking.join(max(0.0, until - time.monotonic()))
        return [fresh[url].found if url in fresh else figures_on("") for url in urls]


class Asking(Thread):
    """Asks one engine. ``found`` is what it told; all null before it has."""

    def __init__(self, url: str) -> None:
        super().__init__(name=f"figures of {url}", daemon=True)
        self.url = url
        self.found = figures_on("")
        self.start()

    def run(self) -> None:
        with suppress(OSError, ValueError, http.client.HTTPException):
            self.found = figures_on(metrics_page(self.url))


def metrics_page(url: str) -> str:
    """What an engine with this base URL says on /metrics. Raises OSError, HTTPException or ValueError where it says nothing."""
    place = urlsplit(url)
    kind = http.client.HTTPSConnection if place.scheme == "https" else http.client.HTTPConnection
    until = time.monotonic() + TIMEOUT_S
    with closing(kind(place.hostname or "", place.port, timeout=TIMEOUT_S)) as connection:
        connection.request("GET", f"{place.path}/metrics", headers={"Connection": "close"})
        answer = connection.getresponse()
        if answer.status != http.HTTPStatus.OK:
            raise ValueError(f"{url}/metrics answers {answer.status}")
        page = bytearray()
        while piece := answer.read1(65536):
            page += piece
            if len(page) > MOST_BYTES or time.monotonic() > until:
                raise TimeoutError(f"{url}/metrics has no end")
        if answer.length:
            raise http.client.IncompleteRead(bytes(page), answer.length)
    return page.decode("utf-8", "replace")


def figures_on(page: str) -> Figures:
    """The figures on a page of metrics; null what is not there."""
    found = {name: merged(samples(page, series), merge) for name, (series, merge) in FIGURES.items()}
    hits, asked = (merged(samples(page, series), sum) for series in (PREFIX_HITS, PREFIX_QUERIES))
    return {**found, "prefix_hit_rate": hits / asked if hits is not None and asked else None}


def merged(values: Sequence[float], merge: Callable[[Sequence[float]], float]) -> float | None:
    """The values made one; None where there are none, or one is no number (JSON has no NaN)."""
    value = merge(values) if values else math.nan
    return value if math.isfinite(value) else None
