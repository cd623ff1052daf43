"""Somebody else at the gateway: a stream that takes up an engine for as long as a test wants."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from tests.browser.site import MODEL, Site


@contextmanager
def occupied(site: Site) -> Iterator[None]:
    """The engine works at a request of somebody else's, until this is left. It must be told to hold (``hold_after``)."""
    held = site.fake.seen()["counts"].get("hold", 0)
    host = urlsplit(site.address)
    connection = http.client.HTTPConnection(host.hostname or "", host.port, timeout=30)
    body = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "Keep busy."}]}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
    site.fake.wait("hold", held + 1)
    try:
        yield
    finally:
        aborted = site.fake.seen()["counts"].get("abort", 0)
        connection.close()
        site.fake.wait("abort", aborted + 1)
