"""Sends requests over raw connections and writes down what becomes of them, at some 0.1 ms of CPU for each."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from urllib.parse import urlsplit

from loadtests.tally import UNANSWERED, Record
from loadtests.workloads import Planned, Speech

PATIENCE_S = 90.0  # how long the answers may take after the last request
_TEXT = re.compile(rb'"(?:content|text|reasoning|reasoning_content)": ?"[^"]').search  # a piece that is not empty
_USAGE = re.compile(rb'"prompt_tokens": ?(\d+)[^}]*?"completion_tokens": ?(\d+)').search
_TAIL = 1024  # bytes of a stream's end that are kept: the usage and [DONE] are there


class Call(asyncio.Protocol):
    """One attempt of one request over one connection."""

    __slots__ = ("_done", "_head", "_length", "_now", "_over", "_request", "_seen", "_tail", "record", "transport")

    def __init__(
        self, record: Record, request: bytes, now: Callable[[], float], done: Callable[[Call], None], any_event: bool
    ) -> None:
        self.record, self._request, self._now, self._done = record, request, now, done
        self._head = b""
        self._length: int | None = None  # of a refusal's body
        self._tail = b""
        self._seen = any_event  # a piece with text has come, or need not
        self._over = False
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        if self.record.sent_at is None:
            self.record.sent_at = self._now()
        transport.write(self._request)  # type: ignore[attr-defined]
        self._request = b""

    def data_received(self, data: bytes) -> None:
        record = self.record
        if record.status == UNANSWERED:
            self._head += data
            head, end, data = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            self._read_head(head)
        if record.status != 200:
            self._tail += data
            if self._length is not None and len(self._tail) >= self._length:
                self.end(_reason(self._tail))
            return
        record.pieces += data.count(b"data: ")
        if record.first_event_at is None and record.pieces:
            record.first_event_at = self._now()
        tail = self._tail + data
        if not self._seen and _TEXT(tail):
            self._seen = True
            record.first_text_at = self._now()
        self._tail = tail[-_TAIL:]
        if b"data: [DONE]" in self._tail:
            self._finish()

    def _read_head(self, head: bytes) -> None:
        lines = head.decode("latin-1").split("\r\n")
        self.record.status = int(lines[0].split(" ")[1])
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        self._length = int(headers["content-length"]) if "content-length" in headers else None
        if exact := headers.get("retry-after-ms"):
            self.record.retry_after_s = float(exact) / 1000
        elif whole := headers.get("retry-after"):
            self.record.retry_after_s = float(whole)

    def _finish(self) -> None:
        self.record.pieces -= 1  # [DONE]
        if usage := _USAGE(self._tail):
            self.record.prompt_tokens, self.record.output_tokens = int(usage[1]), int(usage[2])
            self.record.pieces -= 1
        self.end("error in the stream" if b'data: {"error"' in self._tail else "")

    def connection_lost(self, error: Exception | None) -> None:
        if self.record.status == UNANSWERED:
            self.end(f"no answer: {error or 'connection closed'}")
        elif self.record.status == 200:
            self.end("broken off")
        else:
            self.end(_reason(self._tail))

    def give_up(self) -> None:
        """Nobody waits for the answer any longer."""
        if self.transport is not None:
            self.transport.abort()
        self.end("unfinished")

    def end(self, reason: str) -> None:
        if self._over:
            return
        self._over = True
        self.record.ended_at, self.record.reason = self._now(), reason
        if self.transport is not None:
            self.transport.close()
        self._done(self)


def _reason(body: bytes) -> str:
    """The reason code of a refusal: the gateway's own, else the type that vLLM gives."""
    start = body.find(b"{")
    try:
        error = json.loads(body[start : body.rfind(b"}") + 1])["error"]
        return str(error.get("reason") or error.get("type") or "refused")
    except (ValueError, KeyError, TypeError, AttributeError):
        return "refused"


class Client:
    """Sends requests to one server and writes down what becomes of them. One run long, on one event loop.

    ``any_event``: the first event counts as the first token, with text or without. For models with random weights, whose
    tokens seldom make text; vLLM sends no event before there is a token.
    """

    def __init__(
        self, url: str, speech: Speech, *, retries: int = 0, lines: Sequence[str] = (), any_event: bool = False
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise SystemExit(f"--url: {url!r} is not a URL such as http://127.0.0.1:8000 (https is not spoken here)")
        self.host, self.port, self._prefix = parts.hostname, parts.port or 80, parts.path.rstrip("/")
        self._speech, self._retries, self._lines, self._any_event = speech, retries, lines, any_event
        self._loop = asyncio.get_running_loop()
        self._started_at = self._loop.time()
        self._calls: set[Call] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = 0
        self._quiet = asyncio.Event()
        self._on_end: Callable[[Record], None] = lambda record: None

    def now(self) -> float:
        return self._loop.time() - self._started_at

    def request(self, planned: Planned) -> bytes:
        """The whole request in bytes; to be made before its time comes."""
        body = self._speech.body(planned)
        head = [
            f"POST {self._prefix}{self._speech.path} HTTP/1.1", f"Host: {self.host}:{self.port}",
            "Content-Type: application/json", f"Content-Length: {len(body)}", "Connection: close", *self._lines,
        ]  # fmt: skip
        return "\r\n".join([*head, "", ""]).encode("latin-1") + body

    async def open_loop(self, plan: Sequence[Planned], patience_s: float = PATIENCE_S) -> list[Record]:
        """Sends each request when it is due; returns when all are answered or patience has run out."""
        requests = [self.request(planned) for planned in plan]
        records = [Record(planned) for planned in plan]
        self._started_at = self._loop.time() + 0.1
        self._open = len(records)
        for record, request in zip(records, requests, strict=True):
            self._loop.call_at(self._started_at + record.planned.at_s, self._start, record, request)
        if records:
            await self._wait(records[-1].planned.at_s + patience_s)
        return records

    async def closed_loop(
        self, plan: Iterable[Planned], users: int, seconds: float, patience_s: float = 0.0
    ) -> list[Record]:
        """Each of ``users`` asks again as soon as it is answered, until the time is up.

        What is open then is cut off after ``patience_s``; without patience the longest answers are missing.
        """
        rest = iter(plan)
        records: list[Record] = []

        def ask(_: Record | None = None) -> None:
            planned = next(rest, None)
            if self.now() >= seconds or planned is None:
                return
            record = Record(replace(planned, at_s=self.now()))
            records.append(record)
            self._open += 1
            self._start(record, self.request(planned))

        self._started_at = self._loop.time()
        self._on_end = ask
        for _ in range(users):
            ask()
        await self._wait(seconds + patience_s)
        return records

    async def _wait(self, until_s: float) -> None:
        try:
            async with asyncio.timeout_at(self._started_at + until_s):
                await self._quiet.wait()
        except TimeoutError:
            pass
        self._on_end = lambda record: None
        for call in list(self._calls):
            call.give_up()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, record: Record, request: bytes) -> None:
        task = self._loop.create_task(self._connect(record, request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, record: Record, request: bytes) -> None:
        record.attempts += 1
        call = Call(record, request, self.now, lambda ended: self._ended(ended, request), self._any_event)
        self._calls.add(call)
        try:
            await self._loop.create_connection(lambda: call, self.host, self.port)
        except OSError as error:
            call.end(f"no connection: {error.strerror or error}")

    def _ended(self, call: Call, request: bytes) -> None:
        self._calls.discard(call)
        record = call.record
        if record.status in (429, 503) and record.attempts <= self._retries:
            pause_s = record.retry_after_s if record.retry_after_s is not None else 0.5 * 2 ** (record.attempts - 1)
            record.status, record.ended_at, record.reason = UNANSWERED, None, ""
            self._loop.call_later(pause_s, self._start, record, request)
            return
        self._open -= 1
        self._on_end(record)
        if not self._open:
            self._quiet.set()
