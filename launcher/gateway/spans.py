"""Requests that were traced as OpenTelemetry's spans, sent to a collector as protobuf over HTTP.

The one module that needs the otel extra: nothing imports it but who asks for traces. Of what was said, of the client's
address and of its key nothing is told; the request's id leads to its line in the access log, which has the latter two.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from launcher.gateway import semconv
from launcher.gateway.access import MAX_TEXT, AccessEntry
from launcher.gateway.tracing import Ended, Trace

SDK_LOG = logging.getLogger("opentelemetry")
MAY_BE_ZERO = (semconv.REPLICA, semconv.FIRST_CHUNK_S)  # where 0 says something else than that there was none


class OtlpSpans:
    """Makes spans and sends them. ``model`` is the one that is served: other names do not get into the spans' names.

    The SDK's own variables hold here too: OTEL_EXPORTER_OTLP_HEADERS for a collector's key, OTEL_RESOURCE_ATTRIBUTES.
    """

    def __init__(
        self, url: str, *, service: str, version: str, provider: str, model: str, timeout_s: float | None = None
    ) -> None:
        self._url, self._provider, self._model = url, provider, model
        self._ids, self._spans, self._said = _GivenIds(), _Collected(), _Reason()
        SDK_LOG.addHandler(self._said)
        SDK_LOG.propagate = False  # it would repeat itself on the terminal with each batch
        resource = Resource.create({semconv.SERVICE_NAME: service, semconv.SERVICE_VERSION: version})
        tracers = TracerProvider(ALWAYS_ON, resource, shutdown_on_exit=False, id_generator=self._ids)
        tracers.add_span_processor(self._spans)
        self._tracer = tracers.get_tracer("launcher.gateway", version)
        self._exporter = OTLPSpanExporter(url, timeout=timeout_s)

    def export(self, ended: Sequence[Ended], epoch: float) -> str:
        """Sends them; ``epoch`` is the event loop's zero in wall-clock seconds. Returns why that failed, or ''."""
        for trace, entry in ended:
            self._record(trace, entry, epoch)
        self._said.text = ""
        try:
            if self._exporter.export(self._spans.take()) is SpanExportResult.SUCCESS:
                return ""
        except OSError as error:  # requests' own are; older releases of the SDK let them through
            return f"{self._url}: {error}"
        return f"{self._url}: {self._said.text or 'no reason given'}"

    def shutdown(self) -> None:
        """Has an ``export`` that waits to try again give up."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]
        SDK_LOG.removeHandler(self._said)

    def _record(self, trace: Trace, entry: AccessEntry, epoch: float) -> None:
        assert isinstance(entry.time, float)
        arrived_at = entry.time - entry.e2e_ms + epoch  # the entry's times are in seconds until it is written
        sent_at = arrived_at + entry.media_ms + entry.queue_ms
        self._ids.trace_id, self._ids.span_id = trace.trace_id, trace.span_id
        span = self._tracer.start_span(
            self._name(trace, entry),
            _parent(trace),
            SpanKind.SERVER,
            self._attributes(trace, entry),
            start_time=_ns(arrived_at - entry.receive_ms),
        )
        if entry.replica >= 0:
            span.add_event(semconv.SENT, timestamp=_ns(sent_at))
        if _has_streamed(entry):
            span.add_event(semconv.FIRST_TOKEN, timestamp=_ns(arrived_at + entry.ttft_ms))
        _tell_failure(span, entry)
        span.end(_ns(entry.time + epoch))

    def _name(self, trace: Trace, entry: AccessEntry) -> str:
        """As the conventions have it, and of few different ones: clients may write any model's name."""
        operation = semconv.OPERATIONS.get(trace.route)
        if operation is None:
            return f"{_text(entry.method)} {trace.route}".rstrip()
        return f"{operation} {entry.model}" if entry.model == self._model else operation

    def _attributes(self, trace: Trace, entry: AccessEntry) -> dict[str, str | int | float | bool]:
        """What was: a count that is 0 was not."""
        found: dict[str, str | int | float | bool | None] = {
            semconv.METHOD: _text(entry.method),
            semconv.ROUTE: trace.route,
            semconv.STATUS: entry.status,
            semconv.OPERATION: semconv.OPERATIONS.get(trace.route),
            semconv.PROVIDER: self._provider if trace.route else None,
            semconv.MODEL: _text(entry.model),
            semconv.STREAM: entry.stream,
            semconv.INPUT_TOKENS: entry.prompt_tokens,
            semconv.OUTPUT_TOKENS: entry.output_tokens,
            semconv.FIRST_CHUNK_S: entry.ttft_ms if _has_streamed(entry) else None,
            semconv.REQUEST_ID: _text(entry.id),
            semconv.OUTCOME: entry.outcome,
            semconv.MODE: entry.mode,
            semconv.PRIORITY: entry.priority,
            semconv.REPLICA: entry.replica if entry.replica >= 0 else None,
            semconv.RETRIES: entry.retries,
            semconv.RESUMED: entry.resumed,
            semconv.QUEUE_S: entry.queue_ms,
            semconv.MEDIA_S: entry.media_ms,
            semconv.RECEIVE_S: entry.receive_ms,
            semconv.PRICED_TOKENS: int(entry.prompt_tokens_priced),
            semconv.IMAGE_TOKENS: entry.image_tokens,
            semconv.PIECES: entry.pieces,
        }
        return {name: value for name, value in found.items() if value or (name in MAY_BE_ZERO and value == 0)}


def _has_streamed(entry: AccessEntry) -> bool:
    """Whether a first token came; after 0 s by the loop's clock where that was in the millisecond of the arrival."""
    return entry.stream and entry.pieces > 0


def _tell_failure(span: Span, entry: AccessEntry) -> None:
    """What is the client's fault is no error of this server's, by the conventions for HTTP."""
    if entry.outcome == "served" and entry.status < 400:
        return
    word = entry.reason or (str(entry.status) if entry.outcome == "served" else entry.outcome)
    span.set_attribute(semconv.ERROR_TYPE, word)
    if entry.status >= 500 or entry.outcome == "failed":
        span.set_status(Status(StatusCode.ERROR))


def _parent(trace: Trace) -> Context:
    if not trace.parent_id:
        return Context()
    sampled = TraceFlags(TraceFlags.SAMPLED)
    parent = SpanContext(trace.trace_id, trace.parent_id, is_remote=True, trace_flags=sampled)
    return set_span_in_context(NonRecordingSpan(parent), Context())


def _text(value: bytes | str) -> str:
    """Within bounds, and fit for UTF-8: what is not would cost the whole batch."""
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    return text[:MAX_TEXT].encode("utf-8", "replace").decode()


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)


class _GivenIds(IdGenerator):
    """The ids that the engine was told of already."""

    trace_id = span_id = 0

    def generate_trace_id(self) -> int:
        return self.trace_id

    def generate_span_id(self) -> int:
        return self.span_id


class _Collected(SpanProcessor):
    """Spans that have ended and wait for the batch to be whole."""

    def __init__(self) -> None:
        self._spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self._spans.append(span)

    def take(self) -> list[ReadableSpan]:
        taken, self._spans = self._spans, []
        return taken


class _Reason(logging.Handler):
    """What the SDK said first of a batch: it returns no reason, only logs one."""

    text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text = self.text or record.getMessage()
