"""A key's limits: requests and tokens a minute, kept by token buckets that fill steadily. Pure: ``now`` is given.

A bucket holds one minute's allowance, so a key that has been idle may spend it at once, and in the long run never gets
more than its limit. A request that is larger than a whole bucket passes when the bucket is full, and leaves a debt that
has to be filled first: refused for ever it could not be served at all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from launcher.gateway.refusal import Refusal

MINUTE_S = 60.0
LONGEST_RETRY_S = 120.0
_TICK_S = 1e-6  # rounding of clocks: who comes after exactly the time told is not too early


class Bucket:
    """One limit. Its whole state is the time at which it is full again: each token taken moves that on by ``1/rate``.

    That form (the virtual scheduling algorithm of ITU-T I.371) needs no filling step, loses nothing to rounding, and
    gives the wait exactly.
    """

    __slots__ = ("full_at", "per_minute")

    def __init__(self, per_minute: float) -> None:
        self.per_minute = per_minute  # may be changed: the share that is filled stays
        self.full_at = -math.inf

    def level(self, now: float) -> float:
        """What is in it; below 0 is a debt."""
        return self.per_minute * (1 - self.full_in_s(now) / MINUTE_S)

    def full_in_s(self, now: float) -> float:
        return max(0.0, self.full_at - now)

    def wait_s(self, amount: float, now: float) -> float:
        """How long until ``amount`` may be taken; 0 if it may now. More than a bucket's fill waits for a full one."""
        spare_s = MINUTE_S * (1 - min(amount, self.per_minute) / self.per_minute)
        wait = self.full_at - spare_s - now
        return wait if wait > _TICK_S else 0.0

    def take(self, amount: float, now: float) -> None:
        self.full_at = max(self.full_at, now) + amount * MINUTE_S / self.per_minute

    def correct(self, amount: float, now: float) -> None:
        """Takes so much more, or gives it back where ``amount`` is negative; a bucket never holds more than its fill."""
        if amount > 0:
            self.take(amount, now)
        else:
            self.full_at += amount * MINUTE_S / self.per_minute

    def __repr__(self) -> str:
        return f"<Bucket {self.per_minute:g} a minute>"


class Limits:
    """What one key may use. Charged when a request is admitted, corrected when its real usage is known."""

    __slots__ = ("name", "requests", "tokens")

    def __init__(self, name: str, requests_per_minute: int | None, tokens_per_minute: int | None) -> None:
        self.name = name
        self.requests = None if requests_per_minute is None else Bucket(requests_per_minute)
        self.tokens = None if tokens_per_minute is None else Bucket(tokens_per_minute)

    def change(self, requests_per_minute: int | None, tokens_per_minute: int | None) -> None:
        """Takes new limits over; what has been used stays used."""
        self.requests = _changed(self.requests, requests_per_minute)
        self.tokens = _changed(self.tokens, tokens_per_minute)

    def charge(self, tokens: float, now: float) -> Refusal | None:
        """Takes one request of ``tokens`` (prompt and expected answer), or takes nothing and says why not."""
        requests, bucket = self.requests, self.tokens
        requests_wait = 0.0 if requests is None else requests.wait_s(1, now)
        tokens_wait = 0.0 if bucket is None else bucket.wait_s(tokens, now)
        if requests_wait or tokens_wait:  # the longer wait is the one after which both let it pass
            if requests is not None and requests_wait >= tokens_wait:
                return self._refusal("rate_requests", f"{requests.per_minute:g} requests", requests_wait, now)
            assert bucket is not None
            size = f" This request counts {tokens:.0f}."
            return self._refusal("rate_tokens", f"{bucket.per_minute:g} tokens", tokens_wait, now, size)
        if requests is not None:
            requests.take(1, now)
        if bucket is not None:
            bucket.take(tokens, now)
        return None

    def settle(self, charged: float, used: float, now: float) -> None:
        """Puts the tokens that were really used in the place of those that were charged."""
        if self.tokens is not None and used != charged:
            self.tokens.correct(used - charged, now)

    def forgive(self, charged: float, now: float) -> None:
        """Gives all of it back: the request was not served, and by no fault of its sender."""
        if self.requests is not None:
            self.requests.correct(-1, now)
        if self.tokens is not None:
            self.tokens.correct(-charged, now)

    def lines(self, now: float) -> list[bytes]:
        """The header lines that tell how it stands, as OpenAI names them."""
        lines = []
        for what, bucket in ((b"requests", self.requests), (b"tokens", self.tokens)):
            if bucket is not None:
                lines += [
                    b"x-ratelimit-limit-%b: %d" % (what, bucket.per_minute),
                    b"x-ratelimit-remaining-%b: %d" % (what, max(0, math.floor(bucket.level(now) + 1e-6))),
                    b"x-ratelimit-reset-%b: %b" % (what, _go_duration(bucket.full_in_s(now))),
                ]
        return lines

    def _refusal(self, reason: str, limit: str, wait_s: float, now: float, more: str = "") -> Refusal:
        told = min(wait_s, LONGEST_RETRY_S)
        when = (
            f"in {wait_s:.1f} s" if wait_s < LONGEST_RETRY_S else f"in {_long(wait_s)}; Retry-After names 120 s at most"
        )
        message = f"The key {self.name!r} may use {limit} a minute.{more} It would pass {when}."
        return RateRefusal(429, reason, message, retry_after_s=told, limit_lines=tuple(self.lines(now)))

    def __repr__(self) -> str:
        return f"<Limits {self.name!r} {self.requests!r} {self.tokens!r}>"


@dataclass(frozen=True, slots=True)
class RateRefusal(Refusal):
    """A refusal that tells with it how the key's limits stand."""

    limit_lines: tuple[bytes, ...] = ()

    def lines(self) -> list[bytes]:
        return [*Refusal.lines(self), *self.limit_lines]


def _changed(bucket: Bucket | None, per_minute: int | None) -> Bucket | None:
    if bucket is None or per_minute is None:
        return None if per_minute is None else Bucket(per_minute)
    bucket.per_minute = float(per_minute)
    return bucket


def _go_duration(seconds: float) -> bytes:
    """As OpenAI writes them: 120ms, 1.5s, 6m0s. Rounded up, so that nobody comes back too early."""
    ms = math.ceil(seconds * 1000 - 1e-6)
    if ms < 1000:
        return b"%dms" % ms if ms else b"0s"
    minutes, rest = divmod(ms, 60_000)
    text = f"{rest / 1000:.3f}".rstrip("0").rstrip(".")
    return f"{minutes}m{text}s".encode() if minutes else f"{text}s".encode()


def _long(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
