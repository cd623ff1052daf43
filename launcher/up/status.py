"""What a launcher without a gateway says of its engine: GET /ready on a port beside the engine's, and a file.

The port is for gateways and for probes over HTTP, the file for probes by command. Both say: warmed, and well. What the
launcher counts, such as the engine's ends, is at /metrics of that port; vLLM's own metrics are at the engine's.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from launcher.errors import PreconditionError
from launcher.gateway.metrics import CONTENT_TYPE, Sample, text_of

RETRY_S = "5"


def status_url(url: str) -> str:
    """Where the launcher of the engine at this base URL answers: the next port."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return urlunsplit((parts.scheme, f"{host}:{(parts.port or 80) + 1}", "", "", ""))


class Status:
    """Whether the engine may be used, for whoever asks. ``reason`` is empty while it may; written by its owner only."""

    def __init__(self, ready_file: Path | None) -> None:
        self.reason = "starting"
        self.told: Callable[[], Iterable[Sample]] = lambda: ()  # what /metrics says, by whoever runs the engine
        self._file = ready_file
        if ready_file is not None:
            ready_file.unlink(missing_ok=True)  # an earlier life's

    def say(self, reason: str) -> None:
        """Not to be used, for this reason; '': to be used."""
        self.reason = reason
        if self._file is None:
            return
        if reason:
            self._file.unlink(missing_ok=True)
        else:
            self._file.touch()

    @contextlib.asynccontextmanager
    async def served(self, host: str, port: int) -> AsyncIterator[None]:
        """Answers meanwhile. Raises PreconditionError for an address that cannot be had."""
        try:
            listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        except OSError as error:
            raise PreconditionError(
                f"port {port} of {host}, where this launcher says how its engine stands, cannot be listened on: {error.strerror}",
                "Give --listen another port: the one after it is taken too.",
            ) from None
        routes = [Route("/ready", self._answer), Route("/metrics", self._metrics), Route("/{path:path}", _elsewhere)]
        app = Starlette(routes=routes)
        config = uvicorn.Config(
            app, loop="none", http="h11", ws="none", lifespan="off", log_config=None, access_log=False
        )
        server = Listener(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield
        finally:
            server.should_exit = True
            await serving

    async def _answer(self, request: Request) -> JSONResponse:
        if self.reason:
            return JSONResponse({"ready": False, "reason": self.reason}, 503, {"Retry-After": RETRY_S})
        return JSONResponse({"ready": True})

    async def _metrics(self, request: Request) -> Response:
        return Response(text_of(self.told()), headers={"Content-Type": CONTENT_TYPE.decode()})

    def __repr__(self) -> str:
        return f"<Status {self.reason or 'ready'}>"


async def _elsewhere(request: Request) -> JSONResponse:
    return JSONResponse(
        {"error": f"{request.url.path} is not served here: /ready and /metrics are. The engine has its own port."}, 404
    )


class Listener(uvicorn.Server):
    """uvicorn that leaves signals to us."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
