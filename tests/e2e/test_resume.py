"""A broken stream's continuation on the real engine: at any cut the greedy answer is the one of an undisturbed run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import urllib.error
import urllib.request
from typing import Any

import pytest

from launcher.gateway.resume import CHAT, COMPLETION, Plan, continuation, count_request
from launcher.gateway.splice import Continuation
from launcher.gateway.sse import EventParser, event_data
from launcher.gateway.transcript import ERROR_EVENT, Transcript, before_error, error_code
from tests.e2e.endpoint import Endpoint


def post(url: str, body: bytes) -> bytes:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=120) as response:
            data: bytes = response.read()
            return data
    except urllib.error.HTTPError as error:
        raise AssertionError(error.read().decode()) from None


def events_of(stream: bytes) -> list[bytes]:
    return EventParser().feed(stream)


def read(events: list[bytes]) -> list[dict[str, Any]]:
    found = [data for event in events if (data := event_data(event)) is not None and data != b"[DONE]"]
    return [json.loads(data) for data in found]


def texts(events: list[bytes]) -> list[str]:
    return [
        one["delta"].get("content", "") if "delta" in one else one["text"]
        for event in read(events)
        for one in event["choices"]
    ]


def told(events: list[bytes]) -> Transcript:
    seen = Transcript(False)
    for event in events:
        seen.keep(event)
    return seen


def asks(text: str, **more: Any) -> tuple[str, dict[str, Any]]:
    return CHAT, {"messages": [{"role": "user", "content": text}], **more}


CODE = "Write a Python function that sorts a list with nested loops, indented."
PREFILL = [{"role": "user", "content": "What is the capital of France?"}, {"role": "assistant", "content": "I think"}]
UNFINISHED = {"messages": PREFILL, "continue_final_message": True, "add_generation_prompt": False, "max_tokens": 20}
CASES = {
    "words": asks("What is the capital of France?"),
    "line feeds and indents": asks(CODE, max_tokens=48),
    "half characters": asks("Repeat exactly: 😀🎉🦊 日本語 naïve café €", max_tokens=32),
    "stop strings": asks("Count from one to twenty in words.", max_tokens=40, stop=["\n\n\n", "seventeen"]),
    "unfinished message": (CHAT, UNFINISHED),
    "completion": (COMPLETION, {"prompt": "def quicksort(arr):\n    ", "max_tokens": 32}),
    "completion of 16": (COMPLETION, {"prompt": ["The quick brown fox"]}),
}
KEY = "the-engines-key"
CUTS = 2  # of each answer; the first, the last, and those where something is special are always among them


def places(events: list[bytes]) -> list[int]:
    """Where to cut: evenly, and behind every event that ends with a blank or has no text."""
    said = texts(events)
    special = [index + 1 for index, text in enumerate(said) if not text or text[-1].isspace()]
    return sorted({*range(0, len(said), max(1, len(said) // CUTS)), *special[:CUTS]} - {len(said), len(said) - 1})


@pytest.mark.alone  # the texts are the same as long as each event is a token, which they are where the engine has its core
@pytest.mark.parametrize("case", CASES)
def test_a_continued_answer_is_the_undisturbed_one(served: Endpoint, case: str) -> None:
    route, asked = CASES[case]
    url = served.url + route
    options = {"include_usage": True}
    body = json.dumps({"model": "smollm2", "stream": True, "temperature": 0, "stream_options": options, **asked})
    whole = events_of(post(url, body.encode()))
    for cut in places(whole):
        seen = told(whole[:cut])
        plan = continuation(body.encode(), route, seen)
        assert isinstance(plan, Plan), (cut, plan)
        change = Continuation(seen, plan, b": resumed\n\n")
        rest = events_of(change.feed(post(url, plan.body)))
        assert change.failed is None, (cut, plan.tail)
        together = whole[:cut] + rest
        assert "".join(texts(together)) == "".join(texts(whole)), (cut, plan.tail)
        assert len({event["id"] for event in read(together)}) == 1
        assert read(together)[-1]["usage"] == read(whole)[-1]["usage"], cut
        finishes = [
            [one["finish_reason"] for event in read(part) for one in event["choices"]] for part in (rest, whole)
        ]
        assert finishes[0][-1] == finishes[1][-1]


def test_the_text_so_far_can_be_counted(served: Endpoint) -> None:
    url = served.url
    asked = {"messages": PREFILL[:1], "model": "smollm2", "max_tokens": 6}
    body = json.dumps({"stream": True, "temperature": 0, **asked}).encode()
    seen = told(events_of(post(url + CHAT, body)))
    seen.read()
    assert json.loads(post(url + "/tokenize", count_request(body, seen)))["count"] == seen.event_count == 6


def test_an_engine_whose_core_dies_says_so_within_the_stream(own_endpoint: Endpoint) -> None:
    """The stream then ends as if all were well, so that the event has to be looked for; what comes before it is whole."""
    started = own_endpoint.up(
        f"engine.env.VLLM_API_KEY={KEY}"
    )  # the engine itself is asked, so its key has to be known
    assert started.returncode == 0, started.stderr
    engine = own_endpoint.engine()
    body = {"model": "smollm2", "stream": True, "max_tokens": 1500, "ignore_eos": True}
    body["messages"] = [{"role": "user", "content": "Tell me a story."}]
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
    request = urllib.request.Request(engine["url"] + CHAT, json.dumps(body).encode(), headers)
    listed = subprocess.run(["ps", "--ppid", str(engine["pid"]), "-o", "pid=,args="], capture_output=True, text=True)
    core = next(int(line.split()[0]) for line in listed.stdout.splitlines() if "EngineCore" in line)
    with urllib.request.urlopen(request, timeout=120) as response:
        stream: bytes = response.readline()
        os.kill(core, signal.SIGKILL)
        stream += response.read()
    assert ERROR_EVENT in stream
    assert error_code(stream) == 500
    assert stream.endswith(b"data: [DONE]\n\n")
    good = events_of(before_error(stream, False))
    seen = told(good)
    plan = continuation(json.dumps(body).encode(), CHAT, seen)
    assert isinstance(plan, Plan)
    assert seen.text == "".join(texts(good))
