"""Start, own pages, metrics and the access log."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from launcher import __version__
from launcher.errors import PreconditionError
from launcher.gateway.access import AccessLog
from launcher.gateway.build import is_compiled
from launcher.gateway.ledger import Capacity
from launcher.gateway.metrics import TABLE
from launcher.gateway.replicas import Endpoint, Replicas
from launcher.gateway.server import Gateway
from launcher.profile.model import AdmissionSection, GatewaySection, ModelSection
from tests.fakes.process import FakeEngine
from tests.gateway.harness import CHAT, Desk, chat, gateway_to


def my_name() -> str:
    """This process's, as it is now: pytest-xdist changes it with each test."""
    return Path("/proc/self/comm").read_text().strip()


def gateway_at(listen: str) -> Gateway:
    return Gateway(
        GatewaySection(listen=listen),
        Replicas(),
        model=ModelSection(),
        admission=AdmissionSection(),
        capacity=Capacity(),
    )


async def test_a_port_in_use_names_its_owner() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(PreconditionError) as failed:
            await gateway_at(f"127.0.0.1:{port}").start()
    assert failed.value.message == (
        f"gateway.listen: 127.0.0.1:{port}: the port is in use by process {os.getpid()} ({my_name()})."
    )
    assert "gateway.listen" in failed.value.hint


async def test_addresses_that_cannot_be_had() -> None:
    with pytest.raises(PreconditionError, match=r"192\.0\.2\.1:0: that is no address of this machine\."):
        await gateway_at("192.0.2.1:0").start()
    with pytest.raises(PreconditionError, match=r"no\.such\.host\.invalid:0: the host's name is not known\."):
        await gateway_at("no.such.host.invalid:0").start()


@pytest.mark.skipif(not socket.has_ipv6 or not Path("/proc/net/if_inet6").exists(), reason="no IPv6 here")
async def test_ipv6_and_port_zero() -> None:
    gateway = gateway_at("[::1]:0")
    host, port = await gateway.start()
    assert (host, port > 0) == ("::1", True)
    await gateway.close()


def test_an_endpoint_must_be_a_url() -> None:
    from launcher.errors import LauncherError

    with pytest.raises(LauncherError, match="replica 0: 'localhost:8000' is not an engine's URL"):
        Replicas().add(0, Endpoint("localhost:8000"))


async def test_own_pages(desk: Desk) -> None:
    root = await desk.get("/")
    assert root.json()["model"] == "fake-model"
    assert CHAT in root.json()["paths"]
    assert (await desk.get("/health")).json() == {"status": "ok", "version": __version__}
    assert (await desk.get("/ready")).json() == {
        "ready": True, "reason": "", "queued": 0,
        "replicas": [{"index": 0, "ready": True, "reason": "", "in_flight": 0}],
    }  # fmt: skip
    assert repr(desk.gateway).startswith("<Gateway <Dispatcher queue=0 inflight=0/64 prefill=0/1000000> connections=")
    assert repr(desk.replicas) == "<Replicas ready=1/1>"


async def test_metrics_are_those_of_the_table(desk: Desk, engine: FakeEngine) -> None:
    for stream in (False, True):
        assert (await desk.post(chat(stream=stream))).status == 200
    await desk.post({"model": "other"})
    await desk.get("/nowhere")
    text = (await desk.get("/metrics")).body.decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert set(families) == set(TABLE)
    assert not [name for name in families if ":" in name or not name.startswith("launcher_")]
    assert all(family.documentation for family in families.values())
    assert await desk.metric(f'launcher_requests_total{{code="200",route="{CHAT}"}}') == 2
    assert await desk.metric(f'launcher_requests_total{{code="404",route="{CHAT}"}}') == 1
    assert await desk.metric('launcher_refusals_total{reason="unknown_path"}') == 1
    assert await desk.metric(f'launcher_request_duration_seconds_count{{route="{CHAT}"}}') == 3
    assert await desk.metric('launcher_engine_first_byte_seconds_count{replica="0"}') == 3
    assert await desk.metric('launcher_in_flight{replica="0"}') == 0
    assert await desk.metric("launcher_sent_bytes_total") > 1000
    assert await desk.metric(f'launcher_build_info{{compiled="{int(is_compiled())}",version="{__version__}"}}') == 1


async def test_the_access_log_has_a_line_a_request(engine: FakeEngine, tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    async with gateway_to(engine.url, parts={"access": AccessLog(path, max_size=10**6, keep=1)}) as desk:
        await desk.post(
            chat("a secret prompt"), "X-Request-Id: r-1", "Authorization: Bearer top-secret", "X-Priority: low"
        )
        await desk.post(chat(stream=True), "X-Mode: high-throughput")
        await engine.set(fault="error_500")
        await desk.post(chat())
        await desk.at_rest()
    whole, stream, failed = map(json.loads, path.read_text().splitlines())
    assert "secret" not in path.read_text()
    assert (whole["id"], whole["path"], whole["status"], whole["outcome"]) == ("r-1", CHAT, 200, "served")
    assert (whole["priority"], whole["mode"], whole["replica"], whole["key"]) == ("low", "balanced", 0, "anonymous")
    assert whole["prompt_tokens"] > 0
    assert whole["bytes_in"] == len(json.dumps(chat("a secret prompt")))
    assert (stream["stream"], stream["mode"]) == (True, "high-throughput")
    assert 0 <= stream.get("ttft_ms", 0) <= stream["e2e_ms"]
    assert stream["pieces"] >= 1
    assert (failed["status"], failed["outcome"]) == (500, "failed")
