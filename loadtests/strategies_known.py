"""The strategies that are compared, each the profile with a few keys changed, and the loads that they get."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loadtests.failures import Failed
from loadtests.planned import plan_of
from loadtests.scenarios import MIXED, SCENARIOS

NEVER = "24h"


@dataclass(frozen=True)
class Strategy:
    """What is changed in the profile, and what that stands for. ``is_bare``: the engine is asked, past the gateway."""

    name: str
    what: str
    sets: tuple[str, ...] = ()
    is_bare: bool = False
    needs_pictures: bool = False


ALL = Strategy("all", "the profile as it is")
STRATEGIES: dict[str, Strategy] = {
    one.name: one
    for one in (
        ALL,
        Strategy("bare", "the same engine, asked past the gateway", is_bare=True),
        # How requests were batched before continuous batching, and what they reserved before paged attention.
        Strategy("no-batching", "one sequence at a time", ("engine.max_num_seqs=1", "admission.max_in_flight=1")),
        Strategy("at-most-8", "continuous batching of eight sequences at most", ("engine.max_num_seqs=8", "admission.max_in_flight=8")),
        Strategy("contiguous", "as many sequences as reserve model.max_len each in the KV cache", ("admission.max_in_flight={contiguous}",)),
        # The gateway's parts, left out one by one.
        Strategy("no-admission", "no cap on prompt work and sequences, no deadline; what the KV cache has no room for waits, shortest first", (
            "admission.max_prefill=1000000000", "admission.max_in_flight=100000", f"admission.deadline={NEVER}",
        )),
        Strategy("no-cap", "as much prompt work as comes; the caps on sequences and the KV cache stay", ("admission.max_prefill=1000000000",)),
        Strategy("no-order", "first come, first served", ("admission.ageing=1ms",)),
        Strategy("no-deadline", "nobody is refused for having waited", (f"admission.deadline={NEVER}",)),
        Strategy("window-always", "groups are always collected for 50 ms", ("admission.window=50ms", "admission.window_when=always")),
        Strategy("window-never", "groups are never collected", ("admission.window_when=never",)),
        Strategy("adaptive", "caps that move by what TTFT and ITL show", ("admission.adaptive=true",)),
        Strategy("no-image-budget", "pictures as they come", ("gateway.images.budget=original",), needs_pictures=True),
        Strategy("image-budget-324", "pictures of at most 324 tokens", ("gateway.images.budget={max_tokens: 324}",), needs_pictures=True),
        # The engine's.
        Strategy("no-prefix-cache", "equal beginnings are computed again", ("engine.prefix_caching=false",)),
        Strategy("no-chunked-prefill", "a prompt in one step, for which the batch token budget, and the cap that follows it, are model.max_len", (
            "engine.chunked_prefill=false", "engine.max_num_batched_tokens={max_len}",
        )),
        Strategy("eager", "no compilation", ("engine.compile=eager",)),
    )
}  # fmt: skip
PLANNED = ("contiguous", "max_len")  # names in braces, for which the plan has the value


@dataclass(frozen=True)
class Load:
    """So many requests a second (open loop), or so many users who wait for their answers (closed loop)."""

    amount: float
    is_open: bool

    def __str__(self) -> str:
        return f"{self.amount:g}/s" if self.is_open else f"{self.amount:g} users"


def named(only: str, scenario: str) -> list[str]:
    """The strategies to measure; the whole profile is always among them. Raises ValueError with a sentence."""
    has_pictures = any(SCENARIOS[name].pictures for name in dict(MIXED if scenario == "mixed" else [(scenario, 1)]))
    names = [name for name in only.split(",") if name]
    for name in names:
        if name not in STRATEGIES:
            raise ValueError(f"--only: {name!r} is none of {', '.join(STRATEGIES)}")
        if STRATEGIES[name].needs_pictures and not has_pictures:
            raise ValueError(f"--only: {name} changes nothing without pictures; take --scenario pictures or mixed")
    names = names or [name for name, one in STRATEGIES.items() if has_pictures or not one.needs_pictures]
    return list(dict.fromkeys([ALL.name, *names]))


def sharing(names: Sequence[str]) -> list[list[str]]:
    """The names, those together that need the same start."""
    starts: dict[tuple[str, ...], list[str]] = {}
    for name in names:
        starts.setdefault(STRATEGIES[name].sets, []).append(name)
    return list(starts.values())


def planned(profile: str, sets: Sequence[str]) -> dict[str, int]:
    """What the plan says that a strategy depends on. Raises Failed."""
    try:
        kv = plan_of(profile, sets)["kv"]
        # How many sequences of full length the KV cache holds: what was possible before its memory was paged.
        return {"contiguous": max(1, int(kv["requests_at_full_length"])), "max_len": int(kv["max_len"])}
    except (KeyError, TypeError):
        raise Failed("the plan does not say how many requests of full length fit") from None


def filled(sets: Sequence[str], known: dict[str, int]) -> list[str]:
    """The settings with the plan's figures in the places of their names."""
    for name, value in known.items():
        sets = [one.replace("{" + name + "}", str(value)) for one in sets]
    return list(sets)
