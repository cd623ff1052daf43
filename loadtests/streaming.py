"""A streamed answer with the time of each piece, over a plain connection: what the load tests with Locust measure with.

Under Locust the standard library's sockets are gevent's, so that this waits for nobody. Each piece has its time as it comes off
the socket. Locust's FastHttpUser shows the first lines of a short answer with the last ones (its iterator reads 1,024 bytes at
a time); tests/loadtests/test_streaming.py keeps the comparison.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

PIECE = 65536  # bytes that one read may bring: whatever is there comes at once
_TEXT = re.compile(rb'"(?:content|text|reasoning|reasoning_content)": ?"[^"]').search  # a piece that is not empty
REFUSED = (429, 503)
Clock = Callable[[], float]


@dataclass
class Answer:
    """One request and what became of it. Times in seconds of ``clock``; TTFT and E2E count from ``due_at``."""

    due_at: float  # when it was to be sent
    sent_at: float = 0.0
    ended_at: float = 0.0
    token_at: list[float] = field(default_factory=list)  # of each event with text
    status: int = 0  # 0: no answer
    reason: str = ""  # why it was refused or failed; "" for an answer that is whole
    text: str = ""
    prompt_tokens: int = 0  # as the engine counted them
    output_tokens: int = 0
    retry_after_s: float | None = None

    @property
    def is_served(self) -> bool:
        return self.status == 200 and not self.reason

    @property
    def is_refused(self) -> bool:
        """Whether the server said that it is too busy: no failure, but no answer either."""
        return self.status in REFUSED

    @property
    def ttft_s(self) -> float | None:
        return self.token_at[0] - self.due_at if self.token_at else None

    @property
    def itl_s(self) -> list[float]:
        """The gaps between its pieces."""
        return [later - earlier for earlier, later in zip(self.token_at, self.token_at[1:], strict=False)]

    @property
    def e2e_s(self) -> float:
        return self.ended_at - self.due_at

    @property
    def lag_s(self) -> float:
        """How much later than due it was sent: the load generator's own fault."""
        return self.sent_at - self.due_at


class Connection:
    """A user's own connection, kept open from one request to the next."""

    def __init__(
        self,
        url: str,
        key: str = "",
        *,
        any_event: bool = False,
        timeout_s: float = 300.0,
        clock: Clock = time.perf_counter,
    ) -> None:
        """``any_event``: an event without text counts too, for models with random weights; vLLM sends none without a token."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is not a URL: write one such as http://127.0.0.1:8000")
        self._is_tls, self._host, self._port = parts.scheme == "https", parts.hostname, parts.port
        self._prefix, self._timeout_s, self._clock = parts.path.rstrip("/"), timeout_s, clock
        self._any_event = any_event
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        self._connection: http.client.HTTPConnection | None = None

    def ask(self, path: str, body: bytes, due_at: float | None = None, headers: dict[str, str] | None = None) -> Answer:
        """Sends a request and reads its answer to the end. Never raises for what the other side does."""
        answer = Answer(self._clock() if due_at is None else due_at)
        answer.sent_at = self._clock()
        try:
            response = self._send(path, body, headers or {})
            answer.status = response.status
            if response.status == 200:
                self._read_events(response, answer)
            else:
                self._read_refusal(response, answer)
        except (OSError, http.client.HTTPException) as error:
            answer.reason = f"broken off: {error or type(error).__name__}" if answer.status else f"no answer: {error}"
            self.close()
        answer.ended_at = self._clock()
        return answer

    def _send(self, path: str, body: bytes, headers: dict[str, str]) -> http.client.HTTPResponse:
        """On a kept connection that the server has closed meanwhile, once more on a fresh one."""
        is_fresh = self._connection is None
        try:
            return self._send_on(self._opened(), path, body, headers)
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
            self.close()
            if is_fresh:
                raise
            return self._send_on(self._opened(), path, body, headers)

    def _send_on(
        self, connection: http.client.HTTPConnection, path: str, body: bytes, headers: dict[str, str]
    ) -> http.client.HTTPResponse:
        connection.request("POST", self._prefix + path, body, self._headers | headers)
        return connection.getresponse()

    def _opened(self) -> http.client.HTTPConnection:
        if self._connection is None:
            if self._is_tls:
                context = ssl.create_default_context()
                self._connection = http.client.HTTPSConnection(
                    self._host, self._port, timeout=self._timeout_s, context=context
                )
            else:
                self._connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)
            self._connection.connect()
            self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._connection

    def _read_events(self, response: http.client.HTTPResponse, answer: Answer) -> None:
        rest, pieces, is_done = b"", [], False
        while data := response.read1(PIECE):
            now = self._clock()
            *events, rest = (rest + data).split(b"\n\n")
            for event in events:
                if event.startswith(b"data: [DONE]"):
                    is_done = True
                elif event.startswith(b"data: "):
                    if _TEXT(event) or (self._any_event and b'"delta"' in event):
                        answer.token_at.append(now)
                        pieces.append(event[6:])
                    elif b'"usage"' in event or b'"error"' in event:
                        _read_end(event[6:], answer)
        answer.text = "".join(map(_text_of, pieces))
        if not is_done and not answer.reason:
            answer.reason = "broken off: the stream ended without [DONE]"

    def _read_refusal(self, response: http.client.HTTPResponse, answer: Answer) -> None:
        body = response.read()
        try:
            error = json.loads(body)["error"]
            answer.reason = str(error.get("reason") or error.get("type") or "refused")
        except (ValueError, KeyError, TypeError, AttributeError):
            answer.reason = "refused"
        answer.reason = f"{answer.status} {answer.reason}"
        with contextlib.suppress(ValueError):  # it may be a date: then the user waits as without it
            if exact := response.headers.get("retry-after-ms"):
                answer.retry_after_s = float(exact) / 1000
            elif whole := response.headers.get("retry-after"):
                answer.retry_after_s = float(whole)

    def close(self) -> None:
        """Closes it; the next request opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _read_end(data: bytes, answer: Answer) -> None:
    """The last events: the usage, or an error within the stream."""
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
        value = json.loads(data)
        if error := value.get("error"):
            message = error.get("message") if isinstance(error, dict) else error
            answer.reason = f"error in the stream: {str(message)[:100]}"
        if usage := value.get("usage"):
            answer.prompt_tokens, answer.output_tokens = usage["prompt_tokens"], usage["completion_tokens"]


def _text_of(data: bytes) -> str:
    try:
        choice = json.loads(data)["choices"][0]
        return (choice.get("delta") or {}).get("content") or choice.get("text") or ""
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return ""
