"""What the gateway's tests share: a gateway in front of fake engines, and a client that speaks raw HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from launcher.gateway.ledger import Capacity
from launcher.gateway.replicas import Endpoint, Replicas
from launcher.gateway.server import Gateway
from launcher.profile.model import AdmissionSection, GatewaySection, ModelSection, TemplatePolicy

PATIENCE_S = 20.0  # a test that waits longer has failed
CHAT = "/v1/chat/completions"


@dataclass
class Response:
    """One answer as it came."""

    status: int
    headers: dict[str, str]
    body: bytes
    raw_head: bytes
    chunks: list[bytes]

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = self.json()["error"]
        return error


class RawClient:
    """A connection on which any bytes can be sent."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def post(self, path: str, value: Any, *lines: str) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        await self.send(request_bytes("POST", path, body, *lines))

    async def read_head(self) -> tuple[int, dict[str, str], bytes]:
        raw = await self.reader.readuntil(b"\r\n\r\n")
        lines = raw[:-4].decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        return int(lines[0].split(" ")[1]), headers, raw

    async def read_chunk(self) -> bytes:
        size = int(await self.reader.readuntil(b"\r\n"), 16)
        return (await self.reader.readexactly(size + 2))[:-2]

    async def read(self, head_only: bool = False) -> Response:
        """The next answer. Raises IncompleteReadError where it ends too early."""
        async with asyncio.timeout(PATIENCE_S):
            return await self._read(head_only)

    async def _read(self, head_only: bool) -> Response:
        status, headers, raw = await self.read_head()
        chunks: list[bytes] = []
        if head_only or status in (100, 204, 304):
            pass
        elif headers.get("transfer-encoding") == "chunked":
            while chunk := await self.read_chunk():
                chunks.append(chunk)
        elif "content-length" in headers:
            chunks.append(await self.reader.readexactly(int(headers["content-length"])))
        else:
            chunks.append(await self.reader.read())
        return Response(status, headers, b"".join(chunks), raw, chunks)

    async def at_end(self) -> bool:
        """Whether the server ends the connection, without a further byte."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await self.reader.read(1) == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self.writer.transport.abort()


def request_bytes(method: str, path: str, body: bytes = b"", *lines: str) -> bytes:
    head = [f"{method} {path} HTTP/1.1", "Host: gateway", *lines]
    if body or method == "POST":
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*head, "", ""]).encode("latin-1") + body


class Desk:
    """A running gateway and the way to it."""

    def __init__(self, gateway: Gateway, replicas: Replicas, address: tuple[str, int]) -> None:
        self.gateway, self.replicas, self.address = gateway, replicas, address
        self.url = f"http://{address[0]}:{address[1]}"
        self._clients: list[RawClient] = []

    async def client(self, limit: int = 2**26) -> RawClient:
        client = RawClient(*await asyncio.open_connection(*self.address, limit=limit))
        self._clients.append(client)
        return client

    async def post(self, value: Any, *lines: str, path: str = CHAT) -> Response:
        client = await self.client()
        await client.post(path, value, *lines)
        return await client.read()

    async def get(self, path: str, *lines: str) -> Response:
        client = await self.client()
        await client.send(request_bytes("GET", path, b"", *lines))
        return await client.read()

    async def raw(self, data: bytes) -> Response:
        client = await self.client()
        await client.send(data)
        return await client.read()

    async def metric(self, line_start: str) -> float:
        """The value of the first sample whose line begins so; 0 where there is none."""
        text = (await self.get("/metrics")).body.decode()
        return next((float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(line_start)), 0.0)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Lets the gateway work until something holds; each turn asks it something, so that no time need be guessed."""
        client = await self.client()
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not holds():
                    await client.send(request_bytes("GET", "/health"))
                    await client.read()
        finally:
            client.close()

    async def at_rest(self) -> None:
        """Waits until the gateway works on nothing, and checks that its books say so too."""
        assert await self.gateway.drained(10) == 0
        assert self.gateway.dispatcher.in_flight == 0
        assert all(replica.in_flight == 0 for replica in self.replicas.all)
        assert not self.gateway.dispatcher.queue

    def close(self) -> None:
        for client in self._clients:
            client.close()


@asynccontextmanager
async def gateway_to(
    *urls: str,
    max_in_flight: int = 64,
    capacity: Capacity | None = None,
    template: TemplatePolicy | None = None,
    ready: bool = True,
    parts: dict[str, Any] | None = None,
    **settings: Any,
) -> AsyncIterator[Desk]:
    """A gateway in front of engines at ``urls``; ``settings`` are GatewaySection's and AdmissionSection's, in seconds.

    ``parts``: what else a Gateway takes, such as gatekeeper and access.
    """
    replicas = Replicas()
    unknown = set(settings) - set(GatewaySection.model_fields) - set(AdmissionSection.model_fields)
    assert not unknown, f"no such settings: {unknown}"
    of = lambda section: {key: value for key, value in settings.items() if key in section.model_fields}  # noqa: E731
    section = GatewaySection(listen="127.0.0.1:0").model_copy(update=of(GatewaySection))
    patient = AdmissionSection().model_copy(
        update={"deadline": 30.0, "restart_wait": 0.0}
    )  # tests of other things are not about time
    admission = patient.model_copy(update=of(AdmissionSection))
    model = ModelSection(served_name="fake-model", template=template or TemplatePolicy())
    can = capacity or Capacity(batch_tokens=1_000_000, sequences=max_in_flight)
    gateway = Gateway(section, replicas, model=model, admission=admission, capacity=can, **(parts or {}))
    for index, url in enumerate(urls):
        replicas.add(index, Endpoint(url))
    desk = Desk(gateway, replicas, await gateway.start())
    for index in range(len(urls) if ready else 0):
        replicas.ready(index)
    try:
        yield desk
    finally:
        desk.close()
        await gateway.close()


def events(body: bytes) -> list[Any]:
    """The data of a stream's events; '[DONE]' as it is."""
    found = [part[6:] for part in body.decode().replace("\r\n", "\n").split("\n\n") if part.startswith("data: ")]
    return [text if text == "[DONE]" else json.loads(text) for text in found]


def chat(text: str = "hello", **more: Any) -> dict[str, Any]:
    return {"model": "fake-model", "messages": [{"role": "user", "content": text}], **more}
