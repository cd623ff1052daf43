"""The one table from the profile's keys to vLLM's flags, with the versions that know each flag and each value.

Versions were read from vLLM's own source, 0.24.0 to 0.33.0 (engine/arg_utils.py, the config classes, envs.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from launcher.profile.model import Profile

Release = tuple[int, int]

OLDEST: Release = (0, 24)
NEWEST: Release = (0, 33)


@dataclass(frozen=True)
class Span:
    """The releases that know something, both ends included; None: still known in the newest."""

    since: Release = OLDEST
    until: Release | None = None

    def __contains__(self, release: object) -> bool:
        return isinstance(release, tuple) and self.since <= release and (self.until is None or release <= self.until)

    def __str__(self) -> str:
        if self.until is None:
            return f"vLLM {_dotted(self.since)} and newer"
        return f"vLLM {_dotted(self.since)} to {_dotted(self.until)}"


ALWAYS = Span()


@dataclass(frozen=True)
class FlagRow:
    """One key of the profile and how it is written for vLLM. ``write`` gives the arguments for a value."""

    key: str
    flag: str
    write: Callable[[str, Any], list[str]]
    unset: tuple[Any, ...] = (None,)  # values that leave the choice to vLLM: no argument is written
    span: Span = ALWAYS


def as_value(flag: str, value: Any) -> list[str]:
    return [flag, str(value)]


def as_json(flag: str, value: Any) -> list[str]:
    return [flag, json.dumps(value, separators=(",", ":"))]


def as_switch(flag: str, value: Any) -> list[str]:
    return [flag] if value else [f"--no-{flag[2:]}"]


def as_parser(flag: str, value: Any) -> list[str]:
    """A tool parser does nothing in vLLM unless automatic tool choice is allowed too."""
    return [flag, str(value), "--enable-auto-tool-choice"]


def as_media_limits(flag: str, value: Any) -> list[str]:
    """No images and no videos: the vision encoder is not loaded. vLLM calls --language-model-only the same as limits of
    0, but only the former is in the key of its compile cache: with the latter a start may load what a start with images
    has compiled, and dies (vllm-project/vllm issue 50891; seen with 0.24, and 0.32's source has the same key)."""
    if value == {"image": 0, "video": 0}:
        return ["--language-model-only"]
    return as_json(flag, value)


def as_compile(flag: str, value: Any) -> list[str]:
    """eager: no graph of any kind. full: the highest level (0.24 to 0.33: the same as vLLM's default, -O2, so far)."""
    return ["--enforce-eager"] if value == "eager" else [flag, "3"]


def as_whole_seconds(flag: str, value: Any) -> list[str]:
    return [flag, str(-int(-value // 1))]  # rounded up: vLLM takes whole seconds, and to end early would cut streams


def as_url(flag: str, value: Any) -> list[str]:
    return [flag, value.url]


TABLE: tuple[FlagRow, ...] = (
    FlagRow("model.served_name", "--served-model-name", as_value),
    FlagRow("model.dtype", "--dtype", as_value, unset=("auto",)),
    FlagRow("model.quantization", "--quantization", as_value),
    FlagRow("model.load_format", "--load-format", as_value, unset=("auto",)),
    FlagRow("model.max_len", "--max-model-len", as_value),
    FlagRow("model.hf_overrides", "--hf-overrides", as_json, unset=({},)),
    FlagRow("model.trust_remote_code", "--trust-remote-code", as_switch, unset=(False,)),
    FlagRow("model.chat_template", "--chat-template", as_value),
    FlagRow("model.chat_template_kwargs", "--default-chat-template-kwargs", as_json, unset=({},)),
    FlagRow("model.template.content_format", "--chat-template-content-format", as_value, unset=("auto",)),
    FlagRow("model.reasoning_parser", "--reasoning-parser", as_value),
    FlagRow("model.tool_parser", "--tool-call-parser", as_parser),
    FlagRow("model.images_per_prompt", "--limit-mm-per-prompt", as_media_limits),  # see command.media_limits
    FlagRow("model.image_longest_edge", "--mm-processor-kwargs", as_json),  # the value: see command.processor_kwargs
    FlagRow("engine.tensor_parallel", "--tensor-parallel-size", as_value, unset=(1,)),
    FlagRow("engine.pipeline_parallel", "--pipeline-parallel-size", as_value, unset=(1,)),
    FlagRow("engine.distributed", "--distributed-executor-backend", as_value, unset=("mp",)),  # mp: see nodes.py
    FlagRow("engine.max_num_batched_tokens", "--max-num-batched-tokens", as_value),
    FlagRow("engine.max_num_seqs", "--max-num-seqs", as_value),
    FlagRow("engine.chunked_prefill", "--enable-chunked-prefill", as_switch),
    FlagRow("engine.prefix_caching", "--enable-prefix-caching", as_switch),
    FlagRow("engine.gpu_memory_utilization", "--gpu-memory-utilization", as_value),
    FlagRow("engine.kv_cache_memory", "--kv-cache-memory-bytes", as_value),
    FlagRow("engine.kv_cache_dtype", "--kv-cache-dtype", as_value, unset=("auto",)),
    FlagRow("engine.compile", "--optimization-level", as_compile, unset=("auto",)),
    FlagRow("timeouts.drain", "--shutdown-timeout", as_whole_seconds),
    FlagRow("gateway.tracing", "--otlp-traces-endpoint", as_url),  # see also command.tracing_env
)

# Keys of ModelSection and VllmEngine that no row writes, and who reads them instead.
HANDLED_ELSEWHERE: dict[str, str] = {
    "model.id": "downloaded by weights.py; vLLM gets the folder",
    "model.revision": "used by the download in weights.py",
    "model.path": "the model argument itself",
    "model.packaged": "turned into a folder by weights.py; vLLM gets that",
    "model.videos_per_prompt": "written together with model.images_per_prompt",
    "model.template.image_first": "done in the gateway, which orders the parts of a message",
    "model.template.number_images": "done in the gateway, which numbers the images of a request",
    "model.template.stop": "done in the gateway, which adds them to what a request stops at",
    "model.template.strip": "done in the gateway, which takes the residue out of answers",
    "engine.kind": "tells vllm from external",
    "engine.replicas": "one process each; placement tells its cards",
    "engine.nodes": "written by nodes.py, together with this host's place among them",
    "engine.env": "added to the environment by command.py",
    "engine.extra_args": "put last by command.py",
    "engine.python": "the program that is started",
}

# Values that not every release knows: (flag, value) → releases. None: no release from 0.24 on, with what to do instead.
VALUES: dict[tuple[str, str], Span | None] = {
    ("--quantization", "bitsandbytes"): Span(until=(0, 27)),
    ("--load-format", "bitsandbytes"): Span(until=(0, 27)),
    ("--quantization", "nvfp4_per_token"): Span(since=(0, 26)),
    ("--quantization", "gguf"): None,
    ("--load-format", "gguf"): None,
}
# Plug-ins that bring a value to every release.
PLUGIN_OF: dict[str, str] = {"bitsandbytes": "vllm-bnb-plugin", "gguf": "vllm-gguf-plugin"}
INSTEAD: dict[str, str] = {
    "bitsandbytes": "Install the plug-in beside vLLM (`make up` does; by hand: pip install vllm-bnb-plugin), or take an AWQ or GPTQ copy.",
    "gguf": "Leave the key out: the launcher turns a .gguf file into a model folder itself (model.path: file.gguf).",
}

# What keeps vLLM from fetching URLs: see media_urls.py, which writes the flag unless extra_args gives it. Both are in the
# source of 0.24.0 and of 0.32.0, the same; by their pull requests (vllm-project/vllm 25783 and 26035) since 0.11.
MEDIA_DOMAINS = "--allowed-media-domains"
MEDIA_REDIRECTS = "VLLM_MEDIA_URL_ALLOW_REDIRECTS"

# Environment variables that the launcher sets, and the releases that read them.
ENV_SPANS: dict[str, Span] = {
    "VLLM_NO_USAGE_STATS": ALWAYS,
    "VLLM_LOGGING_COLOR": ALWAYS,
    "VLLM_API_KEY": ALWAYS,
    "VLLM_CPU_KVCACHE_SPACE": ALWAYS,
    MEDIA_REDIRECTS: ALWAYS,
    "VLLM_ENABLE_STARTUP_PLAN": Span(since=(0, 26)),
}

# Flags that extra_args may not hold, since they would take the engine out of the launcher's hands, and why.
RESERVED: dict[str, str] = {
    "--model": "the profile's model section names the model",
    "--host": "engines listen on 127.0.0.1 only; gateway.listen says where clients connect",
    "--port": "the launcher gives each replica a port of its own; gateway.listen says where clients connect",
    "--uds": "the gateway and the supervisor reach engines over TCP on 127.0.0.1",
    "--api-key": "arguments show in ps to every user; each start has a key of its own, or give VLLM_API_KEY in engine.env",
    "--root-path": "the gateway expects the engine's routes at /v1",
    "--headless": "a headless engine answers no requests, so it could never become ready",
    "--nnodes": "engine.nodes says over how many hosts a replica runs",
    "--node-rank": "`launcher up --node-rank` says which host this is",
    "--master-addr": "`launcher up --head` says where the first host is",
    "--master-port": "`launcher up --head ADDRESS:PORT` says where the first host is",
    "--grpc": "the gateway speaks HTTP to the engine",
    "--config": "a second file of settings would hide them from the plan and from the checks: write them in the profile",
    "--ssl-keyfile": "the gateway speaks plain HTTP to engines on 127.0.0.1",
    "--ssl-certfile": "the gateway speaks plain HTTP to engines on 127.0.0.1",
    "--ssl-ca-certs": "the gateway speaks plain HTTP to engines on 127.0.0.1",
    "--ssl-cert-reqs": "the gateway speaks plain HTTP to engines on 127.0.0.1",
    "--ssl-ciphers": "the gateway speaks plain HTTP to engines on 127.0.0.1",
    "--enable-ssl-refresh": "the gateway speaks plain HTTP to engines on 127.0.0.1",
    "--data-parallel-size": "a replica has tensor_parallel × pipeline_parallel cards and no more; engine.replicas runs several",
    "--api-server-count": "the gateway keeps count of each engine's requests; more servers behind one port would hide them",
    "--help": "vLLM would print its help and exit",
    "--version": "vLLM would print its version and exit",
}

# Environment variables that engine.env may not hold, and why.
RESERVED_ENV: dict[str, str] = {
    "CUDA_VISIBLE_DEVICES": "each replica is given its own cards; set it outside, for the launcher, to keep cards back",
    "CUDA_DEVICE_ORDER": "cards are numbered by PCI bus, as nvidia-smi numbers them",
    "VLLM_CPU_KVCACHE_SPACE": "it would override engine.kv_cache_memory",
}

# Other spellings of flags above that vLLM takes (engine/arg_utils.py, the same from 0.24 to 0.33).
SHORT: dict[str, str] = {
    "-tp": "--tensor-parallel-size",
    "-pp": "--pipeline-parallel-size",
    "-dp": "--data-parallel-size",
    "-q": "--quantization",
    "-asc": "--api-server-count",
    "-n": "--nnodes",
    "-r": "--node-rank",
    "-h": "--help",
}


def value_of(profile: Profile, key: str) -> Any:
    """The profile's value under a dotted key, such as ``model.template.content_format``."""
    value: Any = profile
    for part in key.split("."):
        value = getattr(value, part)
    return value


def why_unknown(row: FlagRow, value: Any, release: Release, plugins: Sequence[str] = ()) -> tuple[str, str] | None:
    """(sentence, hint) if ``release`` with ``plugins`` does not know the flag or this value of it; None if it does."""
    if release not in row.span:
        return f"{row.key}: {row.flag} is known to {row.span} only", ""
    if PLUGIN_OF.get(str(value)) in plugins:
        return None
    span = VALUES.get((row.flag, str(value)), ALWAYS)
    if span is None:
        return f"{row.key}: no vLLM from {_dotted(OLDEST)} on knows {row.flag} {value}", INSTEAD.get(str(value), "")
    if release not in span:
        return f"{row.key}: {row.flag} {value} is known to {span} only", INSTEAD.get(str(value), "")
    return None


def _dotted(release: Release) -> str:
    return f"{release[0]}.{release[1]}"
