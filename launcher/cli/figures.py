"""What a running deployment says of itself on its admin socket, for the verbs that show or change it."""

from __future__ import annotations

from typing import Any

from launcher.control import GATEWAY_SOCKET
from launcher.control.gateway_client import GatewayClient, GatewayGone
from launcher.errors import LauncherError, PreconditionError
from launcher.supervise.rundir import Found

COLUMNS = ("IN FLIGHT", "PREFILL TOKENS", "QUEUED", "TTFT P50/P99", "TOKENS/S")
BLANK = ("",) * len(COLUMNS)


def ask(found: Found, method: str, target: str, value: object = None) -> dict[str, Any]:
    """The gateway's answer. Raises PreconditionError where it cannot be asked, LauncherError where it refuses."""
    if not found.alive:
        raise PreconditionError(
            f"{found.name} does not run: its launcher was killed", f"`launcher down {found.name}` cleans up."
        )
    try:
        answer = GatewayClient(found.path / GATEWAY_SOCKET).ask(method, target, value)
    except GatewayGone as gone:
        if not found.record.get("url"):
            raise PreconditionError(
                f"{found.name} is only just starting: its gateway does not listen yet", "Try again in a moment."
            ) from None
        raise PreconditionError(
            f"{found.name} runs, but its gateway cannot be asked: {gone.message}",
            f"`launcher logs {found.name} --launcher` may say why; if an older launcher started it, start it anew.",
        ) from None
    try:
        result: dict[str, Any] = answer.value
        if answer.status < 400:
            return result
        refused = str(result["error"]["message"])
    except (ValueError, KeyError, TypeError):
        raise LauncherError(f"{found.name}: its gateway answered {answer.status} with what cannot be read") from None
    raise LauncherError(f"{found.name}: {refused}")


def cells(state: dict[str, Any] | None, index: int | None, first: bool) -> tuple[str, ...]:
    """The COLUMNS of one engine's row; the deployment's own figures are in its ``first`` row only."""
    if state is None:
        return BLANK
    mine = next((replica for replica in state["replicas"] if replica["index"] == index), None)
    in_flight = prefill = ""
    if mine is not None:
        held = mine["ledger"]["prefill_tokens"]
        in_flight, prefill = str(mine["in_flight"]), f"{held['held']}/{held['cap']}"
    if not first:
        return (in_flight, prefill, "", "", "")
    minute = state["last_minute"]
    ttft = [minute[name] for name in ("ttft_p50_ms", "ttft_p99_ms")]
    return (
        in_flight,
        prefill,
        str(state["queue"]["count"]),
        "" if None in ttft else f"{ttft[0]:.0f}/{ttft[1]:.0f} ms",
        f"{minute['output_tokens_s']:.0f}",
    )


def standing(state: dict[str, Any] | None, index: int | None) -> str:
    """What an operator has done to a replica: ', draining', ', leaving' or nothing."""
    for replica in state["replicas"] if state else ():
        if replica["index"] == index and (replica["leaving"] or replica["draining"]):
            return ", leaving" if replica["leaving"] else ", draining"
    return ""
