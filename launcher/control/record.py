"""A deployment as it is seen from outside: its record and its gateway's word. Standard library only: `launcher ps` starts fast."""

from __future__ import annotations

from typing import Any

from launcher.control import GATEWAY_SOCKET
from launcher.control.gateway_client import GatewayClient, GatewayGone
from launcher.supervise.rundir import Found

LOOK_TIMEOUT_S = 2.0  # nobody who only looks waits longer for one gateway's figures


def describe(found: Found) -> dict[str, Any]:
    """Its record as `ps -o json` prints it."""
    record = {key: value for key, value in found.record.items() if key != "schema_version"}
    return {**record, "name": found.name, "state": record.get("state", "starting") if found.alive else "dead"}


def look(found: Found) -> dict[str, Any] | None:
    """Its live state; None where its gateway cannot be asked, which is no fault in a list."""
    return live_state(GatewayClient(found.path / GATEWAY_SOCKET, LOOK_TIMEOUT_S)) if found.alive else None


def live_state(gateway: GatewayClient) -> dict[str, Any] | None:
    """The same, asked of its gateway."""
    try:
        answer = gateway.ask("GET", "/admin/state")
        state: dict[str, Any] = answer.value
    except (GatewayGone, ValueError):
        return None
    return state if answer.status == 200 else None
