"""The routes of the operator's page: a look at the deployment, looks as they come, and the plan."""

from __future__ import annotations

import json
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from launcher.control.feed import STREAM_S, Crowded, Feed
from launcher.control.gateway_client import GatewayClient
from launcher.control.models import Look, PlanAnswer
from launcher.control.record import LOOK_TIMEOUT_S
from launcher.control.refusals import RETRY_AFTER_S, refusal
from launcher.control.watch import Watch
from launcher.supervise.rundir import PLAN, Found, read_record

EVENTS = "text/event-stream"
EVENT = {
    "type": "object",
    "required": ["event", "data"],
    "properties": {
        "event": {"const": "watch"},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {"$ref": "#/components/schemas/Look"},
        },
    },
}
NO_PLAN = "There is no plan: what `launcher up` starts is planned, and these engines run elsewhere."
UNCACHED = {"Cache-Control": "no-store"}


def feed_of(folder: Path, gateway: GatewayClient, *, stream_s: float = STREAM_S) -> Feed:
    """The looks at the deployment of this run directory, whose launcher has started us."""
    watch = Watch(lambda: Found(folder, read_record(folder), alive=True), GatewayClient(gateway.path, LOOK_TIMEOUT_S))
    return Feed(lambda: json.dumps(watch.look(), separators=(",", ":")).encode(), stream_s=stream_s)


class Looks(StreamingResponse):
    """The feed's events, for as long as the reader stays."""

    media_type = EVENTS

    def __init__(self, feed: Feed) -> None:
        super().__init__(feed.events(), headers={**UNCACHED, "X-Accel-Buffering": "no"})
        self._feed = feed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with self._feed.place():
                await super().__call__(scope, receive, send)
        except Crowded as crowded:
            message = f"{crowded.message} {crowded.hint}"
            answer = refusal(503, "too_many_watchers", message, **{"Retry-After": RETRY_AFTER_S})
            await answer(scope, receive, send)


def add_ops_routes(app: FastAPI, folder: Path, feed: Feed) -> None:
    @app.get("/api/watch", response_model=Look, summary="All that the operator's page shows")
    async def read_watch() -> Response:
        """Looked at anew, unless somebody has within the last second."""
        return Response(await feed.now(), media_type="application/json", headers=UNCACHED)

    @app.get(
        "/api/events",
        status_code=200,
        response_class=StreamingResponse,
        responses={200: {"description": "Events.", "content": {EVENTS: {"schema": EVENT}}}},
        summary="The same, again and again",
    )
    async def follow_watch() -> Looks:
        """One event `watch` a second, its data the JSON of /api/watch; who reads slowly is given only the newest.

        It ends after 15 minutes: ask again.
        """
        return Looks(feed)

    @app.get("/api/plan", response_model=PlanAnswer, summary="The plan that it was started by")
    def read_plan() -> Response:
        """As `launcher plan -o json` prints it."""
        try:
            plan = (folder / PLAN).read_bytes()
        except FileNotFoundError:
            return refusal(404, "no_plan", NO_PLAN)
        return Response(plan, media_type="application/json")
