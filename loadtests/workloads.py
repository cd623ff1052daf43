"""What is asked, when, and how soon it must begin: seeded request mixes, the same for every target that they are sent to.

Pure: the same arguments give the same requests. Prompts share no prefix beyond what the chat template adds, so that no
engine gets one from its cache, and they have exactly the tokens that they are said to have.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

ID_RANGE = (1000, 7000)  # token ids for prompts of /v1/completions; every vocabulary has them, none is special


@dataclass(frozen=True)
class Kind:
    """One kind of request. ``slo_s``: the first token within so many seconds of the arrival is good; 0: not set yet."""

    name: str
    share: float
    prompt_tokens: tuple[int, int]  # evenly between, both included
    output_tokens: int
    slo_s: float = 0.0


WORKLOADS: dict[str, tuple[Kind, ...]] = {
    # The mix of the first H200 measurements; capacity there about 23 requests/s.
    "h200": (Kind("short", 0.7, (128, 128), 64, 1.0), Kind("long", 0.3, (4096, 4096), 64, 3.0)),
    # The same shape for a 135M model on two CPU cores; its limits are multiples of the unloaded TTFT.
    "cpu": (Kind("short", 0.7, (48, 80), 16), Kind("long", 0.3, (512, 1024), 16)),
}


@dataclass(frozen=True)
class Planned:
    """One request to come: ``at_s`` after the start."""

    number: int
    at_s: float
    kind: Kind
    prompt_tokens: int


def mix(kinds: Sequence[Kind], seed: int) -> Iterator[Planned]:
    """Requests of the mix without end, all at time 0."""
    rng = random.Random(seed)
    shares = [kind.share for kind in kinds]
    for number in itertools.count():
        kind = rng.choices(kinds, shares)[0]
        yield Planned(number, 0.0, kind, rng.randint(*kind.prompt_tokens))


def poisson(kinds: Sequence[Kind], rate: float, seconds: float, seed: int) -> list[Planned]:
    """Open-loop arrivals: ``rate`` a second in the mean, whatever becomes of the earlier ones."""
    clock, at_s = random.Random(f"arrivals {seed}"), 0.0
    planned: list[Planned] = []
    for request in mix(kinds, seed):
        at_s += clock.expovariate(rate)
        if at_s >= seconds:
            return planned
        planned.append(replace(request, at_s=at_s))
    raise AssertionError("mix() has no end")


def with_limits(kinds: Sequence[Kind], limits_s: dict[str, float]) -> tuple[Kind, ...]:
    """The kinds with ``slo_s`` by name."""
    return tuple(replace(kind, slo_s=limits_s.get(kind.name, kind.slo_s)) for kind in kinds)


@dataclass(frozen=True)
class Speech:
    """How prompts are said. ``text_seed`` differs from run to run, so that none finds its prompts in the prefix cache."""

    model: str
    api: str = "chat"  # or completions, with token ids
    words: tuple[str, ...] = ()  # for chat: each is one token, with the blank before it
    overhead: int = 0  # for chat: tokens that the template and the opening words add
    text_seed: int = 0

    @property
    def path(self) -> str:
        return "/v1/chat/completions" if self.api == "chat" else "/v1/completions"

    def body(self, planned: Planned) -> bytes:
        """The request's JSON. Always as many output tokens as asked for, so that engines' answers do not differ."""
        rng = random.Random(f"text {self.text_seed} {planned.number}")
        value: dict[str, Any] = {
            "model": self.model, "max_tokens": planned.kind.output_tokens, "ignore_eos": True, "temperature": 0,
            "stream": True, "stream_options": {"include_usage": True},
        }  # fmt: skip
        if self.api == "chat":
            if planned.prompt_tokens <= self.overhead:
                raise ValueError(
                    f"{planned.kind.name}: a chat with {self.model} has at least {self.overhead + 1} prompt tokens, "
                    f"not {planned.prompt_tokens}. Make the kind longer, or use the completions API."
                )
            content = " ".join((OPENING, *rng.choices(self.words, k=planned.prompt_tokens - self.overhead)))
            value["messages"] = [{"role": "user", "content": content}]
        else:
            value["prompt"] = [rng.randrange(*ID_RANGE) for _ in range(planned.prompt_tokens)]
        return json.dumps(value).encode()


OPENING = "Go on:"
# Candidates: which of them are one token is asked of the engine's tokenizer.
_COMMON = """
    the of and to in is that for it as was with be by on not he his but at are this have from or had an they which one
    you were all her she there would their we him been has when who will no more if out so up said what its about than
    into them can only other time new some could these two may first then do any like my now over such our man me even
    most made after also did many off before must well back through years much where your way down should because long
    each just state those people too little good world make very year still see own work men day get here old life both
    between being under never know same last another while us might great go come since against right came take used
    himself few house use place three high again found part small large set point line end name number group order case
    fact way hand side head water room night area money word story school family home book city country power war value
    file return import class string object list type key self data test path error result module code call function
    index format read write open close start stop run size length count user system process thread event loop socket
    server client request response status message body text char byte bit mask flag option default true false none
    add remove update delete copy move check find search match replace split join parse load save print input output
"""
WORDS = tuple(dict.fromkeys(_COMMON.split()))


def single_tokens(candidates: Sequence[str], token_texts: Sequence[str]) -> tuple[str, ...]:
    """The candidates that came out of a tokenizer whole, with their blank in front (Ġ or ▁)."""
    whole = {text[1:] for text in token_texts if text[:1] in ("Ġ", "▁", " ")}
    return tuple(word for word in candidates if word in whole)
