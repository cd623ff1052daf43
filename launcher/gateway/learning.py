"""What is learnt from the engine's usage: tokens in a text, for each model, and the length of answers, for each key."""

from __future__ import annotations

import math

MODELS = 64  # most models whose text is learnt; a name becomes one by being answered, not by being asked for
MEANS = 4096  # most keys × models × answer limits whose answers are learnt; the one longest unused goes first
FIRST_ANSWER_TOKENS = 256  # an answer's expected length before there is anything to go by
SLOWEST_STEP = 1 / 32  # an answer's least weight in its mean: about the last 32 count

DECAY = 0.99  # of what was learnt, with each answer: about the last hundred count
EARLY, EVERY = 64, 4  # each of the first answers is learnt from, then every fourth: it takes some microseconds
TOKENS_FLOOR = (
    50.0  # added to an answer's tokens where it is weighted: the error grows with a prompt, but not from nought
)

# What a prompt's text is made of: characters; the bytes by which UTF-8 exceeds one for each, by which other scripts than
# Latin cost more; digits, which most tokenizers take singly; messages, which the template frames. Measured with
# SmolLM2's tokenizer on a mix of English, code, JSON, Chinese and Russian: the mean error of a prompt is 5 %, and 16 %
# without the digits.
Features = tuple[int, int, int, int]
FIRST_WEIGHTS = (0.25, 0.4, 0.5, 5.0)  # tokens expected of each before anything is learnt
LEAST_WEIGHTS = (0.02, 0.0, 0.0, 0.0)
MOST_WEIGHTS = (1.5, 2.0, 1.5, 400.0)
# How sure that is: (relative error of one answer / likely error of the weight)²; all of it is worth about one answer.
PRIOR = (2.25, 0.56, 0.25, 0.001)
SAMPLE = 2048  # bytes in which digits are counted; of a longer text every so many-th
_DIGITS = b"0123456789"
_INDICES = range(len(FIRST_WEIGHTS))


def count_digits(data: bytes) -> int:
    """About how many digits there are."""
    step = len(data) // SAMPLE | 1  # odd, so that it does not fall in with columns
    sample = data if step == 1 else data[::step]
    return (len(sample) - len(sample.translate(None, _DIGITS))) * step


class TextRate:
    """One model's tokens for text: least squares over the last hundred or so answers, their errors taken relatively."""

    __slots__ = ("_seen", "_sums", "_targets", "weights")

    def __init__(self) -> None:
        self.weights = list(FIRST_WEIGHTS)
        self._sums = [[PRIOR[i] if i == j else 0.0 for j in _INDICES] for i in _INDICES]  # of the features' products
        self._targets = [PRIOR[i] * FIRST_WEIGHTS[i] for i in _INDICES]  # of each feature's product with the tokens
        self._seen = 0

    def tokens(self, features: Features) -> float:
        """Expected tokens of a text."""
        a, b, c, d = self.weights
        return a * features[0] + b * features[1] + c * features[2] + d * features[3]

    def learn(self, features: Features, tokens: int) -> None:
        """A text turned out to have so many tokens."""
        self._seen += 1
        if self._seen > EARLY and self._seen % EVERY:
            return
        scale = 1.0 / (tokens + TOKENS_FLOOR)
        scaled = [feature * scale for feature in features]
        target, weights = tokens * scale, self.weights
        for i in _INDICES:
            row, x = self._sums[i], scaled[i]
            keep = (1 - DECAY) * PRIOR[i]  # the prior does not decay
            for j in _INDICES:
                row[j] = DECAY * row[j] + x * scaled[j]
            row[i] += keep
            self._targets[i] = DECAY * self._targets[i] + x * target + keep * FIRST_WEIGHTS[i]
        # One round of coordinate descent for each answer: the exact optimum within the bounds, approached step by step.
        for i in _INDICES:
            row = self._sums[i]
            missing = self._targets[i] - sum([row[j] * weights[j] for j in _INDICES])
            weights[i] = min(MOST_WEIGHTS[i], max(LEAST_WEIGHTS[i], weights[i] + missing / row[i]))


class TextRates:
    """The rate of each model."""

    __slots__ = ("_first", "_rates")

    def __init__(self) -> None:
        self._first = TextRate()
        self._rates: dict[str, TextRate] = {}

    def of(self, model: str) -> TextRate:
        return self._rates.get(model, self._first)

    def learn(self, model: str, features: Features, tokens: int) -> None:
        rate = self._rates.get(model)
        if rate is None:
            if len(self._rates) >= MODELS:
                del self._rates[next(iter(self._rates))]
            rate = self._rates[model] = TextRate()
        rate.learn(features, tokens)

    def bytes_per_token(self) -> dict[str, float]:
        """Of ASCII text, by model."""
        return {model: 1 / rate.weights[0] for model, rate in self._rates.items()}


_NO_LIMIT, _ANY_LIMIT, _ANY_KEY = -1, -2, -3  # in place of a limit's number of bits


class Answers:
    """How long answers are: decayed means by key, model and size of the limit; then by key and model; then by model.

    A mean and not the most: what is asked of these numbers are sums, of all that an engine has in hand, and sums of means
    are right where the single one is not. Clients set max_tokens to some ten times what they get; to hold that for each
    would leave the engine mostly idle. The limit's size is its number of bits: one key's yes-or-no questions and its long
    texts are thus told apart.
    """

    __slots__ = ("_means", "capacity")

    def __init__(self, capacity: int = MEANS) -> None:
        self.capacity = capacity
        self._means: dict[tuple[str, str, int], tuple[float, int]] = {}  # mean and how many made it; the latest last

    def expected(self, key: str, model: str, limit: int | None) -> int:
        """Tokens of one answer, at most ``limit``. Before anything is learnt: the limit, at most FIRST_ANSWER_TOKENS."""
        means = self._means
        found = means.get((key, model, _NO_LIMIT if limit is None else limit.bit_length()))
        if found is None:
            found = means.get((key, model, _ANY_LIMIT)) or means.get(("", model, _ANY_KEY))
        tokens = FIRST_ANSWER_TOKENS if found is None else math.ceil(found[0])
        return tokens if limit is None or tokens < limit else limit

    def learn(self, key: str, model: str, limit: int | None, tokens: float) -> None:
        """An answer turned out to have so many."""
        self._add((key, model, _NO_LIMIT if limit is None else limit.bit_length()), tokens)
        self._add((key, model, _ANY_LIMIT), tokens)
        self._add(("", model, _ANY_KEY), tokens)

    def _add(self, key: tuple[str, str, int], tokens: float) -> None:
        mean, count = self._means.pop(key, (tokens, 0))
        step = max(SLOWEST_STEP, 1 / (count + 1))
        self._means[key] = (mean + step * (tokens - mean), count + 1)
        if len(self._means) > self.capacity:
            del self._means[next(iter(self._means))]

    def __len__(self) -> int:
        return len(self._means)
