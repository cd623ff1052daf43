"""The gateway: listens, hands each request to its route, keeps the books, and drains without losing a stream."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Coroutine, Iterator
from typing import Any

from launcher import __version__
from launcher.gateway import pages
from launcher.gateway.dispatch import SUSPECT_S, Dispatcher, Verdict
from launcher.gateway.heads import RequestHead
from launcher.gateway.http1 import ClientConnection
from launcher.gateway.ingest import prepare
from launcher.gateway.ledger import Capacity
from launcher.gateway.metrics import Labels, Metrics
from launcher.gateway.pool import Pool
from launcher.gateway.refusal import BUG, Refusal, Refused
from launcher.gateway.relay import Exchange
from launcher.gateway.replicas import Replica, Replicas
from launcher.gateway.requests import Request
from launcher.gateway.routes import Kind, Route, find_route
from launcher.gateway.sockets import listen
from launcher.profile.model import AdmissionSection, GatewaySection, ModelSection

log = logging.getLogger("launcher.gateway")
DRAINING_RETRY_S = 5.0
FLUSH_S = 2.0  # how long close() waits for clients to take what was written


class Gateway:
    """The OpenAI-compatible server in front of the replicas. All its methods belong on one event loop."""

    def __init__(
        self,
        settings: GatewaySection,
        replicas: Replicas,
        *,
        model: ModelSection,
        admission: AdmissionSection,
        capacity: Capacity,
        version: str = __version__,
    ) -> None:
        self.settings, self.replicas, self.model, self.version = settings, replicas, model, version
        self.admission = admission
        self.dispatcher: Dispatcher[Exchange] = Dispatcher(
            replicas,
            max_in_flight=admission.max_in_flight or capacity.sequences,
            max_queued=admission.max_queued,
            queue_timeout_s=admission.deadline or 30.0,
        )
        self.metrics = Metrics(self._gauges)
        self.connections: set[ClientConnection] = set()
        self.active: set[Exchange] = set()
        self.is_draining = False
        self.drain_reason = ""
        self._idle = asyncio.Event()
        self._idle.set()
        self._no_connections = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._id_start, self._id_count = os.urandom(6).hex(), 0
        self._policy = model.template

    # Life.

    async def start(self) -> tuple[str, int]:
        """Listens and returns the real host and port. Raises PreconditionError where that cannot be."""
        loop = asyncio.get_running_loop()
        self.now, self._loop = loop.time, loop
        self.pool = Pool(loop.time)
        self._server, host, port = await listen(lambda: ClientConnection(self, loop), self.settings.listen)
        self.replicas.listen(self._replica_changed)
        return host, port

    def stop_admitting(self, reason: str) -> None:
        """New requests for engines get 503; those that run or wait go on. ``reason`` says why."""
        self.is_draining, self.drain_reason = True, reason

    async def drained(self, timeout_s: float) -> int:
        """Waits until nothing is in flight or queued; returns how many requests were left when the time was up."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            pass
        return len(self.active)

    async def close(self) -> None:
        """Stops listening, ends what is left, and closes the connections once their bytes are sent."""
        if self._server is not None:
            self._server.close()
        if self._expiry is not None:
            self._expiry.cancel()
        for exchange in (*self.dispatcher.queue, *self.active):  # who waits first, so that none is started now
            exchange.cut_off(self.drain_reason or "the endpoint is stopping")
        for connection in list(self.connections):
            connection.shut()
        for task in self._tasks:
            task.cancel()
        if hasattr(self, "pool"):
            self.pool.close()
        await self._flushed()

    async def _flushed(self) -> None:
        """Waits for the connections to end, and cuts off those whose clients do not read."""
        if self.connections:
            self._no_connections.clear()
            try:
                async with asyncio.timeout(FLUSH_S):
                    await self._no_connections.wait()
            except TimeoutError:
                for connection in list(self.connections):
                    connection.abort()

    def disconnected(self, connection: ClientConnection) -> None:
        self.connections.discard(connection)
        if not self.connections:
            self._no_connections.set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs a coroutine and keeps it from being collected."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @property
    def queued(self) -> int:
        """How many requests wait."""
        return len(self.dispatcher.queue)

    # Requests.

    def route(self, head: RequestHead) -> Route:
        """The route of a request, by its head. Raises Refused, so that no body is read for nothing."""
        route = find_route(head.method, head.target)
        if self.is_draining and route.kind is not Kind.OWN:
            message = f"No new requests are taken: {self.drain_reason.rstrip('.')}."
            raise Refused(Refusal(503, "draining", message, retry_after_s=DRAINING_RETRY_S, close=True))
        return route

    def handle(self, connection: ClientConnection, request: Request) -> None:
        """Answers a request, or sets its answer going. Raises Refused."""
        route = request.route
        if not request.head.request_id:
            request.head.request_id = self.new_request_id()
        if route.kind is Kind.OWN:
            status, kind, body = pages.render(self, route.name)
            connection.answer(request.head, status, [kind], body, False)
            self._count(request, status, self.now(), None, "done")
            return
        self.metrics.received_bytes += len(request.body)
        exchange = Exchange(self, connection, request, prepare(request, self._policy))
        connection.answering = exchange
        self.active.add(exchange)
        self._idle.clear()
        if route.kind is Kind.QUERY:
            exchange.replica = self.dispatcher.pick(self.now())
            if exchange.replica is None:
                exchange.refuse(self._not_served(Verdict.NOT_READY.value))
            else:
                self._start(exchange)
            return
        verdict = self.dispatcher.submit(exchange, request.arrived_at)
        if verdict is Verdict.STARTED:
            self._start(exchange)
        elif verdict is Verdict.QUEUED:
            self.arm_expiry()
        else:
            exchange.refuse(self._not_served(verdict.value))

    def ended(self, exchange: Exchange, outcome: str, status: int) -> None:
        """Frees what an exchange held, starts who waited for it, and adds up. Called by the exchange, once."""
        self.active.discard(exchange)
        now = self.now()
        waiting = self.dispatcher.release(exchange, now)
        if waiting:
            self._start_all(waiting, now)
        self.metrics.sent_bytes += exchange.bytes_out
        self._count(exchange.request, status, now, exchange.replica, outcome)
        if not self.active:
            self._idle.set()

    def refused(self, refusal: Refusal, head: RequestHead | None) -> None:
        """Counts a refusal that no exchange is there for."""
        self.metrics.refusals[refusal.reason] += 1
        self.metrics.requests["other", refusal.status] += 1
        if log.isEnabledFor(logging.INFO):
            asked = b"%b %b" % (head.method, head.target[:200]) if head is not None else b"- -"
            log.info("%s %d %s", asked.decode("latin-1"), refusal.status, refusal.reason)

    def stalled(self, connection: ClientConnection) -> None:
        """Counts a client that is cut off because it reads nothing of what was written for it."""
        self.metrics.client_stalls += 1
        log.info("a client was cut off: it read nothing for %g s (gateway.write_timeout)", self.settings.write_timeout)

    def new_request_id(self) -> bytes:
        self._id_count += 1
        return f"{self._id_start}-{self._id_count:08x}".encode()

    def _count(self, request: Request, status: int, now: float, replica: Replica | None, outcome: str) -> None:
        """Adds up a request that ended, and writes its line to the access log."""
        seconds = now - request.arrived_at
        self.metrics.requests[request.route.name, status] += 1
        self.metrics.durations[request.route.name].observe(seconds)
        level = logging.DEBUG if request.route.kind is Kind.OWN else logging.INFO  # scrapes and probes are many
        if log.isEnabledFor(level):
            log.log(
                level,
                "%s %s %d %s %.1fms replica=%s id=%s",
                request.head.method.decode("latin-1"),
                request.head.target.decode("latin-1")[:200],
                status,
                outcome,
                seconds * 1000,
                "-" if replica is None else replica.index,
                request.head.request_id.decode(),
            )

    # The queue.

    def arm_expiry(self) -> None:
        """Sees to it that the queue's head does not wait too long. The queue is in order of time: one timer will do."""
        due, timer = self.dispatcher.next_expiry(), self._expiry
        if due is None or (timer is not None and timer.when() <= due):
            return
        if timer is not None:  # an older request has come back into the queue
            timer.cancel()
        self._expiry = self._loop.call_at(due, self._expire)

    def suspected(self) -> None:
        """A replica has failed a request: who waits may be given to it again only after a while."""
        self._pump()
        self.arm_expiry()
        self._loop.call_later(SUSPECT_S, self._pump)

    def _pump(self) -> None:
        now = self.now()
        self._start_all(self.dispatcher.pump(now), now)

    def _expire(self) -> None:
        self._expiry = None
        for exchange in self.dispatcher.expire(self.now()):
            exchange.refuse(self._not_served("queue_timeout"))
        self.arm_expiry()

    def _start_all(self, exchanges: list[Exchange], now: float) -> None:
        for exchange in exchanges:
            self.metrics.queue_waits.observe(now - exchange.arrived_at)
            self._start(exchange)

    def _start(self, exchange: Exchange) -> None:
        """Starts one; what goes wrong with it is its own misfortune, not that of whoever's turn it was to start it."""
        try:
            exchange.start()
        except Exception:
            log.exception(BUG.message)
            exchange.crashed()

    def _not_served(self, reason: str) -> Refusal:
        """429 where engines are ready but busy, 503 where none is."""
        wait = self.dispatcher.retry_after_s()
        if not self.replicas.ready_ones:
            why = self.replicas.reasons().rstrip(".")
            return Refusal(503, "not_ready", f"No engine is ready: {why}.", retry_after_s=wait)
        waiting = len(self.dispatcher.queue)
        if reason == "queue_full":
            message = f"Too many requests: {waiting} wait already (admission.max_queued {self.admission.max_queued})."
        else:
            limit = self.dispatcher.queue_timeout_s
            message = f"No engine had room within {limit:g} s (admission.deadline); {waiting} more wait."
        return Refusal(429, reason, message, retry_after_s=wait)

    def _replica_changed(self, replica: Replica) -> None:
        if not replica.is_ready:
            self.pool.drop(replica)
        self._pump()

    def _gauges(self) -> Iterator[tuple[str, Labels, float]]:
        for replica in self.replicas.all:
            yield "launcher_in_flight", (str(replica.index),), replica.in_flight
            yield "launcher_replica_ready", (str(replica.index),), replica.is_ready
        yield "launcher_queued", (), len(self.dispatcher.queue)
        yield "launcher_connections", (), len(self.connections)
        yield "launcher_draining", (), self.is_draining
        yield "launcher_build_info", (self.version,), 1

    def __repr__(self) -> str:
        return f"<Gateway {self.dispatcher!r} connections={len(self.connections)}>"
