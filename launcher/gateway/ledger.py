"""What one replica has in hand, in tokens: our own books, exact, and checked against what is really on its way."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Capacity:
    """What one replica can take, as its engine was started."""

    batch_tokens: int = 2048  # the batch token budget of one step: vLLM's max_num_batched_tokens
    sequences: int = 256  # vLLM's max_num_seqs
    kv_tokens: int | None = None  # what its KV cache holds; None: not known, not counted
