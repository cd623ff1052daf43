"""The overview's rows of what there is to give: admission and its limits, engines as the gateway sees them, the gateway."""

from __future__ import annotations

from launcher.render.panels import RATE, Panel, Query, Row, percentiles, rates, share, used

ADMISSION = Row(
    "Admission",
    (
        Panel(
            "Queue",
            "none",
            (Query("sum(launcher_queued{@})", "requests"),),
            "Requests that wait. With room in an engine nobody does.",
        ),
        Panel(
            "Tokens in the queue",
            "none",
            (Query("sum(launcher_queued_tokens{@})", "tokens"),),
            "Prompts and expected answers that wait (admission.max_queued_tokens).",
        ),
        Panel(
            "Prompt work in hand",
            "none",
            used("launcher_ledger_prefill_tokens", "launcher_limit_prefill_tokens"),
            "Prompt tokens sent to a replica whose first token has not come; the limit is admission.max_prefill.",
        ),
        Panel(
            "Sequences",
            "none",
            used("launcher_ledger_sequences", "launcher_limit_sequences"),
            "What each replica works on; the limit is admission.max_in_flight.",
        ),
        Panel(
            "KV cache in hand",
            "none",
            used("launcher_ledger_kv_tokens", "launcher_limit_kv_tokens"),
            "Tokens held, expected growth included; the limit is the plan's figure. vLLM's own count is on the engines' dashboard.",
        ),
        Panel(
            "Price error",
            "percentunit",
            share("launcher_estimate_error_tokens_total", "launcher_counted_tokens_total", "kind"),
            "How far the price of requests was from what engines counted. Over 50 %: admission.counting: exact.",
        ),
    ),
)

WORK = Row(
    "Work and engines",
    (
        Panel(
            "Tokens served",
            "none",
            rates("launcher_key_tokens_total", "kind"),
            "Prompt and output tokens a second, all keys.",
        ),
        Panel(
            "Tokens by key",
            "none",
            (Query(f"topk(10, sum by (key) (rate(launcher_key_tokens_total{{@}}{RATE})))", "{{key}}"),),
            "The ten busiest keys, by name; prompt and output tokens a second.",
        ),
        Panel(
            "Replicas",
            "none",
            (Query("launcher_replica_ready{@}", "{{replica}} on {{instance}}"),),
            "1: gets requests. 0: starts, has ended, or was drained.",
        ),
        Panel(
            "Engine failures",
            "reqps",
            rates("launcher_engine_failures_total", "replica, stage", "{{replica}}: {{stage}}"),
            "Connections to engines that failed, by how far they were: connect, head, body; or what the engine said of itself.",
        ),
        Panel(
            "Sent again and resumed",
            "reqps",
            (
                *rates("launcher_retries_total", "reason", "again: {{reason}}"),
                *rates("launcher_stream_resumes_total", "outcome", "stream: {{outcome}}"),
            ),
            "Requests sent again before their first byte, and streams whose engine failed: resumed elsewhere, or why not.",
        ),
        Panel(
            "Ends of engines",
            "none",
            (
                Query("sum by (replica, cause) (increase(launcher_engine_ends_total[1h]))", "{{replica}}: {{cause}}"),
                Query("launcher_engine_restarts_left", "{{replica}}: restarts left"),
            ),
            "Ends that nobody asked for within an hour, and what the crash budget still allows.",
        ),
    ),
)

GATEWAY = Row(
    "Pictures and the gateway itself",
    (
        Panel(
            "Pictures and clips",
            "cps",
            rates("launcher_media_total", "outcome"),
            "Shrunk to the budget, left as they came, or cut.",
        ),
        Panel(
            "Time for pictures",
            "s",
            percentiles("launcher_media_seconds", "stage"),
            "95th percentile a request: fetched, decoded, scaled, encoded; all includes the wait for a worker.",
        ),
        Panel(
            "Uploads kept",
            "bytes",
            (Query("sum(launcher_upload_bytes{@})", "memory"),),
            "Pictures sent ahead that are kept for the question to come.",
        ),
        Panel(
            "Connections",
            "none",
            (Query("sum(launcher_connections{@})", "open"),),
            "Client connections (gateway.max_connections).",
        ),
        Panel(
            "Clients that left or stalled",
            "cps",
            (
                Query(f"sum(rate(launcher_client_disconnects_total{{@}}{RATE}))", "left"),
                Query(f"sum(rate(launcher_client_stalls_total{{@}}{RATE}))", "read nothing"),
            ),
            "Left before the answer was complete, or were cut off after gateway.write_timeout.",
        ),
        Panel(
            "Bytes",
            "Bps",
            (
                Query(f"sum(rate(launcher_received_bytes_total{{@}}{RATE}))", "received"),
                Query(f"sum(rate(launcher_sent_bytes_total{{@}}{RATE}))", "sent"),
            ),
            "Bodies received from clients, and answers sent to them.",
        ),
    ),
)
