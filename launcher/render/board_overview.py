"""The dashboard of a deployment as its clients and its operator see it: the gateway's metrics, and the objectives."""

from __future__ import annotations

from launcher.render.board_capacity import ADMISSION, GATEWAY, WORK
from launcher.render.panels import RATE, Board, Panel, Query, Row, Variable, percentiles, quantile, rates, stat

GLANCE = Row(
    "At a glance",
    (
        stat(
            "Good requests",
            "reqps",
            "sum(launcher:requests_good:rate5m)",
            "Goodput: requests a second that were served and, if streams, had their first token in time (rules.yml).",
        ),
        stat(
            "Share that is good",
            "percentunit",
            "1 - sum(launcher:requests_owed:rate5m - launcher:requests_good:rate5m) / sum(launcher:requests_owed:rate5m)",
            "Of the requests that were owed an answer in the last 5 minutes. The objective is 95 %.",
        ),
        stat(
            "Replicas ready",
            "none",
            "sum(launcher_replica_ready{@})",
            "Replicas that get requests. Each gateway counts for itself.",
        ),
        stat("In flight", "none", "sum(launcher_in_flight{@})", "Requests that engines work on."),
        stat("Waiting", "none", "sum(launcher_queued{@})", "Requests in the gateway's queue."),
        stat(
            "Alarms",
            "none",
            'count(ALERTS{alertname=~"Launcher.+",alertstate="firing"}) or vector(0)',
            "Alerts of rules.yml that fire.",
        ),
    ),
)

LATENCY = Row(
    "Latency",
    (
        Panel(
            "First token",
            "s",
            percentiles("launcher_time_to_first_token_seconds"),
            "TTFT of streams: from the whole request received to the first piece of its answer, queue included.",
        ),
        Panel(
            "Between tokens",
            "s",
            percentiles("launcher_inter_token_latency_seconds"),
            "ITL of streams: the mean gap between the pieces of an answer, one value a stream.",
        ),
        Panel(
            "Whole answer",
            "s",
            percentiles("launcher_e2e_request_latency_seconds"),
            "E2E latency of what was served, streamed or not.",
        ),
        Panel(
            "First token by prompt length",
            "s",
            percentiles("launcher_time_to_first_token_seconds", "length"),
            "95th percentile by group of prompt tokens: one limit for all would hide the short ones.",
        ),
        Panel(
            "Wait in the queue",
            "s",
            percentiles("launcher_request_queue_time_seconds"),
            "Of requests that were started; 0 where there was room at once.",
        ),
        Panel(
            "First byte from engines",
            "s",
            (Query(quantile(0.95, "launcher_engine_first_byte_seconds", "le, replica"), "replica {{replica}}"),),
            "95th percentile from sending to an engine to its answer's head: the engine's part, without the queue.",
        ),
        Panel(
            "First tokens over time",
            "s",
            (Query(f"sum by (le) (increase(launcher_time_to_first_token_seconds_bucket{{@}}{RATE}))", "{{le}}"),),
            "How many streams had their first token after how long.",
            "heatmap",
            12,
        ),
        Panel(
            "Objectives missed",
            "percentunit",
            (
                Query("launcher:goodput_error:ratio1h", "goodput, 1 h"),
                Query("launcher:ttft_error:ratio1h", "TTFT, 1 h"),
                Query("launcher:goodput_error:ratio3d", "goodput, 3 days"),
                Query("launcher:ttft_error:ratio3d", "TTFT, 3 days"),
            ),
            "Share of requests that were not good, and of streams that began too late. 5 % are allowed; alerts go by these.",
            width=12,
        ),
    ),
)

REQUESTS = Row(
    "Requests",
    (
        Panel(
            "Requests by outcome",
            "reqps",
            rates("launcher_tickets_total", "outcome"),
            "Inference: served, refused at arrival, evicted from the queue, cancelled by the client, failed.",
        ),
        Panel(
            "Refusals by reason",
            "reqps",
            rates("launcher_refusals_total", "reason"),
            "Refused before the queue. queue_full and deadline_unreachable: too much is asked; rate_…: a key's own limit.",
        ),
        Panel(
            "Evictions by reason",
            "reqps",
            rates("launcher_evictions_total", "reason"),
            "Taken out of the queue: deadline_passed where engines were slower than expected.",
        ),
        Panel(
            "Answers by status",
            "reqps",
            rates("launcher_requests_total", "code"),
            "HTTP status of everything that ended, pages included; 499: the client left.",
        ),
        Panel(
            "Goodput",
            "reqps",
            (
                Query("sum(launcher:requests_owed:rate5m)", "owed an answer"),
                Query("sum(launcher:requests_good:rate5m)", "good"),
            ),
            "What lies between the lines was refused, evicted, failed or late.",
        ),
        Panel(
            "Over the rate of their key",
            "reqps",
            (
                Query(
                    f"topk(10, sum by (key, limit) (rate(launcher_rate_limited_total{{@}}{RATE})))",
                    "{{key}}, {{limit}}",
                ),
            ),
            "Requests over the limit of requests or tokens a minute that their key has.",
        ),
    ),
)

OVERVIEW = Board(
    uid="launcher-overview",
    title="Launcher: overview",
    description="A deployment as its clients and its operator see it.",
    variables=(Variable("gateway", "launcher_build_info", "instance"),),
    chosen='instance=~"$gateway"',
    rows=(GLANCE, LATENCY, REQUESTS, ADMISSION, WORK, GATEWAY),
)
