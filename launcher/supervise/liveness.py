"""Is a ready engine alive? Judged by tokens, not by its /health, which stays green over a dead or stuck engine. Pure.

While there is work, the tokens themselves are the sign of life; an idle engine is asked for one token now and then.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from launcher.profile.model import TimeoutsSection


class Verdict(Enum):
    ALIVE = "alive"
    LOOK_CLOSER = "look closer"  # no byte for half the stall time: read the engine's own token counters
    PROBE = "probe"  # idle for long enough: ask for one token
    HUNG = "hung"


@dataclass(frozen=True)
class Pulse:
    """What is known of one engine's progress. Times in seconds of one clock.

    ``busy_since`` is None while nothing is in flight; ``progress_at`` is the last sign of life of any kind;
    ``token_count`` the sum of the engine's own counters of prompt and answer tokens when last read.
    """

    progress_at: float
    busy_since: float | None = None
    in_flight: int = 0
    token_count: float | None = None

    def seen(self, now: float, in_flight: int, last_byte_at: float | None) -> Pulse:
        """With what the gateway reports: requests in flight, and when the engine last sent a byte of an answer."""
        busy_since = None if in_flight == 0 else self.busy_since if self.busy_since is not None else now
        return replace(
            self, in_flight=in_flight, busy_since=busy_since, progress_at=max(self.progress_at, last_byte_at or 0.0)
        )

    def counted(self, now: float, token_count: float | None) -> Pulse:
        """With the engine's counters: any change since they were last read is progress."""
        if token_count is None:
            return self
        moved = self.token_count is not None and token_count != self.token_count
        return replace(self, token_count=token_count, progress_at=now if moved else self.progress_at)

    def answered(self, now: float) -> Pulse:
        """After a probe that was answered."""
        return replace(self, progress_at=max(self.progress_at, now))


def judge(pulse: Pulse, now: float, timeouts: TimeoutsSection) -> Verdict:
    """What to do about an engine with this ``pulse``."""
    if pulse.busy_since is None:
        return Verdict.PROBE if now - pulse.progress_at >= timeouts.probe_interval else Verdict.ALIVE
    silent_s = now - max(pulse.progress_at, pulse.busy_since)
    if silent_s >= timeouts.stall:
        return Verdict.HUNG
    return Verdict.LOOK_CLOSER if silent_s >= timeouts.stall / 2 else Verdict.ALIVE


def tick_s(timeouts: TimeoutsSection) -> float:
    """How often to judge: often enough to be late by an eighth of the shortest time at most, never above five seconds."""
    return min(5.0, timeouts.stall / 8, timeouts.probe_interval / 2)
