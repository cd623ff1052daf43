"""The route table against the vLLM that is installed, and what is answered outside it."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from launcher.gateway.routes import NAMES, NEVER, Kind, find_route
from tests.fakes.process import FakeEngine
from tests.gateway.harness import Desk, chat, request_bytes

spec = importlib.util.find_spec("vllm")  # finds, does not import
ROOT = Path(spec.origin).parent / "entrypoints" if spec and spec.origin else None
OWN_WORD = {"/health", "/metrics"}  # the engine's are replaced by the gateway's


def paths_of_vllm(root: Path) -> set[str]:
    """Every path that a router of vLLM declares."""
    found = set()
    for file in root.rglob("*.py"):
        text = file.read_text()
        found |= set(re.findall(r"@\w*router\.(?:get|post|put|delete|websocket)\(\s*\"(/[^\"]*)\"", text))
        found |= set(re.findall(r"add_api_route\(\s*\"(/[^\"]*)\"", text))
    return found


@pytest.mark.skipif(ROOT is None, reason="vLLM is not installed")
def test_every_route_of_the_installed_vllm_is_decided_on() -> None:
    assert ROOT is not None
    paths = {re.sub(r"\{\w+\}", "{id}", path) for path in paths_of_vllm(ROOT)}
    assert len(paths) > 40
    undecided = paths - set(NAMES) - NEVER - OWN_WORD
    assert not undecided, f"new in this vLLM: pass on, or put into NEVER: {sorted(undecided)}"


async def test_engine_inference_routes_pass(desk: Desk, engine: FakeEngine) -> None:
    posts = [
        name
        for name in NAMES
        if name not in ("/v1/models", "/version", "/v1/responses/{id}")
        and name not in ("/", "/health", "/ready", "/metrics", "/ops", "/favicon.ico")
        and not name.startswith(("/api/", "/ui/"))
    ]
    client = await desk.client()
    for name in posts:
        path = name.replace("{id}", "resp_1")
        await client.post(path, chat(prompt="x"))
        answer = await client.read()
        assert answer.status == 200, name
        if path not in ("/v1/chat/completions", "/v1/completions", "/ping"):
            assert answer.json()["path"] == path
    for path in ("/v1/models", "/version", "/ping", "/v1/responses/resp_1?stream=true"):
        await client.send(request_bytes("GET", path))
        assert (await client.read()).status == 200, path
    assert await desk.metric('launcher_requests_total{code="200",route="/v1/responses/{id}"}') == 1


NOT_SERVED = [
    *sorted(NEVER), "/v1", "/v1/", "/v1/files", "/admin", "//v1/models", "/v1/../metrics", "/v1/%6dodels", "/V1/models",
    "/ui", "/ops/", "/UI/x.js", "/favicon.ico/",
    "/v1/models/", "/v1/responses/a/b", "/v1/responses/..", "/v1/responses/%2e%2e", "*", "/health/", "/v1/models;x",
]  # fmt: skip


async def test_nothing_else_reaches_the_engine(desk: Desk, engine: FakeEngine) -> None:
    client = await desk.client()
    for path in NOT_SERVED:
        await client.send(request_bytes("GET", path))
        answer = await client.read()
        assert (answer.status, answer.error["reason"]) == (404, "unknown_path"), path
    assert "belongs to a single engine" in (await desk.get("/sleep")).error["message"]
    assert "/v1/chat/completions" in (await desk.get("/nowhere")).error["message"]
    assert (await engine.seen())["requests"] == []


async def test_wrong_methods(desk: Desk, engine: FakeEngine) -> None:
    for method, path, allowed in (
        ("GET", "/v1/chat/completions", "POST"),
        ("DELETE", "/v1/models", "GET, HEAD"),
        ("OPTIONS", "/v1/models", "GET, HEAD"),
        ("POST", "/metrics", "GET, HEAD"),
    ):
        answer = await desk.raw(request_bytes(method, path))
        assert (answer.status, answer.headers["allow"]) == (405, allowed)
        assert answer.error["message"] == f"{path} does not take {method}. It takes {allowed}."
    assert (await engine.seen())["requests"] == []


def test_kinds() -> None:
    assert find_route(b"POST", b"/v1/chat/completions?x=/health").kind is Kind.INFERENCE
    assert find_route(b"GET", b"/v1/models").kind is Kind.QUERY
    assert find_route(b"GET", b"/metrics").kind is Kind.OWN
    assert find_route(b"GET", b"/api/about").kind is Kind.OWN
    assert find_route(b"GET", b"/api/watch").kind is Kind.CONTROL
    assert find_route(b"HEAD", b"/ops").kind is Kind.PAGE
    for path in (b"/ui/", b"/ui/x.js?v=/api/x", b"/ui/../v1/models", b"/ui//api/x", b"/ui/%2e%2e/x"):
        assert (find_route(b"GET", path).name, find_route(b"GET", path).kind) == ("/ui/{path}", Kind.PAGE)
