"""The Locust load test over its own command line, against a fake engine whose true pace is known."""

from __future__ import annotations

import base64
import contextlib
import io
import itertools
import json
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from loadtests.figures import Figures, limits_of
from loadtests.scenarios import SCENARIOS, answered, questions
from loadtests.shapes import Ramp, Spike, Steps, parse_shape
from loadtests.streaming import Answer, Connection, _read_end, _text_of
from loadtests.trace import read_trace
from tests.fakes.process import FakeEngine

ROOT = Path(__file__).resolve().parents[2]
FIRST_S, NEXT_S = 0.2, 0.05
OFF_S = 0.010  # what the measurement may be off by


def locust(url: str, *options: str, code: int = 0) -> tuple[str, str]:
    """What a headless run prints, to people and to the log."""
    command = [sys.executable, "-m", "locust", "-f", "loadtests/locustfile.py", "--host", url, "--headless"]
    done = subprocess.run([*command, "--only-summary", *options], cwd=ROOT, capture_output=True, text=True, timeout=90)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout, done.stderr


def figures(tmp_path: Path, url: str, *options: str, code: int = 0) -> dict[str, Any]:
    out = tmp_path / "summary.json"
    locust(url, *options, "--summary", str(out), code=code)
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def paced(engine: FakeEngine) -> FakeEngine:
    engine.call_now("/_fake/set", {"first_token_s": FIRST_S, "inter_token_s": NEXT_S})
    return engine


def test_closed_loop_measures_the_true_pace(engine: FakeEngine, tmp_path: Path) -> None:
    found = figures(
        tmp_path, paced(engine).url, "-u", "2", "-r", "2", "-t", "5s", "--scenario", "fixed", "--scale", "0.2"
    )
    one = found["scenarios"]["fixed"]
    assert one["served"] >= 4
    assert (one["failed"], one["refused"]) == (0, 0)
    assert one["ttft"]["p50"] == pytest.approx(FIRST_S, abs=OFF_S)
    assert one["itl"]["p50"] == pytest.approx(NEXT_S, abs=OFF_S / 5)
    assert one["e2e"]["p50"] == pytest.approx(FIRST_S + 12 * NEXT_S, abs=3 * OFF_S)
    assert found["scenarios"]["all"]["sent"] == one["sent"]


def test_the_answers_that_are_open_at_the_end_count(engine: FakeEngine, tmp_path: Path) -> None:
    """Three seconds an answer, five of asking: each user is answered twice, and in six seconds."""
    engine.call_now("/_fake/set", {"first_token_s": 3.0, "inter_token_s": 0.0})
    found = figures(tmp_path, engine.url, "-u", "2", "-r", "2", "-t", "5s", "--scenario", "fixed", "--scale", "0.1")
    one = found["scenarios"]["all"]
    assert (one["served"], one["sent"]) == (4, 4)
    assert one["served_per_s"] == pytest.approx(4 / 6, rel=0.15)


def test_an_answer_without_end_is_said_to_be_unfinished(engine: FakeEngine, tmp_path: Path) -> None:
    engine.call_now("/_fake/set", {"hold_after": 0})
    told = ("-u", "2", "-r", "2", "-t", "2s", "--stop-timeout", "1", "--scenario", "fixed")
    one = figures(tmp_path, engine.url, *told)["scenarios"]["all"]
    assert (one["sent"], one["failed"]) == (2, 2)
    assert one["not_served"] == {"unfinished after 1 s": 2}


def test_workers_ask_for_themselves(engine: FakeEngine, tmp_path: Path) -> None:
    """Each process has its own prompts, and what it was answered last reaches the table."""
    told = ("--processes", "2", "-u", "2", "-r", "2", "-t", "4s", "--scenario", "fixed", "--scale", "0.1")
    one = figures(tmp_path, paced(engine).url, *told)["scenarios"]["all"]
    asked = [request["sha256"] for request in engine.call_now("/_fake/seen")["requests"] if request["body"]]
    assert len(set(asked)) == len(asked) == one["served"] == one["sent"] > 4


def test_open_loop_measures_from_the_due_time(engine: FakeEngine, tmp_path: Path) -> None:
    told = ("--open-loop", "10", "--seconds", "3", "--scenario", "fixed", "--scale", "0.1", "--slo", "ttft=0.21")
    found = figures(tmp_path, paced(engine).url, *told)
    one = found["scenarios"]["fixed"]
    assert found["lag_p99"] < 0.05
    assert one["offered_per_s"] == pytest.approx(one["sent"] / 3)
    assert 15 <= one["sent"] <= 50
    assert one["ttft"]["p50"] == pytest.approx(FIRST_S, abs=OFF_S)
    assert 0 < one["goodput_per_s"] <= one["offered_per_s"]


def stands_still_at_first(engine: FakeEngine, requests: int) -> threading.Thread:
    """The engine answers nobody until so many have asked, or a while has passed."""
    engine.call_now("/_fake/set", {"hold_after": 0})

    def go_on() -> None:
        with contextlib.suppress(AssertionError):
            engine.call_now(f"/_fake/wait?event=request&count={requests}&timeout=3")
        engine.call_now("/_fake/set", {"hold_after": -1})
        engine.call_now("/_fake/release?count=1000", {})

    thread = threading.Thread(target=go_on)
    thread.start()
    return thread


def test_a_server_that_stands_still_shows_in_an_open_loop(engine: FakeEngine, tmp_path: Path) -> None:
    """In a closed loop nobody asks meanwhile, so that one slow answer is all that is seen of it."""
    trace = tmp_path / "trace.jsonl"
    lines = [{"at": number * 0.1, "prompt_tokens": 5, "output_tokens": 2} for number in range(30)]
    trace.write_text("\n".join(map(json.dumps, lines)))
    thread = stands_still_at_first(engine, 20)
    found = figures(tmp_path, engine.url, "--trace", str(trace))
    thread.join()
    assert found["scenarios"]["trace"]["served"] == 30
    assert found["scenarios"]["trace"]["ttft"]["p50"] > 0.3
    engine.call_now("/_fake/reset", {})
    thread = stands_still_at_first(engine, 20)
    found = figures(tmp_path, engine.url, "-u", "1", "-t", "5s", "--scenario", "fixed", "--scale", "0.05")
    thread.join()
    assert found["scenarios"]["fixed"]["served"] > 5
    assert found["scenarios"]["fixed"]["ttft"]["p50"] < 0.1


def test_refusals_are_no_failures(engine: FakeEngine, tmp_path: Path) -> None:
    engine.call_now("/_fake/set", {"fault": "refuse_503", "fault_count": 1000})
    found = figures(tmp_path, engine.url, "-u", "1", "-t", "3s", "--scenario", "fixed")
    one = found["scenarios"]["fixed"]
    assert one["refused"] == one["sent"] > 0
    assert (one["failed"], one["served"]) == (0, 0)
    assert one["refused_after"]["p50"] < 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--load-shape", "hill"), "--load-shape: 'hill' is no shape (there are: ramp, steps, spike)"),
        (("--slo", "ttfb=1"), "--slo: 'ttfb=1' is none of ttft=SECONDS"),
        (("--open-loop", "1", "-t", "5s"), "-t cuts answers off"),
        (("--open-loop", "-1"), "--open-loop -1: must be a number, 0 or more"),
        (("--open-loop", "1", "--seconds", "0"), "--seconds 0: must be a number, more than 0"),
        (("--open-loop", "1", "--scenario", "dialogue"), "--scenario dialogue needs users (-u)"),
        (("--trace", "nowhere.jsonl"), "--trace: nowhere.jsonl cannot be read"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(engine: FakeEngine, options: tuple[str, ...], words: str) -> None:
    _, said = locust(engine.url, *options, code=1)
    assert words in said
    assert "Traceback" not in said


def test_nobody_there() -> None:
    _, said = locust("http://127.0.0.1:9", "-u", "1", "-t", "2s", code=1)
    assert "http://127.0.0.1:9/v1/models cannot be read" in said


def test_dialogues_go_on_from_their_answers() -> None:
    asked = questions(SCENARIOS["dialogue"], "1")
    first = next(asked)
    assert len(first.messages) == 1
    answered(first, "I see.")
    second = next(asked)
    assert [message["role"] for message in second.messages] == ["user", "assistant", "user"]
    for _ in range(SCENARIOS["dialogue"].turns - 1):
        last = next(asked)
    assert len(last.messages) == 1  # the next one


def test_the_same_seed_asks_the_same() -> None:
    one, other = (questions(SCENARIOS["sharegpt"], "7") for _ in range(2))
    assert [next(one).body("m", True) for _ in range(5)] == [next(other).body("m", True) for _ in range(5)]
    assert next(questions(SCENARIOS["chat"], "7")).body("m", True) != next(questions(SCENARIOS["chat"], "8")).body(
        "m", True
    )


def test_another_run_asks_anew_at_the_same_lengths() -> None:
    one, other = (questions(SCENARIOS["sharegpt"], "7", nonce) for nonce in ("a", "b"))
    for first, second in itertools.islice(zip(one, other, strict=True), 50):
        texts = [question.messages[-1]["content"] for question in (first, second)]
        assert texts[0].split()[0] != texts[1].split()[0]
        assert (len(texts[0].split()), first.output_tokens) == (len(texts[1].split()), second.output_tokens)


def test_no_two_pictures_are_the_same() -> None:
    asked = questions(SCENARIOS["pictures"], "7", "a")
    urls = [next(asked).messages[-1]["content"][0]["image_url"]["url"] for _ in range(30)]
    pixels = {Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).tobytes() for url in urls}
    assert len(pixels) == 30


def answer_of(sent_at: float, ended_at: float, *token_at: float) -> Answer:
    return Answer(sent_at, sent_at, ended_at, list(token_at), status=200, output_tokens=10)


def test_a_backlog_that_is_worked_off_later_raises_no_rate() -> None:
    """A hundred requests in ten seconds, an answer a second."""
    for limits, good_per_s in (({}, 100 / 101), ({"e2e": 2.0}, 0.1)):
        found = Figures(limits)
        found.begin(0.0)
        found.sent_for_s = 10.0
        for number in range(100):
            found.add("chat", answer_of(number / 10, number + 2.0, number + 1.0))
        one = found.data()["scenarios"]["all"]
        assert one["offered_per_s"] == 10
        assert one["served_per_s"] == pytest.approx(100 / 101)
        assert one["output_tokens_per_s"] == pytest.approx(1000 / 101)
        assert one["goodput_per_s"] == pytest.approx(good_per_s, rel=0.01)


def test_a_closed_loop_that_was_good_for_a_second_has_not_been_good_throughout() -> None:
    """1,500 answers in 33 s, of which the first fifty are good and the first hundred are served."""
    found = Figures({"e2e": 1.0})
    found.begin(0.0)
    for number in range(1500):
        at = number * 33 / 1500
        ended = at + (0.5 if number < 50 else 1.5)
        is_served = number < 100
        found.add(
            "chat", Answer(at, at, ended, [ended], 200 if is_served else 429, reason="" if is_served else "429 full")
        )
    one = found.data()["scenarios"]["all"]
    assert (one["good"], one["served"]) == (50, 100)
    assert one["goodput_per_s"] == pytest.approx(50 / 33, rel=0.01)
    assert one["served_per_s"] == pytest.approx(100 / 33, rel=0.01)


def test_an_answer_without_text_is_as_late_as_its_end() -> None:
    found = Figures({"ttft": 0.1})
    found.add("chat", answer_of(0.0, 50.0))
    assert found.data()["scenarios"]["all"]["goodput_per_s"] == 0


def test_the_longest_gap_shows_a_stall_that_the_mean_hides() -> None:
    found = Figures({})
    found.add("chat", answer_of(0.0, 5.0, *(at / 100 for at in range(100)), 4.0))
    one = found.data()["scenarios"]["all"]
    assert one["itl"]["p50"] == pytest.approx(0.04)
    assert one["longest_gap"]["p50"] == pytest.approx(3.01)


def test_lengths_are_what_they_are_said_to_be() -> None:
    import random

    scenario = SCENARIOS["bimodal"]
    drawn = [scenario.prompt.draw(random.Random(seed)) for seed in range(2000)]
    assert set(drawn) == {128, 4096}
    assert drawn.count(4096) / 2000 == pytest.approx(0.3, abs=0.04)
    chat = sorted(SCENARIOS["chat"].prompt.draw(random.Random(seed)) for seed in range(2000))
    assert chat[1000] == pytest.approx(100, rel=0.1)
    assert chat[-1] <= SCENARIOS["chat"].prompt.longest
    assert str(scenario.prompt) == "70% 128, 30% 4096"


def test_shapes() -> None:
    ramp = Ramp()
    assert [tick[0] if (tick := ramp.at(at)) else None for at in (0, 60, 120, 179, 180)] == [50, 125, 200, 200, None]
    assert [tick[0] if (tick := Steps().at(at)) else None for at in (0, 31, 149, 150)] == [10, 20, 50, None]
    assert [tick[0] if (tick := Spike().at(at)) else None for at in (0, 30, 50, 109, 110)] == [10, 100, 10, 10, None]
    assert parse_shape("ramp:1,5,2.5,1") == Ramp(1, 5, 2.5, 1.0)
    with pytest.raises(ValueError, match="ramp takes at most 4 figures, not 5"):
        parse_shape("ramp:1,2,3,4,5")
    assert Ramp(1, 5, 0.0, 1.0).at(0) == (5, 1.0)
    for figures in ("many", "-1", "10,5,inf"):
        with pytest.raises(ValueError, match="the figures of steps are numbers, 0 or more, such as steps:10,5,30"):
            parse_shape(f"steps:{figures}")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "1: is not JSON"),
        ("[]", "1: must be an object"),
        ('{"at": -1, "prompt_tokens": 5}', "1: at must be seconds from the start, 0 or more, not -1"),
        ('{"at": 0}', "1: give messages or prompt_tokens"),
        ('{"at": 0, "prompt_tokens": 0.5}', "1: prompt_tokens must be a whole number"),
        ('{"at": 0, "prompt_tokens": 5, "tokens": 5}', "1: 'tokens' is not known"),
        ('{"at": 1, "prompt_tokens": 5}\n{"at": 0, "prompt_tokens": 5}', "2: at 0 comes before the line above"),
        ("", "has no requests"),
    ],
)
def test_a_trace_says_where_it_is_wrong(tmp_path: Path, line: str, words: str) -> None:
    file = tmp_path / "trace.jsonl"
    file.write_text(line)
    with pytest.raises(ValueError, match=words):
        read_trace(file)


def test_figures() -> None:
    found = Figures(limits_of("ttft=0.5, itl=0.1"))
    found.begin(0.0)
    good = Answer(0.0, 0.001, 1.0, [0.4, 0.5], 200, prompt_tokens=10, output_tokens=2)
    slow = Answer(0.0, 0.001, 1.0, [0.6, 0.7], 200, prompt_tokens=10, output_tokens=2)
    refused = Answer(0.0, 0.0, 0.2, status=429, reason="429 queue_full")
    broken = Answer(0.0, 0.0, 0.3, status=200, reason="broken off")
    for answer in (good, slow, refused, broken):
        found.add("chat", answer)
    one = found.data()["scenarios"]["chat"]
    assert (one["sent"], one["served"], one["refused"], one["failed"]) == (4, 2, 1, 1)
    assert (one["served_per_s"], one["goodput_per_s"], one["output_tokens_per_s"]) == (2.0, 1.0, 4.0)
    assert one["not_served"] == {"429 queue_full": 1, "broken off": 1}
    assert "not served: 1 × 429 queue_full" in found.table()


class TestStreaming:
    @pytest.mark.parametrize("event", ['{"error": "out of memory"}', "[]", '{"usage": 5}', '{"choices": [7]}'])
    def test_odd_events_raise_nothing(self, event: str) -> None:
        answer = Answer(0.0)
        _read_end(event.encode(), answer)
        assert answer.reason == ("error in the stream: out of memory" if "error" in event else "")
        assert _text_of(event.encode()) == ""

    def test_a_date_to_come_back_at_is_no_number(self) -> None:
        answer = Answer(0.0, status=503)
        response = SimpleNamespace(read=lambda: b"busy", headers={"retry-after": "Thu, 26 Nov 2026 12:00:00 GMT"})
        Connection("http://127.0.0.1:9")._read_refusal(response, answer)  # type: ignore[arg-type]
        assert (answer.reason, answer.retry_after_s) == ("503 refused", None)

    def test_pieces_have_the_time_at_which_they_came(self, engine: FakeEngine) -> None:
        body = next(questions(SCENARIOS["fixed"], "1"))
        body.output_tokens = 10
        answer = Connection(paced(engine).url).ask("/v1/chat/completions", body.body("fake-model", True))
        assert answer.is_served, answer.reason
        assert (answer.output_tokens, len(answer.token_at)) == (10, 10)
        assert answer.ttft_s == pytest.approx(FIRST_S, abs=OFF_S)
        assert all(gap == pytest.approx(NEXT_S, abs=OFF_S) for gap in answer.itl_s)

    def test_fast_http_user_shows_all_at_once(self, engine: FakeEngine) -> None:
        """Why it is not used: its lines of a short answer come with the last one, so that TTFT would be E2E."""
        code = """
import sys, time
import gevent.monkey; gevent.monkey.patch_all()
from locust.contrib.fasthttp import FastHttpSession
from locust.env import Environment
session = FastHttpSession(base_url=sys.argv[1], request_event=Environment().events.request, user=None)
began = time.perf_counter()
body = {"model": "fake-model", "messages": [], "max_tokens": 10, "stream": True}
next(session.iter_lines("/v1/chat/completions", "POST", json=body))
print(time.perf_counter() - began)
"""
        done = subprocess.run(
            [sys.executable, "-c", code, paced(engine).url], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        assert float(done.stdout.split()[-1]) > FIRST_S + 2 * NEXT_S

    def test_what_breaks_is_said(self, engine: FakeEngine) -> None:
        engine.call_now("/_fake/set", {"fault": "close", "fault_after": 2})
        question = next(questions(SCENARIOS["fixed"], "1"))
        answer = Connection(engine.url).ask("/v1/chat/completions", question.body("fake-model", True))
        assert answer.reason.startswith("broken off")
        assert not answer.is_served
        nobody = Connection("http://127.0.0.1:9").ask("/", b"{}")
        assert nobody.reason.startswith("no answer: ")
