"""Load that repeats: the same seed gives the same requests, of exactly the length that they are said to have."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice, pairwise
from statistics import mean

import pytest

from loadtests.workloads import (
    ID_RANGE,
    OPENING,
    WORDS,
    WORKLOADS,
    Planned,
    Speech,
    mix,
    poisson,
    single_tokens,
    with_limits,
)

KINDS = WORKLOADS["h200"]
SHORT, LONG = KINDS


def test_the_same_seed_gives_the_same_load_and_another_one_does_not() -> None:
    assert poisson(KINDS, 20, 10, seed=3) == poisson(KINDS, 20, 10, seed=3)
    assert poisson(KINDS, 20, 10, seed=3) != poisson(KINDS, 20, 10, seed=4)


def test_arrivals_are_poisson_and_do_not_depend_on_lengths() -> None:
    plan = poisson(KINDS, 50, 200, seed=1)
    gaps = [later.at_s - earlier.at_s for earlier, later in pairwise(plan)]
    assert len(plan) == pytest.approx(50 * 200, rel=0.03)
    assert mean(gaps) == pytest.approx(1 / 50, rel=0.03)
    assert mean(gap * gap for gap in gaps) == pytest.approx(2 / 50**2, rel=0.1)  # as exponential gaps have it
    assert 0 < plan[0].at_s < plan[-1].at_s < 200
    other = poisson(WORKLOADS["cpu"], 50, 200, seed=1)
    assert [one.at_s for one in other] == [one.at_s for one in plan]


def test_kinds_come_in_their_shares_and_lengths() -> None:
    plan = list(islice(mix(WORKLOADS["cpu"], 5), 4000))
    shares = Counter(one.kind.name for one in plan)
    assert shares["short"] / 4000 == pytest.approx(0.7, abs=0.03)
    for kind in WORKLOADS["cpu"]:
        lengths = {one.prompt_tokens for one in plan if one.kind == kind}
        assert (min(lengths), max(lengths)) == kind.prompt_tokens


def planned(tokens: int, number: int = 0) -> Planned:
    return Planned(number, 0.0, SHORT, tokens)


def test_a_chat_has_as_many_words_as_tokens_are_left() -> None:
    speech = Speech("m", "chat", ("alpha", "beta", "gamma"), overhead=20)
    body = json.loads(speech.body(planned(128)))
    words = body["messages"][0]["content"].removeprefix(OPENING).split()
    assert len(words) == 108
    assert set(words) == {"alpha", "beta", "gamma"}
    assert (body["max_tokens"], body["ignore_eos"], body["stream"]) == (64, True, True)
    assert speech.path == "/v1/chat/completions"


def test_a_completion_has_token_ids() -> None:
    speech = Speech("m", "completions")
    body = json.loads(speech.body(planned(4096)))
    assert len(body["prompt"]) == 4096
    assert all(ID_RANGE[0] <= token < ID_RANGE[1] for token in body["prompt"])
    assert "messages" not in body
    assert speech.path == "/v1/completions"


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_no_two_prompts_begin_alike(api: str) -> None:
    def beginning(text_seed: int, number: int) -> str:
        body = json.loads(Speech("m", api, WORDS, 10, text_seed).body(planned(128, number)))
        said = body["prompt"][:16] if api == "completions" else body["messages"][0]["content"].split()[2:18]
        return str(said)

    assert len({beginning(seed, number) for seed in range(5) for number in range(20)}) == 100
    assert beginning(1, 1) == beginning(1, 1)


def test_a_prompt_shorter_than_its_template_is_refused() -> None:
    with pytest.raises(ValueError, match=r"short: a chat with m has at least 34 prompt tokens, not 33\."):
        Speech("m", "chat", ("a",), overhead=33).body(planned(33))


def test_words_are_those_that_the_tokenizer_takes_whole() -> None:
    assert single_tokens(("on", "himself", "the"), ("Ġon", "Ġhim", "self", "▁the")) == ("on", "the")
    assert len(set(WORDS)) == len(WORDS) > 250


def test_limits_by_name() -> None:
    short, long = with_limits(KINDS, {"long": 9.0})
    assert (short.slo_s, long.slo_s) == (SHORT.slo_s, 9.0)
    assert LONG.slo_s == 3.0
