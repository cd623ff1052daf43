"""What a request asks for (priority, mode), and what is said to one that is not served. Pure."""

from __future__ import annotations

from typing import Any

from launcher.gateway.dispatch import Dispatcher, Ticket, Verdict
from launcher.gateway.heads import RequestHead
from launcher.gateway.modes import MODES, PRIORITIES, Priority, Rules
from launcher.gateway.price import Price
from launcher.gateway.refusal import Refusal, Refused, bad_request

EVICTED = "deadline_passed"


def priority_asked(head: RequestHead, price: Price, usual: int, highest: int) -> int:
    """By X-Priority, else by vLLM's own (its header, then the body's field: lower is earlier), else the key's usual one.

    ``highest``: what the key may ask for. Raises Refused where it asks for more, or for what there is not.
    """
    asked: int | None = None
    if word := head.priority:
        asked = PRIORITIES.get(word.decode("latin-1").lower())
        if asked is None:
            shown = word.decode("latin-1")[:80]
            raise bad_request("bad_priority", f"X-Priority is {shown!r}: it must be one of high, normal and low.")
    elif number := _engine_priority(head) or price.priority:
        asked = Priority.HIGH if number < 0 else Priority.LOW
    if asked is None:
        return usual
    if asked < highest:
        names = list(PRIORITIES)
        message = f"This key may ask for priority {names[highest]} at most, not {names[asked]}."
        raise Refused(Refusal(403, "priority_not_allowed", message))
    return asked


def _engine_priority(head: RequestHead) -> int:
    """X-Vllm-Priority; what is no number is the engine's to refuse."""
    if not head.engine_priority:
        return 0
    try:
        return int(head.engine_priority)
    except ValueError:
        return 0


def mode_asked(head: RequestHead, own: dict[str, Rules]) -> Rules | None:
    """The rules of the mode that X-Mode names; ``own``: by mode, as the profile has them. Raises Refused."""
    if not head.mode:
        return None
    rules = own.get(head.mode.decode("latin-1").lower())
    if rules is None:
        shown = head.mode.decode("latin-1")[:80]
        raise bad_request("bad_mode", f"X-Mode is {shown!r}: it must be one of {', '.join(MODES)}.")
    return rules


def not_served(verdict: Verdict | None, ticket: Ticket, dispatcher: Dispatcher[Any], now: float) -> Refusal:
    """Why a request is refused at arrival, or (None) taken out of the queue: 429 where engines are ready, else 503."""
    replicas, waiting, admission = dispatcher.replicas, dispatcher.waiting, dispatcher.admission
    wait = dispatcher.retry_after_s(ticket, now)
    if not replicas.ready_ones:
        why = replicas.reasons().rstrip(".")
        return Refusal(503, "not_ready", f"No engine is ready: {why}.", retry_after_s=wait)
    if ticket.rescue_by:
        message = (
            f"Its engine failed, and none took it over within {admission.restart_wait:g} s (admission.restart_wait)."
        )
        return Refusal(503, "engine_failed", message, retry_after_s=wait)
    if verdict is Verdict.QUEUE_FULL:
        message = f"Too many requests: {waiting} wait already (admission.max_queued {admission.max_queued})."
        if waiting < admission.max_queued:
            most = dispatcher.max_queued_tokens
            message = (
                f"Too much work waits already: {dispatcher.waiting_tokens} tokens (admission.max_queued_tokens {most})."
            )
        return Refusal(429, verdict.value, message, retry_after_s=wait)
    patience = dispatcher.patience_s(ticket)
    if verdict is Verdict.TOO_LATE:
        expected = dispatcher.expected_wait_s(ticket, now) or 0.0
        message = (
            f"An engine would have room for this request in about {expected:.2g} s; "
            f"it may wait {patience:g} s (admission.deadline)."
        )
        return Refusal(429, verdict.value, message, retry_after_s=wait)
    message = f"No engine had room within {patience:g} s (admission.deadline); {waiting} more wait."
    return Refusal(429, EVICTED, message, retry_after_s=wait)
