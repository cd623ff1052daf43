"""Counting with the model's own tokenizer."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from launcher.errors import PreconditionError
from launcher.gateway.price import Pricer, read_exactly
from launcher.gateway.tokenizer import LONGEST_BYTES, SHORTEST_BYTES, TokenCounter
from tests.gateway.harness import chat

ROUTE = "/v1/chat/completions"
WORDS = "one two three user assistant system"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tokenizer for which each word and each mark is a token."""
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(["?", *WORDS.split()])}, "?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


@pytest.fixture
def counter(folder: Path) -> Iterator[TokenCounter]:
    counter = TokenCounter(folder)
    yield counter
    counter.close()


def body(words: int, **more: Any) -> bytes:
    return json.dumps(chat("one " * words, **more)).encode()


async def test_texts_are_counted_each_by_itself(counter: TokenCounter) -> None:
    assert await counter.count(["one two", "three", "", "unknown words"]) == 5
    assert await counter.count([]) == 0
    assert await counter.count(["half a character \ud800"]) > 0


async def test_a_text_of_any_length_is_counted_whole(folder: Path) -> None:
    """What the file says of truncation and padding is for other uses."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(10)
    tokenizer.enable_padding(length=50)
    tokenizer.save(str(folder / "tokenizer.json"))
    assert TokenCounter(folder).count_now(["one " * 30]) == 30


def test_what_is_worth_counting() -> None:
    assert not TokenCounter.is_worth(SHORTEST_BYTES - 1)
    assert TokenCounter.is_worth(SHORTEST_BYTES)
    assert TokenCounter.is_worth(LONGEST_BYTES)
    assert not TokenCounter.is_worth(LONGEST_BYTES + 1)


async def test_the_price_is_exact_once_the_template_is_known(counter: TokenCounter) -> None:
    pricer = Pricer(counter=counter)
    framed = 9  # what a made-up template adds: 4 for a message, 1 for the roles' own token, 4 to open the answer
    for words in (200, 900, 333, 1000) * 5:
        price = (await read_exactly(pricer, ROUTE, body(words)))[0]
        assert price.counted_tokens == words + 1  # and the role
        pricer.learn(price, "", words + 1 + framed, None)
    price = (await read_exactly(pricer, ROUTE, body(700)))[0]
    assert abs(price.prompt_tokens - (700 + 1 + framed)) <= 1
    estimate = pricer.price(ROUTE, body(700))
    assert estimate.counted_tokens is None
    assert estimate.prompt_tokens != price.prompt_tokens  # the estimate has learnt nothing of it


async def test_short_texts_and_texts_without_a_counter_are_estimated(counter: TokenCounter) -> None:
    for pricer, words in ((Pricer(counter=counter), 20), (Pricer(), 900), (Pricer(counter=counter), LONGEST_BYTES)):
        price = (await read_exactly(pricer, ROUTE, body(words)))[0]
        assert price.counted_tokens is None
        assert price.prompt_tokens == pricer.price(ROUTE, body(words)).prompt_tokens


@pytest.mark.parametrize("broken", [b"{", b"[]", b""])
async def test_what_cannot_be_read_is_estimated(counter: TokenCounter, broken: bytes) -> None:
    price = (await read_exactly(Pricer(counter=counter), ROUTE, broken + b" " * 2000))[0]
    assert price.counted_tokens is None


async def test_the_context_bounds_it(counter: TokenCounter) -> None:
    price = (await read_exactly(Pricer(counter=counter, context_tokens=100), ROUTE, body(900)))[0]
    assert price.prompt_tokens == 100


async def test_several_answers_do_not_make_the_prompt_longer(counter: TokenCounter) -> None:
    price = (await read_exactly(Pricer(counter=counter, context_tokens=600), ROUTE, body(900, n=4)))[0]
    assert price.prompt_tokens == 600


def test_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(PreconditionError) as caught:
        TokenCounter(tmp_path)
    assert str(tmp_path / "tokenizer.json") in caught.value.message
    assert "admission.counting: estimate" in caught.value.hint


def test_a_broken_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(PreconditionError, match=r"tokenizer\.json cannot be read: "):
        TokenCounter(tmp_path)


def test_the_package_is_missing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(PreconditionError, match="package tokenizers") as caught:
        TokenCounter(folder)
    assert "pip install tokenizers" in caught.value.hint
