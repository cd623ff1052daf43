"""Traces: sent to a real OTLP/HTTP server as protobuf, carried on to the engine, and never the reason that something stops."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from launcher.errors import PreconditionError
from launcher.gateway import semconv, tracing
from launcher.gateway.access import AccessEntry
from launcher.gateway.spans import OtlpSpans
from launcher.gateway.tracing import Parent, Trace, Tracer, read_parent
from launcher.profile.load import load_profile
from launcher.up.tracing import make_tracer, require_exporter
from tests.fakes.process import FakeEngine, fake_engine
from tests.gateway.harness import PATIENCE_S, Desk, chat, gateway_to, request_bytes

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CLIENTS = f"traceparent: 00-{TRACE}-{SPAN}-01"


class Collector:
    """A server that takes what an OpenTelemetry collector takes, and keeps it."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.resource: dict[str, Any] = {}
        self.paths: set[str] = set()
        self.batches: list[int] = []
        self.status = 200
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.asked = threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.asked.set()
                outer.may_answer.wait(PATIENCE_S)
                if outer.status == 200:
                    outer.take(self.path, ExportTraceServiceRequest.FromString(body))
                self.send_response(outer.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        return Handler

    def take(self, path: str, message: ExportTraceServiceRequest) -> None:
        self.paths.add(path)
        found = [span for one in message.resource_spans for scope in one.scope_spans for span in scope.spans]
        self.batches.append(len(found))
        self.spans += found
        self.resource = facts(message.resource_spans[0].resource.attributes)

    @property
    def span(self) -> Span:
        """The only one."""
        (span,) = self.spans
        return span

    def close(self) -> None:
        self.may_answer.set()
        self.server.shutdown()
        self.server.server_close()


def facts(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    monkeypatch.setattr(tracing, "FLUSH_S", 0.01)
    monkeypatch.setattr(tracing, "CLOSE_S", 0.3)
    one = Collector()
    yield one
    one.close()


@asynccontextmanager
async def traced(engine: FakeEngine, url: str, sample: float = 1.0, **more: Any) -> AsyncIterator[Desk]:
    """A gateway that traces; what it traced has been sent when this ends."""
    spans = OtlpSpans(
        url + "/v1/traces", service="x-gateway", version="1", provider="vllm", model="fake-model", timeout_s=0.5
    )
    async with gateway_to(engine.url, parts={"tracer": Tracer(spans, sample)}, **more) as desk:
        yield desk


async def engine_headers(engine: FakeEngine) -> dict[str, str]:
    """Those of the last request that the engine had."""
    headers: dict[str, str] = (await engine.seen())["requests"][-1]["headers"]
    return headers


async def test_a_trace_goes_from_the_client_through_the_gateway_into_the_engine(
    engine: FakeEngine, collector: Collector
) -> None:
    before_ns = time.time_ns()
    async with traced(engine, collector.url, sample=0) as desk:  # what the client says counts, not the share
        answer = await desk.post(chat(max_tokens=3), CLIENTS, "tracestate: vendor=1", "x-request-id: r-1")
        headers = await engine_headers(engine)
    span = collector.span
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, SPAN)
    assert headers["traceparent"] == f"00-{TRACE}-{span.span_id.hex()}-01"
    assert headers["tracestate"] == "vendor=1"
    assert (span.name, span.kind) == ("chat fake-model", Span.SPAN_KIND_SERVER)
    assert before_ns - 50e6 < span.start_time_unix_nano <= span.end_time_unix_nano < time.time_ns() + 50e6
    assert collector.paths == {"/v1/traces"}
    assert collector.resource["service.name"] == "x-gateway"
    assert span.status.code == 0
    told, usage = facts(span.attributes), answer.json()["usage"]
    assert told.pop("launcher.priced_prompt_tokens") > 0
    told.pop("launcher.queue_s", None)
    assert told == {
        "http.request.method": "POST", "http.route": "/v1/chat/completions", "http.response.status_code": 200,
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "vllm", "gen_ai.request.model": "fake-model",
        "gen_ai.usage.input_tokens": usage["prompt_tokens"], "gen_ai.usage.output_tokens": 3,
        "launcher.request_id": "r-1", "launcher.outcome": "served", "launcher.mode": "balanced",
        "launcher.priority": "normal", "launcher.replica": 0, "launcher.pieces": 1,
    }  # fmt: skip


async def test_a_stream_tells_when_its_first_token_came(engine: FakeEngine, collector: Collector) -> None:
    await engine.set(hold_after=0)
    async with traced(engine, collector.url) as desk:
        client = await desk.client()
        await client.post("/v1/chat/completions", chat(max_tokens=4, stream=True))
        await engine.wait("request")
        held_ns, began = time.time_ns(), desk.gateway.now()
        await desk.until(lambda: desk.gateway.now() > began + 0.005)  # uvloop's clock has milliseconds
        await engine.release(8)
        await client.read()
        headers = await engine_headers(engine)
    span = collector.span
    assert not span.parent_span_id
    assert headers["traceparent"] == f"00-{span.trace_id.hex()}-{span.span_id.hex()}-01"
    sent, first = span.events
    assert (sent.name, first.name) == (semconv.SENT, semconv.FIRST_TOKEN)
    times = [span.start_time_unix_nano, sent.time_unix_nano, first.time_unix_nano, span.end_time_unix_nano]
    assert times == sorted(times)
    assert sent.time_unix_nano < held_ns + 50e6
    told = facts(span.attributes)
    assert told["gen_ai.request.stream"] is True
    ttft_s = (first.time_unix_nano - span.start_time_unix_nano) / 1e9
    assert told["gen_ai.response.time_to_first_chunk"] == pytest.approx(ttft_s, abs=0.001)


async def test_time_in_the_queue_is_told(engine: FakeEngine, collector: Collector) -> None:
    await engine.set(hold_after=0)
    async with traced(engine, collector.url, max_in_flight=1) as desk:
        first, second = await desk.client(), await desk.client()
        await first.post("/v1/chat/completions", chat(max_tokens=1))
        await engine.wait("request")
        await second.post("/v1/chat/completions", chat(max_tokens=1), "x-request-id: waited")
        began = desk.gateway.now()  # uvloop's clock has milliseconds
        await desk.until(lambda: desk.gateway.queued == 1 and desk.gateway.now() > began + 0.005)
        await engine.release(2)
        await first.read()
        await second.read()
    (span,) = [span for span in collector.spans if facts(span.attributes)["launcher.request_id"] == "waited"]
    queue_s = facts(span.attributes)["launcher.queue_s"]
    (sent,) = span.events
    assert queue_s >= 0.004
    assert (sent.time_unix_nano - span.start_time_unix_nano) / 1e9 == pytest.approx(queue_s, abs=0.001)


@pytest.mark.parametrize(
    ("settings", "body", "status", "reason"),
    [
        ({"max_in_flight": 1, "max_queued": 0}, chat(), 429, "queue_full"),  # refused by the dispatcher
        ({}, chat(enable_thinking="maybe"), 400, "bad_value"),  # before anything is known of it
    ],
)
async def test_a_refused_request(
    engine: FakeEngine, collector: Collector, settings: dict[str, Any], body: Any, status: int, reason: str
) -> None:
    await engine.set(hold_after=0)
    async with traced(engine, collector.url, sample=0, **settings) as desk:
        if settings:
            busy = await desk.client()
            await busy.post("/v1/chat/completions", chat())
            await engine.wait("request")
        refused = await desk.post(body, CLIENTS)
        assert (refused.status, refused.error["reason"]) == (status, reason)
        await engine.release(99)
    told = facts(collector.span.attributes)
    assert (told["error.type"], told["http.response.status_code"]) == (reason, status)
    assert collector.span.parent_span_id.hex() == SPAN
    assert collector.span.status.code == 0  # the conventions for HTTP: 4xx is no error of the server's
    assert not collector.span.events


async def test_a_path_that_is_none_gets_a_name_without_it(engine: FakeEngine, collector: Collector) -> None:
    async with traced(engine, collector.url) as desk:
        assert (await desk.get("/v1/nothing?api_key=sk-secret")).status == 404
    assert collector.span.name == "GET"
    assert "secret" not in str(collector.span)


async def test_an_engine_that_dies_makes_an_error(collector: Collector) -> None:
    with fake_engine(fault="close", fault_after=1) as engine:
        async with traced(engine, collector.url, resume_streams=False) as desk:
            await desk.post(chat(stream=True))
    assert collector.span.status.code == 2
    assert facts(collector.span.attributes)["error.type"] == "failed"


async def test_what_is_not_sampled_is_not_traced_here_nor_there(engine: FakeEngine, collector: Collector) -> None:
    async with traced(engine, collector.url, sample=0) as desk:
        await desk.post(chat())
        assert "traceparent" not in await engine_headers(engine)
        unsampled = CLIENTS[:-1] + "0"
        await desk.post(chat(), unsampled)
        assert (await engine_headers(engine))["traceparent"] == unsampled.partition(": ")[2]
        assert (await desk.post(chat(enable_thinking="maybe"))).status == 400
    assert collector.spans == []


@pytest.mark.parametrize("lines", [["traceparent: 00-zz-1-01"], [CLIENTS, CLIENTS]], ids=["malformed", "twice"])
async def test_a_traceparent_that_is_none_begins_a_new_trace(
    engine: FakeEngine, collector: Collector, lines: list[str]
) -> None:
    async with traced(engine, collector.url) as desk:
        await desk.post(chat(), *lines, "tracestate: vendor=1")
        headers = await engine_headers(engine)
    assert not collector.span.parent_span_id
    assert headers["traceparent"] == f"00-{collector.span.trace_id.hex()}-{collector.span.span_id.hex()}-01"
    assert "tracestate" not in headers


async def test_a_share_of_requests_is_traced(
    engine: FakeEngine, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = iter([0.24, 0.25, 0.9, 0.0])
    monkeypatch.setattr(tracing.random, "random", lambda: next(drawn))
    async with traced(engine, collector.url, sample=0.25) as desk:
        client = await desk.client()
        for number in range(4):  # on one connection: a head like the one before is not taken apart again
            await client.post("/v1/chat/completions", chat(), f"x-request-id: r-{number}")
            await client.read()
    assert [facts(span.attributes)["launcher.request_id"] for span in collector.spans] == ["r-0", "r-3"]
    assert len({span.trace_id for span in collector.spans}) == 2


async def test_what_a_client_writes_cannot_spoil_a_batch(engine: FakeEngine, collector: Collector) -> None:
    async with traced(engine, collector.url) as desk:
        await desk.post(b'{"model": "\\ud800' + b"m" * 5000 + b'", "messages": [{"role": "user", "content": "x"}]}')
        await desk.post(chat())
    names = [span.name for span in collector.spans]
    assert names == ["chat", "chat fake-model"]  # no name of a client's own
    assert len(facts(collector.spans[0].attributes)["gen_ai.request.model"]) == 256
    assert "hello" not in "".join(map(str, collector.spans))  # nor anything that was said


async def test_a_collector_that_is_gone_costs_spans_only(
    engine: FakeEngine, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    collector.close()
    async with traced(engine, collector.url) as desk:
        for _ in range(3):
            assert (await desk.post(chat())).status == 200
        await desk.until(lambda: desk.gateway.tracer is not None and desk.gateway.tracer.lost == 3)
        assert await desk.metric('launcher_spans_total{outcome="lost"}') == 3
        assert await desk.metric('launcher_spans_total{outcome="sent"}') == 0
    said = [record for record in caplog.records if "cannot be sent" in record.getMessage()]
    assert len(said) == 1
    assert collector.url in said[0].getMessage()


async def test_a_collector_that_comes_back(
    engine: FakeEngine, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    collector.status = 400
    async with traced(engine, collector.url) as desk:
        tracer = desk.gateway.tracer
        assert tracer is not None
        await desk.post(chat())
        await desk.until(lambda: tracer.lost == 1)
        collector.status = 200
        await desk.post(chat())
        await desk.until(lambda: tracer.sent == 1)
    assert "spans can be sent again; 1 were lost" in caplog.text


async def test_a_collector_that_hangs_makes_nobody_wait(
    engine: FakeEngine, collector: Collector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tracing, "MAX_WAITING", 2)
    monkeypatch.setattr(tracing, "BATCH", 1)
    collector.may_answer.clear()
    async with traced(engine, collector.url) as desk:
        tracer = desk.gateway.tracer
        assert tracer is not None
        await desk.post(chat())
        await asyncio.to_thread(collector.asked.wait, PATIENCE_S)
        for _ in range(4):
            assert (await desk.post(chat())).status == 200
        assert tracer.lost >= 1
        assert repr(tracer).startswith("<Tracer waiting=")
        began = time.monotonic()
    assert time.monotonic() - began < 5  # the gateway closed without it


async def test_large_batches_are_parted(
    engine: FakeEngine, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "FLUSH_S", 60.0)
    monkeypatch.setattr(tracing, "BATCH", 2)
    async with traced(engine, collector.url) as desk:
        for _ in range(5):
            await desk.post(chat())
    assert collector.batches == [2, 2, 1]


def test_a_bug_of_ours_costs_spans_only(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def export(self, ended: Any, epoch: float) -> str:
            raise RuntimeError("a bug")

        def shutdown(self) -> None:
            pass

    tracer = Tracer(Broken(), 1.0)
    tracer._send([(tracing.NOT_SAMPLED, None)])  # type: ignore[list-item]
    assert tracer.lost == 1
    assert "RuntimeError: a bug" in caplog.text
    asyncio.run(tracer.close())


@pytest.mark.parametrize(
    ("value", "parent"),
    [
        (f"00-{TRACE}-{SPAN}-01", Parent(int(TRACE, 16), int(SPAN, 16), True)),
        (f" 00-{TRACE}-{SPAN}-00\t", Parent(int(TRACE, 16), int(SPAN, 16), False)),
        (f"00-{TRACE}-{SPAN}-03", Parent(int(TRACE, 16), int(SPAN, 16), True)),  # a flag of a later level beside it
        (f"cc-{TRACE}-{SPAN}-01-more", Parent(int(TRACE, 16), int(SPAN, 16), True)),  # a later version
        (f"00-{TRACE}-{SPAN}-01-more", None),
        (f"ff-{TRACE}-{SPAN}-01", None),
        (f"00-{TRACE.upper()}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        ("", None),
    ],
)
def test_a_traceparent_is_read_as_the_standard_has_it(value: str, parent: Parent | None) -> None:
    assert read_parent(value.encode()) == parent


@pytest.fixture
def profile_file(tmp_path: Path) -> Path:
    path = tmp_path / "x.yaml"
    path.write_text("name: x\nengine: {kind: external, urls: ['http://127.0.0.1:1']}\n")
    return path


def test_nobody_is_traced_unless_asked_for(profile_file: Path) -> None:
    profile = load_profile(profile_file, env={}).profile
    assert make_tracer(profile) is None
    code = "import sys, launcher.cli.serve; sys.exit('opentelemetry' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("localhost:4318", "is not a URL: it must begin with http:// or https://"),
        ("http://h:4318/v1/traces", "ends with /v1/traces: leave that out, the launcher adds it"),
    ],
)
def test_a_collectors_address_is_checked(profile_file: Path, value: str, said: str) -> None:
    with pytest.raises(Exception, match=said):
        load_profile(profile_file, sets=[f"gateway.tracing.endpoint={value}"], env={})


def test_without_the_packages_it_is_refused_before_the_start(
    profile_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = load_profile(profile_file, sets=["gateway.tracing.endpoint=http://127.0.0.1:4318/"], env={}).profile
    assert profile.gateway.tracing is not None
    assert profile.gateway.tracing.url == "http://127.0.0.1:4318/v1/traces"
    require_exporter(profile)
    monkeypatch.delitem(sys.modules, "launcher.gateway.spans")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(
        PreconditionError, match=r"gateway\.tracing is set, but what sends traces is not installed"
    ) as no:
        require_exporter(profile)
    assert "vllm-profile-launcher[otel]" in no.value.hint


async def test_pages_of_the_gateway_are_not_traced(engine: FakeEngine, collector: Collector) -> None:
    async with traced(engine, collector.url) as desk:
        assert (await desk.raw(request_bytes("GET", "/health"))).status == 200
    assert collector.spans == []


async def test_a_first_token_in_the_millisecond_of_the_arrival_is_told(collector: Collector) -> None:
    """The loop's clock has milliseconds: between two of its ticks 0 s is a time like any other."""
    spans = OtlpSpans(collector.url + "/v1/traces", service="x", version="1", provider="vllm", model="m")
    entry = AccessEntry(2.0, b"r", b"POST", b"/v1/completions", 200, "served", stream=True, pieces=3, replica=0)
    assert spans.export([(Trace(1, 2, 0, "/v1/completions"), entry)], epoch=1e9) == ""
    spans.shutdown()
    assert [event.name for event in collector.span.events] == [semconv.SENT, semconv.FIRST_TOKEN]
    assert facts(collector.span.attributes)["gen_ai.response.time_to_first_chunk"] == 0


async def test_the_sdk_keeps_quiet_elsewhere(collector: Collector) -> None:
    """Its own messages would come with each batch; ours come once."""
    spans = OtlpSpans(collector.url + "/v1/traces", service="x", version="1", provider="vllm", model="m")
    assert not logging.getLogger("opentelemetry").propagate
    spans.shutdown()
