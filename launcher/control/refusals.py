"""The control app's own refusals, in OpenAI's error shape: which, and as a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match

from launcher.control.gateway_client import GatewayGone
from launcher.control.keys import NoSuchKey
from launcher.errors import LauncherError

TYPES = {500: "server_error", 503: "service_unavailable_error"}
RETRY_AFTER_S = "1"
JSON_WANTED = "The body must be a JSON object, sent with Content-Type: application/json."


def refusal(status: int, reason: str, message: str, param: str | None = None, **headers: str) -> JSONResponse:
    """An error answer; ``src`` tells it from the gateway's and the engine's."""
    kind = TYPES.get(status, "invalid_request_error")
    error = {"message": message, "type": kind, "param": param, "code": status, "reason": reason, "src": "control"}
    return JSONResponse({"error": error}, status, {"x-launcher-src": "control", **headers})


def add_handlers(app: FastAPI) -> None:
    """From now on every error of the app is one of these."""
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(GatewayGone, _gateway_gone)
    app.add_exception_handler(LauncherError, _failed)
    app.add_exception_handler(Exception, _bug)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    message, param = sentence(first)
    return refusal(400, "invalid", message, param)


def sentence(fault: dict[str, Any]) -> tuple[str, str | None]:
    """One of pydantic's faults as a sentence, and the path of the field."""
    kind, place = fault["type"], fault["loc"]
    path = ".".join(str(part) for part in place[1:])
    if kind == "json_invalid":
        return f"The body is not JSON: {fault['ctx']['error']}.", None
    said = fault["msg"].removeprefix("Value error, ")
    if not path:
        return f"{said}." if kind == "value_error" else JSON_WANTED, None
    if kind == "missing":
        return f"{path}: this field is missing.", path
    if kind == "extra_forbidden":
        return f"{path[:80]}: there is no such field.", path[:80]
    return f"{path}: {said[0].lower()}{said[1:]}, not {_shown(fault['input'])}.", path


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:80] + "…"


async def _http(request: Request, error: Exception) -> JSONResponse:
    """404 and 405 of the router, and what FastAPI raises itself."""
    assert isinstance(error, HTTPException)
    path, status = request.url.path[:200], error.status_code
    if status == 404:
        served = ", ".join(sorted({route.path for route in request.app.routes}))
        return refusal(404, "unknown_path", f"{path} is not served here. What is: {served}.")
    if status == 405:
        allow = ", ".join(_allowed(request))
        return refusal(
            405, "method_not_allowed", f"{path} does not take {request.method}. It takes {allow}.", Allow=allow
        )
    return refusal(status, "invalid", f"The request could not be read: {error.detail}.")


def _allowed(request: Request) -> Sequence[str]:
    """The methods of every route with this path; Starlette itself tells those of the first one only."""
    matching = [route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE]
    return sorted({method for route in matching for method in route.methods or ()})


async def _gateway_gone(request: Request, error: Exception) -> JSONResponse:
    message = f"The gateway does not answer the control app: {error.args[0].rpartition(': ')[2]}."
    return refusal(503, "gateway_gone", message, **{"Retry-After": RETRY_AFTER_S})


async def _failed(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, LauncherError)
    message = " ".join((error.message.rstrip(".") + ".", error.hint)).strip()
    return refusal(404, "unknown_key", message) if isinstance(error, NoSuchKey) else refusal(409, "failed", message)


async def _bug(request: Request, error: Exception) -> JSONResponse:
    return refusal(
        500, "internal_error", "The control app failed: this is a bug of its own; the log has the traceback."
    )
