"""The gateway: listens, hands each request to its route, keeps the books, and drains without losing a stream."""

from __future__ import annotations

import asyncio
import heapq
import logging
import os
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from typing import Any

from launcher import __version__
from launcher.gateway import cutting, pages
from launcher.gateway.access import AccessLog
from launcher.gateway.admit import mode_asked, not_served, priority_asked
from launcher.gateway.asked import UPLOADS
from launcher.gateway.auth import Gatekeeper, Identity, is_local, require_admin
from launcher.gateway.books import Books
from launcher.gateway.certificate import ServerCertificate
from launcher.gateway.compat import Changes
from launcher.gateway.departures import Departures
from launcher.gateway.dispatch import Dispatcher, Verdict
from launcher.gateway.heads import RequestHead
from launcher.gateway.http1 import ClientConnection
from launcher.gateway.ingest import prepare
from launcher.gateway.keyring import KeyRing
from launcher.gateway.ledger import Capacity
from launcher.gateway.media.intake import Intake
from launcher.gateway.media.uploads import Uploads
from launcher.gateway.metrics import Sample
from launcher.gateway.modes import MODES, Rules, rules_of
from launcher.gateway.pool import Pool
from launcher.gateway.price import Price, Pricer, read_exactly
from launcher.gateway.prompts import Prompt
from launcher.gateway.pump import Pump, start
from launcher.gateway.refusal import BUG, Refusal, Refused
from launcher.gateway.relay import Exchange
from launcher.gateway.replicas import Replica, Replicas
from launcher.gateway.requests import Request
from launcher.gateway.rescue import MAX_BODY as MAX_RESUMED_BODY
from launcher.gateway.routes import NEEDS_ENGINE, Kind, Route, find_route
from launcher.gateway.sockets import listen
from launcher.gateway.static import wants_page, web_page
from launcher.gateway.ticket import Ticket
from launcher.gateway.tracing import Tracer
from launcher.profile.model import AdmissionSection, GatewaySection, ModelSection

log = logging.getLogger("launcher.gateway")
DRAINING_RETRY_S = 5.0
FLUSH_S = 2.0  # how long close() waits for clients to take what was written
CERTIFICATE_S = 10.0  # how often the certificate's files are looked at
CROWDED_S = 0.1
CHAT_PATH = "/v1/chat/completions"  # as which the bodies of quick routes are looked through
FREE = Price()  # of a request that takes no room


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
        pricer: Pricer | None = None,
        gatekeeper: Gatekeeper | None = None,
        certificate: ServerCertificate | None = None,
        access: AccessLog | None = None,
        tracer: Tracer | None = None,
        control_socket: str = "",
        default_temperature: float | None = None,
        has_audio: bool | None = None,
        has_images: bool | None = None,
        version: str = __version__,
    ) -> None:
        self.settings, self.replicas, self.model, self.version = settings, replicas, model, version
        self.admission, self.pricer = admission, pricer or Pricer()
        self.departures = Departures(replicas)
        self.gatekeeper, self.certificate, self.access = (
            gatekeeper or Gatekeeper(KeyRing(None), False),
            certificate,
            access,
        )
        self.tracer = tracer
        self.default_temperature = default_temperature  # of requests that name none; None: not known
        # has_audio, has_images: whether the model takes clips of sound, and pictures; None: not known, the engine will say
        self.has_images = has_images
        self.site = web_page()
        self.control = Replica.at_socket(control_socket)
        self.control_runs = False  # written by whoever runs it
        self.told: Callable[[], Iterable[Sample]] = lambda: ()  # metrics of engines and cards, by whoever runs them
        self.dispatcher: Dispatcher[Exchange] = Dispatcher(replicas, admission, capacity)
        self.modes = {mode: rules_of(admission, mode) for mode in MODES}
        self.intake = Intake(settings, model.images_per_prompt, has_audio)
        self.pricer.upload_size = self.intake.upload_size
        self.uploads = Uploads(self, self.intake, self.pricer.budgets)
        self.books = Books(self)
        self.metrics = self.books.metrics
        self.connections: set[ClientConnection] = set()
        self.active: set[Exchange] = set()
        self.visits: set[Exchange] = set()  # at the control app: no drain waits for them, a page may be open for days
        self._crowded_until = 0.0  # every connection is in use: not looked for others before then
        self.is_draining = False
        self.drain_reason = ""
        self._idle = asyncio.Event()
        self._idle.set()
        self._no_connections = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._id_start, self._id_count = os.urandom(6).hex(), 0
        self._policy = model.template

    # Life.

    async def start(self) -> tuple[str, int]:
        """Listens and returns the real host and port. Raises PreconditionError where that cannot be."""
        loop = asyncio.get_running_loop()
        self.now, self._loop = loop.time, loop
        self.pool = Pool(loop.time)
        self.pump = Pump(self.dispatcher, self.metrics, loop)
        context = None if self.certificate is None else self.certificate.context
        self._server, host, port = await listen(
            lambda: ClientConnection(self, loop),
            self.settings.listen,
            context,
            handshake_s=self.settings.head_timeout,
            shutdown_s=self.settings.write_timeout,
        )
        self._watch_certificate()
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
        if hasattr(self, "pump"):
            self.pump.close()
            self._certificate_check.cancel()
        self.departures.close()
        self.uploads.close()
        # Who waits first, so that none is started now.
        for exchange in (*self.dispatcher.queue, *self.active, *self.visits):
            exchange.cut_off(self.drain_reason or "the endpoint is stopping")
        for connection in list(self.connections):
            connection.shut()
        self.intake.refuse_waiting()
        for task in self._tasks:
            task.cancel()
        if hasattr(self, "pool"):
            self.pool.close()
        await self._flushed()
        await self.intake.close()
        if self.access is not None:
            await self.access.close()
        if self.tracer is not None:
            await self.tracer.close()

    def _watch_certificate(self) -> None:
        """Takes up a renewed certificate."""
        if self.certificate is not None and (said := self.certificate.reload_if_changed()):
            log.warning("%s", said)
        self._certificate_check = self._loop.call_later(CERTIFICATE_S, self._watch_certificate)

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

    def make_room(self) -> bool:
        """Closes unused connections, those that have been so for longest. False: there is none, or was none just now."""
        now = self.now()
        if now < self._crowded_until:
            return False
        unused = [(until, id(c), c) for c in self.connections if (until := c.idle_until) is not None]
        for _, _, connection in heapq.nsmallest(
            max(1, len(unused) // 32), unused
        ):  # several: looking takes a millisecond
            connection.shut()
        if not unused:
            self._crowded_until = now + CROWDED_S
        return bool(unused)

    def disconnected(self, connection: ClientConnection) -> None:
        self.connections.discard(connection)
        if not self.connections:
            self._no_connections.set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Runs a coroutine and keeps it from being collected."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def later(self, seconds: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        """Calls after so long."""
        return self._loop.call_later(seconds, call)

    def may_resume(self, price: Price, body: bytes) -> bool:
        """Whether a stream is worth what it takes to go on with it elsewhere when its engine dies."""
        return price.can_resume and self.admission.resume_streams and len(body) <= MAX_RESUMED_BODY

    @property
    def queued(self) -> int:
        """How many requests wait."""
        return self.dispatcher.waiting

    @property
    def mode(self) -> str:
        """The mode that is on."""
        return self.dispatcher.rules.mode

    def set_mode(self, mode: str) -> None:
        """Switches to another of MODES; what waits already keeps its deadline. Raises KeyError."""
        self.dispatcher.use(self.modes[mode])
        log.info("mode: %s", mode)
        self.pump.turn()

    def share_engines(self, gateways: int) -> None:
        """So many gateways, this one among them, are in front of the engines: each takes its share of the caps."""
        if gateways != self.dispatcher.gateways:
            self.dispatcher.share_engines(gateways)
            log.info("%d gateways share the engines: 1/%d of each cap is ours", gateways, gateways)
            self.pump.turn()

    # Requests.

    def route(self, head: RequestHead) -> Route:
        """The route of a request, by its head. Raises Refused, so that no body is read for nothing."""
        head.identity = self.gatekeeper.identify(head)
        route = find_route(head.method, head.target)
        self._refuse_if_draining(route)
        return route

    def _refuse_if_draining(self, route: Route) -> None:
        """Raises Refused."""
        if self.is_draining and route.kind in NEEDS_ENGINE:
            message = f"No new requests are taken: {self.drain_reason.rstrip('.')}."
            raise Refused(Refusal(503, "draining", message, retry_after_s=DRAINING_RETRY_S, close=True))

    def glimpse(self, head: RequestHead, route: Route, beginning: bytes) -> None:
        """Refuses, by the beginning of a large body, what would be refused with all of it. Raises Refused."""
        if route.kind is Kind.UPLOAD:
            self.intake.glimpse_upload(head.content_length)
        if route.kind is not Kind.INFERENCE:
            return
        rules, identity, now = mode_asked(head, self.modes), head.identity, self.now()
        mode = self.mode if rules is None else rules.mode
        price = Price(max(1, self.intake.glimpse(beginning, self.pricer.budgets, mode)))
        priority = priority_asked(head, price, identity.priority, identity.max_priority)
        ticket = Ticket(price, now, account=identity.account, priority=priority, rules=rules)
        verdict = self.dispatcher.foresee(ticket, now)  # type: ignore[arg-type]  # asked of, and forgotten
        # Not for being too late: how long it may wait depends on all of its body, and on when that is in.
        if verdict is Verdict.NOT_READY or verdict is Verdict.QUEUE_FULL:
            raise Refused(replace(not_served(verdict, ticket, self.dispatcher, now), close=True))

    def handle(self, connection: ClientConnection, request: Request) -> None:
        """Answers a request, or sets its answer going. Raises Refused."""
        head, route = request.head, request.route
        self._refuse_if_draining(route)  # that may have begun while the body was on its way
        if not head.request_id:
            head.request_id = self.new_request_id()
        self.metrics.received_bytes += len(request.body)
        match route.kind:
            case Kind.INFERENCE:
                self._infer(connection, request)
            case Kind.QUERY:
                self._query(connection, request)
            case Kind.OWN:
                self._own(connection, request)
            case Kind.PAGE:
                self._page(connection, request)
            case Kind.UPLOAD:
                self.uploads.handle(connection, request)
            case Kind.CONTROL:
                self._control(connection, request)

    def _own(self, connection: ClientConnection, request: Request) -> None:
        """What the gateway tells of itself; at / the web page, to those who ask for one. Raises Refused."""
        head, name = request.head, request.route.name
        if name == "/" and wants_page(head):
            self._page(connection, request)
            return
        status, kind, body = pages.render(self, name)
        connection.answer(head, status, [kind, b"vary: accept"] if name == "/" else [kind], body, False)
        self.books.page(request, status, self.now())

    def _page(self, connection: ClientConnection, request: Request) -> None:
        """A file of the web page. Raises Refused with 404."""
        status, lines, body = self.site.answer(request.head)
        connection.answer(request.head, status, lines, body, False)
        self.books.page(request, status, self.now())

    def _infer(self, connection: ClientConnection, request: Request) -> None:
        """An engine's work: priced, let in, put in order."""
        if self.tracer is not None:
            self.tracer.begin(request.head, request.route.name)
        identity = request.head.identity
        rules = mode_asked(request.head, self.modes)
        mode = self.mode if rules is None else rules.mode
        changes = prepare(request, self._policy)
        if changes.tells_images and not changes.plain:
            changes.image_info = []  # unless there are pictures to tell of
        if self.admission.counting == "exact":
            self.spawn(self._infer_counted(connection, request, changes, rules, mode))
            return
        price, prompt = self.pricer.read(request.route.engine_path, changes.body, identity.key_id, mode)
        if prompt is None and request.route.name not in UPLOADS:
            self.intake.refuse_unread(changes.body)
        self._admit(Exchange(self, connection, request, changes, price), prompt, rules)

    async def _infer_counted(
        self, connection: ClientConnection, request: Request, changes: Changes, rules: Rules | None, mode: str
    ) -> None:
        """The same, its text counted by a thread meanwhile."""
        exchange = self._enter(Exchange(self, connection, request, changes, FREE))
        try:
            key = request.head.identity.key_id
            price, prompt = await read_exactly(self.pricer, request.route.engine_path, changes.body, key, mode)
            if prompt is None and request.route.name not in UPLOADS:
                self.intake.refuse_unread(changes.body)
            if not exchange.ended:
                exchange.reprice(price)
                self._admit(exchange, prompt, rules)
        except Refused as refused:
            exchange.refuse(refused.refusal)
        except Exception:  # nobody awaits this task
            log.exception(BUG.message)
            exchange.crashed()

    def _admit(self, exchange: Exchange, prompt: Prompt | None, rules: Rules | None) -> None:
        """Raises Refused for what the request asks for in vain."""
        head, price = exchange.request.head, exchange.price
        identity = head.identity
        priority = priority_asked(head, price, identity.priority, identity.max_priority)
        if prompt is not None and prompt.has_media:
            report = self.intake.check(prompt, identity.key_id)
            exchange.media_told(*report)
            exchange.is_preparing = self.intake.has_work(prompt)
        self.charge(identity, price.prompt_tokens + price.output_tokens, exchange.arrived_at)
        exchange.charged_to = identity.limits
        exchange.place_at(identity.account, priority, rules)
        self._enter(exchange)
        self.pump.submit(exchange)
        if exchange.is_preparing and not exchange.ended:  # only now: what is refused is neither fetched nor decoded
            assert prompt is not None
            exchange.media_task = self.spawn(self._prepare(exchange, prompt))

    def charge(self, identity: Identity, tokens: int, now: float) -> None:
        """Counts a request, and its tokens, against the rate of its key. Raises Refused."""
        if identity.limits is not None and (refusal := identity.limits.charge(tokens, now)) is not None:
            self.metrics.rate_limited(identity.name, refusal.reason.removeprefix("rate_"))
            raise Refused(refusal)

    async def _prepare(self, exchange: Exchange, prompt: Prompt) -> None:
        """Fetches a request's pictures and clips, and makes them smaller; then it is sent, or waits for an engine."""
        began_at = self.now()
        try:
            done = await self.intake.bring_down(prompt, exchange.request.head.identity.key_id)
            seconds = self.now() - began_at
            self.books.media(done, seconds)
            if not exchange.ended:
                lines, image_info, stages = done.report
                exchange.media_told(lines, image_info, (*stages, (b"media", seconds)))
                exchange.prepared(done.body, seconds)
                self.pump.prepared(exchange)
        except Refused as refused:
            exchange.media_s = self.now() - began_at
            exchange.refuse(refused.refusal)
        except Exception:  # nobody awaits this task
            log.exception(BUG.message)
            exchange.crashed()

    def _query(self, connection: ClientConnection, request: Request) -> None:
        """An engine's quick answer: takes no room. Raises Refused."""
        if request.body and cutting.may_name_media(request.body):
            prompt = self.pricer.read(CHAT_PATH, request.body)[1]
            if prompt is None:
                self.intake.refuse_unread(request.body)
            else:
                self.intake.refuse_links(prompt)
        exchange = self._enter(Exchange(self, connection, request, prepare(request, self._policy), FREE))
        exchange.replica = self.dispatcher.pick(self.now())
        if exchange.replica is None:
            exchange.refuse(not_served(Verdict.NOT_READY, exchange, self.dispatcher, self.now()))
        else:
            start(exchange)

    def _control(self, connection: ClientConnection, request: Request) -> None:
        """All that is not inference: the control app's, behind its socket. Raises Refused."""
        head = request.head
        if self.gatekeeper.required:
            require_admin(head.identity)
        elif not is_local(connection.transport.get_extra_info("peername")):
            message = "Without API keys the control app is for this machine only: make one with `launcher key add NAME --admin`."
            raise Refused(Refusal(403, "not_local", message))
        if self.control is None:
            message = f"{request.route.name} is the control app's, which does not run here."
            raise Refused(Refusal(503, "no_control_app", message))
        head.lines += (b"x-launcher-key: " + head.identity.key_id.encode("latin-1"), b"x-launcher-host: " + head.host)
        exchange = Exchange(self, connection, request, Changes(request.body), FREE)
        exchange.replica = self.control
        exchange.client.answering = exchange
        self.visits.add(exchange)
        start(exchange)

    def _enter(self, exchange: Exchange) -> Exchange:
        """From here on the exchange answers the client, whatever happens."""
        exchange.client.answering = exchange
        self.active.add(exchange)
        self._idle.clear()
        return exchange

    def ended(self, exchange: Exchange) -> None:
        """Frees what an exchange held, starts who waited for it, and adds up. Called by the exchange, once."""
        self.active.discard(exchange)
        self.visits.discard(exchange)
        output_tokens = self.books.close(exchange, self.now())
        self.pump.release(exchange, output_tokens, exchange.outcome == "served" and exchange.status == 200)
        if not self.active:
            self._idle.set()

    def refused(self, refusal: Refusal, head: RequestHead | None) -> None:
        """Counts a refusal that no exchange is there for."""
        self.books.refused(refusal, head)

    def stalled(self, connection: ClientConnection) -> None:
        """Counts a client that is cut off because it reads nothing of what was written for it."""
        self.metrics.client_stalls += 1
        log.info("a client was cut off: it read nothing for %g s (gateway.write_timeout)", self.settings.write_timeout)

    def new_request_id(self) -> bytes:
        self._id_count += 1
        return f"{self._id_start}-{self._id_count:08x}".encode()

    def _replica_changed(self, replica: Replica) -> None:
        if not replica.is_ready:
            self.pool.drop(replica)
        self.pump.turn()

    def __repr__(self) -> str:
        return f"<Gateway {self.dispatcher!r} connections={len(self.connections)}>"
