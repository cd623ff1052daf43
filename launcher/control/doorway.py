"""What every request to the control app passes first: no change at another web page's bidding, no endless body.

A browser sends requests to http://127.0.0.1 for any page that it shows. Where keys are required such a page has none, and
a browser adds none by itself. Where they are not, two checks stand between the page and the deployment: the Origin must be
our own, and the name that a change is addressed to must be one that the page's DNS cannot point here (DNS rebinding): an
IP address or localhost.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from launcher.control.refusals import refusal

MAX_BODY = 64 * 1024
READS = frozenset(("GET", "HEAD", "OPTIONS"))
KEY = "x-launcher-key"  # the id of the API key that the gateway has checked
NO_KEYS = ("", "anonymous")  # what it says where it asks for none
HOST = "x-launcher-host"  # the client's Host: the gateway adds it last, and sends a Host of its own


class Doorway:
    """Middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in READS:
            await self._app(scope, receive, send)
            return
        answer = refused(Headers(scope=scope))
        if answer is None:
            body = await _read(receive)
            if body is not None:
                await self._app(scope, _replay(body), send)
                return
            answer = refusal(413, "body_too_large", f"The request's body is larger than {MAX_BODY} bytes.")
        await answer(scope, receive, send)


def refused(headers: Headers) -> Response | None:
    """Why a change is not taken from whoever sends it; None: it is."""
    if headers.get(KEY, "") not in NO_KEYS:
        return None
    host = (headers.getlist(HOST) or [headers.get("host", "")])[-1]
    origin = headers.get("origin")
    if origin is not None and _place_of(origin) != host.lower():
        message = (
            f"Origin {origin[:80]!r} is not Host {host[:80]!r}: without an API key, changes are taken from the latter's "
            "pages only. A proxy in between must pass the Host header on."
        )
        return refusal(403, "cross_origin", message)
    if not is_own_name(host):
        message = (
            f"Host {host[:80]!r}: without an API key, changes are taken on an IP address or localhost only. "
            "Use one of these, set gateway.auth to keys, or use the `launcher` command."
        )
        return refusal(403, "host", message)
    return None


def _place_of(origin: str) -> str:
    """Its host and port; '' for what has none."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def is_own_name(host: str) -> bool:
    """Whether a Host is an address, or localhost: names that nobody else's DNS can point here."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        ipaddress.ip_address(name)
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")
    return True


async def _read(receive: Receive) -> bytes | None:
    """The whole body; None: it is larger than MAX_BODY, or its sender has gone."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += bytes(message.get("body", b""))
        if len(body) > MAX_BODY:
            return None
        if not message.get("more_body", False):
            return body


def _replay(body: bytes) -> Callable[[], Awaitable[Message]]:
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        return waiting.pop() if waiting else {"type": "http.disconnect"}

    return receive
