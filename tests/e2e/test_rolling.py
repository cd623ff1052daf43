"""A rolling restart under load: two real engines, each drained and replaced in turn, behind a gateway of their own."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections import Counter
from pathlib import Path

import pytest

from tests.e2e.conftest import require_vllm
from tests.e2e.endpoint import PROFILE, content, wait_for
from tests.process.parts import free_pair, part, ready, start

pytestmark = pytest.mark.cluster

USERS = 2
SETS = ("--set", "timeouts.drain=60s", "--set", "engine.kv_cache_memory=512MiB", "--set", "hardware.memory=3GiB")
# Users who wait as long as it takes: whoever is refused here could have been served.
PATIENT = ("--set", "admission.deadline=2m")


class Users:
    """Each asks for a stream, reads it to its end, and asks again, unless they rest.

    ``whole`` counts answers, ``faults`` what was none. They rest while an engine starts or its process ends: a vLLM at work
    on the CPU takes a core for each of its processes, and where there are two, either takes minutes beside it.
    """

    def __init__(self, url: str) -> None:
        self.url, self.whole, self.faults = url, Counter[int](), list[str]()
        self._awake, self._enough = threading.Event(), False
        self._awake.set()
        self._threads = [threading.Thread(target=self._ask_on, args=(number,)) for number in range(USERS)]
        for thread in self._threads:
            thread.start()

    @property
    def answers(self) -> int:
        return self.whole.total()

    def rest(self) -> None:
        self._awake.clear()

    def go_on(self) -> None:
        self._awake.set()

    def more(self, count: int) -> None:
        """Until so many more answers have come, or one that is none."""
        wanted = self.answers + count
        wait_for(f"{count} more answers", lambda: self.answers >= wanted or self.faults, 120)
        assert self.faults == []

    def _ask_on(self, number: int) -> None:
        while self._awake.wait() and not self._enough:
            try:
                words = self._stream(f"Count from {number} to a hundred.")
                assert words, "an answer without a word"
            except Exception as error:
                self.faults.append(repr(error))
                return
            self.whole[number] += 1

    def _stream(self, question: str) -> str:
        body = {"model": "smollm2", "messages": [{"role": "user", "content": question}], "stream": True}
        request = urllib.request.Request(
            f"{self.url}/v1/chat/completions",
            json.dumps({**body, "max_tokens": 40, "ignore_eos": True}).encode(),
            {"Content-Type": "application/json"},
        )
        text, is_whole = "", False
        with urllib.request.urlopen(request, timeout=180) as response:
            for line in response:  # to the end of the body: who leaves at [DONE] is one that left
                if line.strip() == b"data: [DONE]":
                    is_whole = True
                elif line.startswith(b"data: "):
                    text += content(json.loads(line[6:]))
        assert is_whole, f"the stream ended without [DONE], after {text!r}"
        return text

    def __enter__(self) -> Users:
        return self

    def __exit__(self, *_: object) -> None:
        """Waits for the answers that are open."""
        self._enough = True
        self._awake.set()
        for thread in self._threads:
            thread.join(180)


def test_each_engine_replaced_in_turn_and_no_answer_lost(tmp_path: Path) -> None:
    require_vllm()
    ports = free_pair(), free_pair()
    engines = [start("engine", PROFILE, tmp_path / str(port), *SETS, port=port) for port in ports]
    urls = ",".join(engine.url for engine in engines)
    try:
        with part("gateway", PROFILE, tmp_path / "gateway", *PATIENT, "--engines", urls) as gateway:
            ready(gateway, 2, 200)
            with Users(gateway.url) as users:
                for number, port in enumerate(ports):
                    users.more(USERS)
                    engines[number].stop()  # in the middle of answers
                    wait_for("its word that it stops", lambda number=number: "stopping" in engines[number].said, 20)
                    users.more(2 * USERS)  # what runs on it, and then what the other one is asked
                    users.rest()
                    assert engines[number].ended(120) == 0, engines[number].said
                    engines[number] = start("engine", PROFILE, tmp_path / str(port), *SETS, port=port)
                    ready(gateway, 2, 200)
                    users.go_on()
                users.more(USERS)
            assert users.faults == []
            gateway.stop()
            assert gateway.ended(60) == 0
        lines = [json.loads(line) for line in gateway.printed.splitlines()]
        asked = [line for line in lines if line["path"].startswith("/v1/chat")]
        assert {line["status"] for line in asked} == {200}
        assert {line["replica"] for line in asked} == {0, 1}
    finally:
        for engine in engines:
            engine.end_now()
            print(engine)  # shown where the test fails
