"""Start, own pages, metrics and the access log."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from launcher import __version__
from launcher.errors import PreconditionError
from launcher.gateway.ledger import Capacity
from launcher.gateway.metrics import TABLE
from launcher.gateway.replicas import Endpoint, Replicas
from launcher.gateway.server import Gateway
from launcher.profile.model import AdmissionSection, GatewaySection, ModelSection
from tests.fakes.process import FakeEngine
from tests.gateway.harness import CHAT, Desk, chat

MY_NAME = Path("/proc/self/comm").read_text().strip()


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
        f"gateway.listen: 127.0.0.1:{port}: the port is in use by process {os.getpid()} ({MY_NAME})."
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
    assert repr(desk.gateway).startswith("<Gateway <Dispatcher queue=0 inflight=0/64> connections=")
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
    assert await desk.metric(f'launcher_build_info{{version="{__version__}"}}') == 1


async def test_the_access_log_has_a_line_a_request(
    desk: Desk, engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "launcher.gateway"):
        await desk.post(chat("a secret prompt"), "X-Request-Id: r-1", "Authorization: Bearer top-secret")
        await desk.at_rest()
        await desk.raw(b"GET /health\r\n\r\n")
    lines = [record.getMessage() for record in caplog.records if record.name == "launcher.gateway"]
    assert lines[0].startswith(f"POST {CHAT} 200 done ")
    assert lines[0].endswith("ms replica=0 id=r-1")
    assert lines[1] == "- - 400 request_line"
    assert "secret" not in " ".join(lines)
