"""Asks the gateway over its admin socket. Standard library only: `launcher ps` uses it too and must start fast."""

from __future__ import annotations

import http.client
import json
import os
import socket
from pathlib import Path
from typing import Any, NamedTuple

from launcher.errors import LauncherError

LONGEST_PATH = 107  # bytes; what the kernel takes as a Unix socket's path
TIMEOUT_S = 5.0


class Answer(NamedTuple):
    """What the gateway said."""

    status: int
    body: bytes

    @property
    def value(self) -> Any:
        return json.loads(self.body)


class GatewayGone(LauncherError):
    """Nobody answers on the admin socket."""


class GatewayClient:
    """Asks on the admin socket at ``path``, each time on a new connection; from any thread."""

    def __init__(self, path: Path, timeout_s: float = TIMEOUT_S) -> None:
        self.path, self.timeout_s = path, timeout_s

    def ask(self, method: str, target: str, value: object = None, actor: str = "") -> Answer:
        """One request. ``actor``: on whose behalf, for the audit log. Raises GatewayGone."""
        headers = {"Connection": "close", **({"X-Launcher-Actor": actor} if actor else {})}
        body = None if value is None else json.dumps(value).encode()
        connection = _UnixConnection(self.path, self.timeout_s)
        try:
            connection.request(method, target, body, headers)
            response = connection.getresponse()
            return Answer(response.status, response.read())
        except (OSError, http.client.HTTPException) as error:
            raise GatewayGone(_why_gone(error, self), "`launcher ps` lists what runs.") from None
        finally:
            connection.close()


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("gateway", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(os.fspath(self._path))


def _why_gone(error: Exception, client: GatewayClient) -> str:
    path = client.path
    if len(os.fsencode(path)) > LONGEST_PATH:
        return f"{path}: is too long for a Unix socket: {len(os.fsencode(path))} bytes, {LONGEST_PATH} at most"
    if isinstance(error, FileNotFoundError):
        return f"{path}: there is no such socket"
    if isinstance(error, ConnectionRefusedError):
        return f"{path}: nobody listens on this socket"
    if isinstance(error, PermissionError):
        return f"{path}: this user may not open it"
    if isinstance(error, TimeoutError):
        return f"{path}: the gateway did not answer within {client.timeout_s:g} s"
    return f"{path}: the gateway did not answer: {error or type(error).__name__}"
