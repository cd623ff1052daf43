"""What can be done over the admin socket: one handler each. Each decides at once; each raises Refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from launcher.errors import LauncherError
from launcher.gateway.modes import MODES
from launcher.gateway.refusal import Refusal, Refused, bad_request
from launcher.gateway.routes import Kind, Route

if TYPE_CHECKING:
    from launcher.gateway.admin import AdminDoor
    from launcher.gateway.replicas import Replica
    from launcher.gateway.requests import Request

_INDEX = re.compile(rb"/admin/replicas/([0-9]{1,6})(?=/|$)")


class Done(NamedTuple):
    """What a handler has done: the answer, and the object of the act for the audit log."""

    status: int
    value: dict[str, Any]
    what: str = ""


def _state(door: AdminDoor, request: Request) -> Done:
    return Done(200, door.state())


def _set_mode(door: AdminDoor, request: Request) -> Done:
    wanted = _text(request, "mode", '{"mode": "balanced"}')
    if wanted not in MODES:
        raise bad_request("unknown_mode", f"mode: {wanted[:80]!r} is not a mode. Modes: {', '.join(MODES)}.", "mode")
    before = door.gateway.dispatcher.rules.mode
    door.gateway.set_mode(wanted)
    return Done(200, {"mode": door.gateway.dispatcher.rules.mode, "before": before}, f"{before} → {wanted}")


def _join(door: AdminDoor, request: Request) -> Done:
    url = _text(request, "url", '{"url": "http://10.0.0.5:8000"}')
    if door.membership is None:
        raise _conflict("fixed_replicas", "This deployment takes in no servers while it runs.")
    try:
        index = door.membership.join(url)
    except LauncherError as error:
        raise bad_request("url", _sentences(error), "url") from None
    note = f"Replica {index} gets requests as soon as its health path answers."
    return Done(202, _answer(door, index, note), f"{index} {url}")


def _leave(door: AdminDoor, request: Request) -> Done:
    replica = _replica(door, request)
    index = replica.index
    if not door.can_leave(index):
        raise _conflict(
            "supervised",
            f"Replica {index} is an engine that this launcher runs: it can be drained, and ends with the deployment.",
        )
    staying = [other for other in door.gateway.replicas.all if other.index not in {*door.leaving, index}]
    if not staying:
        raise _conflict("last_replica", f"Replica {index} is the last one: stop the deployment with `launcher down`.")
    door.leave(index)
    note = f"Replica {index} gets no new requests, finishes the {replica.in_flight} that it has, and is then forgotten."
    return Done(202, _answer(door, index, note), str(index))


def _drain(door: AdminDoor, request: Request) -> Done:
    index = _replica(door, request).index
    door.gateway.replicas.drain(index)
    kept = "" if door.can_leave(index) else " Its engine goes on running."
    note = f"Replica {index} finishes what it has and gets no new requests until it is undrained.{kept}"
    return Done(200, _answer(door, index, note), str(index))


def _undrain(door: AdminDoor, request: Request) -> Done:
    index = _replica(door, request).index
    if index in door.leaving:
        raise _conflict("leaving", f"Replica {index} is leaving: add its server again once it has left.")
    door.gateway.replicas.undrain(index)
    return Done(200, _answer(door, index, f"Replica {index} gets requests again while it is ready."), str(index))


def _reload_keys(door: AdminDoor, request: Request) -> Done:
    gatekeeper = door.gateway.gatekeeper
    try:
        count = gatekeeper.reload()
    except LauncherError as error:  # the keys that were read last hold
        raise _conflict("keys_file", _sentences(error)) from None
    return Done(200, {"keys": count, "required": gatekeeper.required}, f"{count} keys")


def _sentences(error: LauncherError) -> str:
    return f"{error.message.rstrip('.')}. {error.hint}".strip()


def _answer(door: AdminDoor, index: int, note: str) -> dict[str, Any]:
    replica = next(one for one in door.state()["replicas"] if one["index"] == index)
    return {"replica": replica, "note": note}


def _conflict(reason: str, message: str) -> Refused:
    return Refused(Refusal(409, reason, message))


def _replica(door: AdminDoor, request: Request) -> Replica:
    found = _INDEX.match(request.head.target)
    assert found is not None
    index = int(found[1])
    for replica in door.gateway.replicas.all:
        if replica.index == index:
            return replica
    known = ", ".join(str(replica.index) for replica in door.gateway.replicas.all) or "none"
    raise Refused(Refusal(404, "unknown_replica", f"There is no replica {index}. There are: {known}."))


def _text(request: Request, field: str, example: str) -> str:
    """The one field of a body. Raises Refused."""
    try:
        value = json.loads(request.body)
    except (ValueError, RecursionError) as error:
        raise bad_request("body", f"The body is not JSON ({error}). Send {example}.") from None
    if not isinstance(value, dict) or not isinstance(value.get(field), str):
        raise bad_request("body", f"{field}: a text is missing. Send {example}.", field)
    for name in value:
        if name != field:
            raise bad_request("body", f"{name[:80]}: there is no such field. Send {example}.", name[:80])
    return str(value[field])


Handler = Callable[["AdminDoor", "Request"], Done]
# Method, path, what the audit log calls it ('': it changes nothing), handler.
_ACTS: tuple[tuple[bytes, str, str, Handler], ...] = (
    (b"GET", "/admin/state", "", _state),
    (b"PUT", "/admin/mode", "mode", _set_mode),
    (b"POST", "/admin/replicas", "replica.add", _join),
    (b"DELETE", "/admin/replicas/{index}", "replica.remove", _leave),
    (b"POST", "/admin/replicas/{index}/drain", "replica.drain", _drain),
    (b"POST", "/admin/replicas/{index}/undrain", "replica.undrain", _undrain),
    (b"POST", "/admin/keys/reload", "key.reload", _reload_keys),
)
TABLE = {(method, path): (act, handler) for method, path, act, handler in _ACTS}
ROUTES = {
    path.encode(): Route(path, Kind.OWN, (method, b"HEAD") if method == b"GET" else (method,))
    for method, path, _, _ in _ACTS
}
NAMES = tuple(path for _, path, _, _ in _ACTS)


def path_of(target: bytes) -> bytes:
    """A target's path as the table has it, its index replaced."""
    return _INDEX.sub(b"/admin/replicas/{index}", target.partition(b"?")[0])
