"""What one replica has in hand, in tokens: our own books, exact, and checked against what is really on its way."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Capacity:
    """What one replica can take, as its engine was started."""

    batch_tokens: int = 2048  # the batch token budget of one step: vLLM's max_num_batched_tokens
    sequences: int = 256  # vLLM's max_num_seqs
    kv_tokens: int | None = None  # what its KV cache holds; None: not known, not counted


class Charge(Protocol):
    """What a request holds of its replica."""

    prefill_tokens: int  # prompt tokens to be computed
    is_prefilled: bool  # its first token has come, or must have
    output_tokens: int  # expected
    sequences: int
    kv_tokens: int  # prompt and expected answer


class Ledger:
    """One replica's books. Written by the dispatcher alone.

    ``prefill_tokens`` is the prompt work whose first token has not come: what decides how long the next request's first
    token takes. ``output_tokens`` is what the running answers are expected to come to, ``kv_tokens`` the room that
    prompts and answers take up at their end.
    """

    __slots__ = ("kv_tokens", "output_tokens", "prefill_tokens", "requests", "sequences")

    def __init__(self) -> None:
        self.prefill_tokens = self.output_tokens = self.kv_tokens = self.sequences = self.requests = 0

    def take(self, charge: Charge) -> None:
        self.prefill_tokens += charge.prefill_tokens
        self.output_tokens += charge.output_tokens
        self.kv_tokens += charge.kv_tokens
        self.sequences += charge.sequences
        self.requests += 1

    def prefilled(self, charge: Charge) -> None:
        self.prefill_tokens -= charge.prefill_tokens

    def free(self, charge: Charge) -> None:
        if not charge.is_prefilled:
            self.prefill_tokens -= charge.prefill_tokens
        self.output_tokens -= charge.output_tokens
        self.kv_tokens -= charge.kv_tokens
        self.sequences -= charge.sequences
        self.requests -= 1

    @property
    def work(self) -> int:
        """Tokens that the engine still has to compute, about."""
        return self.prefill_tokens + self.output_tokens

    def amounts(self) -> tuple[int, ...]:
        return self.prefill_tokens, self.output_tokens, self.kv_tokens, self.sequences, self.requests

    def differs(self, charges: Iterable[Charge]) -> bool:
        """Whether the books are not the sum of what is on its way. They are put right then; it is a bug of ours."""
        true = Ledger()
        for charge in charges:
            true.take(charge)
            if charge.is_prefilled:
                true.prefilled(charge)
        if true.amounts() == self.amounts():
            return False
        self.prefill_tokens, self.output_tokens, self.kv_tokens, self.sequences, self.requests = true.amounts()
        return True

    def __repr__(self) -> str:
        return f"<Ledger prefill={self.prefill_tokens} sequences={self.sequences} kv={self.kv_tokens}>"


class Caps:
    """How much of each one replica gets. ``scale`` moves the first two; 1.0 is as the profile has it."""

    __slots__ = ("_prefill", "_sequences", "kv_tokens", "prefill_tokens", "scale", "sequences")

    def __init__(self, prefill_tokens: int, sequences: int, kv_tokens: int | None) -> None:
        self._prefill, self._sequences = prefill_tokens, sequences
        self.kv_tokens = kv_tokens
        self.rescale(1.0)

    def rescale(self, scale: float) -> None:
        self.scale = scale
        self.prefill_tokens = max(1, round(self._prefill * scale))
        self.sequences = max(1, round(self._sequences * min(1.0, scale)))  # vLLM runs no more than its max_num_seqs

    def fits(self, ledger: Ledger, prefill_tokens: int, sequences: int, kv_tokens: int, room: float = 1.0) -> bool:
        """Whether a request may be sent. One that is larger than a cap goes when there is nothing else of its kind.

        ``room``: how many times the cap of prompt tokens may be used.
        """
        return (
            (ledger.prefill_tokens + prefill_tokens <= room * self.prefill_tokens or not ledger.prefill_tokens)
            and (ledger.sequences + sequences <= self.sequences or not ledger.sequences)
            and (self.kv_tokens is None or ledger.kv_tokens + kv_tokens <= self.kv_tokens or not ledger.kv_tokens)
        )

    def is_full(self, ledger: Ledger) -> bool:
        """Whether not even the smallest request may be sent."""
        return ledger.sequences >= self.sequences or ledger.prefill_tokens >= self.prefill_tokens

    def __repr__(self) -> str:
        return f"<Caps prefill={self.prefill_tokens} sequences={self.sequences} kv={self.kv_tokens}>"
