"""A small Hugging Face hub on loopback: repository info, file lists and downloads with ranges, and faults on demand."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "c0ffee" * 6 + "beef"


@dataclass
class Repo:
    files: dict[str, bytes]
    gated: bool = False
    claimed_sizes: dict[str, int] = field(default_factory=dict)


@dataclass
class Hub:
    """``requests`` holds (method, path, range) of everything asked; faults are set by the tests."""

    url: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    cut_after: dict[str, int] = field(default_factory=dict)  # file → bytes after which the connection breaks, once
    stall_after: dict[str, int] = field(default_factory=dict)  # file → bytes after which it stands still until `go_on`
    stalled: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)
    status: int = 200  # another one answers every request with it

    def downloads(self, name: str) -> list[str]:
        """The Range headers with which a file was asked for."""
        return [found for method, path, found in self.requests if method == "GET" and path.endswith(f"/{name}")]


@contextmanager
def running_hub() -> Iterator[Hub]:
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.go_on.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        split = urlsplit(self.path)
        path = unquote(split.path)
        self.hub.requests.append((self.command, path, self.headers.get("Range", "")))
        self.hub.tokens.append(self.headers.get("Authorization", ""))
        if self.hub.status != 200:
            self._error(self.hub.status, "")
        elif path == "/api/models":
            wanted = parse_qs(split.query).get("search", [""])[0].lower()
            self._json([{"id": name, "modelId": name} for name in self.hub.repos if wanted[:5] in name.lower()])
        elif path.startswith("/api/models/"):
            self._api(path.removeprefix("/api/models/"))
        elif "/resolve/" in path:
            self._file(*path.lstrip("/").split("/resolve/"))
        else:
            self._error(404, "")

    def _api(self, rest: str) -> None:
        name = next((name for name in self.hub.repos if rest == name or rest.startswith(f"{name}/")), None)
        if name is None:
            self._error(401, "RepoNotFound")
            return
        repo, rest = self.hub.repos[name], rest.removeprefix(name).lstrip("/")
        revision = rest.split("/")[1] if "/" in rest else "main"
        if revision not in ("main", COMMIT):
            self._error(404, "RevisionNotFound")
        elif rest.startswith("tree/"):
            self._json([{"type": "file", "path": name, **_about(repo, name)} for name in repo.files])
        else:
            files = [
                {"rfilename": name, "blobId": _oid(data), **_about(repo, name)} for name, data in repo.files.items()
            ]
            self._json({"id": name, "modelId": name, "sha": COMMIT, "siblings": files, "tags": [], "private": False})

    def _file(self, name: str, rest: str) -> None:
        repo, file = self.hub.repos.get(name), rest.partition("/")[2]
        if repo is None or file not in repo.files:
            self._error(404, "EntryNotFound" if repo else "RepoNotFound")
            return
        if repo.gated and not self.headers.get("Authorization"):
            self._error(403, "GatedRepo")
            return
        data = repo.files[file]
        start = int(self.headers["Range"].removeprefix("bytes=").partition("-")[0]) if self.headers.get("Range") else 0
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{_oid(data)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if self.command == "GET":
            self._body(file, data, start)

    def _body(self, file: str, data: bytes, start: int) -> None:
        cut, stall = self.hub.cut_after.pop(file, None), self.hub.stall_after.pop(file, None)
        end = next((at for at in (cut, stall) if at is not None), len(data))
        self.wfile.write(data[start:end])
        self.wfile.flush()
        if cut is not None:
            self.close_connection = True
            self.connection.close()
        elif stall is not None:
            self.hub.stalled.set()
            self.hub.go_on.wait()
            self.close_connection = True

    def _json(self, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _error(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _oid(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


def _about(repo: Repo, name: str) -> dict[str, Any]:
    return {"size": repo.claimed_sizes.get(name, len(repo.files[name])), "oid": _oid(repo.files[name])}
