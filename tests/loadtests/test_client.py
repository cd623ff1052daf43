"""The load client against a fake engine: when it sends, what it takes down, and that it ends."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import pytest

from loadtests.client import Client
from loadtests.openloop import ask, main, parse_limits, run_closed, run_open, throughput, unloaded_ttft_s
from loadtests.tally import Record
from loadtests.workloads import Kind, Planned, Speech
from tests.fakes.process import FakeEngine

KINDS = (Kind("short", 0.5, (10, 20), 4, 1.0), Kind("long", 0.5, (40, 50), 4, 1.0))
SPEECH = Speech("fake-model", "chat", ("alpha", "beta"))


def plan(count: int = 1, at_s: float = 0.0) -> list[Planned]:
    return [Planned(number, at_s, KINDS[0], 12) for number in range(count)]


async def one(engine: FakeEngine, patience_s: float = 20.0, **behaviour: Any) -> Record:
    """What becomes of a single request."""
    await engine.set(**behaviour)
    (record,) = await Client(engine.url, SPEECH).open_loop(plan(), patience_s)
    return record


@pytest.mark.parametrize("api", ["chat", "completions"])
async def test_every_request_is_sent_and_taken_down(engine: FakeEngine, api: str) -> None:
    speech = Speech("fake-model", api, ("alpha", "beta"))
    records = await run_open(engine.url, speech, KINDS, rate=200, seconds=0.3, seed=1)
    assert len(records) > 30
    for record in records:
        assert (record.status, record.reason, record.output_tokens, record.attempts) == (200, "", 4, 1)
        assert record.planned.at_s <= record.sent_at <= record.first_event_at <= record.first_text_at
        assert record.first_text_at <= record.ended_at
        assert record.is_served
    seen = (await engine.seen())["requests"]
    assert len(seen) == len(records)
    assert {request["ended"] for request in seen} == {"done"}
    assert {len({request["connection"] for request in seen})} == {len(records)}


async def test_it_does_not_wait_for_answers(engine: FakeEngine) -> None:
    await engine.set(hold_after=0)
    client = Client(engine.url, SPEECH)
    running = asyncio.create_task(client.open_loop(plan(20)))
    seen = await engine.wait("hold", 20)  # all twenty are there, and none is answered
    assert seen["running"] == 20
    await engine.release(20)
    assert all(record.is_served for record in await running)


async def test_text_is_what_counts_as_the_first_token(engine: FakeEngine) -> None:
    await engine.set(hold_after=0)
    running = asyncio.create_task(Client(engine.url, SPEECH).open_loop(plan()))
    await engine.wait("hold")  # the role has been sent, the text has not
    await engine.release()
    (record,) = await running
    assert record.first_text_at > record.first_event_at
    assert record.ttft_s == record.first_text_at
    assert record.pieces == 6  # the role, four words, the end


@pytest.mark.parametrize("split_bytes", [1, 7, 100])
async def test_pieces_of_any_size_read_alike(engine: FakeEngine, split_bytes: int) -> None:
    record = await one(engine, split_bytes=split_bytes)
    assert (record.is_served, record.output_tokens) == (True, 4)
    assert record.first_text_at is not None


@pytest.mark.parametrize(
    ("fault", "status", "reason"),
    [
        ("refuse_503", 503, "ServiceUnavailableError"), ("error_500", 500, "InternalServerError"),
        ("stream_error", 200, "error in the stream"), ("close", 200, "broken off"),
        ("close_before", 0, "no answer: connection closed"),
    ],
)  # fmt: skip
async def test_what_is_not_an_answer_is_told_apart(engine: FakeEngine, fault: str, status: int, reason: str) -> None:
    record = await one(engine, fault=fault, fault_after=2)
    assert (record.status, record.reason, record.is_served, record.is_good) == (status, reason, False, False)
    assert record.ended_at is not None


async def test_no_server_is_no_answer() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        client = Client(f"http://127.0.0.1:{nobody.getsockname()[1]}", SPEECH)
        (record,) = await client.open_loop(plan())
    assert (record.status, record.is_served) == (0, False)
    assert record.reason.startswith("no connection: ")


async def test_patience_ends(engine: FakeEngine) -> None:
    record = await one(engine, patience_s=0.3, hold_after=2)
    assert (record.status, record.reason, record.is_good) == (200, "unfinished", False)
    assert record.first_text_at is not None
    await engine.wait("abort")


async def test_retries_are_off_unless_asked_for_and_count_from_the_first(engine: FakeEngine) -> None:
    await engine.set(fault="refuse_503", fault_count=1)
    (refused,) = await Client(engine.url, SPEECH).open_loop(plan())
    assert (refused.status, refused.attempts) == (503, 1)
    await engine.set(fault="refuse_503", fault_count=1)
    (retried,) = await Client(engine.url, SPEECH, retries=1).open_loop(plan())
    assert (retried.status, retried.attempts, retried.is_served) == (200, 2, True)
    assert retried.ttft_s >= 0.5  # the pause is in it


async def test_retry_after_is_taken_down_and_kept_to() -> None:
    async def busy_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = b'{"error": {"reason": "queue_timeout", "type": "rate_limit"}}'
        head = b"HTTP/1.1 429 Too Many\r\nRetry-After: 7\r\nretry-after-ms: 20\r\nContent-Length: %d\r\n\r\n" % len(
            body
        )
        if asked:
            body, head = b'data: {"choices":[{"text":"x"}]}\n\ndata: [DONE]\n\n', b"HTTP/1.1 200 OK\r\n\r\n"
        asked.append(1)
        writer.write(head + body)
        await writer.drain()

    for retries, outcome in ((0, (429, "queue_timeout")), (1, (200, ""))):
        asked: list[int] = []
        server = await asyncio.start_server(busy_once, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        client = Client(f"http://127.0.0.1:{port}", SPEECH, retries=retries)
        (record,) = await client.open_loop(plan())
        assert ((record.status, record.reason), record.retry_after_s) == (outcome, 0.02)
        server.close()


async def test_closed_loop_keeps_so_many_users_busy(engine: FakeEngine) -> None:
    await engine.set(inter_token_s=0.01)
    records = await run_closed(engine.url, SPEECH, KINDS, users=5, seconds=0.6, seed=1)
    served = [record for record in records if record.is_served]
    assert len(served) > 10
    assert len(records) - len(served) <= 5  # those at work when the time was up
    events = sorted([(r.sent_at, 1) for r in records] + [(r.ended_at, -1) for r in records])
    at_once = 0
    for _, change in events:
        at_once += change
        assert at_once <= 5
    assert throughput(records, 0.6) > 0
    assert unloaded_ttft_s(records).keys() == {"short", "long"}


def test_throughput_leaves_the_beginning_out() -> None:
    records = [Record(planned, status=200, ended_at=float(at)) for planned, at in zip(plan(9), range(9), strict=True)]
    assert throughput(records, 8.0, skip=0.25) == 7 / 6


def test_the_command_writes_its_figures(engine: FakeEngine, tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.json"
    common = ["--url", engine.url, "--workload", "cpu", "--api", "completions", "--seconds", "0.3"]
    main([*common, "--rate", "50", "--slo", "short=1,long=2", "--json", str(out), "--records"])
    figures = json.loads(out.read_text())
    assert figures["good"] == figures["offered"] == len(figures["records"]) > 3
    assert figures["kinds"]["long"]["slo_ms"] == 2000.0
    main([*common, "--users", "2"])
    assert json.loads(capsys.readouterr().out)["throughput_per_s"] > 0


def test_limits_are_read_or_refused() -> None:
    assert parse_limits("short=0.5,long=2") == {"short": 0.5, "long": 2.0}
    assert parse_limits("") == {}
    with pytest.raises(SystemExit, match=r"--slo: 'short:1' is not like short=0\.5,long=2"):
        parse_limits("short:1")


def test_rate_and_users_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--url", "http://127.0.0.1:1", "--rate", "1", "--users", "1"])
    assert "give one of --rate (open loop) and --users (closed loop)" in capsys.readouterr().err


def test_a_server_that_says_no_is_quoted(engine: FakeEngine) -> None:
    assert ask(engine.url, "/v1/models", None, ["Authorization: Bearer x"])["data"][0]["id"] == "fake-model"
    with pytest.raises(SystemExit, match=r"/v1/chat/completions: 404 .*The model `no` does not exist"):
        ask(engine.url, "/v1/chat/completions", {"model": "no"})


async def test_https_is_said_not_to_be_spoken() -> None:
    with pytest.raises(SystemExit, match="https is not spoken here"):
        Client("https://127.0.0.1:1", SPEECH)
