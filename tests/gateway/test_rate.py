"""Token buckets: what a key may use, as properties and as sentences."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.gateway.rate import Bucket, Limits

per_minute = st.integers(1, 10_000_000)
amounts = st.floats(0.0, 1e7, allow_nan=False)
pauses = st.floats(0.0, 300.0, allow_nan=False)
starts = st.floats(-1e6, 1e9, allow_nan=False)  # clocks of event loops begin anywhere


@dataclass
class Use:
    """One attempt: after a pause, so much is asked for, and so much of it turns out to be used."""

    pause_s: float
    amount: float
    used: float


uses = st.lists(st.builds(Use, pauses, amounts, amounts), max_size=60)


def near(value: float) -> float:
    return 1e-6 * (1 + abs(value))


class TestBucket:
    @given(per_minute, starts)
    def test_begins_full(self, rate: int, now: float) -> None:
        bucket = Bucket(rate)
        assert bucket.level(now) == rate
        assert bucket.wait_s(rate, now) == 0

    @given(per_minute, starts, uses)
    def test_is_never_below_the_debt_of_what_was_larger_than_it(self, rate: int, now: float, uses: list[Use]) -> None:
        bucket = Bucket(rate)
        for use in uses:
            now += use.pause_s
            if bucket.wait_s(use.amount, now) == 0:
                bucket.take(use.amount, now)
                worst = min(0.0, rate - use.amount)
                assert bucket.level(now) >= worst - near(use.amount) - rate * near(now) / 60
            assert bucket.level(now) <= rate

    @given(per_minute, starts, uses)
    def test_the_long_run_is_within_the_limit(self, rate: int, now: float, uses: list[Use]) -> None:
        """All that was let through, as really used, is at most one fill, the rate times the time, and the debt left."""
        bucket, began, total = Bucket(rate), now, 0.0
        for use in uses:
            now += use.pause_s
            if bucket.wait_s(use.amount, now) == 0:
                bucket.take(use.amount, now)
                bucket.correct(use.used - use.amount, now)
                total += use.used
        allowed = rate + rate * (now - began) / 60
        debt = max(0.0, -bucket.level(now))
        assert total <= allowed + debt + near(total) + rate * near(now) / 60

    @given(per_minute, starts, uses, amounts)
    def test_who_waits_as_told_passes_and_who_comes_sooner_does_not(
        self, rate: int, now: float, uses: list[Use], amount: float
    ) -> None:
        bucket = Bucket(rate)
        for use in uses:
            now += use.pause_s
            if bucket.wait_s(use.amount, now) == 0:
                bucket.take(use.amount, now)
        wait = bucket.wait_s(amount, now)
        assert bucket.wait_s(amount, now + wait) == 0
        if wait > 0.01:
            assert bucket.wait_s(amount, now + wait - 0.005) > 0
            assert bucket.wait_s(amount, now + wait / 2) == pytest.approx(wait / 2, abs=near(now))

    def test_a_request_larger_than_the_bucket_waits_for_a_full_one_and_leaves_a_debt(self) -> None:
        bucket = Bucket(60)
        assert bucket.wait_s(150, 0) == 0
        bucket.take(150, 0)
        assert bucket.level(0) == -90
        assert bucket.wait_s(1, 0) == pytest.approx(91)
        assert bucket.wait_s(150, 0) == pytest.approx(150)
        assert bucket.level(91) == pytest.approx(1)

    def test_what_was_charged_too_much_comes_back_but_never_beyond_full(self) -> None:
        bucket = Bucket(100)
        bucket.take(80, 0)
        bucket.correct(-50, 0)
        assert bucket.level(0) == pytest.approx(70)
        bucket.correct(-500, 0)
        assert bucket.level(0) == 100
        bucket.correct(30, 0)
        assert bucket.level(0) == pytest.approx(70)


class TestLimits:
    def test_either_both_are_charged_or_neither(self) -> None:
        limits = Limits("alice", 2, 100)
        assert limits.charge(90, 0.0) is None
        refusal = limits.charge(50, 0.0)
        assert refusal is not None
        assert refusal.reason == "rate_tokens"
        assert limits.requests is not None
        assert limits.tokens is not None
        assert limits.requests.level(0.0) == pytest.approx(1)
        assert limits.tokens.level(0.0) == pytest.approx(10)

    def test_the_refusal_is_429_and_names_the_time_after_which_it_passes(self) -> None:
        limits = Limits("alice", None, 600)
        assert limits.charge(600, 0.0) is None
        refusal = limits.charge(20, 1.0)
        assert refusal is not None
        assert (refusal.status, refusal.reason) == (429, "rate_tokens")
        assert refusal.retry_after_s == pytest.approx(1.0)
        assert limits.charge(20, 2.0) is None
        assert refusal.message == (
            "The key 'alice' may use 600 tokens a minute. This request counts 20. It would pass in 1.0 s."
        )
        assert refusal.error()["type"] == "rate_limit_error"

    def test_the_longer_of_two_waits_is_told(self) -> None:
        limits = Limits("alice", 6, 600)
        for _ in range(6):
            assert limits.charge(100, 0.0) is None
        first = limits.charge(10, 0.0)
        assert first is not None
        assert (first.reason, first.retry_after_s) == ("rate_requests", pytest.approx(10.0))
        other = limits.charge(300, 0.0)
        assert other is not None
        assert (other.reason, other.retry_after_s) == ("rate_tokens", pytest.approx(30.0))
        assert limits.charge(300, 30.0) is None

    def test_a_long_wait_is_told_in_the_sentence_only(self) -> None:
        limits = Limits("batch", None, 1000)
        assert limits.charge(500_000, 0.0) is None
        refusal = limits.charge(1, 0.0)
        assert refusal is not None
        assert refusal.retry_after_s == 120
        assert "It would pass in 8.3 hours; Retry-After names 120 s at most." in refusal.message

    def test_headers_as_openai_names_them(self) -> None:
        limits = Limits("alice", 60, 6000)
        assert limits.charge(1500, 0.0) is None
        assert limits.lines(0.0) == [
            b"x-ratelimit-limit-requests: 60",
            b"x-ratelimit-remaining-requests: 59",
            b"x-ratelimit-reset-requests: 1s",
            b"x-ratelimit-limit-tokens: 6000",
            b"x-ratelimit-remaining-tokens: 4500",
            b"x-ratelimit-reset-tokens: 15s",
        ]
        assert Limits("bob", None, 6000).lines(0.0)[2] == b"x-ratelimit-reset-tokens: 0s"
        limits.settle(1500, 7501, 0.0)
        assert limits.lines(0.0)[4:] == [b"x-ratelimit-remaining-tokens: 0", b"x-ratelimit-reset-tokens: 1m15.01s"]
        refusal = limits.charge(1, 0.0)
        assert refusal is not None
        assert refusal.lines()[-6:] == limits.lines(0.0)
        assert b"retry-after: 16" in refusal.lines()

    def test_real_usage_takes_the_place_of_the_estimate(self) -> None:
        limits = Limits("alice", None, 1000)
        limits.charge(400, 0.0)
        limits.settle(400, 100, 0.0)
        assert limits.tokens is not None
        assert limits.tokens.level(0.0) == pytest.approx(900)
        limits.charge(100, 0.0)
        limits.settle(100, 250, 0.0)
        assert limits.tokens.level(0.0) == pytest.approx(650)

    def test_what_was_not_served_costs_nothing(self) -> None:
        limits = Limits("alice", 10, 1000)
        limits.charge(400, 0.0)
        limits.forgive(400, 0.0)
        assert limits.lines(0.0) == Limits("alice", 10, 1000).lines(0.0)

    def test_changed_limits_keep_what_was_used(self) -> None:
        limits = Limits("alice", 10, None)
        limits.charge(1, 0.0)
        limits.change(20, 500)
        assert limits.requests is not None
        assert limits.tokens is not None
        assert limits.requests.level(0.0) == pytest.approx(18)  # a tenth was used, a tenth is missing
        assert limits.tokens.level(0.0) == 500
        limits.change(None, None)
        assert limits.lines(0.0) == []
        assert limits.charge(1e9, 0.0) is None

    @given(st.integers(1, 600), st.lists(st.floats(0.0, 5.0), min_size=1, max_size=80))
    def test_a_key_gets_its_requests_a_minute_and_no_more(self, rpm: int, pauses: list[float]) -> None:
        limits, now, passed = Limits("k", rpm, None), 1000.0, 0
        for pause in pauses:
            now += pause
            passed += limits.charge(1, now) is None
        possible = min(len(pauses), rpm)
        assert passed <= rpm + rpm * (now - 1000) / 60 + 1e-3
        assert passed >= math.floor(possible * 0.999)
