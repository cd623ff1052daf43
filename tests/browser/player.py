"""What the operator's page reads, played: looks as they come, refusals, an end, a silence; with the real files of the page.

For what no deployment on this machine has (cards, a full queue, an engine that crashes again and again) and for what takes
one hours.
"""

from __future__ import annotations

import json
import queue
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from launcher.gateway.static import ALWAYS, FOLDER, PAGES, TYPES

BOUNDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 60.0, 120.0)
GIB = 2**30
START = 1_790_000_000.0
PLAN = {
    "profile": "p.yaml", "name": "played", "verdict": "fits", "summary": "Fits: 528160 tokens of KV cache a replica.",
    "findings": [
        {"severity": "warning", "code": "w", "key": "engine.max_num_seqs", "message": "Too many.", "remedy": "Set it to 64."},
        {"severity": "note", "code": "n", "key": "model", "message": "The shape is from facts.", "remedy": None},
    ],
    "model": {}, "placements": [{"replica": 0, "gpus": [0, 1], "nodes": 1}],
    "budgets": [{
        "stage": 0, "visible": 24 * GIB, "requested": 21 * GIB, "weights_language": 9 * GIB, "weights_vision": GIB,
        "buffers": 2**25, "encoder_cache": 2**25, "activations": 2**28, "vision_extra": 2**26, "sampler_extra": 0,
        "cuda_graphs": GIB, "outside_torch": 2**27, "kv": 9 * GIB,
    }],
    "kv": {"bytes_per_token": 20480, "tokens": 528160, "requests_at_full_length": 64.47, "max_len": 8192},
    "images": [{"width": 4000, "height": 3000, "sent": [4000, 3000], "seen": [1820, 1344], "tokens": 3122}],
    "settings": {"engine.max_num_seqs": {"value": 128, "origin": "p.yaml:38"}, "name": {"value": "x", "origin": "default"}},
    "commands": [{"replica": 0, "gpus": [0, 1], "argv": ["x"], "shell": "env A=1 python -m vllm " + "--long " * 60, "notes": ["a note"]}],
}  # fmt: skip


def replica(index: int, **changes: Any) -> dict[str, Any]:
    ledger = {
        "prefill_tokens": {"held": 1024, "cap": 4096},
        "sequences": {"held": 12, "cap": 128},
        "kv_tokens": {"held": 90_000, "cap": 528_160},
    }
    plain = {
        "index": index,
        "url": f"http://127.0.0.1:{43210 + index}",
        "ready": True,
        "draining": False,
        "leaving": False,
    }
    more = {"external": False, "reason": "", "in_flight": 12, "answered": 40, "ledger": ledger}
    return {**plain, **more, "pace": {"prefill_tokens_s": 8000.0, "itl_ms": 24.0}, **changes}


def engine(index: int, **changes: Any) -> dict[str, Any]:
    plain = {
        "index": index,
        "phase": "ready",
        "stage": "",
        "since": START - 7200,
        "url": f"http://127.0.0.1:{43210 + index}",
    }
    figures = {"running": 12.0, "waiting": 0.0, "kv_cache": 0.42, "preemptions": 0.0, "prefix_hit_rate": 0.73}
    return {**plain, "restarts": 0, "last_failure": "", **figures, **changes}


def card(index: int, **changes: Any) -> dict[str, Any]:
    plain = {"index": index, "name": "NVIDIA GeForce RTX 4090", "used_bytes": 21 * GIB, "total_bytes": 24 * GIB}
    return {**plain, "utilization": 93, "growth_bytes_per_s": 0.0, "full_in_s": None, "warning": None, **changes}


def look(second: float = 0, *, waiting: int = 0, in_flight: int = 24, **changes: Any) -> dict[str, Any]:
    """Two engines and two cards that are well, so many seconds after the first look."""
    by_length = {"<=256": 0, "<=1k": waiting, "<=4k": 0, "<=16k": 0, ">16k": 0}
    live = {
        "name": "played", "model": "autoglm-phone-9b", "version": "1", "mode": "balanced", "draining": False, "reason": "",
        "uptime_s": 7300 + second, "connections": 31, "in_flight": in_flight,
        "queue": {
            "count": waiting, "tokens": 1300 * waiting, "oldest_s": 0.04 if waiting else 0.0,
            "by_priority": {"high": 0, "normal": waiting, "low": 0}, "by_length": by_length,
        },
        "replicas": [replica(0), replica(1)],
        "totals": {
            "served": 4000, "refused": 0, "evicted": 0, "cancelled": 3, "failed": 0, "refusals": {}, "evictions": {}, "resumed": 1,
        },
        "last_minute": {
            "seconds": 60.0, "requests_s": 5.0, "prompt_tokens_s": 4300.0, "output_tokens_s": 1200.0,
            "ttft_p50_ms": 120.0, "ttft_p99_ms": 900.0, "itl_p50_ms": 24.0, "itl_p99_ms": 60.0,
            "ttft_within": [[bound, 300 if bound >= 2 else 285 if bound >= 1 else 150] for bound in BOUNDS] + [[None, 300]],
            "itl_within": [], "served": 300, "refused": 0, "evicted": 0, "cancelled": 0, "failed": 0, "refusals": {}, "evictions": {},
        },
    }  # fmt: skip
    state = {"at": START + second, "name": "played", "state": "ready", "url": "http://127.0.0.1:8080", "live": live}
    machine = {"engines": [engine(0), engine(1)], "gpus": [card(0), card(1)], "warnings": [], "ends": []}
    return {**state, **machine, **changes}


def bad_look(second: float = 0) -> dict[str, Any]:
    """All that can be in it: an engine that crashed, a card that fills, refusals, ends."""
    why = "CUDA out of memory: the KV cache and the activations take more than the card has"
    warning = "card 1 (NVIDIA GeForce RTX 4090): memory grows, and will be full in 21 min if it goes on like this."
    found = look(second, waiting=3, state="degraded", warnings=[warning])
    found["gpus"][1] |= {"growth_bytes_per_s": 2.0**20, "full_in_s": 1260.0, "warning": warning}
    dead = {"running": None, "waiting": None, "kv_cache": None, "preemptions": None, "prefix_hit_rate": None, "url": ""}
    found["engines"][1] |= {"phase": "backoff", "since": START - 12, "restarts": 3, "last_failure": why, **dead}
    found["live"]["replicas"][1] |= {"ready": False, "reason": why, "in_flight": 0}
    missed: dict[str, Any] = {
        "refused": 9,
        "evicted": 2,
        "refusals": {"queue_full": 9},
        "evictions": {"deadline_passed": 2},
    }
    found["live"]["last_minute"] |= {**missed, "failed": 1}
    found["live"]["totals"] |= missed
    remedy = "Lower engine.gpu_memory_utilization."
    found["ends"] = [
        {"at": START - 31 + one, "engine": 1, "cause": "exited", "reason": why, "remedy": remedy} for one in range(20)
    ]
    return found


class Player:
    """A server that plays. What is played goes to every stream that is open, and the newest to each that opens."""

    def __init__(self) -> None:
        self.refusal: tuple[int, dict[str, str]] | None = None  # what /api/events says instead of a stream
        self.newest: dict[str, Any] | None = None
        self.asked: queue.Queue[dict[str, str]] = queue.Queue()  # the headers of each request for the stream
        self._connections: set[socket.socket] = set()
        self._streams: list[queue.Queue[bytes | None]] = []
        self._server: ThreadingHTTPServer | None = None
        self.port = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def begin(self) -> None:
        """Listens, on the port that it had before."""
        player = self

        class Handler(_Handler):
            owner = player

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def end(self) -> None:
        """Is gone: nothing listens, every stream is cut off."""
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()
        self.cut()
        for connection in tuple(self._connections):
            with suppress(OSError):  # it has just closed by itself
                connection.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """Ends the streams that are open."""
        for stream in self._streams:
            stream.put(None)
        self._streams.clear()

    def play(self, *looks: dict[str, Any]) -> None:
        self.newest = looks[-1]
        events = b"".join(event(one) for one in looks)
        for stream in self._streams:
            stream.put(events)

    def connected(self, connection: socket.socket, is_open: bool = True) -> None:
        (self._connections.add if is_open else self._connections.discard)(connection)

    def open_stream(self) -> queue.Queue[bytes | None]:
        stream: queue.Queue[bytes | None] = queue.Queue()
        if self.newest is not None:
            stream.put(event(self.newest))
        self._streams.append(stream)
        return stream


def event(one: dict[str, Any]) -> bytes:
    return b"event: watch\ndata: %b\n\n" % json.dumps(one).encode()


class _Handler(BaseHTTPRequestHandler):
    owner: Player
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.owner.connected(self.connection)

    def finish(self) -> None:
        self.owner.connected(self.connection, False)
        with suppress(OSError):  # the page has left
            super().finish()

    def log_message(self, *_: Any) -> None:
        """Nobody reads it."""

    def do_GET(self) -> None:
        if self.path == "/api/events":
            self.owner.asked.put({name.lower(): value for name, value in self.headers.items()})
            self._refuse() if self.owner.refusal else self._stream()
        elif self.path == "/api/plan":
            self._answer(200, json.dumps(PLAN).encode(), b"application/json")
        else:
            self._file()

    def _refuse(self) -> None:
        assert self.owner.refusal is not None
        status, error = self.owner.refusal
        self._answer(status, json.dumps({"error": error}).encode(), b"application/json")

    def _file(self) -> None:
        names = {path.decode(): name.decode() for name, path in PAGES.items()}
        path = FOLDER / names.get(self.path, self.path.removeprefix("/ui/"))
        if not path.is_file():
            return self._answer(204, b"", b"text/plain")
        self._answer(200, path.read_bytes(), TYPES[path.suffix][0], *ALWAYS)

    def _answer(self, status: int, data: bytes, kind: bytes, *lines: bytes) -> None:
        self.send_response(status)
        for line in (b"content-type: " + kind, b"content-length: %d" % len(data), *lines):
            name, _, value = line.decode().partition(": ")
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True
        self.wfile.write(b"retry: 1000\n\n")
        stream = self.owner.open_stream()
        while (data := stream.get()) is not None:
            try:
                self.wfile.write(data)
            except OSError:  # the page has left
                return


@contextmanager
def playing() -> Iterator[Player]:
    player = Player()
    player.begin()
    try:
        yield player
    finally:
        player.end()
