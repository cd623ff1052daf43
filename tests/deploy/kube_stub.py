"""A stand-in for a Kubernetes API server, for helm and kubectl: it keeps objects, and refuses those that are not strictly valid.

Nothing runs in it: no controller, no scheduler, no admission but the schemas. Pods are finished as soon as they are made,
so that `helm test` ends. What an apply does not send is gone, which is right while there is only one who applies.
"""

from __future__ import annotations

import copy
import json
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import yaml

from tests.deploy.kube_kinds import KINDS, Object, Refused, discovery
from tests.deploy.secret_protobuf import MAGIC, read_object


class Key(NamedTuple):
    version: str  # group and version
    plural: str
    namespace: str
    name: str


@dataclass
class Cluster:
    """What is kept. Written under ``changed``, by the handlers."""

    check: Callable[[Object], list[str]]
    objects: dict[Key, Object] = field(default_factory=dict)
    log: list[tuple[int, str, Key, Object]] = field(default_factory=list)  # version, event, whose, as it was then
    changed: threading.Condition = field(default_factory=threading.Condition)

    def names(self, plural: str) -> set[str]:
        return {key.name for key in self.objects if key.plural == plural}

    def get(self, plural: str, name: str) -> Object:
        return next(found for key, found in self.objects.items() if (key.plural, key.name) == (plural, name))

    def put(self, key: Key, given: Object) -> Object:
        """Keeps it, with what a server adds. Raises Refused where it is not valid."""
        if problems := self.check(given):
            raise Refused(422, "Invalid", f"{given['kind']} {key.name} is invalid: {'; '.join(problems)}")
        with self.changed:
            before = self.objects.get(key)
            kept = copy.deepcopy(given)
            about = kept["metadata"]
            about["uid"] = before["metadata"]["uid"] if before else str(uuid.uuid4())
            about["creationTimestamp"] = "2026-01-01T00:00:00Z"
            if key.namespace:
                about["namespace"] = key.namespace
            if kept["kind"] == "Pod":
                kept["status"] = {"phase": "Succeeded", "conditions": [{"type": "Ready", "status": "False"}]}
            self._note("MODIFIED" if before else "ADDED", key, kept)
            self.objects[key] = kept
            return kept

    def delete(self, key: Key) -> Object:
        with self.changed:
            if key not in self.objects:
                raise Refused(404, "NotFound", f'{key.plural} "{key.name}" not found')
            gone = self.objects.pop(key)
            self._note("DELETED", key, gone)
            return gone

    def _note(self, event: str, key: Key, kept: Object) -> None:
        kept["metadata"]["resourceVersion"] = str(len(self.log) + 1)
        self.log.append((len(self.log) + 1, event, key, copy.deepcopy(kept)))
        self.changed.notify_all()

    def listed(self, key: Key, chooses: Callable[[Object], bool]) -> list[Object]:
        return [found for other, found in self.objects.items() if _below(other, key) and chooses(found)]

    def watched(self, key: Key, since: int, chooses: Callable[[Object], bool], seconds: float) -> Iterator[Object]:
        """Events after ``since`` as they come, until there are none for so long. -1: what is there, a mark, and so on."""
        with self.changed:
            if since < 0:
                since = len(self.log)
                yield from ({"type": "ADDED", "object": found} for found in self.listed(key, chooses))
                yield {"type": "BOOKMARK", "object": self._mark(key)}
            seen = since
            while len(self.log) > seen or self.changed.wait(timeout=seconds):
                fresh, seen = self.log[seen:], len(self.log)
                for _, event, other, found in fresh:
                    if _below(other, key) and chooses(found):
                        yield {"type": event, "object": found}

    def _mark(self, key: Key) -> Object:
        about = {"resourceVersion": str(len(self.log)), "annotations": {"k8s.io/initial-events-end": "true"}}
        return {"apiVersion": key.version, "kind": KINDS[key.version][key.plural], "metadata": about}


def _below(key: Key, folder: Key) -> bool:
    return key[:2] == folder[:2] and folder.namespace in ("", key.namespace)


def selects(selector: str, fields: str) -> Callable[[Object], bool]:
    """labelSelector and fieldSelector of equalities."""
    labels = dict(part.split("=", 1) for part in selector.replace("==", "=").split(",") if part)
    name = dict(part.split("=", 1) for part in fields.split(",") if part).get("metadata.name")

    def chooses(found: Object) -> bool:
        about = found["metadata"]
        return labels.items() <= about.get("labels", {}).items() and name in (None, about["name"])

    return chooses


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer waits 40 ms for the client's acknowledgement of its head
    cluster: Cluster

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        pass

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def _serve(self) -> None:
        body = self._body()
        try:
            self._answer(200, self._act(urlsplit(self.path).path.strip("/").split("/"), body))
        except Refused as refused:
            self._answer(refused.code, refused.status)

    def _body(self) -> Any:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if raw.startswith(MAGIC):
            return read_object(raw)
        return yaml.safe_load(raw) if raw else None

    def _answer(self, code: int, answer: Any) -> None:
        if answer is None:  # a watch, which has answered by itself
            return
        raw = json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def _act(self, parts: list[str], body: Any) -> Any:
        if parts[0] not in ("api", "apis") or len(parts) <= (2 if parts[0] == "api" else 3):
            return discovery(parts)
        key = key_of(parts)
        if parts[-1] == "log":
            return ""  # nothing has run
        if self.command == "GET":
            return self._read(key)
        if self.command == "DELETE":
            return self.cluster.delete(key)
        if self.command == "POST":
            key = key._replace(name=body["metadata"]["name"])
            if key in self.cluster.objects:
                raise Refused(409, "AlreadyExists", f'{key.plural} "{key.name}" already exists')
        if self.command == "PATCH" and "apply" not in self.headers["Content-Type"]:
            body = merged(copy.deepcopy(self.cluster.objects[key]), body)
        return self.cluster.put(key, body)

    def _read(self, key: Key) -> Any:
        query = dict(parse_qsl(urlsplit(self.path).query))
        chooses = selects(query.get("labelSelector", ""), query.get("fieldSelector", ""))
        if key.name:
            if key.plural == "namespaces":
                return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": key.name}}
            if key not in self.cluster.objects:
                raise Refused(404, "NotFound", f'{key.plural} "{key.name}" not found')
            return self.cluster.objects[key]
        if query.get("watch") in ("true", "1"):
            since = -1 if query.get("sendInitialEvents") == "true" else int(query.get("resourceVersion") or 0)
            return self._watch(key, since, chooses)
        kind = KINDS[key.version][key.plural]
        about = {"resourceVersion": str(len(self.cluster.log))}
        return {"kind": f"{kind}List", "apiVersion": key.version, "metadata": about,
                "items": self.cluster.listed(key, chooses)}  # fmt: skip

    def _watch(self, key: Key, since: int, chooses: Callable[[Object], bool]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        for event in self.cluster.watched(key, since, chooses, seconds=5):
            try:
                self.wfile.write(json.dumps(event).encode() + b"\n")
            except OSError:  # the client has seen enough
                return


def merged(below: Object, above: Object) -> Object:
    """A JSON merge patch."""
    for name, value in above.items():
        if value is None:
            below.pop(name, None)
        elif isinstance(value, dict):
            below[name] = merged(below.get(name) or {}, value)
        else:
            below[name] = value
    return below


def key_of(parts: list[str]) -> Key:
    """/apis/apps/v1/namespaces/serving/deployments/demo → its parts. Raises Refused for what there is not."""
    version, rest = (parts[1], parts[2:]) if parts[0] == "api" else ("/".join(parts[1:3]), parts[3:])
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    if rest[0] not in KINDS.get(version, {}):
        raise Refused(404, "NotFound", f"{version} has no {rest[0]} here")
    return Key(version, rest[0], namespace, rest[1] if len(rest) > 1 else "")


@contextmanager
def kube_stub(check: Callable[[Object], list[str]], kubeconfig: Path) -> Iterator[Cluster]:
    """One that runs meanwhile, on a free port of loopback; how it is reached is written to ``kubeconfig``."""
    cluster = Cluster(check)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"cluster": cluster}))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    context = {"name": "stub", "context": {"cluster": "stub", "user": "stub", "namespace": "serving"}}
    kubeconfig.write_text(yaml.safe_dump({
        "apiVersion": "v1", "kind": "Config", "current-context": "stub", "contexts": [context],
        "clusters": [{"name": "stub", "cluster": {"server": url}}], "users": [{"name": "stub", "user": {}}],
    }))  # fmt: skip
    try:
        yield cluster
    finally:
        server.shutdown()
        server.server_close()
