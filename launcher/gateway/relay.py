"""One request on its way: sent to its engine, the answer carried back, a failed engine made up for where that is safe."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from launcher.gateway.answers import EventChanger, change_whole
from launcher.gateway.compat import Changes
from launcher.gateway.dispatch import Ticket
from launcher.gateway.failures import BUSY_RETRY_S, failure_of
from launcher.gateway.heads import ResponseHead
from launcher.gateway.http1 import ClientConnection, connection_line
from launcher.gateway.ingest import engine_head
from launcher.gateway.modes import Rules
from launcher.gateway.order import Account
from launcher.gateway.price import Price
from launcher.gateway.reasons import Reason
from launcher.gateway.refusal import BUG, Refusal, retry_lines
from launcher.gateway.replicas import Replica
from launcher.gateway.requests import Request
from launcher.gateway.rescue import COMMENT_S, Rescue
from launcher.gateway.resume import finish_events, waiting_comment
from launcher.gateway.routes import Kind
from launcher.gateway.timing import Stage, server_timing
from launcher.gateway.upstream import EngineConnection, Reading

if TYPE_CHECKING:
    from launcher.gateway.rate import Limits
    from launcher.gateway.server import Gateway

log = logging.getLogger("launcher.gateway")
LAST_CHUNK = b"0\r\n\r\n"
CLIENT_LEFT = 499  # nginx's code for it; only in metrics and logs, nobody is there to be told
MAX_FAILOVERS = 1  # a request that ends two engines is not given a third
MAX_WHOLE = 64 * 1024 * 1024  # bytes of an answer that is changed as a whole
CONTROL_DOWN = Refusal(
    503, "control_down", "The control app does not answer; it is started again. Inference goes on.", retry_after_s=2.0
)
TAIL = 1024  # bytes: vLLM's usage and what follows it take 300


class Exchange(Ticket):
    """A request and its answer. Ends exactly once, in ``_end``; whoever ends it frees its slot."""

    _engine: EngineConnection | None = None
    _sent_at = 0.0
    _failovers = 0
    _stale_retried = False
    _keep = True
    _changer: EventChanger | None = None
    _whole_head: ResponseHead | None = None  # of an answer that is changed as a whole, from these pieces
    _whole: list[bytes]
    _failed_head: ResponseHead | None = None  # of an answer that tells of an engine's failure, from the same pieces
    _as_it_came = False
    _unsent = b""  # a head that waits for the first bytes of its body, which came with it
    bytes_out = 0
    pieces = 0
    first_byte_at = 0.0
    is_preparing = False  # its pictures and clips are fetched, or made smaller
    media_task: asyncio.Task[None] | None = None  # which does that
    media_s = 0.0  # how long that took
    _stages: Sequence[Stage] = ()  # of that, for Server-Timing
    _media_lines: Sequence[bytes] = ()  # header lines that tell what was done
    keeps_tail = False
    tail = b""  # the answer's last bytes, where they may tell what it came to in tokens
    charged_to: Limits | None = None  # of the key, for this request
    began_at = 0.0  # when its answer's first byte came; 0: none has
    _rescue: Rescue | None = None  # of a stream that may go on elsewhere
    _comments: asyncio.TimerHandle | None = None
    outcome = ""  # served, refused, evicted, cancelled or failed
    reason = ""  # of a refusal, an eviction or a failure
    status = 0
    head_sent = False  # the client has been given bytes of an answer
    is_chunked = False
    is_events = False
    ended = False

    def __init__(
        self, gateway: Gateway, client: ClientConnection, request: Request, changes: Changes, price: Price
    ) -> None:
        super().__init__(price, request.arrived_at)
        self._gateway, self.client, self.request, self._changes = gateway, client, request, changes
        self.is_work = request.route.kind is Kind.INFERENCE
        self.bytes_in = len(request.body)
        if self.is_work:
            self.reprice(price)

    def place_at(self, account: Account, priority: int, rules: Rules | None) -> None:
        """Whose it is, and how it is to be queued."""
        self.account, self.priority, self.lane, self.rules = account, priority, 1 + priority, rules

    def reprice(self, price: Price) -> None:
        """Another price, before it is handed in."""
        self.price = price
        self.keeps_tail = price.wants_usage or not price.streams

    # To the engine.

    def start(self, fresh: bool = False) -> None:
        """Sends the request to ``self.replica``, over an idle connection unless a fresh one is asked for."""
        assert self.replica is not None
        connection = None if fresh else self._gateway.pool.take(self.replica)
        if connection is None:
            self._gateway.spawn(self._dial(self.replica))
        else:
            self._send(connection, self.replica)

    def media_told(self, lines: Sequence[bytes], image_info: list[dict[str, Any]], stages: Sequence[Stage]) -> None:
        """What was done with its pictures and clips."""
        self._media_lines, self._stages = lines, (*self._stages, *stages)
        if self._changes.tells_images:
            self._changes.image_info = image_info

    def prepared(self, body: bytes, seconds: float) -> None:
        """It can be sent: ``body`` has its pictures and clips as they go on."""
        self._changes.body, self.media_s, self.is_preparing = body, seconds, False

    async def _dial(self, replica: Replica) -> None:
        pool = self._gateway.pool
        try:
            try:
                connection = await pool.dial(replica)
            except (OSError, UnicodeError) as error:  # no connection in time; a name that is no host's
                if not self.ended:
                    self._failed(f"The engine cannot be reached: {error or 'no connection in time'}", "connect")
                return
            if self.ended:
                pool.put(connection)
            else:
                self._send(connection, replica)
        except Exception:  # nobody awaits this task
            log.exception(BUG.message)
            self.crashed()

    def _send(self, connection: EngineConnection, replica: Replica) -> None:
        self._engine = connection
        self._sent_at = self._gateway.now()
        if self.client.write_paused:
            connection.pause()
        body = self._changes.body
        connection.send(self, engine_head(self.request, self._changes, len(body), replica), body)

    # From the engine.

    def on_head(self, head: ResponseHead, more: bool) -> Reading:
        """Writes the answer's head, in the framing that this client and this answer need.

        ``more``: bytes of the body have come with it, so both can be written at once.
        """
        gateway, request_head, sent_body = self._gateway, self.request.head, self._changes.body
        assert self.replica is not None
        if self._rescue is not None and self._rescue.is_asking:
            return self._goes_on(self._rescue, head)
        if self.is_work:
            gateway.metrics.first_bytes[self.replica.index].observe(gateway.now() - self._sent_at)
        self.status = head.status
        if self.is_work and head.status >= 500:
            self._failed_head, self._whole = head, []
            return Reading.PAYLOAD
        self._changes.body = self.request.body = b""  # not to be sent again: a stream lasts, and pictures are large
        self._keep = request_head.keep_alive and not gateway.is_draining
        if request_head.method == b"HEAD" or head.status in (204, 304):
            self._write_head(head, [head.length_line] if head.length_line else [], False)
            return Reading.NOTHING
        changes = self._changes.touch_answer and head.status == 200 and not head.is_encoded
        self.is_events = head.is_events
        if changes and not head.is_events:
            self._whole_head, self._whole = head, []
            return Reading.PAYLOAD
        if changes:
            self._changer = EventChanger(self._changes)
        elif head.content_length is not None:
            self._as_it_came = True
            self._write_head(head, [head.length_line] if head.length_line else [], more)
            return Reading.AS_IT_CAME
        self.is_chunked = request_head.is_http11
        self._keep = self._keep and self.is_chunked  # without chunks only the connection's end can mark the answer's
        self._as_it_came = self.is_chunked and head.chunked and head.is_events and not changes
        if head.is_events and head.status == 200 and not head.is_encoded and gateway.may_resume(self.price, sent_body):
            self._rescue = Rescue(
                sent_body,
                self.request.route.engine_path,
                framed=self._as_it_came,
                whole_only=changes,
                default_temperature=gateway.default_temperature,
            )
        self._write_head(head, [b"transfer-encoding: chunked"] if self.is_chunked else [], more)
        return Reading.AS_IT_CAME if self._as_it_came else Reading.PAYLOAD

    def on_first_byte(self) -> None:
        """The body of an engine's 200 answer begins: of a stream, its prompt is done."""
        self.began_at = self.began_at or self.first_byte_at
        if self.is_work and self.is_events:
            self._gateway.pump.first_token(self)

    @property
    def keep_pieces(self) -> Callable[[bytes], None] | None:
        """Who is given all that is passed on."""
        return self._keep_tail if self.keeps_tail else None

    def _keep_tail(self, data: bytes) -> None:
        """Keeps the answer's end, which says what it came to in tokens."""
        self.tail = data if len(data) >= TAIL else self.tail[-TAIL:] + data

    def _write_head(self, head: ResponseHead, framing: list[bytes], more: bool) -> None:
        """The engine's head with our own lines; kept for the first bytes of the body where there are ``more``."""
        lines = [head.status_line, *head.lines, b"x-request-id: " + self.request.head.request_id]
        sent_at = self._sent_at
        waited_s = max(0.0, sent_at - self.arrived_at - self.media_s)
        before = self._stages
        if self.request.receive_s >= 0:
            before = ((b"receive", self.request.receive_s), *before)
        lines.append(server_timing(waited_s, self._gateway.now() - sent_at, before))
        if self._media_lines:
            lines += self._media_lines
        if (limits := self.charged_to) is not None:
            lines += limits.lines(self._gateway.now())
        if head.status >= 400 and self.request.route.kind is not Kind.CONTROL:
            lines.append(b"x-launcher-src: engine")
            if head.status == 503 and not head.retry_after:
                lines += retry_lines(BUSY_RETRY_S)
        lines += framing
        if not self._keep or not self.request.head.is_http11:
            lines += connection_line(self.request.head, self._keep)
        lines.append(b"\r\n")
        self.head_sent = True
        if more:
            self._unsent = b"\r\n".join(lines)
        else:
            self.client.transport.write(b"\r\n".join(lines))

    @property
    def retries(self) -> int:
        """How often it was sent again."""
        return self._failovers + self._stale_retried

    @property
    def resumes(self) -> int:
        """How often another engine has gone on with its stream."""
        return 0 if self._rescue is None else self._rescue.times

    @property
    def sink(self) -> Callable[[bytes], None]:
        """Where bytes that pass as they came go; a slow client is no reason to wait, client_full() sees to that."""
        if self._unsent:
            self._write(b"")
        write = self.client.transport.write
        return write if self._rescue is None else self._rescue.transcript.passing(write, self._said_error)

    def _write(self, data: bytes) -> None:
        if self._unsent:
            data, self._unsent = self._unsent + data, b""
        self.client.transport.write(data)

    def on_bytes(self, data: bytes) -> None:
        """A piece of the answer; it goes on at once."""
        self.bytes_out += len(data)
        if self._rescue is not None and self._failed_head is None:
            self._rescued(self._rescue, data)
        elif self._whole_head is not None or self._failed_head is not None:
            self._whole.append(data)
            if self.bytes_out > MAX_WHOLE:
                self._engine_leave()
                self.on_lost("The engine's answer is too large to be changed", True)
        else:
            self._pass_on(data)

    def _pass_on(self, data: bytes) -> None:
        """A piece of a stream, as it came or with its changes."""
        if self._as_it_came:
            self._write(data)
        else:
            self._pass_on_payload(data)

    def _write_payload(self, data: bytes) -> None:
        if data:
            self._write(b"%x\r\n%b\r\n" % (len(data), data) if self.is_chunked else data)

    def on_end(self) -> None:
        """The answer is complete."""
        self._engine = None
        if self._rescue is not None and self._rescue.is_cut_short:
            self._broke("The engine ended the answer")
            return
        if self._failed_head is not None:
            self._told_failure(self._failed_head, b"".join(self._whole))
            return
        self._finish()

    def _finish(self) -> None:
        """Writes what the end takes, and ends."""
        if self._whole_head is not None:
            body = change_whole(b"".join(self._whole), self._changes)
            self._write_head(self._whole_head, [b"content-length: %d" % len(body)], True)
            self._write(body)
        elif self._changer is not None:
            self._write_payload(self._changer.end())
        if self.is_chunked and not self._as_it_came:
            self._write(LAST_CHUNK)
        elif self._unsent:
            self._write(b"")
        self._end("served", self.status)

    def on_lost(self, reason: str, got_bytes: bool) -> None:
        """The engine's connection broke, or what came over it was no answer."""
        connection, self._engine = self._engine, None
        is_stale = not (got_bytes or connection is None or connection.uses == 1 or self._stale_retried)
        is_asking = self._rescue is not None and self._rescue.is_asking
        if self.head_sent and not (is_stale and is_asking):
            self._broke(reason)
        elif not is_stale:
            self._failed(reason, "head")
        else:
            # The engine had closed an idle connection when the request was on its way: it never saw it.
            self._stale_retried = True
            self._gateway.metrics.retries["stale"] += 1
            self.start(fresh=True)

    # When an engine fails.

    def _failed(self, reason: str, stage: str) -> None:
        """No part of this attempt has reached the client: another one may be made."""
        assert self.replica is not None
        if self.head_sent:  # a stream that was to go on here
            if stage == "connect" and self._rescue is not None:
                self._rescue.times -= 1  # it was never asked
            self._broke(reason)
            return
        if self.request.route.kind is Kind.CONTROL:
            self.refuse(CONTROL_DOWN, "failed")
            return
        metrics = self._gateway.metrics
        metrics.engine_failures[self.replica.index, stage] += 1
        if stage == "connect" or self._failovers < MAX_FAILOVERS:
            self._failovers += stage != "connect"  # what was never sent cannot have been the engine's end
            if self._gateway.pump.reassign(self):
                metrics.retries["failover"] += 1
                return
        self.refuse(
            Refusal(502, "engine_failed", f"{reason} before it had answered.", retry_after_s=BUSY_RETRY_S), "failed"
        )

    def _told_failure(self, head: ResponseHead, body: bytes) -> None:
        """The engine answers that it failed: tried once more where that may help, else told to the client."""
        assert self.replica is not None
        self._failed_head = None
        if self.head_sent:  # a stream that was to go on here
            told = f"The engine answered {head.status}"
            if head.status >= 500:
                self._broke(told)
            else:
                self._gateway.metrics.resumes["failed"] += 1
                self._break_off(Refusal(502, "engine_failed", f"{told} when it was to continue the answer."))
            return
        failure = failure_of(head.status, body)
        if failure is not None:
            metrics = self._gateway.metrics
            metrics.engine_failures[self.replica.index, failure.stage] += 1
            if self._failovers < MAX_FAILOVERS:
                self._failovers += 1
                if self._gateway.pump.reassign(self):
                    metrics.retries[failure.stage] += 1
                    return
            if failure.refusal is not None:
                self.refuse(failure.refusal, "failed")
                return
        self._write_head(head, [b"content-length: %d" % len(body)], True)
        self._write(body)
        self._end("failed", head.status)

    def _broke(self, reason: str) -> None:
        """The answer has begun, and its engine failed."""
        assert self.replica is not None
        self._gateway.metrics.engine_failures[self.replica.index, "body"] += 1
        if self._rescue is not None and self._save(self._rescue):
            return
        self._break_off(Refusal(502, "engine_failed", f"{reason} in the middle of the answer."))

    # A stream that goes on elsewhere.

    def _save(self, rescue: Rescue) -> bool:
        """Has another engine, or the restarted one, go on with the answer. False: that cannot be."""
        assert self.replica is not None
        metrics = self._gateway.metrics
        plan = rescue.next(self.replica.index)
        if plan is Reason.COMPLETE:  # only its end was missing
            metrics.resumes["completed"] += 1
            self._pass_on_payload(finish_events(rescue.body, self.request.route.engine_path, rescue.transcript))
            self._as_it_came = False  # the end of the chunks is ours to write
            self._finish()
            return True
        if isinstance(plan, Reason):
            metrics.resumes[plan.value] += 1
            self.reason = plan.value
            return False
        self._changes.body = plan.body
        self._stale_retried = False
        if not self._gateway.pump.reassign(self):
            metrics.resumes["failed"] += 1
            rescue.is_asking = False
            return False
        if rescue.is_asking and self._comments is None and not self.ended:
            self._comments = self._gateway.later(COMMENT_S, self._comment)
        return True

    def _goes_on(self, rescue: Rescue, head: ResponseHead) -> Reading:
        """The head of an answer that continues ours: nothing of it is for the client."""
        assert self.replica is not None
        if head.status != 200 or not head.is_events:
            self._failed_head, self._whole = head, []
            return Reading.PAYLOAD
        self._stop_comments()
        if self._changer is not None:
            self._changer.drop_half()
        rescue.begin(self.replica.index)
        self._as_it_came = False
        self._gateway.metrics.resumes["resumed"] += 1
        log.info("%r goes on, on replica %d", self, self.replica.index)
        return Reading.PAYLOAD

    def _rescued(self, rescue: Rescue, data: bytes) -> None:
        """A piece of a stream that may go on elsewhere, or does."""
        if rescue.continuation is None:
            if rescue.says_failed(data):
                self._said_error(data)
            else:
                rescue.transcript.keep(data)
                self._pass_on(data)
            return
        self._pass_on_payload(rescue.take(data))
        if rescue.continuation.failed is None:
            return
        self._engine_leave()
        if rescue.may_go_on():
            self._broke("The engine failed")
        else:
            why = rescue.continuation.failed.value
            self._gateway.metrics.resumes[why] += 1
            self._break_off(Refusal(502, "engine_failed", f"The answer could not be continued ({why})."))

    def _said_error(self, piece: bytes) -> None:
        """A piece with an event by which the engine says that it failed, or that follows one which may pass."""
        rescue = self._rescue
        assert rescue is not None
        if not rescue.says_failed(piece):
            self._pass_on(piece)
            return
        if good := rescue.before_failure(piece):
            self._pass_on(good)
        self._engine_leave()
        self._broke("The engine failed")

    def _pass_on_payload(self, data: bytes) -> None:
        if data:
            self._write_payload(data if self._changer is None else self._changer.feed(data))

    def _comment(self) -> None:
        self._comments = self._gateway.later(COMMENT_S, self._comment)
        if not self.client.write_paused:
            self._write_payload(waiting_comment())

    def _stop_comments(self) -> None:
        if self._comments is not None:
            self._comments.cancel()
            self._comments = None

    def _break_off(self, why: Refusal) -> None:
        """Ends an answer that has begun: a stream of events with an error, as vLLM's do; anything else is cut off."""
        if not self.is_events or not (self.is_chunked or not self.request.head.is_http11):
            self.client.abort()
            self._end("failed", self.status)
            return
        if self._changer is not None:
            self._write_payload(self._changer.broken())
        # The blank line: the engine may have broken off within an event, and ours must not become part of it.
        self._write_payload(b"\n\n" + why.events())
        if self.is_chunked:
            self._write(LAST_CHUNK)
        self._end("failed", self.status)

    def refuse(self, refusal: Refusal, outcome: str = "refused") -> None:
        """Ends the request with an answer of the gateway's own."""
        if outcome == "refused":
            self._gateway.metrics.refusals[refusal.reason] += 1
        self.reason = refusal.reason
        client, request = self.client, self.request
        self._end(outcome, refusal.status, answered=False)
        client.refuse(refusal, request.head)

    def evict(self, refusal: Refusal) -> str:
        """It has waited too long. Returns the reason."""
        if self.head_sent:
            self._gateway.metrics.resumes["failed"] += 1
            self._break_off(refusal)
        else:
            self.refuse(refusal, "evicted")
        return refusal.reason

    def cut_off(self, reason: str) -> None:
        """The gateway closes and waits no longer for this request."""
        self._engine_leave()
        if self.ended:
            return
        refusal = Refusal(503, "draining", f"The request was cut off: {reason.rstrip('.')}.", close=True)
        if self.head_sent:
            self._break_off(refusal)
        else:
            self.refuse(refusal)

    def crashed(self) -> None:
        """A bug of ours struck, wherever: the client is told where that is possible, and the slot is freed."""
        self._engine_leave()
        if self.ended:
            return
        if self.head_sent:
            self.client.abort()
            self._end("failed", BUG.status, answered=False)
        else:
            self.refuse(BUG, "failed")

    # From the client.

    def client_gone(self) -> None:
        """The client left: the engine is told at once, by closing its connection, so that it aborts the work."""
        self._engine_leave()
        if not self.ended:
            self._gateway.metrics.client_disconnects += 1
            self._end("cancelled", CLIENT_LEFT, answered=False)

    def client_full(self) -> None:
        """The client reads slower than the engine writes: the engine waits, so that little is held here."""
        if self._engine is not None:
            self._engine.pause()

    def client_drained(self) -> None:
        if self._engine is not None:
            self._engine.resume()

    def _engine_leave(self) -> None:
        connection, self._engine = self._engine, None
        if connection is not None:
            connection.leave()

    def _end(self, outcome: str, status: int, answered: bool = True) -> None:
        """The one end of every exchange: the slot is freed, the numbers are added, the client goes on."""
        if self.ended:
            return
        self.ended, self.outcome, self.status = True, outcome, status
        self._stop_comments()
        if self.is_preparing and self.media_task is not None:
            self.media_task.cancel()
        client = self.client
        client.answering = None
        self._gateway.ended(self)
        if answered and not client.transport.is_closing():
            client.end_response(self._keep)

    def __repr__(self) -> str:
        where = "-" if self.replica is None else self.replica.index
        return f"<Exchange {self.request.head.request_id.decode()} {self.place.value} replica={where}>"
