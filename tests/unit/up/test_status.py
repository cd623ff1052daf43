"""What a launcher without a gateway says over HTTP: ready or why not, and its metrics."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request

from launcher.up.hosts import free_port
from launcher.up.status import Status


def get(url: str) -> tuple[int, str, str]:
    """Status, content type, body."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Content-Type"], error.read().decode()


async def test_the_port_beside_the_engines_tells_how_it_stands() -> None:
    status, port = Status(None), free_port()
    status.told = lambda: [("launcher_engine_ends", ("0", "hung"), 2)]
    async with status.served("127.0.0.1", port):
        ask = lambda path: asyncio.to_thread(get, f"http://127.0.0.1:{port}{path}")  # noqa: E731
        assert await ask("/ready") == (503, "application/json", '{"ready":false,"reason":"starting"}')
        code, kind, page = await ask("/metrics")
        assert (code, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
        assert page.splitlines()[1:] == [
            "# TYPE launcher_engine_ends_total counter",
            'launcher_engine_ends_total{cause="hung",replica="0"} 2.0',
        ]
        assert (await ask("/health"))[0] == 404
