"""Answers that the gateway gives itself: each refusal's status, reason code and sentence, in OpenAI's error shape."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

REASON_PHRASES = {
    200: b"OK",
    202: b"Accepted",
    204: b"No Content",
    304: b"Not Modified",
    400: b"Bad Request",
    401: b"Unauthorized",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    409: b"Conflict",
    413: b"Content Too Large",
    417: b"Expectation Failed",
    429: b"Too Many Requests",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    501: b"Not Implemented",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    505: b"HTTP Version Not Supported",
}
TYPES = {429: "rate_limit_error", 500: "server_error", 502: "server_error", 503: "service_unavailable_error"}


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request gets no answer from an engine."""

    status: int
    reason: str  # a word that programs can compare
    message: str  # a sentence for people
    param: str | None = None
    retry_after_s: float | None = None
    close: bool = False  # the connection ends with this answer
    allow: str = ""  # for 405

    def error(self) -> dict[str, object]:
        """The error object, with the status as its code, as vLLM does; ``src`` tells it from an engine's own."""
        kind = TYPES.get(self.status, "invalid_request_error")
        error: dict[str, object] = {"message": self.message, "type": kind, "param": self.param, "code": self.status}
        return error | {"reason": self.reason, "src": "gateway"}

    def body(self) -> bytes:
        return json.dumps({"error": self.error()}).encode()

    def lines(self) -> list[bytes]:
        """The header lines that belong to it."""
        lines = [b"x-launcher-src: gateway"]
        if self.retry_after_s is not None:
            lines += retry_lines(self.retry_after_s)
        if self.allow:
            lines.append(b"allow: " + self.allow.encode("ascii"))
        return lines

    def events(self) -> bytes:
        """The same within a stream of events, ended as vLLM ends a stream that failed."""
        return b"data: " + self.body() + b"\n\ndata: [DONE]\n\n"


BUG = Refusal(
    500, "internal_error", "The gateway failed: this is a bug of its own, its log has the traceback.", close=True
)


def retry_lines(seconds: float) -> list[bytes]:
    """Retry-After in whole seconds, never less than asked, and the finer retry-after-ms that openai's clients prefer."""
    return [b"retry-after: %d" % max(1, math.ceil(seconds)), b"retry-after-ms: %d" % max(1, math.ceil(seconds * 1000))]


class Refused(Exception):
    """A request that cannot be served; carries the refusal."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


def bad_request(reason: str, message: str, param: str | None = None) -> Refused:
    """400 for a request that was read whole: the connection stays."""
    return Refused(Refusal(400, reason, message, param))


def bad_head(reason: str, message: str, status: int = 400) -> Refused:
    """For a request whose end is not certain: the connection must close."""
    return Refused(Refusal(status, reason, message, close=True))
