"""Reads an engine's progress from its own log: what it is doing, how far, and the figures that it tells on the way.

One table of patterns, from vLLM 0.24 to 0.33 (sources: tests/unit/engine/test_stages.py names file and line).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Facts = Mapping[str, float]
Made = tuple[str, float | None, dict[str, float]]  # text, share done, facts


@dataclass(frozen=True)
class Stage:
    """A step of the start. ``fraction`` is the share done where the log tells, ``facts`` what it measured.

    Facts: kv_tokens, kv_gib (of one card, or of the replica on the CPU), weights_gib (of one card), max_concurrency
    (requests of full length at once), graphs_gib, load_s, start_s.
    """

    name: str
    text: str
    fraction: float | None = None
    facts: Facts = field(default_factory=dict)

    def __str__(self) -> str:
        return self.text


def stage_of(line: str) -> Stage | None:
    """The stage that ``line`` of an engine's log tells of, or None for the many that tell of none."""
    text = plain(line)
    for name, pattern, make in _TABLE:
        if found := pattern.search(text):
            sentence, fraction, facts = make(found)
            return Stage(name, sentence, fraction, facts)
    return None


def plain(line: str) -> str:
    """The message of a log line: no colours, no ``(EngineCore pid=7) INFO 11-21 20:22:57 [core.py:402]`` before it."""
    return body(line).strip()


def body(line: str) -> str:
    """As `plain`, with the indentation kept: it tells a traceback's source lines from its message."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip()
    return re.sub(r"^(?:\([^()]*pid=\d+\) )?(?:[A-Z]+ \d\d-\d\d \d\d:\d\d:\d\d (?:\[[^\]]+\] ?)+)?", "", text)


def _says(text: str) -> Callable[[re.Match[str]], Made]:
    return lambda found: (text, None, {})


def _number(text: str) -> float:
    return float(text.replace(",", ""))


def _shards(found: re.Match[str]) -> Made:
    done, total = int(found["done"]), int(found["total"])
    return f"loading weights {done}/{total}", done / total if total else None, {}


def _graphs(found: re.Match[str]) -> Made:
    percent = int(found["percent"])
    return f"capturing CUDA graphs {percent} %", percent / 100, {}


def _weights(found: re.Match[str]) -> Made:
    gib = _number(found["gib"])
    return f"weights: {gib:.2f} GiB", 1.0, {"weights_gib": gib, "load_s": _number(found["s"])}


def _kv_tokens(found: re.Match[str]) -> Made:
    facts = {"kv_tokens": _number(found["tokens"])}
    if found["times"]:
        facts["max_concurrency"] = _number(found["times"])
    return f"KV cache: {found['tokens']} tokens", None, facts


def _concurrency(found: re.Match[str]) -> Made:
    return f"KV cache: {found['times']} requests of full length", None, {"max_concurrency": _number(found["times"])}


def _kv_memory(found: re.Match[str]) -> Made:
    gib = _number(found["gib"])
    return f"KV cache: {gib:.2f} GiB", None, {"kv_gib": gib}


def _captured(found: re.Match[str]) -> Made:
    return f"CUDA graphs: {found['gib']} GiB", 1.0, {"graphs_gib": _number(found["gib"])}


def _started(found: re.Match[str]) -> Made:
    return f"engine ready after {_number(found['s']):.0f} s", 1.0, {"start_s": _number(found["s"])}


# name, pattern, what it says; the first that is found decides.
_TABLE: tuple[tuple[str, re.Pattern[str], Callable[[re.Match[str]], Made]], ...] = tuple(
    (name, re.compile(pattern), make)
    for name, pattern, make in (
        ("importing", r"^non-default args: ", _says("reading the model's config")),
        ("starting", r"Initializing a V1 LLM engine \(", _says("starting the engine")),
        ("loading", r"Starting to load model ", _says("loading weights")),
        ("loading", r"(?:shards|Streamer): +\d+% Completed \| (?P<done>\d+)/(?P<total>\d+)", _shards),
        ("loading", r"Loading weights took (?P<s>[\d.]+) seconds", _says("weights loaded")),
        ("loading", r"Model loading took (?P<gib>[\d.]+) GiB (?:memory )?and (?P<s>[\d.]+) seconds", _weights),
        ("compiling", r"Using cache directory: .* for vLLM's torch\.compile", _says("compiling")),
        ("compiling", r"Dynamo bytecode transform time: ", _says("compiling")),
        ("compiling", r"Compiling a graph for compile range ", _says("compiling")),
        ("compiling", r"Directly load the compiled graph\(s\)", _says("compiled code taken from the cache")),
        ("compiling", r"torch\.compile (?:took|takes) [\d.]+ s", _says("compiled")),
        ("compiling", r"Warming up model for the compilation", _says("compiling")),
        ("profiling", r"Applying persisted startup plan ", _says("memory plan of an earlier start taken over")),
        ("profiling", r"Encoder cache will be initialized ", _says("profiling memory (vision encoder)")),
        ("profiling", r"Profiling CUDA graph memory: ", _says("profiling memory")),
        ("profiling", r"Initial profiling/warmup run took ", _says("profiling memory")),
        ("profiling", r"Warming up done\.", _says("warmed up")),
        ("cache", r"Available KV cache memory: (?P<gib>[\d.]+) GiB", _kv_memory),
        ("cache", r"reserved (?P<gib>[\d.]+) GiB memory for KV Cache as specified", _kv_memory),
        ("cache", r"(?:Explicitly|Auto) set \((?P<gib>[\d.]+)/[\d.]+\) GiB for KV cache", _kv_memory),
        (
            "cache",
            r"KV cache size: (?P<tokens>[\d,]+) tokens(?:, Maximum concurrency for [\d,]+ tokens per request: (?P<times>[\d.]+)x)?",
            _kv_tokens,
        ),
        ("cache", r"Maximum concurrency for [\d,]+ tokens per request: (?P<times>[\d.]+)x", _concurrency),
        ("tuning", r"Running FlashInfer autotune ", _says("tuning kernels")),
        ("capturing", r"Capturing CUDA graphs[^:]*: +(?P<percent>\d+)%", _graphs),
        ("capturing", r"Graph capturing finished in \d+ secs, took (?P<gib>-?[\d.]+) GiB", _captured),
        ("starting", r"init engine \([^)]*\) took (?P<s>[\d.]+) s", _started),
        ("serving", r"Starting vLLM (?:API )?server ", _says("starting the HTTP server")),
        ("serving", r"^(?:INFO: +)?Application startup complete\.", _says("HTTP server up")),
    )
)
