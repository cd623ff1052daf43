"""A fake vLLM server: speaks vLLM's HTTP, prints vLLM's log lines, and misbehaves on demand.

Run it as ``python -m tests.fakes.engine --port 0`` or ``python tests/fakes/engine.py serve MODEL --port 8001``. It
records what it saw: GET /_fake/seen; GET /_fake/wait?event=abort&count=1 answers once that event has come. POST
/_fake/set changes its behaviour (see behaviour.py), POST /_fake/release lets held answers go on, POST /_fake/reset
starts anew, POST /_fake/drop_idle closes the idle connections.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import sys
import time
from collections import Counter, deque
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

if __package__ in (None, ""):  # started as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.fakes.answers import KV_CACHE_TOKENS, Answer, metrics_text
from tests.fakes.behaviour import Behaviour, CommandLine, parse_command_line

REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 500: "Internal Server Error"}
REASONS |= {503: "Service Unavailable"}
GUARDED = ("/v1", "/v2", "/inference", "/cohere")  # what vLLM's API key is asked for
Headers = dict[str, str]
KEPT_BODY = 256 * 1024  # bytes: larger ones are told by their length and hash


def log(text: str) -> None:
    """One line as vLLM's logger writes it."""
    print(f"INFO {time.strftime('%m-%d %H:%M:%S')} [fake_engine.py:1] {text}", flush=True)


def error_body(message: str, kind: str, code: int) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


class Gone(Exception):
    """The client's connection is lost."""


class Record:
    """What was seen and done, and who waits for it."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.counts: Counter[str] = Counter()
        self.tokens: Counter[str] = Counter()
        self.running = 0
        self.kv_tokens = 0  # prompts and answers of what runs
        self.bytes_written = 0
        self.changed = asyncio.Condition()
        self.held: deque[asyncio.Future[None]] = deque()
        self.free = 0  # releases that came before their answer was held

    def hold(self) -> asyncio.Future[None]:
        """A future that a release makes done; releases go in the order of the holds."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.held.append(turn)
        self.release(0)
        return turn

    def release(self, count: int) -> None:
        self.free += count
        while self.free and self.held:
            turn = self.held.popleft()
            if not turn.done():
                turn.set_result(None)
            self.free -= 1

    async def note(self, event: str) -> None:
        self.counts[event] += 1
        async with self.changed:
            self.changed.notify_all()

    async def wait(self, event: str, count: int, timeout_s: float) -> bool:
        async with self.changed:
            try:
                async with asyncio.timeout(timeout_s):
                    await self.changed.wait_for(lambda: self.counts[event] >= count)
            except TimeoutError:
                return False
        return True


class Connection(asyncio.Protocol):
    """One client connection; requests on it are answered in turn."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.buffer = bytearray()
        self.arrived = asyncio.Event()
        self.writable = asyncio.Event()
        self.writable.set()
        self.lost = asyncio.Event()
        self.busy = False
        self.controls = False  # used for /_fake/: what is written there does not count
        self.number = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.engine.connections.add(self)
        self.engine.record.counts["connect"] += 1
        self.number = self.engine.record.counts["connect"]
        self.task = asyncio.ensure_future(self.serve())

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        self.arrived.set()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.engine.connections.discard(self)
        self.lost.set()
        self.arrived.set()
        self.writable.set()

    async def fill(self) -> None:
        """Waits for more bytes from the client."""
        self.arrived.clear()
        await self.arrived.wait()
        if self.lost.is_set():
            raise Gone

    async def read_head(self) -> tuple[str, str, Headers]:
        while (end := self.buffer.find(b"\r\n\r\n")) < 0:
            await self.fill()
        lines = bytes(self.buffer[:end]).decode("latin-1").split("\r\n")
        del self.buffer[: end + 4]
        method, target, _ = lines[0].split(" ", 2)
        return method, target, {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}

    async def read_body(self, headers: Headers) -> bytes:
        if "chunked" in headers.get("transfer-encoding", ""):
            raise ValueError("the fake engine reads no chunked requests: the gateway sends a Content-Length")
        length = int(headers.get("content-length", "0"))
        while len(self.buffer) < length:
            await self.fill()
        body = bytes(self.buffer[:length])
        del self.buffer[:length]
        return body

    async def write(self, data: bytes) -> None:
        """Writes and waits until the transport has room: bytes_written counts what the reader has let through."""
        if self.lost.is_set() or self.transport.is_closing():
            raise Gone
        self.transport.write(data)
        if not self.controls:
            self.engine.record.bytes_written += len(data)
        await self.writable.wait()
        if self.lost.is_set():
            raise Gone

    async def pause(self, seconds: float) -> None:
        """Sleeps, unless the client leaves."""
        if seconds <= 0:
            return
        try:
            async with asyncio.timeout(seconds):
                await self.lost.wait()
        except TimeoutError:
            return
        raise Gone

    async def respond(self, status: int, body: bytes, kind: str = "application/json", head_only: bool = False) -> None:
        head = f"HTTP/1.1 {status} {REASONS.get(status, 'Fake')}\r\ndate: Sat, 21 Nov 2026 00:00:00 GMT\r\nserver: uvicorn\r\n"
        head += f"content-length: {len(body)}\r\ncontent-type: {kind}\r\n\r\n"
        await self.write(head.encode() + (b"" if head_only else body))

    async def respond_json(self, status: int, value: Any) -> None:
        await self.respond(status, json.dumps(value).encode())

    async def serve(self) -> None:
        """Answers requests until the connection ends; idle connections are closed after keepalive_s."""
        try:
            while True:
                async with asyncio.timeout(self.engine.behaviour.keepalive_s) as idle:
                    while not self.buffer:
                        await self.fill()
                    idle.reschedule(None)
                method, target, headers = await self.read_head()
                self.busy = True
                if not await self.engine.handle(self, method, target, headers):
                    break
                self.busy = False
        except TimeoutError:
            await self.engine.record.note("close_idle")
        except Gone:
            pass
        self.transport.close()


class Engine:
    """The fake server: its behaviour, its record and its routes."""

    def __init__(self, line: CommandLine, behaviour: Behaviour, rest: dict[str, str]) -> None:
        self.line, self.behaviour, self.rest = line, behaviour, rest
        self.record = Record()
        self.connections: set[Connection] = set()
        self.dead = False
        self.stopping = asyncio.Event()
        self.exit_code = 0

    async def handle(self, connection: Connection, method: str, target: str, headers: Headers) -> bool:
        """Answers one request. False: close the connection."""
        path = urlsplit(target).path
        if path.startswith("/_fake/"):
            connection.controls = True
            await self.control(
                connection, path, dict(parse_qsl(urlsplit(target).query)), await connection.read_body(headers)
            )
            return True
        fault = self.behaviour.take_fault() if method == "POST" else ""
        if fault == "answer_early":
            await connection.respond_json(400, error_body("too soon", "BadRequestError", 400))
            return False
        body = await connection.read_body(headers)
        if path in ("/health", "/ping", "/metrics", "/version"):
            await self.inspect(connection, path)
            return True
        record = self.record
        seen = {"method": method, "target": target, "headers": headers, "connection": connection.number, "ended": ""}
        seen |= {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
        seen["body"] = body.decode("utf-8", "replace") if len(body) <= KEPT_BODY else ""
        record.requests.append(seen)
        record.running += 1
        await record.note("request")
        try:
            keep = await self.answer(connection, method, path, headers, body, fault)
            seen["ended"] = "done" if keep else "fault"
        except Gone:
            seen["ended"] = "abort"
            raise
        finally:
            record.running -= 1
            await record.note(seen["ended"] or "error")
        return keep

    async def inspect(self, connection: Connection, path: str) -> None:
        well = self.behaviour.healthy and not self.dead
        if path == "/metrics":
            record = self.record
            text = metrics_text(self.line.name, record.running, record.kv_tokens, record.tokens, record.counts)
            await connection.respond(200, text.encode(), "text/plain; version=0.0.4; charset=utf-8")
        elif path == "/version":
            await connection.respond_json(200, {"version": "0.32.0"})
        else:
            await connection.respond(200 if well else 503, b"")

    async def answer(
        self, connection: Connection, method: str, path: str, headers: Headers, body: bytes, fault: str
    ) -> bool:
        is_guarded = self.line.api_key and path.startswith(GUARDED)
        if is_guarded and headers.get("authorization") != f"Bearer {self.line.api_key}":
            await connection.respond_json(401, {"error": "Unauthorized"})
            return True
        if path == "/v1/models":
            card = {
                "id": self.line.name,
                "object": "model",
                "created": 1790000000,
                "owned_by": "vllm",
                "max_model_len": 8192,
            }
            body = json.dumps({"object": "list", "data": [card]}).encode()
            await connection.respond(200, body, head_only=method == "HEAD")
            return True
        if method == "HEAD":
            await connection.write(b"HTTP/1.1 405 Method Not Allowed\r\nallow: POST\r\ncontent-length: 31\r\n\r\n")
            return True
        if path not in ("/v1/chat/completions", "/v1/completions") and not fault:
            await connection.respond_json(200, {"object": "echo", "method": method, "path": path, "bytes": len(body)})
            return True
        try:
            request = json.loads(body or b"{}")
        except ValueError as error:
            await connection.respond_json(400, error_body(f"[{error}]", "Bad Request", 400))
            return True
        if request.get("model") not in (None, "", self.line.name):
            message = f"The model `{request['model']}` does not exist."
            await connection.respond_json(404, error_body(message, "NotFoundError", 404))
            return True
        return await Answer(self, connection, path, request, fault).send()

    def die_like_vllm(self) -> None:
        """vLLM's engine death: /health answers 503 and the process leaves with code 0 a little later."""
        self.dead = True
        print("ERROR [async_llm.py:1] AsyncLLM output_handler failed. EngineDeadError", flush=True)
        asyncio.get_running_loop().call_later(0.2, self.stopping.set)

    async def control(self, connection: Connection, path: str, query: dict[str, str], body: bytes) -> None:
        record = self.record
        if path == "/_fake/set":
            try:
                self.behaviour.update(json.loads(body))
            except ValueError as error:
                await connection.respond_json(400, {"error": str(error)})
                return
        elif path == "/_fake/reset":  # as if started anew; answers that still run are cut off
            for other in self.connections - {connection}:
                other.transport.abort()
            self.behaviour, self.record, self.dead = Behaviour(), Record(), False
            record = self.record
        elif path == "/_fake/release":
            record.release(int(query.get("count", "1")))
            await record.note("release")
        elif path == "/_fake/drop_idle":  # closes every idle connection but this one, as a keep-alive limit would
            for other in self.connections - {connection}:
                if not other.busy:
                    other.transport.close()
        elif path == "/_fake/wait":
            came = await record.wait(query["event"], int(query.get("count", "1")), float(query.get("timeout", "10")))
            if not came:
                await connection.respond_json(408, {"error": f"waited in vain for {query}", "counts": record.counts})
                return
        summary: dict[str, Any] = {"requests": record.requests, "counts": record.counts, "running": record.running}
        summary |= {"bytes_written": record.bytes_written, "connections": len(self.connections), "pid": os.getpid()}
        summary |= {"argv": sys.argv[1:], "flags": self.rest, "tokens": record.tokens}
        await connection.respond_json(200, summary)


async def run(line: CommandLine, behaviour: Behaviour, rest: dict[str, str]) -> int:
    """Starts, serves until told to stop, and returns the exit code."""
    engine, loop = Engine(line, behaviour, rest), asyncio.get_running_loop()
    if behaviour.start_log:
        print(behaviour.start_log, file=sys.stderr, flush=True)
    log("vLLM API server version 0.32.0")
    log(f"Initializing a V1 LLM engine (v0.32.0) with config: model={line.model!r}")
    if behaviour.start_exit >= 0:
        return behaviour.start_exit
    print(
        "Loading safetensors checkpoint shards: 100% Completed | 1/1 [00:00<00:00,  1.00it/s]",
        file=sys.stderr,
        flush=True,
    )
    log("Loading weights took 0.01 seconds")
    log("Available KV cache memory: 1.00 GiB")
    log(f"GPU KV cache size: {KV_CACHE_TOKENS:,} tokens, Maximum concurrency for 8,192 tokens per request: 3.20x")
    if behaviour.ignore_sigterm:
        loop.add_signal_handler(signal.SIGTERM, lambda: log("SIGTERM ignored"))
    else:
        loop.add_signal_handler(signal.SIGTERM, engine.stopping.set)
    loop.add_signal_handler(signal.SIGINT, engine.stopping.set)
    if behaviour.start_delay_s:
        try:
            await asyncio.wait_for(engine.stopping.wait(), behaviour.start_delay_s)
            return 0
        except TimeoutError:
            pass
    if "headless" in rest:  # a host beyond the first: it answers nobody
        await engine.stopping.wait()
        return engine.exit_code
    server = await loop.create_server(lambda: Connection(engine), line.host, line.port, backlog=4096)
    host, port = server.sockets[0].getsockname()[:2]
    print(f"INFO:     Started server process [{os.getpid()}]", flush=True)
    print("INFO:     Waiting for application startup.\nINFO:     Application startup complete.", flush=True)
    print(f"INFO:     Uvicorn running on http://{host}:{port} (Press CTRL+C to quit)", flush=True)
    await engine.stopping.wait()
    server.close()
    print("INFO:     Shutting down", flush=True)
    deadline = loop.time() + line.shutdown_timeout  # 0, vLLM's default, aborts what runs
    while engine.record.running and loop.time() < deadline:
        await engine.record.wait("done", engine.record.counts["done"] + 1, deadline - loop.time())
    return engine.exit_code


def main() -> None:
    code = asyncio.run(run(*parse_command_line(sys.argv[1:])))
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
