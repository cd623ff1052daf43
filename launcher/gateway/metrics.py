"""Every metric of the gateway: name, kind, labels and help in one table, plain numbers behind it, and their text.

Requests add to plain numbers, which become text when somebody asks. prometheus_client would lock and look labels up at
each request, and takes some 6 µs a sample to write them: 10 ms in which no stream moves, for a gateway in full use.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import cache

from launcher.gateway.histograms import Bounds, Histogram, Series

Labels = tuple[str, ...]
Sample = tuple[str, Labels, float]
CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
MAX_KEYS = 200  # labels by key: the keys after so many share one
OTHER_KEYS = "other"
OUTCOMES = ("served", "refused", "evicted", "cancelled", "failed")
WORK: Labels = ("length", "mode", "priority")

# Name → kind, labels, help. Counters get _total; units are in the names, as Prometheus asks. What vLLM measures too
# has vLLM's name (there with vllm: in front), as seen from here: the gateway's queue is in it.
TABLE: dict[str, tuple[str, Labels, str]] = {
    # Latency.
    "launcher_time_to_first_token_seconds": (
        "histogram",
        WORK,
        "Streams: from the whole request received to the first piece of its answer.",
    ),
    "launcher_inter_token_latency_seconds": (
        "histogram",
        WORK,
        "Streams: mean gap between the pieces of one answer (one value a stream).",
    ),
    "launcher_e2e_request_latency_seconds": (
        "histogram",
        WORK,
        "Inference that was served: from the whole request received to its answer's end.",
    ),
    "launcher_request_queue_time_seconds": (
        "histogram",
        WORK,
        "Time in the gateway's queue, of inference that was started; 0 where it did not wait.",
    ),
    "launcher_request_duration_seconds": (
        "histogram",
        ("route",),
        "All requests: from the whole request received to its answer's end.",
    ),
    "launcher_engine_first_byte_seconds": (
        "histogram",
        ("replica",),
        "From sending to an engine to its answer's head.",
    ),
    # What became of requests.
    "launcher_requests": (
        "counter",
        ("route", "code"),
        "Requests that ended, by route and HTTP status (499: client left).",
    ),
    "launcher_tickets": (
        "counter",
        ("outcome",),
        "Inference requests that ended: served, refused, evicted, cancelled or failed.",
    ),
    "launcher_refusals": ("counter", ("reason",), "Requests that the gateway refused before its queue, by reason."),
    "launcher_evictions": ("counter", ("reason",), "Requests that were taken out of the queue, by reason."),
    "launcher_rate_limited": ("counter", ("key", "limit"), "Requests over the rate of their API key, by limit."),
    "launcher_client_disconnects": ("counter", (), "Requests whose client left before the answer was complete."),
    "launcher_client_stalls": ("counter", (), "Clients cut off because they read nothing for gateway.write_timeout."),
    "launcher_engine_failures": (
        "counter",
        ("replica", "stage"),
        "Engine connections that failed: connect, head or body.",
    ),
    "launcher_retries": (
        "counter",
        ("reason",),
        "Requests sent again before their first byte: stale (reused connection), failover (other replica), status.",
    ),
    "launcher_stream_resumes": (
        "counter",
        ("outcome",),
        "Streams broken by their engine: resumed elsewhere, failed, or ineligible for it.",
    ),
    # Pictures and clips.
    "launcher_media": ("counter", ("outcome",), "Pictures and clips that were looked at: shrunk, untouched, or cut."),
    "launcher_media_seconds": (
        "histogram",
        ("stage",),
        "Pictures and clips of a request: fetch, decode, scale, encode (added up), and all of it, waiting included.",
    ),
    "launcher_uploads": ("gauge", (), "Uploads that are kept."),
    "launcher_upload_bytes": ("gauge", (), "Memory that they take."),
    "launcher_upload_evictions": ("counter", (), "Uploads that went to make room for others."),
    # Tokens.
    "launcher_key_tokens": (
        "counter",
        ("key", "kind"),
        f"Tokens served, prompt and output, by name of API key; after {MAX_KEYS} keys: {OTHER_KEYS}.",
    ),
    "launcher_estimate_error_tokens": (
        "counter",
        ("kind",),
        "Difference between the price and what the engine counted, prompt and output; over launcher_counted_tokens.",
    ),
    "launcher_counted_tokens": ("counter", ("kind",), "Tokens of the same requests, as the engine counted them."),
    "launcher_received_bytes": ("counter", (), "Bytes of request bodies received from clients."),
    "launcher_sent_bytes": ("counter", (), "Bytes of engine answers sent to clients."),
    # The ledger: what each replica has in hand, and how much it may have.
    "launcher_ledger_prefill_tokens": ("gauge", ("replica",), "Prompt tokens sent whose first token has not come."),
    "launcher_ledger_sequences": ("gauge", ("replica",), "Sequences that a replica works on."),
    "launcher_ledger_kv_tokens": ("gauge", ("replica",), "KV cache tokens held, expected growth included."),
    "launcher_limit_prefill_tokens": ("gauge", ("replica",), "Most prompt tokens in hand (admission.max_prefill)."),
    "launcher_limit_sequences": ("gauge", ("replica",), "Most sequences at once (admission.max_in_flight)."),
    "launcher_limit_kv_tokens": ("gauge", ("replica",), "KV cache tokens that the plan gives a replica."),
    "launcher_ledger_corrections": ("counter", (), "Times the ledger was found wrong and put right; a bug if not 0."),
    "launcher_limit_moves": ("counter", (), "Moves of the adaptive limits (admission.adaptive)."),
    "launcher_in_flight": ("gauge", ("replica",), "Requests that hold a slot of a replica."),
    "launcher_replica_ready": ("gauge", ("replica",), "1: the replica gets requests."),
    "launcher_replica_losses": ("counter", ("replica",), "Times that a replica went down which was ready."),
    # Told by the launcher, of the engines and on the cards of its own machine; not where engines run elsewhere.
    "launcher_engine_ends": (
        "counter",
        ("replica", "cause"),
        "Ends of an engine that nobody asked for: exited, hung, or start (not well in time, or ended before).",
    ),
    "launcher_engine_restarts_left": ("gauge", ("replica",), "Restarts that the crash budget (restart.budget) allows."),
    "launcher_engine_given_up": ("gauge", ("replica",), "1: the engine is not started again."),
    "launcher_gpu_memory_used_bytes": ("gauge", ("gpu", "name"), "Memory of the card in use, by whomever."),
    "launcher_gpu_memory_total_bytes": ("gauge", ("gpu", "name"), "Memory of the card."),
    "launcher_gpu_utilization_ratio": ("gauge", ("gpu", "name"), "Share of the last second in which it computed."),
    # The gateway itself.
    "launcher_queued": ("gauge", (), "Requests that wait in the queue."),
    "launcher_queued_tokens": ("gauge", (), "Tokens, prompts and expected answers, that wait in the queue."),
    "launcher_connections": ("gauge", (), "Open client connections."),
    "launcher_draining": ("gauge", (), "1: no new requests are admitted."),
    "launcher_mode_info": ("gauge", ("mode",), "1 for the mode that is on."),
    "launcher_control_up": ("gauge", (), "1: the control app (/api) runs."),
    "launcher_access_log_dropped_lines": ("counter", (), "Lines of the access log that could not be written."),
    "launcher_spans": ("counter", ("outcome",), "Traced requests (gateway.tracing): sent to the collector, or lost."),
    "launcher_build_info": ("gauge", ("version", "compiled"), "Always 1; compiled is 1 where the gateway is."),
}


class Metrics:
    """The gateway's numbers. Written by the gateway's event loop only.

    ``readings`` yields what others count and is read when asked: gauges, and counters that have their own owner.
    """

    def __init__(self, readings: Callable[[], Iterable[Sample]]) -> None:
        self._readings = readings
        self._series: dict[Labels, Series] = {}
        self._keys: set[str] = set()
        self.tickets = dict.fromkeys(OUTCOMES, 0)
        self.requests: defaultdict[tuple[str, int], int] = defaultdict(int)
        self.refusals: defaultdict[str, int] = defaultdict(int)
        self.evictions: defaultdict[str, int] = defaultdict(int)
        self.rate_limits: defaultdict[Labels, int] = defaultdict(int)
        self.engine_failures: defaultdict[tuple[int, str], int] = defaultdict(int)
        self.retries: defaultdict[str, int] = defaultdict(int)
        self.resumes: defaultdict[str, int] = defaultdict(int)
        self.key_tokens: dict[str, list[int]] = {}
        self.prompt_error = self.prompt_counted = self.output_error = self.output_counted = 0
        self.client_disconnects = 0
        self.client_stalls = 0
        self.received_bytes = 0
        self.sent_bytes = 0
        self.media: defaultdict[str, int] = defaultdict(int)
        self.media_seconds: defaultdict[str, Histogram] = defaultdict(Histogram)
        self.durations: defaultdict[str, Histogram] = defaultdict(Histogram)
        self.first_bytes: defaultdict[int, Histogram] = defaultdict(Histogram)

    def series(self, length: str, mode: str, priority: str) -> Series:
        """The histograms of a length group (see ``length_label``), mode and priority; the same object each time."""
        labels = (length, mode, priority)
        found = self._series.get(labels)
        if found is None:
            found = self._series[labels] = Series()
        return found

    def all_series(self) -> Collection[Series]:
        """Those of every length group, mode and priority that has occurred."""
        return self._series.values()

    def served(self, key: str, prompt_tokens: int, output_tokens: int) -> None:
        """Adds up what a key has used. ``key`` is its name, never the key itself; '-' where there are none."""
        tokens = self.key_tokens.get(key)
        if tokens is None:
            tokens = self.key_tokens.setdefault(self._key_label(key), [0, 0])
        tokens[0] += prompt_tokens
        tokens[1] += output_tokens

    def compare(self, priced: tuple[float, float], counted: tuple[int, int]) -> None:
        """Takes down how far a price was from what the engine counted; both are (prompt, output) tokens."""
        self.prompt_error += abs(round(priced[0]) - counted[0])
        self.output_error += abs(round(priced[1]) - counted[1])
        self.prompt_counted += counted[0]
        self.output_counted += counted[1]

    def rate_limited(self, key: str, limit: str) -> None:
        """Counts a request over a key's rate; ``limit``: requests or tokens."""
        self.rate_limits[self._key_label(key), limit] += 1

    def _key_label(self, key: str) -> str:
        if key in self._keys:
            return key
        if len(self._keys) >= MAX_KEYS:
            return OTHER_KEYS
        self._keys.add(key)
        return key

    def text(self) -> bytes:
        """The exposition text of all metrics (CONTENT_TYPE)."""
        lines: dict[str, list[str]] = {name: [] for name in TABLE}
        for name, labels, value in self._values():
            lines[name].append(_line(name, labels, value))
        for name, labels, histogram in self._histograms():
            lines[name] += _histogram_lines(name, TABLE[name][1], labels, histogram)
        return "".join(_family(name, samples) for name, samples in lines.items()).encode()

    def _values(self) -> Iterator[Sample]:
        for (route, code), count in self.requests.items():
            yield "launcher_requests", (route, str(code)), count
        for (replica, stage), count in self.engine_failures.items():
            yield "launcher_engine_failures", (str(replica), stage), count
        for labels, count in self.rate_limits.items():
            yield "launcher_rate_limited", labels, count
        for name, counts in (
            ("launcher_tickets", self.tickets),
            ("launcher_refusals", self.refusals),
            ("launcher_evictions", self.evictions),
            ("launcher_retries", self.retries),
            ("launcher_stream_resumes", self.resumes),
            ("launcher_media", self.media),
        ):
            for label, count in counts.items():
                yield name, (label,), count
        for key, (prompt, output) in self.key_tokens.items():
            yield "launcher_key_tokens", (key, "prompt"), prompt
            yield "launcher_key_tokens", (key, "output"), output
        yield "launcher_estimate_error_tokens", ("prompt",), self.prompt_error
        yield "launcher_estimate_error_tokens", ("output",), self.output_error
        yield "launcher_counted_tokens", ("prompt",), self.prompt_counted
        yield "launcher_counted_tokens", ("output",), self.output_counted
        yield "launcher_client_disconnects", (), self.client_disconnects
        yield "launcher_client_stalls", (), self.client_stalls
        yield "launcher_received_bytes", (), self.received_bytes
        yield "launcher_sent_bytes", (), self.sent_bytes
        yield from self._readings()

    def _histograms(self) -> Iterator[tuple[str, Labels, Histogram]]:
        for labels, series in self._series.items():
            yield "launcher_time_to_first_token_seconds", labels, series.ttft
            yield "launcher_inter_token_latency_seconds", labels, series.itl
            yield "launcher_e2e_request_latency_seconds", labels, series.e2e
            yield "launcher_request_queue_time_seconds", labels, series.queue
        for route, histogram in self.durations.items():
            yield "launcher_request_duration_seconds", (route,), histogram
        for stage, histogram in self.media_seconds.items():
            yield "launcher_media_seconds", (stage,), histogram
        for replica, histogram in self.first_bytes.items():
            yield "launcher_engine_first_byte_seconds", (str(replica),), histogram


# The text: https://prometheus.io/docs/instrumenting/exposition_formats/, version 0.0.4.


def text_of(samples: Iterable[Sample]) -> bytes:
    """The exposition text of these alone, for who has figures of its own and no gateway."""
    lines: defaultdict[str, list[str]] = defaultdict(list)
    for name, labels, value in samples:
        lines[name].append(_line(name, labels, value))
    return "".join(_family(name, found) for name, found in lines.items()).encode()


def _line(name: str, labels: Labels, value: float) -> str:
    kind, names, _ = TABLE[name]
    suffix = "_total" if kind == "counter" else ""
    return f"{name}{suffix}{_braces(names, labels)} {float(value)!r}"


def _family(name: str, samples: list[str]) -> str:
    kind, _, text = TABLE[name]
    full = f"{name}_total" if kind == "counter" else name
    return "\n".join((f"# HELP {full} {text}", f"# TYPE {full} {kind}", *samples, ""))


def _histogram_lines(name: str, names: Labels, labels: Labels, histogram: Histogram) -> list[str]:
    counts = histogram.cumulative()
    start = name + "_bucket" + _braces(names, labels, open_end=True)
    lines = [f'{start}{le}"}} {count}.0' for le, count in zip(_bounds_text(histogram.bounds), counts, strict=True)]
    braces = _braces(names, labels)
    return [*lines, f"{name}_count{braces} {counts[-1]}.0", f"{name}_sum{braces} {histogram.total!r}"]


def _braces(names: Labels, labels: Labels, open_end: bool = False) -> str:
    """The labels in the names' order; with ``open_end`` up to the value of a bucket's le."""
    parts = [f'{name}="{_escaped(label)}"' for name, label in sorted(zip(names, labels, strict=True))]
    if open_end:
        return "{" + ",".join((*parts, 'le="'))
    return "{" + ",".join(parts) + "}" if parts else ""


def _escaped(label: str) -> str:
    return label.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


@cache
def _bounds_text(bounds: Bounds) -> list[str]:
    return [*map(repr, bounds), "+Inf"]
