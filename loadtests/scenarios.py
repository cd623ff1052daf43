"""What users of each kind ask: seeded, so that two runs ask the same. Pure but for the pictures, which are drawn.

Lengths are in tokens. A prompt is made of common English words, nearly each of which is one token of every usual vocabulary;
what it came to, the engine's usage says. No two prompts begin alike and no two pictures are the same, so that no cache helps
but in dialogues; a ``nonce`` makes another load of the same lengths, so that none helps the second time either.
"""

from __future__ import annotations

import base64
import io
import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from PIL import Image, ImageDraw

from loadtests.workloads import WORDS

TURNS = 6  # of a dialogue, before the next one begins
KEPT_PICTURES = 4  # of each size: drawn once; each request has one of them in colours of its own
SIGMAS = 3.0  # beyond which no length is drawn: one in 700


@dataclass(frozen=True)
class Lengths:
    """Lognormal around a median; ``sigma`` 0: always the median. ``bimodal``: another one, and how often."""

    median: int
    sigma: float = 0.0
    other: Lengths | None = None
    other_share: float = 0.0

    def draw(self, rng: random.Random) -> int:
        if self.other is not None and rng.random() < self.other_share:
            return self.other.draw(rng)
        if not self.sigma:
            return self.median
        spread = max(-SIGMAS, min(SIGMAS, rng.gauss(0, 1)))
        return max(1, round(self.median * math.exp(self.sigma * spread)))

    @property
    def longest(self) -> int:
        mine = round(self.median * math.exp(self.sigma * SIGMAS))
        return mine if self.other is None else max(mine, self.other.longest)

    def scaled(self, factor: float) -> Lengths:
        other = None if self.other is None else self.other.scaled(factor)
        return replace(self, median=max(1, round(self.median * factor)), other=other)

    def __str__(self) -> str:
        mine = f"{self.median}" if not self.sigma else f"lognormal, median {self.median}, sigma {self.sigma:g}"
        if self.other is None:
            return mine
        return f"{1 - self.other_share:.0%} {mine}, {self.other_share:.0%} {self.other}"


@dataclass(frozen=True)
class Scenario:
    """One kind of user. ``pictures``: sizes, one of which each request has; ``turns``: of one conversation."""

    name: str
    prompt: Lengths
    output: Lengths
    pictures: tuple[tuple[int, int], ...] = ()
    turns: int = 1

    def scaled(self, factor: float) -> Scenario:
        """For a model with less context."""
        return replace(self, prompt=self.prompt.scaled(factor), output=self.output.scaled(factor))

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt with its answer, pictures left out."""
        return self.turns * (self.prompt.longest + self.output.longest)


SCENARIOS: dict[str, Scenario] = {
    one.name: one
    for one in (
        Scenario("chat", Lengths(100, 0.8), Lengths(120, 0.5)),
        Scenario("long", Lengths(2500, 0.3), Lengths(100, 0.4)),
        # The mix of the H200 measurements: short questions, and a long document now and then.
        Scenario("bimodal", Lengths(128, other=Lengths(4096), other_share=0.3), Lengths(64)),
        # As people's shared conversations are: most prompts short, a long tail.
        Scenario("sharegpt", Lengths(60, 1.3), Lengths(150, 0.8)),
        Scenario("fixed", Lengths(384), Lengths(64)),
        Scenario("pictures", Lengths(20, 0.4), Lengths(48, 0.3), ((1920, 1080), (1080, 2400), (1024, 576))),
        Scenario("dialogue", Lengths(40, 0.6), Lengths(80, 0.4), turns=TURNS),
    )
}
MIXED = (("chat", 0.6), ("long", 0.2), ("pictures", 0.2))


@dataclass
class Question:
    """One request to come: its scenario and its body, but for the model's name."""

    scenario: str
    prompt_tokens: int
    output_tokens: int
    messages: list[dict[str, Any]] = field(default_factory=list)

    def body(self, model: str, ignore_eos: bool) -> bytes:
        value: dict[str, Any] = {"model": model, "messages": self.messages, "max_tokens": self.output_tokens}
        value |= {"stream": True, "stream_options": {"include_usage": True}}
        if ignore_eos:
            value["ignore_eos"] = True
        return json.dumps(value).encode()


def questions(scenario: Scenario, seed: str, nonce: str = "") -> Iterator[Question]:
    """A user's requests without end. The same seed gives the same lengths, and with the same nonce the same prompts.

    A dialogue's answers are put in with ``answered``.
    """
    rng, own = random.Random(f"{scenario.name} {seed}"), random.Random(f"{scenario.name} {seed} {nonce}")
    messages: list[dict[str, Any]] = []
    turn = 0
    while True:
        if turn >= scenario.turns:
            messages, turn = [], 0
        turn += 1
        tokens = scenario.prompt.draw(rng)
        text = " ".join([f"{own.randrange(10**6)}:", *rng.choices(WORDS, k=max(1, tokens - 3))])
        content: Any = text
        if scenario.pictures:
            url = picture(rng.choice(scenario.pictures), rng.randrange(KEPT_PICTURES), own.randbytes(COEFFICIENTS))
            content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": text}]
        messages.append({"role": "user", "content": content})
        yield Question(scenario.name, tokens, scenario.output.draw(rng), messages)


def draw(scenario: Scenario) -> None:
    """Makes its pictures, before they are needed: each takes some tens of milliseconds."""
    for size in scenario.pictures:
        for seed in range(KEPT_PICTURES):
            drawn(size, seed)


def answered(question: Question, text: str) -> None:
    """The next turn of its dialogue has this answer before it."""
    question.messages.append({"role": "assistant", "content": text})


def mixed(names: Sequence[str], seed: str) -> Iterator[str]:
    """Which scenario comes next, by the shares of MIXED among ``names``."""
    rng = random.Random(f"mix {seed}")
    shares = dict(MIXED)
    weights = [shares.get(name, 0.0) for name in names]
    while True:
        yield rng.choices(names, weights)[0]


COEFFICIENTS = 15  # of the brightness' quantization table, those after the first
_TABLE_AT = 25  # where it begins in what Pillow writes: after SOI, APP0 and DQT's own head
_HEAD = 48  # bytes, a multiple of 3, so that the base64 of the rest stays the same


def picture(size: tuple[int, int], seed: int, letters: bytes) -> str:
    """A JPEG as a data URL, in shades that ``letters`` (COEFFICIENTS bytes) choose: nothing is encoded anew for it."""
    head, rest = drawn(size, seed)
    mine = bytearray(head)
    for at, letter in enumerate(letters, _TABLE_AT + 1):
        mine[at] += letter & 3
    return "data:image/jpeg;base64," + base64.b64encode(mine).decode() + rest


@cache
def drawn(size: tuple[int, int], seed: int) -> tuple[bytes, str]:
    """A JPEG's first _HEAD bytes and the base64 of the rest: soft colours and lines, as a camera makes them."""
    rng = random.Random(f"picture {size} {seed}")
    small = Image.frombytes("RGB", (24, 16), rng.randbytes(24 * 16 * 3)).resize(size, Image.Resampling.BICUBIC)
    grain = Image.effect_noise((size[0] // 2, size[1] // 2), 60).resize(size).convert("RGB")
    made = Image.blend(small, grain, 0.15)
    draw = ImageDraw.Draw(made)
    for _ in range(40):
        ends = [rng.randrange(size[axis % 2]) for axis in range(4)]
        draw.line(ends, fill=tuple(rng.randbytes(3)), width=rng.randrange(1, 9))
    file = io.BytesIO()
    made.save(file, "JPEG", quality=85)
    data = file.getvalue()
    assert data[_TABLE_AT - 5 : _TABLE_AT] == b"\xff\xdb\x00\x43\x00", "Pillow writes its tables elsewhere"
    return data[:_HEAD], base64.b64encode(data[_HEAD:]).decode()
