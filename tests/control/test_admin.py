"""The admin socket: what it shows, what it changes, what it refuses, and what the audit log has of it."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import stat
from pathlib import Path

import pytest

from launcher.control import GATEWAY_SOCKET, models
from launcher.gateway.admin_acts import NAMES
from launcher.gateway.histograms import ITL_S, TTFT_S
from launcher.gateway.live import SAMPLES, Counts, LastMinute, percentile_ms
from launcher.gateway.modes import MODES, PRIORITY_NAMES
from tests.control.harness import AdminDesk, admin_desk
from tests.fakes.process import FakeEngine
from tests.gateway.harness import RawClient, chat

ME = pwd.getpwuid(os.getuid()).pw_name
Engines = tuple[FakeEngine, FakeEngine]


async def test_state_at_rest(admin: AdminDesk, engines: Engines) -> None:
    answer = await admin.ask("GET", "/admin/state")
    assert answer.status == 200
    state = models.State.model_validate_json(answer.body, strict=True)
    assert (state.name, state.model, state.mode, state.draining) == ("test", "fake-model", "balanced", False)
    assert state.queue.model_dump() == {
        "count": 0, "tokens": 0, "oldest_s": 0, "by_priority": {"high": 0, "normal": 0, "low": 0},
        "by_length": {"<=256": 0, "<=1k": 0, "<=4k": 0, "<=16k": 0, ">16k": 0},
    }  # fmt: skip
    (replica,) = state.replicas
    assert (replica.url, replica.ready, replica.external, replica.reason) == (engines[0].url, True, True, "")
    assert (replica.in_flight, replica.ledger.prefill_tokens.held, replica.ledger.kv_tokens.held) == (0, 0, 0)
    assert (replica.ledger.sequences.cap, replica.ledger.prefill_tokens.cap) == (64, 1_000_000)
    assert state.last_minute.ttft_p50_ms is None


async def test_state_at_work(admin: AdminDesk, engines: Engines) -> None:
    for _ in range(3):
        assert (await admin.desk.post(chat(stream=True))).status == 200
    await engines[0].set(hold_after=0)
    running = await admin.desk.client()
    await running.post("/v1/chat/completions", chat("held"))
    await admin.until(lambda state: state["in_flight"] == 1)
    state = await admin.state()
    assert state["replicas"][0]["ledger"]["sequences"]["held"] == 1
    assert state["replicas"][0]["ledger"]["kv_tokens"]["held"] > 0
    assert state["replicas"][0]["answered"] == 3
    assert state["totals"]["served"] == 3
    assert state["last_minute"]["requests_s"] > 0
    assert state["last_minute"]["ttft_p99_ms"] > 0
    running.close()
    await admin.until(lambda state: state["totals"]["cancelled"] == 1 and state["in_flight"] == 0)


def test_the_app_and_the_gateway_have_the_same_words() -> None:
    assert models.ModeName.__args__ == tuple(MODES)
    assert models.PriorityName.__args__ == PRIORITY_NAMES


async def test_the_queue_is_shown(tmp_path: Path, engines: Engines) -> None:
    await engines[0].set(hold_after=0)
    async with admin_desk(tmp_path, engines[0].url, supervised=True, max_in_flight=1) as admin:
        clients: list[RawClient] = []
        for priority in ("normal", "normal", "low"):
            clients.append(await admin.desk.client())
            await clients[-1].post("/v1/chat/completions", chat(), f"X-Priority: {priority}")
            await admin.until(lambda state: state["in_flight"] + state["queue"]["count"] == len(clients))
        queue = (await admin.state())["queue"]
        assert (queue["count"], queue["by_priority"]) == (2, {"high": 0, "normal": 1, "low": 1})
        assert queue["tokens"] > 0
        assert queue["oldest_s"] > 0
        for client in clients:
            client.close()
        await admin.desk.at_rest()


async def test_mode_is_switched_and_written_down(admin: AdminDesk) -> None:
    answer = await admin.ask("PUT", "/admin/mode", {"mode": "high-throughput"})
    assert (answer.status, answer.value) == (200, {"mode": "high-throughput", "before": "balanced"})
    assert (await admin.state())["mode"] == "high-throughput"
    entry = json.loads(admin.audit().splitlines()[-1])
    assert {name: entry[name] for name in ("actor", "act", "object", "result")} == {
        "actor": ME, "act": "mode", "object": "balanced → high-throughput", "result": "done",
    }  # fmt: skip


async def test_the_audit_log_has_refusals_and_who_asked(admin: AdminDesk) -> None:
    answer = await admin.ask("PUT", "/admin/mode", {"mode": "fast"}, actor="key ab12cd34")
    assert answer.status == 400
    error = answer.value["error"]
    assert error["message"] == "mode: 'fast' is not a mode. Modes: low-latency, balanced, high-throughput."
    assert (error["reason"], error["param"], error["src"]) == ("unknown_mode", "mode", "gateway")
    entry = json.loads(admin.audit().splitlines()[-1])
    assert (entry["actor"], entry["result"]) == ("key ab12cd34", "refused: unknown_mode")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "The body is not JSON (Expecting value: line 1 column 1 (char 0)). Send {\"mode\": \"balanced\"}."),
        (b"[" * 60_000, "The body is not JSON ("),
        (b"\xff", "The body is not JSON ("),
        (b"[]", "mode: a text is missing."),
        (b'{"mode": 1}', "mode: a text is missing."),
        (b'{"mode": "balanced", "made": 1}', "made: there is no such field."),
    ],
)  # fmt: skip
async def test_bodies_that_are_none(admin: AdminDesk, body: bytes, message: str) -> None:
    client = RawClient(*await asyncio.open_unix_connection(admin.folder / GATEWAY_SOCKET))
    await client.send(b"PUT /admin/mode HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    answer = await client.read()
    assert answer.status == 400
    assert answer.error["message"].startswith(message)
    client.close()


async def test_paths_and_methods(admin: AdminDesk) -> None:
    assert (await admin.ask("GET", "/v1/models")).status == 404  # inference is not here
    message = (await admin.ask("GET", "/admin/replicas/1x/drain")).value["error"]["message"]
    assert message.startswith("/admin/replicas/1x/drain is not served on the admin socket. What is: ")
    assert all(name in message for name in NAMES)
    answer = await admin.ask("GET", "/admin/mode")
    assert (answer.status, answer.value["error"]["message"]) == (405, "/admin/mode does not take GET. It takes PUT.")
    missing = await admin.ask("POST", "/admin/replicas/7/drain")
    assert (missing.status, missing.value["error"]["message"]) == (404, "There is no replica 7. There are: 0.")


async def test_the_public_port_has_no_admin_routes(admin: AdminDesk) -> None:
    assert (await admin.desk.get("/admin/state")).status == 404


async def test_only_this_user_may_open_it(admin: AdminDesk) -> None:
    assert stat.S_IMODE((admin.folder / GATEWAY_SOCKET).stat().st_mode) == 0o600


async def test_a_server_joins_drains_rests_and_leaves(admin: AdminDesk, engines: Engines) -> None:
    joined = await admin.ask("POST", "/admin/replicas", {"url": engines[1].url + "/"})
    assert joined.status == 202
    assert joined.value["replica"]["index"] == 1
    assert joined.value["note"] == "Replica 1 gets requests as soon as its health path answers."
    await admin.until(lambda state: state["replicas"][1]["ready"])
    drained = (await admin.ask("POST", "/admin/replicas/0/drain")).value
    assert (drained["replica"]["draining"], drained["replica"]["ready"]) == (True, True)
    assert drained["note"] == "Replica 0 finishes what it has and gets no new requests until it is undrained."
    for _ in range(4):
        assert (await admin.desk.post(chat())).status == 200
    assert [replica["answered"] for replica in (await admin.state())["replicas"]] == [0, 4]
    back = (await admin.ask("POST", "/admin/replicas/0/undrain")).value
    assert back["replica"]["draining"] is False
    left = await admin.ask("DELETE", "/admin/replicas/1")
    assert (left.status, left.value["replica"]["leaving"]) == (202, True)
    await admin.until(lambda state: len(state["replicas"]) == 1)
    assert (await admin.desk.post(chat())).status == 200
    assert (await admin.state())["replicas"][0]["answered"] == 1
    again = (await admin.ask("POST", "/admin/replicas", {"url": engines[1].url})).value
    assert again["replica"]["index"] == 2  # no number is given twice: its figures are its own


async def test_who_leaves_finishes_first(admin: AdminDesk, engines: Engines) -> None:
    await admin.ask("POST", "/admin/replicas", {"url": engines[1].url})
    await admin.until(lambda state: state["replicas"][1]["ready"])
    await admin.ask("POST", "/admin/replicas/0/drain")
    await engines[1].set(hold_after=0)
    client = await admin.desk.client()
    await client.post("/v1/chat/completions", chat())
    await admin.until(lambda state: state["replicas"][1]["in_flight"] == 1)
    await admin.ask("POST", "/admin/replicas/0/undrain")
    left = (await admin.ask("DELETE", "/admin/replicas/1")).value
    assert left["note"] == "Replica 1 gets no new requests, finishes the 1 that it has, and is then forgotten."
    assert repr(admin.door).endswith("leaving=[1]>")
    assert (left["replica"]["leaving"], left["replica"]["external"]) == (True, True)
    assert (await admin.ask("DELETE", "/admin/replicas/1")).status == 202  # asked again, nothing changes
    refused = await admin.ask("POST", "/admin/replicas/1/undrain")
    assert (refused.status, refused.value["error"]["reason"]) == (409, "leaving")
    await engines[1].release()
    assert (await client.read()).status == 200
    await admin.until(lambda state: [replica["index"] for replica in state["replicas"]] == [0])


async def test_what_cannot_leave(admin: AdminDesk, tmp_path: Path, engines: Engines) -> None:
    last = await admin.ask("DELETE", "/admin/replicas/0")
    assert (last.status, last.value["error"]["message"]) == (
        409,
        "Replica 0 is the last one: stop the deployment with `launcher down`.",
    )
    (tmp_path / "own").mkdir()
    async with admin_desk(tmp_path / "own", engines[0].url, supervised=True) as supervised:
        refused = await supervised.ask("DELETE", "/admin/replicas/0")
        assert (refused.status, refused.value["error"]["message"]) == (
            409,
            "Replica 0 is an engine that this launcher runs: it can be drained, and ends with the deployment.",
        )
        drained = (await supervised.ask("POST", "/admin/replicas/0/drain")).value
        assert drained["note"].endswith("until it is undrained. Its engine goes on running.")
        assert (await supervised.desk.post(chat())).status == 503
        joined = await supervised.ask("POST", "/admin/replicas", {"url": engines[1].url})
        assert joined.value["replica"]["index"] == 1
        await supervised.until(lambda state: state["replicas"][1]["ready"])
        assert (await supervised.desk.post(chat())).status == 200


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense", "'nonsense' is not a server's base URL. Write it as http://10.0.0.5:8000."),
        ("http://a/v1", "'http://a/v1' ends with /v1. Leave that out: the gateway adds it."),
        ("http://a:99999", "'http://a:99999' is not a server's base URL."),
        ("http://[::1", "'http://[::1' is not a server's base URL."),
        ("http://a/b?c", "'http://a/b?c' is not a server's base URL."),
        ("http://user:secret@a", "'http://user:secret@a' is not a server's base URL."),
        ("http://a/b\r\nX: y", "is not a server's base URL."),
        ("http://ä", "is not a server's base URL."),
        ("http://127.0.0.1:{port}", "is replica 0 already. Remove that one first."),
    ],
)
async def test_urls_that_cannot_join(admin: AdminDesk, engines: Engines, url: str, message: str) -> None:
    url = url.replace("{port}", engines[0].url.rpartition(":")[2])
    refused = await admin.ask("POST", "/admin/replicas", {"url": url})
    assert refused.status == 400
    assert message in refused.value["error"]["message"]
    assert len((await admin.state())["replicas"]) == 1


class TestFigures:
    """The pure part."""

    def counts(self, at: float, requests: int, *ttft: tuple[int, int]) -> Counts:
        buckets = [0] * (len(TTFT_S) + 1)
        for index, count in ttft:
            buckets[index] = count
        return Counts(
            at, requests, 10 * requests, 5 * requests, tuple(buckets), (0,) * (len(ITL_S) + 1),
            outcomes={"served": requests, "failed": 1}, refusals={"queue_full": 2 * requests, "draining": 1}, evictions={},
        )  # fmt: skip

    def test_rates_are_of_the_last_minute(self) -> None:
        minute = LastMinute()
        for number in range(SAMPLES + 10):
            minute.note(self.counts(5.0 * number, number))
        now = 5.0 * (SAMPLES + 9)
        assert minute.figures(self.counts(now, SAMPLES + 9)) == {
            "seconds": 60.0,
            "requests_s": 0.2,
            "prompt_tokens_s": 2.0,
            "output_tokens_s": 1.0,
            "ttft_p50_ms": None,
            "ttft_p99_ms": None,
            "itl_p50_ms": None,
            "itl_p99_ms": None,
            "ttft_within": [(bound, 0) for bound in (*TTFT_S, None)],
            "itl_within": [(bound, 0) for bound in (*ITL_S, None)],
            "served": 12,
            "failed": 0,
            "refusals": {"queue_full": 24},
            "evictions": {},
        }

    def test_percentiles_are_of_what_came_since(self) -> None:
        minute = LastMinute()
        minute.note(self.counts(0.0, 0, (0, 1000)))
        figures = minute.figures(self.counts(10.0, 100, (0, 1000), (4, 100)))
        assert (figures["ttft_p50_ms"], figures["ttft_p99_ms"]) == (75.0, 99.5)  # between 50 and 100 ms
        assert figures["ttft_within"][:5] == [(0.005, 0), (0.01, 0), (0.02, 0), (0.05, 0), (0.1, 100)]
        assert figures["ttft_within"][-1] == (None, 100)

    def test_percentiles_at_the_ends(self) -> None:
        nothing = (0,) * (len(TTFT_S) + 1)
        assert percentile_ms(nothing, 0.5) is None
        assert percentile_ms((*nothing[:-1], 3), 0.5) == TTFT_S[-1] * 1000
        assert percentile_ms((2, *nothing[1:]), 1.0) == TTFT_S[0] * 1000

    def test_nothing_noted_yet(self) -> None:
        assert LastMinute().figures(self.counts(3.0, 7))["requests_s"] == 0.0
