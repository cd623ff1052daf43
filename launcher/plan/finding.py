"""What a plan says beside its figures, and what its checks look at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from launcher.plan.memory import MemoryBudget, card_budget, cpu_budget, kv_bytes_per_request, kv_bytes_per_token
from launcher.plan.model_shape import ModelFacts, ModelShape, shape_of
from launcher.plan.settings import Settings, resolve
from launcher.profile.model import Profile, VllmEngine

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One sentence about the profile. ``key`` is the profile key it is about, ``remedy`` what to write instead."""

    severity: Severity
    code: str
    key: str
    message: str
    remedy: str = ""


@dataclass(frozen=True)
class Case:
    """A profile with all that follows from it: what every check is given."""

    profile: Profile
    facts: ModelFacts
    shape: ModelShape
    settings: Settings
    budgets: tuple[MemoryBudget, ...]
    machine_memory: int | None = None  # for device: cpu, where hardware.memory is not given

    @property
    def engine(self) -> VllmEngine:
        """The engine section, which is vLLM's wherever there is a case."""
        assert isinstance(self.profile.engine, VllmEngine)
        return self.profile.engine

    @property
    def tightest(self) -> MemoryBudget:
        """The budget of the pipeline stage with the least room for KV per token."""
        return min(self.budgets, key=lambda budget: budget.kv / max(1, self.token_bytes(budget.stage)))

    def token_bytes(self, stage: int = 0) -> int:
        """KV-cache bytes of a token on one card of a stage."""
        return kv_bytes_per_token(self.profile, self.shape, stage=stage)

    @property
    def kv_known(self) -> bool:
        """Whether the KV cache's size is known: it needs the card's memory, or the size given outright."""
        return self.tightest.visible is not None or self.engine.kv_cache_memory is not None

    @property
    def block_tokens(self) -> int:
        """Tokens in one block of the KV cache."""
        return 128 if self.profile.hardware.device == "cpu" else 16

    @property
    def kv_tokens(self) -> int:
        """Tokens in the KV cache of one replica, in whole blocks, each layer keeping all of them."""
        tokens = min(max(0, b.kv) // max(1, self.token_bytes(b.stage)) for b in self.budgets)
        return tokens // self.block_tokens * self.block_tokens

    def request_bytes(self, length: int) -> int:
        """KV-cache bytes on one card for one request of ``length`` tokens."""
        return kv_bytes_per_request(self.profile, self.shape, self.settings, length)

    @property
    def requests_at_full_length(self) -> float:
        """How many requests of max_len tokens the KV cache of one replica holds at once."""
        return max(0, self.tightest.kv) / max(1, self.request_bytes(self.settings.max_len))

    @property
    def longest_that_fits(self) -> int:
        """Longest request that the KV cache holds, in whole blocks; 0 when not even one block does."""
        low, high = 0, self.shape.longest // self.block_tokens
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (
                (middle, high)
                if self.request_bytes(middle * self.block_tokens) <= self.tightest.kv
                else (low, middle - 1)
            )
        return low * self.block_tokens

    @property
    def has_room(self) -> bool:
        """Whether vLLM would start: one request at full length fits the KV cache, and the whole fits the memory."""
        tightest = self.tightest
        fits = tightest.kv > 0 and self.request_bytes(self.settings.max_len) <= tightest.kv
        if tightest.visible is not None and tightest.requested is not None:
            return fits and tightest.requested <= tightest.visible - tightest.held
        return fits

    def changed(self, *, model: dict[str, Any] | None = None, engine: dict[str, Any] | None = None) -> Case:
        """The same case with other settings, for a remedy's figures. The changes are ours, so they are not validated."""
        profile = self.profile.model_copy(
            update={
                "model": self.profile.model.model_copy(update=model or {}),
                "engine": self.engine.model_copy(update=engine or {}),
            }
        )
        return make_case(profile, self.facts, self.machine_memory)


def make_case(profile: Profile, facts: ModelFacts, machine_memory: int | None = None) -> Case:
    """All that follows from a profile and what is known of its model. Raises UnknownShape."""
    shape = shape_of(facts, profile)
    settings = resolve(profile, shape)
    budgets: Sequence[MemoryBudget]
    if profile.hardware.device == "cpu":
        budgets = [cpu_budget(profile, shape, facts.weights, settings, profile.hardware.memory or machine_memory)]
    else:
        stages = range(min(settings.pipeline_parallel, shape.layers))
        budgets = [card_budget(profile, shape, facts.weights, settings, stage) for stage in stages]
    return Case(profile, facts, shape, settings, tuple(budgets), machine_memory)


Findings = Iterator[Finding]
