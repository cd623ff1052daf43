"""schemathesis over the control app's own OpenAPI document, with a real gateway behind it: no 5xx, answers as documented."""

from __future__ import annotations

import asyncio
import itertools
import socket
import threading
from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import schemathesis
import uvicorn
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.specs.openapi.checks import positive_data_acceptance

from launcher.control import GATEWAY_SOCKET
from launcher.control.app import make_app
from launcher.control.gateway_client import GatewayClient
from launcher.control.ops import feed_of
from launcher.gateway.admin import AdminDoor
from launcher.gateway.replicas import Endpoint
from launcher.gateway.sockets import listen_unix
from launcher.supervise.external import checked_url
from tests.gateway.harness import gateway_to

# What the document cannot say: that a port is below 65536, a time yet to come, a priority not above another.
UNSAID = {"POST /api/replicas": [positive_data_acceptance], "POST /api/keys": [positive_data_acceptance]}
EXAMPLES = 15  # for each of the operations; the seed is fixed


class Joining:
    """Membership without watching: made-up names must not be looked up."""

    def __init__(self, replicas: Any) -> None:
        self._replicas, self._numbers = replicas, itertools.count(2)

    def join(self, url: str) -> int:
        index = next(self._numbers)
        self._replicas.add(index, Endpoint(checked_url(url)))
        return index

    def leave(self, index: int) -> None: ...

    def can_leave(self, index: int) -> bool:
        return index >= 1


class Running:
    """A gateway and the app, each on a thread of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ready, self.done = threading.Event(), threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        gateway = GatewayClient(folder / GATEWAY_SOCKET)
        feed = feed_of(folder, gateway, stream_s=0.0)  # its streams end at once
        app = make_app(gateway, folder / "keys.json", feed=feed)
        self.server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="error", http="h11"))

    def gateway(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve())

    @asynccontextmanager
    async def _door(self) -> Any:
        async with gateway_to("http://127.0.0.1:9", "http://127.0.0.1:9") as desk:
            door = AdminDoor(desk.gateway, name="test", membership=Joining(desk.replicas))
            server = await listen_unix(door.connection, self.folder / GATEWAY_SOCKET)
            yield
            server.close()
            door.close()

    async def _serve(self) -> None:
        async with self._door():
            self.ready.set()
            await asyncio.to_thread(self.done.wait)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    running = Running(tmp_path_factory.mktemp("run"))
    gateway = threading.Thread(target=running.gateway)
    app = threading.Thread(target=running.server.run, kwargs={"sockets": [running.listener]})
    gateway.start()
    assert running.ready.wait(20)
    app.start()
    try:
        yield running.url
    finally:
        running.server.should_exit = True
        app.join()
        running.done.set()
        gateway.join()
        running.listener.close()


DOCUMENT = make_app(GatewayClient(Path(GATEWAY_SOCKET))).openapi()
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
OPERATIONS = [found.ok() for found in SCHEMA.get_all_operations()]


def test_every_route_is_in_the_document() -> None:
    assert sorted(operation.label for operation in OPERATIONS) == [
        "DELETE /api/keys/{key_id}",
        "DELETE /api/replicas/{index}",
        "GET /api/events",
        "GET /api/keys",
        "GET /api/plan",
        "GET /api/replicas",
        "GET /api/state",
        "GET /api/watch",
        "POST /api/keys",
        "POST /api/replicas",
        "POST /api/replicas/{index}/drain",
        "POST /api/replicas/{index}/undrain",
        "PUT /api/mode",
    ]


@pytest.mark.parametrize("mode", schemathesis.GenerationMode, ids=lambda mode: mode.name.lower())
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)
def test_it_does_what_its_document_says(url: str, operation: Any, mode: schemathesis.GenerationMode) -> None:
    @given(operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=EXAMPLES, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    def holds(case: schemathesis.Case) -> None:
        response = case.call(base_url=url)
        case.validate_response(response, excluded_checks=UNSAID.get(operation.label, []))
        assert response.status_code < 500

    try:
        holds()
    except Unsatisfiable:
        assert mode is schemathesis.GenerationMode.NEGATIVE  # nothing can be wrong about a request without parts
