"""From a request that was read whole to what goes to the engine."""

from __future__ import annotations

from launcher.gateway.compat import Changes, as_plain, change_chat, change_completion
from launcher.gateway.generate import chat_of
from launcher.gateway.replicas import Replica
from launcher.gateway.requests import Request
from launcher.profile.model import TemplatePolicy

_ENCODINGS = b"accept-encoding"
JSON_LINE = b"content-type: application/json"


def prepare(request: Request, policy: TemplatePolicy) -> Changes:
    """What the request becomes, and what is done to its answer. Raises Refused."""
    route = request.route
    if route.is_plain:
        return as_plain(change_chat(chat_of(request.body), policy))
    if route.is_chat:
        return change_chat(request.body, policy)
    return change_completion(request.body, policy) if route.has_choices else Changes(request.body)


def engine_head(request: Request, changes: Changes, body_bytes: int, replica: Replica) -> bytes:
    """The head of the request to a replica: the client's end-to-end headers, with what this hop needs."""
    head, route = request.head, request.route
    lines, target = head.lines, route.engine_path.encode("ascii") if route.is_plain else head.target
    if replica.own_names and head.credentials:  # the engine's own key goes in their place
        lines = [line for line in lines if line not in head.credentials]
    if changes.touch_answer:  # an answer that is to be changed must come as plain text
        lines = [line for line in lines if line[: line.index(b":")].lower() != _ENCODINGS]
    if route.is_plain:  # who sends plain JSON need not say so; curl calls it a form
        lines = [*(line for line in lines if line[: line.index(b":")].lower() != b"content-type"), JSON_LINE]
    start = b"%b %b%b HTTP/1.1" % (head.method, replica.prefix, target)
    length = [b"content-length: %d" % body_bytes] if body_bytes or head.method == b"POST" else []
    identity = b"x-request-id: " + head.request_id
    return b"\r\n".join([start, replica.host_line, *lines, *replica.extra_lines, identity, *length, b"\r\n"])
