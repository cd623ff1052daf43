"""The gateway's own answers: /, /health, /ready, /metrics and /api/about."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from launcher.gateway.about import about
from launcher.gateway.routes import NAMES

if TYPE_CHECKING:
    from launcher.gateway.server import Gateway

JSON = b"content-type: application/json"
TEXT = b"content-type: text/plain; version=0.0.4; charset=utf-8"
Page = tuple[int, bytes, bytes]  # status, content type line, body


def render(gateway: Gateway, path: str) -> Page:
    """The page at a path of its own."""
    return PAGES[path](gateway)


def _json(status: int, value: object) -> Page:
    return status, JSON, json.dumps(value).encode() + b"\n"


def _root(gateway: Gateway) -> Page:
    about = {"name": "launcher", "version": gateway.version, "model": gateway.model.public_name, "paths": NAMES}
    return _json(200, about)


def _health(gateway: Gateway) -> Page:
    """Alive: the process answers. Whether it can serve is /ready's to say."""
    return _json(200, {"status": "ok", "version": gateway.version})


def _ready(gateway: Gateway) -> Page:
    """200 if a new request would be served: a replica is ready and the gateway is not draining."""
    replicas = [
        {"index": r.index, "ready": r.is_ready, "reason": r.reason, "in_flight": r.in_flight}
        for r in gateway.replicas.all
    ]
    ready = bool(gateway.replicas.ready_ones) and not gateway.is_draining
    reason = gateway.drain_reason if gateway.is_draining else "" if ready else gateway.replicas.reasons()
    body = {"ready": ready, "reason": reason, "queued": gateway.dispatcher.waiting, "replicas": replicas}
    return _json(200 if ready else 503, body)


def _metrics(gateway: Gateway) -> Page:
    return 200, TEXT, gateway.metrics.text()


def _about(gateway: Gateway) -> Page:
    return _json(200, about(gateway))


PAGES = {"/": _root, "/health": _health, "/ready": _ready, "/metrics": _metrics, "/api/about": _about}
