"""The engine's usage, at the end of answers of each API."""

from __future__ import annotations

import json

import pytest

from launcher.gateway.price import find_usage

USAGE = {"prompt_tokens": 11, "total_tokens": 31, "completion_tokens": 20, "prompt_tokens_details": None}
ANTHROPIC = {"output_tokens": 20, "cache_read_input_tokens": 4, "input_tokens": 7}


@pytest.mark.parametrize(
    "tail",
    [
        json.dumps({"choices": [], "usage": USAGE, "prompt_logprobs": None}),
        json.dumps({"choices": [], "usage": USAGE}, indent=2),
        json.dumps({"usage": USAGE, "text": 'he said "usage":{"prompt_tokens":99,"completion_tokens":99}'}),
        json.dumps({"usage": USAGE, "token": "usage"}),
        "data: " + json.dumps({"choices": [], "usage": USAGE}) + "\n\ndata: [DONE]\n\n",
        "data: " + json.dumps({"choices": [{}], "usage": {"prompt_tokens": 11, "completion_tokens": 19}})
        + "\n\ndata: " + json.dumps({"usage": USAGE}) + "\n\ndata: [DONE]\n\n",
        "data: " + json.dumps({"usage": USAGE}) + "\n\n" + ("data: " + json.dumps({"usage": None}) + "\n\n") * 3,
        "event: message_delta\ndata: " + json.dumps({"usage": ANTHROPIC}) + '\n\nevent: message_stop\ndata: {"type":"message_stop"}\n\n',
        json.dumps({"response": {"usage": {"input_tokens": 11, "input_tokens_details": {"cached_tokens": 5}, "output_tokens": 20}}}),
    ],
)  # fmt: skip
def test_usage_is_found(tail: str) -> None:
    assert find_usage(tail.encode()) == (11, 20)


def test_usage_without_an_answers_tokens() -> None:
    assert find_usage(b'{"data":[],"usage":{"prompt_tokens":5,"total_tokens":5}}') == (5, 0)


@pytest.mark.parametrize(
    "tail",
    [
        b"",
        b'\\"usage\\":{\\"prompt_tokens\\":5}',
        b'"usage\\":{\\"prompt_tokens\\":5}',  # cut off within the answer's text
        json.dumps({"content": '"usage":{"prompt_tokens":5,"completion_tokens":5}'}).encode(),
        b'{"usage":null}',
        b'{"usage":{"prompt_tokens":null}}',
        b'{"usage":{"prompt_tok',
        b'{"usage":{}}',
        b'{"role":"usage"}',
    ],
)
def test_no_usage(tail: bytes) -> None:
    assert find_usage(tail) is None
