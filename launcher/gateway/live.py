"""The gateway's live figures, as /admin/state, `launcher ps` and the operator's page show them. Reads, changes nothing.

What each figure is, and its unit: launcher/control/models.py, which is this as a schema.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

from launcher.gateway.histograms import ITL_S, LENGTH_GROUPS, TTFT_S, Bounds, length_label
from launcher.gateway.modes import PRIORITY_NAMES

if TYPE_CHECKING:
    from launcher.gateway.dispatch import Dispatcher, Ticket
    from launcher.gateway.metrics import Metrics
    from launcher.gateway.replicas import Replica
    from launcher.gateway.server import Gateway

SAMPLE_EVERY_S = 5.0
SAMPLES = 13  # twelve steps of 5 s: a minute


class Counts(NamedTuple):
    """What had been counted at a moment of the event loop's time."""

    at: float
    requests: int
    prompt_tokens: int
    output_tokens: int
    ttft: tuple[int, ...]  # by bucket of TTFT_S
    itl: tuple[int, ...]  # by bucket of ITL_S
    outcomes: Mapping[str, int]
    refusals: Mapping[str, int]  # by reason, as the next
    evictions: Mapping[str, int]


class LastMinute:
    """Rates since up to a minute ago. Its owner notes the counts every SAMPLE_EVERY_S."""

    def __init__(self) -> None:
        self._samples: deque[Counts] = deque(maxlen=SAMPLES)

    def note(self, counts: Counts) -> None:
        self._samples.append(counts)

    def figures(self, now: Counts) -> dict[str, Any]:
        """The rates between the oldest sample and ``now``."""
        then = self._samples[0] if self._samples else now
        seconds = now.at - then.at
        ttft = [new - old for new, old in zip(now.ttft, then.ttft, strict=True)]
        itl = [new - old for new, old in zip(now.itl, then.itl, strict=True)]
        return {
            "seconds": round(seconds, 1),
            "requests_s": _rate(now.requests - then.requests, seconds),
            "prompt_tokens_s": _rate(now.prompt_tokens - then.prompt_tokens, seconds),
            "output_tokens_s": _rate(now.output_tokens - then.output_tokens, seconds),
            "ttft_p50_ms": percentile_ms(ttft, 0.50),
            "ttft_p99_ms": percentile_ms(ttft, 0.99),
            "itl_p50_ms": percentile_ms(itl, 0.50, ITL_S),
            "itl_p99_ms": percentile_ms(itl, 0.99, ITL_S),
            "ttft_within": within(ttft, TTFT_S),
            "itl_within": within(itl, ITL_S),
            **{name: count - then.outcomes[name] for name, count in now.outcomes.items()},
            "refusals": _grown(then.refusals, now.refusals),
            "evictions": _grown(then.evictions, now.evictions),
        }


def _rate(count: int, seconds: float) -> float:
    return round(count / seconds, 3) if seconds > 0 else 0.0


def _grown(then: Mapping[str, int], now: Mapping[str, int]) -> dict[str, int]:
    return {name: grown for name, count in now.items() if (grown := count - then.get(name, 0))}


def within(counts: Sequence[int], bounds: Bounds) -> list[tuple[float | None, int]]:
    """How many were not above each bound (seconds), and in the end how many there were; from counts by bucket."""
    return list(zip((*bounds, None), accumulate(counts), strict=True))


def percentile_ms(counts: Sequence[int], share: float, bounds: Bounds = TTFT_S) -> float | None:
    """A percentile of counts by bucket of ``bounds`` (seconds), as Prometheus' histogram_quantile has it: even within a bucket.

    None: nothing was counted. What lies beyond the last bucket is said to be its bound.
    """
    rank, below = share * sum(counts), 0
    if not rank:
        return None
    for index, bound in enumerate(bounds):
        count = counts[index]
        if count and below + count >= rank:
            start = bounds[index - 1] if index else 0.0
            return round(1000 * (start + (bound - start) * (rank - below) / count), 1)
        below += count
    return bounds[-1] * 1000


def counts(metrics: Metrics, now: float) -> Counts:
    """What has been counted up to now."""
    tokens = list(metrics.key_tokens.values())
    ttft = tuple(map(sum, zip(*(series.ttft.counts for series in metrics.all_series()), strict=True)))
    itl = tuple(map(sum, zip(*(series.itl.counts for series in metrics.all_series()), strict=True)))
    return Counts(
        at=now,
        requests=sum(metrics.tickets.values()),
        prompt_tokens=sum(prompt for prompt, _ in tokens),
        output_tokens=sum(output for _, output in tokens),
        ttft=ttft or (0,) * (len(TTFT_S) + 1),
        itl=itl or (0,) * (len(ITL_S) + 1),
        outcomes=dict(metrics.tickets),
        refusals=dict(metrics.refusals),
        evictions=dict(metrics.evictions),
    )


def state(gateway: Gateway, *, name: str, uptime_s: float, minute: LastMinute, now: float) -> dict[str, Any]:
    """All that is to be seen of a gateway. ``now`` is the event loop's time."""
    dispatcher = gateway.dispatcher
    return {
        "name": name,
        "model": gateway.model.public_name or "",
        "version": gateway.version,
        "mode": dispatcher.rules.mode,
        "draining": gateway.is_draining,
        "reason": gateway.drain_reason if gateway.is_draining else "",
        "uptime_s": round(uptime_s, 1),
        "connections": len(gateway.connections),
        "in_flight": sum(replica.in_flight for replica in gateway.replicas.all),
        "queue": queue((*dispatcher.queue, *dispatcher.preparing), now),
        "replicas": [replica_state(gateway, replica) for replica in gateway.replicas.all],
        "totals": totals(gateway.metrics),
        "last_minute": minute.figures(counts(gateway.metrics, now)),
    }


def queue(waiting: Iterable[Ticket], now: float) -> dict[str, Any]:
    """Who waits."""
    by_priority, by_length = dict.fromkeys(PRIORITY_NAMES, 0), dict.fromkeys(LENGTH_GROUPS, 0)
    tokens, oldest_at = 0, now
    for ticket in waiting:
        tokens += ticket.work_tokens
        oldest_at = min(oldest_at, ticket.arrived_at)
        by_priority[PRIORITY_NAMES[ticket.priority]] += 1
        by_length[length_label(ticket.price.prompt_tokens)] += 1
    return {
        "count": sum(by_priority.values()),
        "tokens": tokens,
        "oldest_s": round(now - oldest_at, 3),
        "by_priority": by_priority,
        "by_length": by_length,
    }


def replica_state(gateway: Gateway, replica: Replica) -> dict[str, Any]:
    """One replica: its health, what it has in hand, and how fast it is."""
    answered = gateway.metrics.first_bytes.get(replica.index)
    prefill_s, token_s = replica.pace.prefill_s, replica.pace.token.value
    host = f"[{replica.host}]" if ":" in replica.host else replica.host
    return {
        "index": replica.index,
        "url": f"{'https' if replica.tls else 'http'}://{host}:{replica.port}{replica.prefix.decode()}",
        "ready": replica.is_ready,
        "draining": replica.is_draining,
        "reason": replica.reason,
        "in_flight": replica.in_flight,
        "answered": sum(answered.counts) if answered is not None else 0,
        "ledger": _ledger(gateway.dispatcher, replica),
        "pace": {
            "prefill_tokens_s": round(1 / prefill_s, 1) if prefill_s else None,
            "itl_ms": None if token_s is None else round(1000 * token_s, 3),
        },
    }


def _ledger(dispatcher: Dispatcher[Any], replica: Replica) -> dict[str, Any]:
    ledger, caps = replica.ledger, dispatcher.caps(replica)
    return {
        "prefill_tokens": {"held": ledger.prefill_tokens, "cap": caps.prefill_tokens},
        "sequences": {"held": ledger.sequences, "cap": caps.sequences},
        "kv_tokens": {"held": ledger.kv_tokens, "cap": caps.kv_tokens},
    }


def totals(metrics: Metrics) -> dict[str, Any]:
    """What has become of requests since the start."""
    return {
        **metrics.tickets,
        "refusals": {reason: count for reason, count in metrics.refusals.items() if count},
        "evictions": {reason: count for reason, count in metrics.evictions.items() if count},
        "resumed": metrics.resumes.get("resumed", 0),
    }
