"""What a request costs, in tokens: its text by a learnt rate or counted, pictures exactly, its answer by what is usual."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from launcher.gateway import asked as ask
from launcher.gateway.asked import MOST_TOKENS, SHAPES, UPLOADS, Shape
from launcher.gateway.cutting import Body
from launcher.gateway.learning import Answers, Features, TextRate, TextRates
from launcher.gateway.media.costs import Budgets
from launcher.gateway.pictures import Size
from launcher.gateway.prefix import BLOCK_BYTES, TOKEN_BYTES, Chain, Segment, make_chain
from launcher.gateway.prompts import SOUND_BYTES_PER_TOKEN, Prompt
from launcher.gateway.usage import find_usage
from launcher.plan.image_tokens import ImageRule

if TYPE_CHECKING:
    from launcher.gateway.tokenizer import TokenCounter

__all__ = ["EstimateError", "Price", "Pricer", "find_usage", "read_exactly"]

BLOCK_TOKENS = BLOCK_BYTES / TOKEN_BYTES  # of a block, where nothing better is known


class Price:
    """What one request costs. Written by the Pricer alone."""

    __slots__ = (
        "block_tokens", "can_resume", "chain", "counted_tokens", "features", "image_tokens", "max_output_tokens", "model",
        "other_tokens", "output_tokens", "priority", "prompt_tokens", "sequences", "streams", "text_bytes", "wants_usage",
    )  # fmt: skip

    def __init__(
        self,
        prompt_tokens: int = 1,
        output_tokens: int = 0,
        image_tokens: int = 0,
        text_bytes: int = 0,
        max_output_tokens: int | None = None,
        sequences: int = 1,
        model: str = "",
        streams: bool = True,
        wants_usage: bool = False,
        priority: int = 0,
        can_resume: bool = False,
        chain: Chain = (),
        block_tokens: float = BLOCK_TOKENS,
        features: Features | None = None,
        other_tokens: int = 0,
        counted_tokens: int | None = None,
    ) -> None:
        self.prompt_tokens = prompt_tokens  # text and pictures, as the model sees them
        self.output_tokens = output_tokens  # expected, of all sequences together
        self.image_tokens = image_tokens  # of prompt_tokens, from pictures
        self.text_bytes = text_bytes  # UTF-8, what the text's part of the estimate was made from
        self.max_output_tokens = max_output_tokens  # of one sequence, as the client asked; None: it did not
        self.sequences = sequences  # n × number of prompts
        self.model = model  # as the client wrote it; '' if it did not
        self.streams, self.wants_usage = streams, wants_usage
        self.priority = priority  # the body's own; vLLM: lower is earlier
        self.can_resume = can_resume  # a broken stream can be continued exactly from the text so far
        self.chain = chain  # see prefix.make_chain
        self.block_tokens = block_tokens  # about how many tokens a block of the chain stands for
        self.features = features  # what the text's rate is learnt from; None: nothing can be learnt
        self.other_tokens = other_tokens  # of the prompt, known without the text's rate
        self.counted_tokens = counted_tokens  # of the text, by the tokenizer; None: estimated

    def __repr__(self) -> str:
        return f"<Price prompt={self.prompt_tokens} output={self.output_tokens} sequences={self.sequences}>"


class EstimateError(NamedTuple):
    """Sums over all answered requests whose usage was seen, for /metrics; off by real is the mean relative error."""

    prompt_tokens: int  # real ones
    prompt_off: int  # |estimated − real|
    output_tokens: int
    output_off: int
    bytes_per_token: dict[str, float]  # of ASCII text, by model, as learnt so far


class Pricer:
    """Prices requests, and learns from what they turned out to take. The one writer of what is learnt."""

    def __init__(
        self,
        *,
        model: str = "",
        image_rule: ImageRule | None = None,
        budgets: Budgets | None = None,
        context_tokens: int | None = None,
        counter: TokenCounter | None = None,
    ) -> None:
        """``model``: what a request means that names none. ``context_tokens``: most for a prompt and its answer.

        ``budgets``: what pictures are brought to; default: they stay as they are.
        """
        self.model, self.context_tokens, self.counter = model, context_tokens, counter
        self.budgets = budgets or Budgets(image_rule)
        self.upload_size: Callable[[str], Size | None] | None = None  # of an upload; set by whoever keeps them
        self._rates = TextRates()
        self._frames = TextRates()  # where the text is counted: what the template adds to it
        self._answers = Answers()
        self._prompt_tokens = self._prompt_off = self._output_tokens = self._output_off = 0

    def price(self, route_name: str, body: bytes, key: str = "") -> Price:
        """What this request costs. Never raises, whatever the body; its time grows with the body's length and no faster.

        A body that cannot be read is priced by its length; the engine will refuse it. All counts lie between 0 and
        MOST_TOKENS, and prompt_tokens within what the context lets the engine take.
        """
        return self.read(route_name, body, key)[0]

    def read(self, route_name: str, raw: bytes, key: str = "", mode: str = "") -> tuple[Price, Prompt | None]:
        """The same, and what the price was made from; None where the body was not read. ``mode`` decides on budgets."""
        shape = SHAPES.get(route_name)
        if shape is None:
            if route_name in UPLOADS:
                return self._unread(0, 1 + len(raw) // SOUND_BYTES_PER_TOKEN, key), None
            return self._unread(len(raw), 0, key), None
        body = Body(raw)
        asked = body.value
        if type(asked) is not dict:
            return self._unread(body.size, 0, key, shape.generates), None
        prompt = Prompt(body, self.budgets, mode, self.upload_size)
        prompt.count = shape.read(prompt, asked)
        return self._sum(shape, asked, prompt, key), prompt

    def _unread(self, size: int, tokens: int, key: str, generates: bool = True) -> Price:
        tokens += math.ceil(self._rates.of(self.model).tokens((size, 0, 0, 0)))
        output = self._answers.expected(key, self.model, None) if generates else 0
        return Price(self._bounded(tokens, 1), output, text_bytes=size, streams=False)

    def _sum(self, shape: Shape, asked: dict[str, Any], prompt: Prompt, key: str) -> Price:
        count = prompt.count
        model = asked.get("model")
        model = "" if type(model) is not str else prompt.body.text(model) if prompt.body.cuts else model
        called = model or self.model
        segments, features = prompt.segments()
        other = prompt.picture_tokens + prompt.media_tokens + prompt.given_tokens
        tokens = other + math.ceil(self._rates.of(called).tokens(features))
        truncated = ask.number(asked["truncate_prompt_tokens"]) if "truncate_prompt_tokens" in asked else None
        if truncated:
            tokens = min(tokens, truncated * count)
        tokens = self._bounded(tokens, count)
        sequences = count if "n" not in asked else count * ask.answers(asked)
        most = ask.limit(asked, shape)
        output = 0
        if shape.generates:
            expected = ask.within_bounds(asked, shape, most, self._answers.expected(key, called, most))
            if self.context_tokens is not None:
                expected = min(expected, max(1, self.context_tokens - tokens // count))
            output = expected * sequences
        streams = "stream" in asked and ask.is_true(asked["stream"])
        chain, block_tokens = _chain(asked, model, prompt, segments, tokens)
        return Price(
            tokens,
            output if output < MOST_TOKENS else MOST_TOKENS,
            prompt.picture_tokens if prompt.picture_tokens < tokens else tokens,
            features[0] + features[1],
            most,
            sequences,
            model,
            streams,
            streams and "stream_options" in asked and ask.wants_usage(asked),
            ask.priority(asked) if "priority" in asked else 0,
            streams and shape.can_resume and sequences == 1 and ask.can_resume(asked, prompt),
            chain,
            block_tokens,
            features if prompt.is_exact and not truncated else None,
            other,
        )

    def _bounded(self, tokens: int, count: int) -> int:
        """A prompt longer than the context is refused by the engine, so it never has to be held."""
        most = MOST_TOKENS if self.context_tokens is None else self.context_tokens * count
        return tokens if tokens < most else min(most, MOST_TOKENS)

    def learn(self, price: Price, key: str, prompt_tokens: int | None, output_tokens: int | None) -> None:
        """The engine's usage for a request that was priced; None: not known."""
        model = price.model or self.model
        if prompt_tokens:
            self._prompt_tokens += prompt_tokens
            self._prompt_off += abs(prompt_tokens - price.prompt_tokens)
            text_tokens = prompt_tokens - price.other_tokens - (price.counted_tokens or 0)
            if price.features is not None and text_tokens >= 0:
                if price.counted_tokens is None:
                    self._rates.learn(model, price.features, text_tokens)
                else:
                    self._frames.learn(model, (0, 0, 0, price.features[3]), text_tokens)
        if output_tokens is not None and price.output_tokens:  # 0: a route that gives no text
            self._output_tokens += output_tokens
            self._output_off += abs(output_tokens - price.output_tokens)
            self._answers.learn(key, model, price.max_output_tokens, output_tokens / price.sequences)

    def estimate_error(self) -> EstimateError:
        """How good the prices were."""
        return EstimateError(
            self._prompt_tokens, self._prompt_off, self._output_tokens, self._output_off, self._rates.bytes_per_token()
        )

    def recount(self, price: Price, prompt: Prompt, counted: int) -> None:
        """Puts the tokenizer's count of the text in place of its estimate."""
        features = price.features
        assert features is not None
        frame: TextRate = self._frames.of(price.model or self.model)
        tokens = price.other_tokens + counted + math.ceil(frame.tokens((0, 0, 0, features[3])))
        before, price.prompt_tokens = price.prompt_tokens, self._bounded(tokens, prompt.count)
        price.counted_tokens = counted
        price.block_tokens *= price.prompt_tokens / before if before else 1.0


async def read_exactly(
    pricer: Pricer, route_name: str, body: bytes, key: str = "", mode: str = ""
) -> tuple[Price, Prompt | None]:
    """As ``Pricer.read``, but with the text counted by the model's tokenizer where that is worth it."""
    price, prompt = pricer.read(route_name, body, key, mode)
    counter = pricer.counter
    if counter is None or prompt is None or price.features is None or prompt.repeated != (0, 0):
        return price, prompt
    if counter.is_worth(price.text_bytes):
        pricer.recount(price, prompt, await counter.count(prompt.pieces))
    return price, prompt


def _chain(
    asked: dict[str, Any], model: str, prompt: Prompt, segments: list[Segment], tokens: int
) -> tuple[Chain, float]:
    size = 0
    for segment in segments:
        size += len(segment) if isinstance(segment, bytes) else segment[1] * TOKEN_BYTES
    if size < BLOCK_BYTES:
        return (), BLOCK_TOKENS
    salt = asked.get("cache_salt")
    salt = prompt.body.text(salt) if type(salt) is str else ""
    return make_chain(hash((model, salt)), segments), tokens * BLOCK_BYTES / size
