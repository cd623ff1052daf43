"""The dashboards of what works behind the gateway: the engines, by vLLM's own metrics, and the machine with its cards."""

from __future__ import annotations

from launcher.render.panels import RATE, Board, Panel, Query, Row, Variable, percentiles, rates, share

VLLM = 'instance=~"$engine",model_name=~"$model"'

SCHEDULER = Row(
    "Scheduler and KV cache",
    (
        Panel(
            "Sequences",
            "none",
            (
                Query("vllm:num_requests_running{@}", "{{instance}} runs"),
                Query("vllm:num_requests_waiting{@}", "{{instance}} waits"),
            ),
            "In the engine's batch, and waiting inside the engine. The gateway's queue is in front: many here mean that its limits are too high.",
        ),
        Panel(
            "KV cache",
            "percentunit",
            (Query("vllm:kv_cache_usage_perc{@}", "{{instance}}"),),
            "Share of the KV cache that is in use. Near 100 % sequences are preempted.",
        ),
        Panel(
            "Preemptions",
            "cps",
            rates("vllm:num_preemptions_total", "instance"),
            "Sequences thrown out for want of KV cache, to be computed again. 0 while the gateway's ledger is right.",
        ),
        Panel(
            "Prefix cache hits",
            "percentunit",
            share("vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total", "instance"),
            "Share of prompt tokens that did not have to be computed.",
        ),
        Panel(
            "Picture cache hits",
            "percentunit",
            share("vllm:mm_cache_hits_total", "vllm:mm_cache_queries_total", "instance"),
            "Share of pictures, clips and videos that were known already.",
        ),
        Panel(
            "Waiting, by reason",
            "none",
            (Query("sum by (reason) (vllm:num_requests_waiting_by_reason{@})", "{{reason}}"),),
            "capacity: for room in the batch or the cache; deferred: for something that passes.",
        ),
    ),
)

TOKENS = Row(
    "Work",
    (
        Panel("Tokens generated", "none", rates("vllm:generation_tokens_total", "instance"), "Output tokens a second."),
        Panel(
            "Prompt tokens",
            "none",
            rates("vllm:prompt_tokens_total", "instance"),
            "Prompt tokens a second, cached ones included.",
        ),
        Panel(
            "Tokens a step",
            "none",
            share("vllm:iteration_tokens_total_sum", "vllm:iteration_tokens_total_count", "instance"),
            "Mean size of an engine step; the most is engine.max_num_batched_tokens.",
        ),
        Panel(
            "Requests by end",
            "reqps",
            rates("vllm:request_success_total", "finished_reason"),
            "stop, length, abort (the client left), error, repetition.",
        ),
        Panel(
            "Rejected by the engine",
            "reqps",
            rates("vllm:admission_rejections_total", "reason"),
            "By vLLM's own queue limits. The gateway refuses earlier and with Retry-After: this should stay at 0.",
        ),
        Panel(
            "Draft tokens accepted",
            "percentunit",
            share("vllm:spec_decode_num_accepted_tokens_total", "vllm:spec_decode_num_draft_tokens_total", "instance"),
            "Only with speculative decoding.",
        ),
    ),
)

STAGES = Row(
    "Where the time goes",
    (
        Panel(
            "First token, in the engine",
            "s",
            percentiles("vllm:time_to_first_token_seconds"),
            "Without the gateway's queue: the difference to the overview's is the wait there.",
        ),
        Panel(
            "Between tokens",
            "s",
            percentiles("vllm:inter_token_latency_seconds"),
            "Gap between two tokens: one value a token.",
        ),
        Panel(
            "Whole request",
            "s",
            percentiles("vllm:e2e_request_latency_seconds"),
            "From its arrival at the engine to its end.",
        ),
        Panel(
            "Queue in the engine", "s", percentiles("vllm:request_queue_time_seconds"), "Waiting for the first step."
        ),
        Panel(
            "Prefill", "s", percentiles("vllm:request_prefill_time_seconds"), "From the first step to the first token."
        ),
        Panel("Decode", "s", percentiles("vllm:request_decode_time_seconds"), "From the first token to the last."),
    ),
)

ENGINES = Board(
    uid="launcher-engines",
    title="Launcher: engines",
    description="vLLM's own metrics, by engine.",
    variables=(
        Variable("engine", "vllm:num_requests_running", "instance"),
        Variable("model", "vllm:num_requests_running", "model_name"),
    ),
    chosen=VLLM,
    rows=(SCHEDULER, TOKENS, STAGES),
)

CARD = "{{gpu}} ({{name}}) of {{instance}}"

CARDS = Row(
    "Cards",
    (
        Panel(
            "Memory in use",
            "percentunit",
            (Query("launcher_gpu_memory_used_bytes{@} / launcher_gpu_memory_total_bytes{@}", CARD),),
            "By whomever. vLLM claims its share at the start (engine.gpu_memory_utilization), so the line should be flat.",
        ),
        Panel(
            "Growth of memory",
            "Bps",
            (Query("deriv(launcher_gpu_memory_used_bytes{@}[30m])", CARD),),
            "Bytes a second over half an hour. A line that stays above 0 is a leak.",
        ),
        Panel(
            "Work",
            "percentunit",
            (Query("launcher_gpu_utilization_ratio{@}", CARD),),
            "Share of the last second in which the card computed something; says nothing of how much.",
        ),
    ),
)

PROCESSES = Row(
    "Engine processes",
    (
        Panel(
            "Main memory",
            "bytes",
            (Query('process_resident_memory_bytes{job="launcher-engine",@}', "{{instance}}"),),
            "Of vLLM's API server; its engine core and workers are processes of their own and are not in it.",
            width=12,
        ),
        Panel(
            "CPU",
            "none",
            (Query(f'rate(process_cpu_seconds_total{{job="launcher-engine",@}}{RATE})', "{{instance}}"),),
            "Cores that vLLM's API server uses. Near 1: it cannot keep up with streams.",
            width=12,
        ),
    ),
)

MACHINE = Board(
    uid="launcher-machine",
    title="Launcher: machine",
    description="The cards, as the launcher beside the engines sees them, and the engines' processes.",
    variables=(Variable("machine", 'up{job=~"launcher-.+"}', "instance"),),
    chosen='instance=~"$machine"',
    rows=(CARDS, PROCESSES),
)
