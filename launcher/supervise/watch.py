"""Watches a ready engine until it counts as hung: asks, waits and lets `liveness` judge."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from launcher.profile.model import TimeoutsSection
from launcher.supervise.engine import Activity
from launcher.supervise.engine_client import EngineClient, EngineRefused
from launcher.supervise.liveness import Pulse, Verdict, judge, tick_s
from launcher.supervise.state import Failed

METRICS_TIMEOUT_S = 2.0


class Watch:
    """One engine's liveness. ``activity`` says what the gateway has with it; written by `until_hung` only."""

    def __init__(
        self,
        client: EngineClient,
        activity: Callable[[], Activity],
        timeouts: TimeoutsSection,
        *,
        any_answer_is_life: bool = False,
    ) -> None:
        """``any_answer_is_life``: of a server that may have no /v1/completions, a refusal is a sign of life too."""
        self._client = client
        self._any_answer_is_life = any_answer_is_life
        self._activity = activity
        self._timeouts = timeouts
        self._pulse = Pulse(progress_at=self._now())

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    async def until_hung(self) -> Failed:
        """Returns the reason, once there is one."""
        while True:
            await asyncio.sleep(tick_s(self._timeouts))
            self._look()
            verdict = judge(self._pulse, self._now(), self._timeouts)
            if verdict in (Verdict.LOOK_CLOSER, Verdict.HUNG):
                self._pulse = self._pulse.counted(self._now(), await self._client.token_count(METRICS_TIMEOUT_S))
                verdict = judge(self._pulse, self._now(), self._timeouts)
            if verdict is Verdict.PROBE and (fault := await self._probe()):
                return Failed(f"hung: asked for one token while idle, {fault}", is_hung=True)
            in_flight = self._pulse.in_flight
            # The work may have been requests that get no token, such as a flood of refused ones: so it is asked too.
            if verdict is Verdict.HUNG and await self._probe():
                return Failed(
                    f"hung: {in_flight} requests in flight and no token for {self._timeouts.stall:g} s",
                    "If it was only slow, raise timeouts.stall.",
                    is_hung=True,
                )

    def _look(self) -> None:
        activity = self._activity()
        self._pulse = self._pulse.seen(self._now(), activity.in_flight, activity.last_byte_at)

    async def _probe(self) -> str:
        """One token from an engine that gives none to others: what is wrong, or ''."""
        began = self._now()
        try:
            await self._client.one_token(self._timeouts.probe)
        except EngineRefused as error:
            self._look()
            is_alive = error.status in (429, 503) or (self._any_answer_is_life and 400 <= (error.status or 0) < 500)
            if not is_alive and self._pulse.progress_at <= began:  # nor at work for others meanwhile
                return error.message
        self._pulse = self._pulse.answered(self._now())
        return ""
