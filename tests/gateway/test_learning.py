"""What the prices learn from the engine's usage."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from launcher.gateway import learning
from launcher.gateway.learning import Answers, TextRate, TextRates
from launcher.gateway.price import Price, Pricer
from tests.gateway.harness import chat
from tests.gateway.test_price import GLM, WHAT, image_part, picture, price, seen


def test_the_rate_of_a_text_is_learnt() -> None:
    pricer = Pricer()
    rng = random.Random(5)
    for _ in range(100):
        found = price(chat("word " * rng.randrange(1000)), pricer=pricer)
        pricer.learn(found, "", math.ceil(found.text_bytes / 6) + 20, None)
    found = price(chat("word " * 800), pricer=pricer)
    assert found.prompt_tokens == pytest.approx(found.text_bytes / 6 + 20, rel=0.02)
    assert pricer.estimate_error().bytes_per_token["fake-model"] == pytest.approx(6, rel=0.1)
    assert price(chat("word " * 800, model="other"), pricer=pricer).prompt_tokens > 1.2 * found.prompt_tokens


def test_scripts_and_digits_have_rates_of_their_own() -> None:
    pricer = Pricer()
    cost = {"word ": 1, "数据模型": 6, "слово ": 4, "1234 ": 5}  # tokens of each
    rng = random.Random(3)
    for _ in range(300):
        unit, times = rng.choice(list(cost)), rng.randrange(20, 900)
        pricer.learn(price(chat(unit * times), pricer=pricer), "", cost[unit] * times + 10, None)
    for unit, tokens in cost.items():
        assert price(chat(unit * 500), pricer=pricer).prompt_tokens == pytest.approx(tokens * 500 + 10, rel=0.15)


def test_pictures_do_not_disturb_the_rate_of_text() -> None:
    pricer = Pricer(image_rule=GLM)
    for words in range(100, 1000, 30):
        body = seen(image_part(picture((64, 64))), {"type": "text", "text": "word " * words})
        found = price(body, pricer=pricer)
        pricer.learn(found, "", found.image_tokens + words + 10, None)
    assert price(
        {"model": "m", "messages": chat("word " * 500)["messages"]}, pricer=pricer
    ).prompt_tokens == pytest.approx(510, rel=0.03)


def test_what_is_not_exact_teaches_nothing() -> None:
    pricer = Pricer(image_rule=GLM)
    before = price(chat("word " * 500), pricer=pricer).prompt_tokens
    for body in (
        seen(image_part("https://example.com/a.png"), WHAT, model="fake-model"),
        chat("word " * 500, truncate_prompt_tokens=5),
    ):
        pricer.learn(price(body, pricer=pricer), "", 9000, None)
    pricer.learn(Price(prompt_tokens=5), "", 9000, 7)
    pricer.learn(price(chat("x"), pricer=pricer), "", None, None)
    assert price(chat("word " * 500), pricer=pricer).prompt_tokens == before


def test_answers_are_learnt_by_key_and_limit() -> None:
    pricer = Pricer()

    def answered(key: str, tokens: int, **more: Any) -> None:
        pricer.learn(price(chat(**more), pricer=pricer, key=key), key, 20, tokens)

    for _ in range(20):
        answered("a", 40, max_tokens=4000)
        answered("a", 2, max_tokens=10)
        answered("b", 900)
    expected = lambda key, **more: price(chat(**more), pricer=pricer, key=key).output_tokens  # noqa: E731
    assert expected("a", max_tokens=4000) == 40
    assert expected("a", max_tokens=10) == 2
    assert expected("b") == 900
    assert expected("b", max_tokens=100) == 100  # a limit of another size: all the key's answers
    assert 2 < expected("a") < 40
    assert 40 < expected("new") < 900  # a new key: all keys' answers
    assert expected("new", model="other") == 256
    assert expected("b", n=3) == 2700


def test_answers_of_several_sequences_are_shared_out() -> None:
    pricer = Pricer()
    pricer.learn(price(chat(n=4), pricer=pricer), "", 20, 400)
    assert price(chat(), pricer=pricer).output_tokens == 100


def test_a_mean_follows_and_forgets() -> None:
    answers = Answers()
    for _ in range(1000):
        answers.learn("k", "m", None, 1000)
    assert answers.expected("k", "m", None) == 1000
    for _ in range(100):
        answers.learn("k", "m", None, 10)
    assert answers.expected("k", "m", None) < 60


def test_what_is_learnt_is_bounded() -> None:
    answers, rates = Answers(capacity=10), TextRates()
    for index in range(1000):
        answers.learn(f"key{index}", "m", None, 5)
        rates.learn(f"model{index}", (100, 0, 0, 1), 20)
    assert len(answers) == 10
    assert len(rates.bytes_per_token()) == learning.MODELS
    assert "model999" in rates.bytes_per_token()


def test_a_rate_keeps_within_bounds() -> None:
    for tokens in (0, 1, 10**9):
        rate = TextRate()
        for _ in range(100):
            rate.learn((1000, 500, 20, 2), tokens)
        for weight, least, most in zip(rate.weights, learning.LEAST_WEIGHTS, learning.MOST_WEIGHTS, strict=True):
            assert least <= weight <= most


def test_what_was_not_seen_for_long_is_not_learnt_from_one_answer() -> None:
    rate = TextRate()
    for _ in range(20_003):  # the next is a fourth one, which is learnt from
        rate.learn((100, 0, 0, 1), 30)
    rate.learn((30, 60, 0, 1), 130)  # as if a byte of another script were two tokens
    assert learning.FIRST_WEIGHTS[1] < rate.weights[1] < 1


def test_the_error_is_summed_up() -> None:
    pricer = Pricer()
    pricer.learn(Price(100, 50), "", 120, 40)
    pricer.learn(Price(100, 50), "", 90, None)
    assert pricer.estimate_error()[:4] == (210, 30, 40, 10)
