"""The routes under /api/: each asks the gateway over its admin socket and passes on what it says. Keeps no state.

Whoever gets here was let in by the gateway: it checks the API key and drops a client's own X-Launcher-Key.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Header
from fastapi.responses import JSONResponse, Response

from launcher import __version__
from launcher.control.doorway import NO_KEYS, Doorway
from launcher.control.feed import Feed
from launcher.control.gateway_client import Answer, GatewayClient, GatewayGone
from launcher.control.keys import add_key, list_keys, revoke_key
from launcher.control.models import (
    ErrorAnswer,
    Index,
    KeyAnswer,
    KeyId,
    KeyList,
    KeyState,
    ModeAnswer,
    ModeChange,
    NewKey,
    NewKeyAnswer,
    ReplicaAnswer,
    ReplicaList,
    Server,
    State,
)
from launcher.control.ops import add_ops_routes, feed_of
from launcher.control.refusals import add_handlers
from launcher.errors import LauncherError
from launcher.gateway.audit import AuditLog

DESCRIPTION = """Live state of a deployment, and the changes that can be made while it runs.

Inference is not here: it is on the same port under /v1, see the README."""
ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorAnswer, "description": "Refused; the sentence says why."},
    "5XX": {"model": ErrorAnswer, "description": "The gateway or the app failed; 503: try again."},
}
ByKey = Annotated[str | None, Header(alias="X-Launcher-Key", include_in_schema=False)]


def make_app(
    gateway: GatewayClient, keys_file: Path | None = None, audit: AuditLog | None = None, *, feed: Feed | None = None
) -> FastAPI:
    """The app; the gateway's socket is in the run directory.

    ``keys_file``: where the API keys are, None: they are not managed here; ``audit`` is told of changes to them (of all
    others the gateway writes itself). ``feed``: the looks that it gives, to be closed at the end; None: its own.
    """
    folder = gateway.path.parent.absolute()
    app = FastAPI(
        title="launcher",
        version=__version__,
        description=DESCRIPTION,
        openapi_url="/api/openapi.json",
        docs_url=None,  # Swagger UI comes from a CDN: not from here
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
        responses=ERRORS,
        redirect_slashes=False,
    )
    app.add_middleware(Doorway)
    add_handlers(app)
    _add_routes(app, gateway)
    _add_key_routes(app, gateway, keys_file, audit)
    add_ops_routes(app, folder, feed or feed_of(folder, gateway))
    return app


def _add_routes(app: FastAPI, gateway: GatewayClient) -> None:
    """Plain functions: FastAPI runs them in threads, so that one who waits for the gateway holds up nobody."""

    @app.get("/api/state", response_model=State, summary="All live figures")
    def read_state() -> Response:
        return passed_on(gateway.ask("GET", "/admin/state"))

    @app.put("/api/mode", response_model=ModeAnswer, summary="Switch the mode")
    def set_mode(change: ModeChange, key: ByKey = None) -> Response:
        return passed_on(gateway.ask("PUT", "/admin/mode", {"mode": change.mode}, actor(key)))

    @app.get("/api/replicas", response_model=ReplicaList, summary="The replicas")
    def list_replicas() -> Response:
        answer = gateway.ask("GET", "/admin/state")
        return passed_on(answer) if answer.status != 200 else JSONResponse({"replicas": answer.value["replicas"]})

    @app.post("/api/replicas", response_model=ReplicaAnswer, status_code=202, summary="Let a server join")
    def add_replica(server: Server, key: ByKey = None) -> Response:
        return passed_on(gateway.ask("POST", "/admin/replicas", {"url": server.url}, actor(key)))

    @app.delete("/api/replicas/{index}", response_model=ReplicaAnswer, status_code=202, summary="Let a server leave")
    def remove_replica(index: Index, key: ByKey = None) -> Response:
        """What it has in hand is finished first; the state shows it as leaving until then."""
        return passed_on(gateway.ask("DELETE", f"/admin/replicas/{index}", actor=actor(key)))

    @app.post("/api/replicas/{index}/drain", response_model=ReplicaAnswer, summary="Send a replica nothing new")
    def drain_replica(index: Index, key: ByKey = None) -> Response:
        """An engine that the launcher runs goes on running."""
        return passed_on(gateway.ask("POST", f"/admin/replicas/{index}/drain", actor=actor(key)))

    @app.post("/api/replicas/{index}/undrain", response_model=ReplicaAnswer, summary="Send it requests again")
    def undrain_replica(index: Index, key: ByKey = None) -> Response:
        return passed_on(gateway.ask("POST", f"/admin/replicas/{index}/undrain", actor=actor(key)))


def _add_key_routes(app: FastAPI, gateway: GatewayClient, keys_file: Path | None, audit: AuditLog | None) -> None:
    def file() -> Path:
        if keys_file is None:
            raise LauncherError("This deployment has no file of API keys", "Set gateway.keys_file.")
        return keys_file

    def noted(act: str, key: str | None, target: str, result: str = "done") -> None:
        if audit is not None:
            audit.record(actor(key), act, target, result)

    @app.get("/api/keys", response_model=KeyList, summary="The API keys")
    def read_keys() -> KeyList:
        return KeyList(keys=list_keys(file()))

    @app.post("/api/keys", response_model=NewKeyAnswer, status_code=201, summary="Make an API key")
    def make_key(wanted: NewKey, response: Response, key: ByKey = None) -> NewKeyAnswer:
        """The secret is in this answer and nowhere else."""
        try:
            made, secret, is_first = add_key(file(), wanted)
        except LauncherError as error:
            noted("key.add", key, wanted.name, f"refused: {error.message}")
            raise
        noted("key.add", key, f"{made.name} ({made.id})")
        response.headers["Cache-Control"] = "no-store"
        in_force = taken_over(gateway, key)
        return NewKeyAnswer(key=made, secret=secret, in_force=in_force, note=note_on(made, is_first and in_force))

    @app.delete("/api/keys/{key_id}", response_model=KeyAnswer, summary="Revoke an API key")
    def remove_key(key_id: KeyId, key: ByKey = None) -> KeyAnswer:
        """It stays in the list, so that its holder is told that it was revoked."""
        try:
            gone = revoke_key(file(), key_id)
        except LauncherError as error:
            noted("key.revoke", key, key_id, f"refused: {error.message}")
            raise
        noted("key.revoke", key, f"{gone.name} ({gone.id})")
        return KeyAnswer(key=gone, in_force=taken_over(gateway, key))


def note_on(made: KeyState, locks: bool) -> str:
    """What the first key changes for everybody; '' for others."""
    if not locks:
        return ""
    note = "It is the first key: from now on every request needs one."
    if not made.is_admin:
        note += " It is no admin key, so /api is closed until `launcher key add NAME --admin` makes one."
    return note


def taken_over(gateway: GatewayClient, key: str | None) -> bool:
    """Has the gateway read the keys again; whether it goes by them."""
    try:
        answer = gateway.ask("POST", "/admin/keys/reload", actor=actor(key))
    except GatewayGone:
        return False
    return answer.status == 200 and bool(answer.value["required"])


def passed_on(answer: Answer) -> Response:
    """The gateway's answer as it is; it is not checked again against its model, tests do that."""
    return Response(answer.body, answer.status, media_type="application/json")


def actor(key: str | None) -> str:
    """On whose behalf, for the audit log."""
    return "no key" if (key or "") in NO_KEYS else f"key {key}"
