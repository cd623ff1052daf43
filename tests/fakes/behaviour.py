"""How the fake engine behaves: paces, replies and faults, set by flags, by the variable FAKE_ENGINE or over HTTP."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, fields
from typing import Any

# What `fault` may be, and what then happens to a request.
FAULTS = {
    "": "nothing is wrong",
    "die": "the process exits at once with exit_code, after fault_after tokens",
    "engine_death": "500 in vLLM's words, /health 503 from then on, exit with code 0 soon after, as vLLM does",
    "hang": "no further token after fault_after tokens; the connection stays open",
    "close": "the connection is closed without an end after fault_after tokens",
    "reset": "the connection is reset after fault_after tokens",
    "close_before": "the request is read and the connection closed without a byte",
    "close_after_head": "the response's head is sent, then the connection is closed",
    "garbage": "bytes that are no HTTP",
    "half_head": "half a response head, then the connection is closed",
    "endless_head": "a response head that never ends, without pause",
    "slow_head": "half a response head, the other half after /_fake/release",
    "wrong_length": "a content-length that is larger than the body, then the connection is closed",
    "short_length": "a content-length that is smaller than the body",
    "bad_chunk": "a chunk size that is no number",
    "both_lengths": "Content-Length with Transfer-Encoding",
    "until_close": "a body without a length that ends with the connection",
    "interim": "103 Early Hints before the response",
    "refuse_503": "503 in vLLM's words without Retry-After, as its queue caps answer",
    "error_500": "500 in vLLM's words",
    "stream_error": "an error event within the stream, then [DONE], as vLLM does",
    "answer_early": "400 at once, before the body is read, then the connection is closed",
}


@dataclass
class Behaviour:
    """Every field is a flag (``--fake-first-token-s 0.1``), a key of FAKE_ENGINE and a key of POST /_fake/set."""

    first_token_s: float = 0.0
    inter_token_s: float = 0.0
    tokens: int = 8  # length of an answer when the request sets no max_tokens
    reply: str = ""  # the answer's text; default: 'w0 w1 …', or Paris when asked for France's capital
    reasoning: str = ""  # text that comes first, in the field 'reasoning'
    tool_call: bool = False  # the answer ends with a tool call
    chunk_bytes: int = 0  # pad each token to so many bytes
    split_bytes: int = 0  # write the stream in pieces of so many bytes, whatever the events are
    together: int = 1  # tokens in one write
    crlf: bool = False  # events end with CRLF, and a comment line comes before each
    hold_after: int = -1  # pause before token N until POST /_fake/release
    keepalive_s: float = 5.0  # idle connections are closed after this, as uvicorn does
    fault: str = ""
    fault_after: int = 0
    fault_count: int = -1  # how many requests have the fault; -1: all
    exit_code: int = 1
    start_delay_s: float = 0.0  # between start and listening
    start_log: str = ""  # printed before anything else, such as the last words of an engine that will not start
    start_exit: int = -1  # exit with this code instead of listening
    healthy: bool = True
    ignore_sigterm: bool = False

    def update(self, values: dict[str, Any]) -> None:
        """Sets fields; an unknown name or a wrong kind of value raises ValueError."""
        kinds = {field.name: type(getattr(self, field.name)) for field in fields(self)}
        for name, value in values.items():
            if name not in kinds:
                raise ValueError(f"unknown behaviour {name!r}; known: {', '.join(kinds)}")
            if name == "fault" and value not in FAULTS:
                raise ValueError(f"unknown fault {value!r}; known: {', '.join(FAULTS)}")
            kind = kinds[name]
            if kind is bool and isinstance(value, str):
                value = value.lower() in ("1", "true", "yes", "on")
            setattr(self, name, kind(value))

    def take_fault(self) -> str:
        """The fault of the request at hand; uses up one of fault_count."""
        if not self.fault or self.fault_count == 0:
            return ""
        if self.fault_count > 0:
            self.fault_count -= 1
        return self.fault


@dataclass
class CommandLine:
    """The part of vLLM's command line that matters here; all other flags are accepted and kept in ``rest``."""

    host: str = "127.0.0.1"
    port: int = 8000
    model: str = "fake-model"
    served_model_name: str = ""
    api_key: str = ""
    shutdown_timeout: float = 0.0

    @property
    def name(self) -> str:
        return self.served_model_name or self.model


def parse_command_line(argv: list[str]) -> tuple[CommandLine, Behaviour, dict[str, str]]:
    """Reads ``serve MODEL --port N …`` as well as ``--model MODEL --port N …``; unknown flags are ignored."""
    line, behaviour, rest = CommandLine(api_key=os.environ.get("VLLM_API_KEY", "")), Behaviour(), {}
    behaviour.update(json.loads(os.environ.get("FAKE_ENGINE", "{}")))
    known = {field.name: type(getattr(line, field.name)) for field in fields(line)}
    position = 0
    while position < len(argv):
        word = argv[position]
        position += 1
        if not word.startswith("-"):
            if word != "serve":
                line.model = word
            continue
        flag, equals, value = word.lstrip("-").partition("=")
        if not equals and position < len(argv) and not argv[position].startswith("--"):
            value = argv[position]
            position += 1
        name = flag.replace("-", "_")
        if name.startswith("fake_"):
            behaviour.update({name[5:]: value})
        elif name in known:
            setattr(line, name, known[name](value))
        else:
            rest[name] = value
    return line, behaviour, rest
