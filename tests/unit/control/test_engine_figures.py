"""The engines' own figures, from real servers: added up, broken off, without an end, and not answering at all."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from launcher.control.engine_figures import EngineFigures, figures_on

PAGE = """\
vllm:num_requests_running{engine="0",model_name="m"} 2.0
vllm:num_requests_running{engine="1"} 3.0
vllm:kv_cache_usage_perc{engine="0"} 0.9
vllm:kv_cache_usage_perc{engine="1"} 0.8
vllm:num_preemptions_total{engine="0"} 4.0
vllm:num_preemptions_created{engine="0"} 1.7e9
vllm:prefix_cache_queries_total{engine="0"} 300.0
vllm:prefix_cache_queries_total{engine="1"} 100.0
vllm:prefix_cache_hits_total{engine="0"} 90.0
vllm:prefix_cache_hits_total{engine="1"} 10.0
"""
NOTHING = figures_on("")


class Page(BaseHTTPRequestHandler):
    """PAGE; under /broken it breaks off, under /endless it goes on, under /missing there is none."""

    def do_GET(self) -> None:
        self.send_response(404 if self.path.startswith("/missing") else 200)
        if not self.path.startswith("/endless"):
            self.send_header("Content-Length", str(len(PAGE) + (100 if self.path.startswith("/broken") else 0)))
        self.end_headers()
        self.wfile.write(PAGE.encode())
        try:
            while self.path.startswith("/endless"):
                self.wfile.write(PAGE.encode())
        except OSError:  # its reader has had enough
            pass

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        serving.join()


@contextmanager
def silent() -> Iterator[tuple[str, socket.socket]]:
    """An engine that is connected to and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", listener


def figures_of(*engines: dict[str, Any]) -> list[dict[str, float | None]]:
    return EngineFigures().of(engines)


def test_inner_engines_requests_are_added_up_and_their_cache_is_the_mean(url: str) -> None:
    assert figures_of({"phase": "ready", "url": url}) == [
        {
            "running": 5,
            "waiting": None,
            "kv_cache": pytest.approx(0.85),
            "preemptions": 4,
            "prefix_hit_rate": pytest.approx(0.25),
        }
    ]


@pytest.mark.parametrize("path", ["/broken", "/endless", "/missing"])
def test_what_is_no_page_is_no_answer(url: str, path: str) -> None:
    assert figures_of({"phase": "ready", "url": url + path}) == [NOTHING]


@pytest.mark.parametrize(
    "engine", [{"phase": "failed"}, {"phase": "ready", "url": None}, {"phase": "starting", "url": ""}]
)
def test_who_cannot_answer_is_not_asked(url: str, engine: dict[str, Any]) -> None:
    assert figures_of({"url": url, **engine}) == [NOTHING]


def test_one_that_hangs_holds_up_nobody_and_is_not_asked_twice_at_once(url: str) -> None:
    figures = EngineFigures()
    with silent() as (hanging, listener):
        engines = [{"phase": "ready", "url": hanging}, {"phase": "ready", "url": url}]
        seen = figures.of(engines)
        assert seen[0] == NOTHING
        assert seen[1]["running"] == 5
        listener.settimeout(0)
        listener.accept()[0].close()


def test_what_is_no_number_is_not_told() -> None:
    page = "vllm:kv_cache_usage_perc NaN\nvllm:prefix_cache_queries_total 0.0\nvllm:prefix_cache_hits_total 0.0\n"
    assert figures_on(page) == NOTHING
