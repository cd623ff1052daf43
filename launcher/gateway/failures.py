"""What an engine's error answer tells, and whether another attempt may help. Pure.

A generation changes nothing outside the engine, so until its client has a byte it may be asked for again. What the
request itself is the reason for (4xx, and a 500 that says nothing of the engine's state) is passed on as it came.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from launcher.gateway.refusal import Refusal

BUSY_RETRY_S = 1.0  # vLLM's queue caps answer 503 without Retry-After; a step of the engine takes less
MEMORY_RETRY_S = 5.0  # memory comes back when running requests end
# torch's and vLLM's words; the last is what vLLM says of a request whose engine core has died.
_OUT_OF_MEMORY = re.compile(rb"out of memory|OutOfMemoryError|CUBLAS_STATUS_ALLOC_FAILED", re.IGNORECASE).search
_DEAD = re.compile(rb"EngineDeadError|EngineCore|CUDA error|The server had an error while processing").search


@dataclass(frozen=True, slots=True)
class Failure:
    """An engine's failure: its name in the metrics, and what the client is told where no attempt is left.

    ``refusal`` None: the engine's own answer.
    """

    stage: str
    refusal: Refusal | None = None


BUSY = Failure("busy")
DEAD = Failure("dead")
OUT_OF_MEMORY = Failure(
    "out_of_memory",
    Refusal(
        503,
        "engine_out_of_memory",
        "The engine ran out of memory with this request, twice. Try again when less is running, with fewer or smaller "
        "images, or lower engine.gpu_memory_utilization.",
        retry_after_s=MEMORY_RETRY_S,
    ),
)


def failure_of(status: int, body: bytes) -> Failure | None:
    """What an answer with a status from 500 tells; None: nothing that another attempt would change."""
    if _OUT_OF_MEMORY(body):
        return OUT_OF_MEMORY
    if status == 503:
        return BUSY
    if status in (502, 504) or (status == 500 and _DEAD(body)):
        return DEAD
    return None
