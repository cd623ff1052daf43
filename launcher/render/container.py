"""What a container of a profile is like: its places, which the Dockerfiles make, and what it needs of memory and time."""

from __future__ import annotations

import math

from launcher import __version__
from launcher.engine.nodes import uses_ray
from launcher.profile.model import Profile, VllmEngine
from launcher.profile.units import GIB, MIB

PROFILE = "/etc/launcher/profile.yaml"
READY_FILE = "/run/launcher/ready"
CACHES = "/var/cache/launcher"
MODELS = f"{CACHES}/huggingface"
STATE = "/var/lib/launcher"
PYTHON = "/opt/launcher/bin/python"
UID = 10001
OPEN_FILES = 65535  # what vLLM raises its own limit to, where it may
PORT = 8000

IMAGE = f"vllm-profile-launcher:{__version__}"
ENGINE_IMAGE = f"vllm-profile-launcher-engine:{__version__}"
ENGINE_CPU_IMAGE = f"vllm-profile-launcher-engine-cpu:{__version__}"
BITSANDBYTES_PLUGIN = "vllm-bnb-plugin>=0.0.3"  # as the extra bnb has it

NOTICE_S = 3  # how long an engine that is told to stop still takes requests, for gateways to hear of it
MARGIN_S = 15  # of a grace period above the waits that it covers: processes start, end and are reaped

# vLLM 0.32 refuses to start where these do not fit /dev/shm, of which Docker gives 64 MiB. One card is served without
# workers, unless engine.extra_args say otherwise; a CPU never is.
BROADCAST_RING = 10 * 16 * MIB  # the executor's queue to its workers
ANSWER_RING = 10 * 24 * MIB  # each worker's queue back
GROUP_RING = 6 * 4 * MIB  # the tensor parallel group's own
NCCL_ROOM = 256 * MIB  # a card: NCCL's buffers, where cards do not reach each other's memory
# Ray's object store, by which vLLM passes requests to its workers. Ray itself would take 30 % of the memory for it.
RAY_STORE = GIB

SLOW_LINE = 12.5e6  # bytes a second: 100 Mbit/s, for the first start's download
UNKNOWN_FETCH_S = 3600
SHORTEST_FETCH_S = 60  # the packaged model is converted within half a minute on two cores


def shm_bytes(profile: Profile) -> int:
    """/dev/shm of one engine, in whole GiB: vLLM's queues and NCCL's buffers. It is a limit, taken only as it is used."""
    engine = profile.engine
    workers = engine.tensor_parallel * engine.pipeline_parallel if isinstance(engine, VllmEngine) else 1
    nccl = NCCL_ROOM if profile.hardware.device == "cuda" else 0
    rings = BROADCAST_RING + GROUP_RING + (ANSWER_RING + nccl) * workers
    return math.ceil((rings + (RAY_STORE if uses_ray(profile) else 0)) / GIB) * GIB


def start_period_s(profile: Profile, weight_bytes: int | None) -> int:
    """How long one engine's first start may take: the download over a slow line, the load, the warm-up."""
    fetch = UNKNOWN_FETCH_S if weight_bytes is None else max(SHORTEST_FETCH_S, weight_bytes / SLOW_LINE)
    return math.ceil(fetch + profile.timeouts.start + profile.timeouts.warmup)


def engine_grace_s(profile: Profile) -> int:
    """From SIGTERM to SIGKILL for an engine: more than all that it waits for by itself."""
    timeouts = profile.timeouts
    return math.ceil(NOTICE_S + timeouts.drain + timeouts.stop + MARGIN_S)


def gateway_grace_s(profile: Profile) -> int:
    """From SIGTERM to SIGKILL for a gateway."""
    return math.ceil(profile.timeouts.drain + MARGIN_S)


def engine_packages(profile: Profile) -> tuple[str, ...]:
    """What the engine's image must have besides vLLM."""
    return (BITSANDBYTES_PLUGIN,) if profile.model.quantization == "bitsandbytes" else ()
