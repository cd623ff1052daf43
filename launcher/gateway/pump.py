"""Turns the dispatcher's decisions into starts and refusals, each at its moment: the only timers of the queue."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from launcher.gateway.admit import not_served
from launcher.gateway.dispatch import SUSPECT_S, Dispatcher, Verdict
from launcher.gateway.refusal import BUG

if TYPE_CHECKING:
    from launcher.gateway.metrics import Metrics
    from launcher.gateway.relay import Exchange

log = logging.getLogger("launcher.gateway")
CHECK_S = 10.0  # how often the ledgers are compared with what is on its way


class Pump:
    """The event loop's side of the dispatcher."""

    def __init__(self, dispatcher: Dispatcher[Exchange], metrics: Metrics, loop: asyncio.AbstractEventLoop) -> None:
        self._dispatcher, self._metrics, self._loop = dispatcher, metrics, loop
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._check = loop.call_later(CHECK_S, self._check_ledgers)

    def submit(self, exchange: Exchange) -> None:
        """Starts, queues or refuses a new request."""
        dispatcher, now = self._dispatcher, exchange.arrived_at
        verdict = dispatcher.prepare(exchange, now) if exchange.is_preparing else dispatcher.submit(exchange, now)
        if verdict is Verdict.STARTED:
            start(exchange)
        elif verdict is Verdict.QUEUED:
            self.turn()
        elif verdict is not Verdict.PREPARING:
            exchange.refuse(not_served(verdict, exchange, dispatcher, now))

    def prepared(self, exchange: Exchange) -> None:
        """Starts or queues a request that can be sent now."""
        if self._dispatcher.prepared(exchange, self._loop.time()) is Verdict.STARTED:
            start(exchange)
        else:
            self.turn()

    def first_token(self, exchange: Exchange) -> None:
        """An answer begins: the prompt room that its request held is free."""
        started = self._dispatcher.first_token(exchange, self._loop.time())
        if started:  # the first token itself goes out before others are started
            self._loop.call_soon(self._start_all, started)
            self.arm()

    def release(self, exchange: Exchange, output_tokens: int | None, succeeded: bool) -> None:
        """An exchange has ended: what it held is free."""
        now = self._loop.time()
        streamed = (exchange.pieces - 1, now - exchange.began_at) if exchange.is_events else None
        started = self._dispatcher.release(exchange, now, output_tokens, succeeded=succeeded, streamed=streamed)
        if started:
            self._start_all(started)
            self.arm()

    def reassign(self, exchange: Exchange) -> bool:
        """Gives a request whose replica failed it to another one, or back to the queue. False: there is nothing to wait for."""
        verdict = self._dispatcher.reassign(exchange, self._loop.time())
        if verdict is None:
            return False
        if verdict is Verdict.STARTED:
            start(exchange)
        self.turn()
        self._loop.call_later(SUSPECT_S, self.turn)  # then the replica that failed gets requests again
        return True

    def turn(self) -> None:
        """Starts who may start, and ends who has waited too long."""
        now = self._loop.time()
        started, late = self._dispatcher.wake(now)
        self._start_all(started)
        for exchange in late:
            try:
                self._metrics.evictions[exchange.evict(not_served(None, exchange, self._dispatcher, now))] += 1
            except Exception:  # the others must be told all the same
                log.exception(BUG.message)
                exchange.crashed()
        self.arm()

    def arm(self) -> None:
        """Sees to it that turn is called when time alone will change something."""
        due, timer = self._dispatcher.next_wake(), self._timer
        if due is None or (timer is not None and self._timer_at <= due):
            return
        if timer is not None:
            timer.cancel()
        # Never early: uvloop's clock ticks in milliseconds, and a wake too early would be followed by another at once.
        wait_s = max(1, math.ceil((due - self._loop.time()) * 1000 - 1e-6)) / 1000
        self._timer, self._timer_at = self._loop.call_later(wait_s, self._on_timer), due

    def close(self) -> None:
        """There is nothing more to be started."""
        self._check.cancel()
        if self._timer is not None:
            self._timer.cancel()

    def _on_timer(self) -> None:
        self._timer = None
        self.turn()

    def _start_all(self, exchanges: Iterable[Exchange]) -> None:
        for exchange in exchanges:
            if not exchange.ended:
                start(exchange)

    def _check_ledgers(self) -> None:
        if not self._dispatcher.check():
            log.error(
                "the ledger was not the sum of what is on its way, and was put right: this is a bug, please report it"
            )
        self._check = self._loop.call_later(CHECK_S, self._check_ledgers)


def start(exchange: Exchange) -> None:
    """Starts one; what goes wrong with it is its own misfortune, not that of whoever's turn it was to start it."""
    try:
        exchange.start()
    except Exception:
        log.exception(BUG.message)
        exchange.crashed()
