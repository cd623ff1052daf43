"""What is taken down of each request at its end: metrics, the access log, and what the prices learn from it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from launcher.gateway.access import AccessEntry
from launcher.gateway.build import is_compiled
from launcher.gateway.histograms import length_label
from launcher.gateway.metrics import Metrics, Sample
from launcher.gateway.modes import PRIORITY_NAMES
from launcher.gateway.price import find_usage
from launcher.gateway.refusal import Refusal
from launcher.gateway.requests import Request

if TYPE_CHECKING:
    from launcher.gateway.heads import RequestHead
    from launcher.gateway.media.intake import Done
    from launcher.gateway.media.jobs import Shrunk
    from launcher.gateway.rate import Limits
    from launcher.gateway.relay import Exchange
    from launcher.gateway.server import Gateway


class Books:
    """The gateway's figures. Written by its event loop only."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.metrics = Metrics(self._readings)

    def page(self, request: Request, status: int, now: float) -> None:
        """A page of the gateway's own was asked for."""
        metrics, name = self.metrics, request.route.name
        metrics.requests[name, status] += 1
        metrics.durations[name].observe(now - request.arrived_at)

    def refused(self, refusal: Refusal, head: RequestHead | None) -> None:
        """A request was refused before there was an exchange for it."""
        self.metrics.refusals[refusal.reason] += 1
        self.metrics.requests["other", refusal.status] += 1
        access, tracer, now = self._gateway.access, self._gateway.tracer, self._gateway.now()
        if access is not None:
            access.add(self._refusal(refusal, head, now))
        if tracer is not None and head is not None:
            tracer.refused(head, self._refusal(refusal, head, now))

    def _refusal(self, refusal: Refusal, head: RequestHead | None, now: float) -> AccessEntry:
        """The line of the access log for it."""
        method, target, identity = b"-", b"-", b"-"
        if head is not None:
            method, target, identity = head.method, head.target, head.request_id or b"-"
        return AccessEntry(now, identity, method, target, refusal.status, "refused", refusal.reason)

    def media(self, done: Done, seconds: float) -> None:
        """The pictures and clips of a request were made ready, which took so long in all."""
        metrics = self.metrics
        metrics.media_seconds["all"].observe(seconds)
        for what, count in done.outcomes:
            metrics.media[what] += count
        for stage, took_s in done.stages:
            metrics.media_seconds[stage.decode()].observe(took_s)

    def decoded(self, made: Shrunk) -> None:
        """An upload was made ready."""
        self.metrics.media["untouched" if made.is_untouched else "shrunk"] += 1
        for stage, took_s in made.stages:
            self.metrics.media_seconds[stage.decode()].observe(took_s)

    def close(self, exchange: Exchange, now: float) -> int | None:
        """An exchange has ended. Returns the tokens of its answer, where they are known or can be told."""
        metrics, request = self.metrics, exchange.request
        name, elapsed = request.route.name, now - exchange.arrived_at
        metrics.requests[name, exchange.status] += 1
        metrics.durations[name].observe(elapsed)
        metrics.sent_bytes += exchange.bytes_out
        if not exchange.is_work:
            return None
        metrics.tickets[exchange.outcome] += 1
        usage = output_tokens = None
        if exchange.outcome == "served" and exchange.status == 200:
            usage = find_usage(exchange.tail) if exchange.tail else None
            output_tokens = self._served(exchange, usage, now, elapsed)
        if (limits := exchange.charged_to) is not None:
            self._settle(limits, exchange, usage, output_tokens, now)
        if self._gateway.access is not None:
            self._gateway.access.add(self._entry(exchange, usage, now))
        trace = request.head.trace
        if trace is not None and trace.is_sampled and self._gateway.tracer is not None:
            self._gateway.tracer.end(trace, self._entry(exchange, usage, now))
        return output_tokens

    def _settle(
        self, limits: Limits, exchange: Exchange, usage: tuple[int, int] | None, output: int | None, now: float
    ) -> None:
        """The key's limits: what was really used, or nothing where nothing was served."""
        price = exchange.price
        charged = price.prompt_tokens + price.output_tokens
        if exchange.outcome == "refused" and exchange.status < 429:  # its sender's fault, and it took work to find out
            limits.settle(charged, 0, now)
        elif exchange.outcome in ("refused", "evicted", "failed"):
            limits.forgive(charged, now)
        elif exchange.outcome == "served":
            if exchange.status != 200:  # the engine has refused it: nothing was computed
                limits.settle(charged, 0, now)
                return
            used = sum(usage) if usage else price.prompt_tokens + (price.output_tokens if output is None else output)
            limits.settle(charged, used, now)

    def _entry(self, exchange: Exchange, usage: tuple[int, int] | None, now: float) -> AccessEntry:
        """The line of the access log; its fields in their order there."""
        head, price = exchange.request.head, exchange.price
        rules = self._gateway.dispatcher.rules_for(exchange)
        prompt, output = usage or (0, 0)
        arrived_at, sent_at = exchange.arrived_at, exchange.sent_at
        peer = exchange.client.transport.get_extra_info("peername")
        return AccessEntry(
            now, head.request_id, head.method, head.target, exchange.status, exchange.outcome, exchange.reason,
            peer[0] if peer else "", head.identity.name, price.model, rules.mode, PRIORITY_NAMES[exchange.priority],
            price.streams, price.image_tokens, price.prompt_tokens, prompt, output, exchange.pieces,
            max(0.0, (sent_at or now) - arrived_at - exchange.media_s),
            exchange.began_at - arrived_at if exchange.began_at else 0.0,
            now - arrived_at, -1 if exchange.replica is None else exchange.replica.index, exchange.retries, exchange.resumes,
            exchange.bytes_in, exchange.bytes_out, max(0.0, exchange.request.receive_s), exchange.media_s,
        )  # fmt: skip

    def _served(self, exchange: Exchange, usage: tuple[int, int] | None, now: float, elapsed: float) -> int | None:
        metrics, price = self.metrics, exchange.price
        rules = self._gateway.dispatcher.rules_for(exchange)
        series = metrics.series(length_label(price.prompt_tokens), rules.mode, PRIORITY_NAMES[exchange.priority])
        series.queue.observe(exchange.sent_at - exchange.arrived_at - exchange.media_s)
        series.e2e.observe(elapsed)
        pieces = exchange.pieces
        if exchange.is_events:
            series.ttft.observe(exchange.began_at - exchange.arrived_at)
            if pieces > 1:
                series.itl.observe((now - exchange.began_at) / (pieces - 1))
        prompt, output = usage if usage is not None else (None, pieces if exchange.is_events else None)
        identity = exchange.request.head.identity
        self._gateway.pricer.learn(price, identity.key_id, prompt, output)
        if usage is not None:
            metrics.compare((price.prompt_tokens, price.output_tokens), usage)
        metrics.served(identity.name, prompt or price.prompt_tokens, output or 0)
        return output

    def _readings(self) -> Iterator[Sample]:
        """What others count, read when the metrics are asked for."""
        gateway, dispatcher = self._gateway, self._gateway.dispatcher
        for replica in gateway.replicas.all:
            index, ledger, caps = (str(replica.index),), replica.ledger, dispatcher.caps(replica)
            yield "launcher_in_flight", index, ledger.requests
            yield "launcher_replica_ready", index, replica.is_ready and not replica.is_draining
            yield "launcher_replica_losses", index, replica.losses
            yield "launcher_ledger_prefill_tokens", index, ledger.prefill_tokens
            yield "launcher_ledger_sequences", index, ledger.sequences
            yield "launcher_ledger_kv_tokens", index, ledger.kv_tokens
            yield "launcher_limit_prefill_tokens", index, caps.prefill_tokens
            yield "launcher_limit_sequences", index, caps.sequences
            if caps.kv_tokens is not None:
                yield "launcher_limit_kv_tokens", index, caps.kv_tokens
        yield from gateway.told()
        yield "launcher_ledger_corrections", (), dispatcher.corrections
        yield "launcher_limit_moves", (), dispatcher.limit_moves
        yield "launcher_access_log_dropped_lines", (), gateway.access.dropped if gateway.access else 0
        yield "launcher_spans", ("sent",), gateway.tracer.sent if gateway.tracer else 0
        yield "launcher_spans", ("lost",), gateway.tracer.lost if gateway.tracer else 0
        uploads = gateway.intake.store
        yield "launcher_uploads", (), len(uploads)
        yield "launcher_upload_bytes", (), uploads.size
        yield "launcher_upload_evictions", (), uploads.evicted
        yield "launcher_queued", (), dispatcher.waiting
        yield "launcher_queued_tokens", (), dispatcher.waiting_tokens
        yield "launcher_connections", (), len(gateway.connections)
        yield "launcher_draining", (), gateway.is_draining
        yield "launcher_mode_info", (gateway.mode,), 1
        yield "launcher_control_up", (), gateway.control_runs
        yield "launcher_build_info", (gateway.version, "1" if is_compiled() else "0"), 1
