"""Which of an engine's hosts this one is, by the command line; and where its launchers meet."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from ipaddress import ip_address

from launcher.engine.nodes import PORT, Node, has_nodes
from launcher.errors import EXIT_USAGE, LauncherError, PreconditionError
from launcher.probe.interfaces import interface_of
from launcher.probe.vllm_build import VllmBuild
from launcher.profile.model import Profile, VllmEngine
from launcher.supervise.crew import Crew, listen_for_nodes
from launcher.supervise.node_messages import PROTOCOL, Hello, settings_of


def node_of(profile: Profile, command: str, rank: int | None, head: str | None) -> Node | None:
    """This host's place, from --node-rank and --head; None where the engine runs on this host alone.

    ``command`` is what the user wrote, without those two. Raises LauncherError (exit code 2) where they are missing, or
    are not wanted; PreconditionError for an address of the head that cannot be.
    """
    engine = profile.engine
    if not isinstance(engine, VllmEngine) or not has_nodes(profile):
        if rank is None and head is None:
            return None
        raise LauncherError(
            f"--node-rank and --head have no use here: {_why_alone(profile)}",
            "Leave them out, and LAUNCHER_NODE_RANK and LAUNCHER_HEAD unset.",
            exit_code=EXIT_USAGE,
        )
    if rank is None or head is None:
        missing = [name for name, value in (("--node-rank", rank), ("--head", head)) if value is None]
        raise LauncherError(
            f"engine.nodes is {engine.nodes}, and {' and '.join(missing)} {'are' if len(missing) > 1 else 'is'} not given: "
            f"each of the {engine.nodes} hosts runs a part, and needs to know which",
            commands_of_all(command, engine.nodes, head),
            exit_code=EXIT_USAGE,
        )
    if not 0 <= rank < engine.nodes:
        raise LauncherError(
            f"--node-rank {rank} is not one of the {engine.nodes} hosts of engine.nodes, which are 0 to {engine.nodes - 1}",
            commands_of_all(command, engine.nodes, head),
            exit_code=EXIT_USAGE,
        )
    host, port = split_head(head)
    node = Node(rank, engine.nodes, host, port)
    return own_place(node) if node.is_head else node


def _why_alone(profile: Profile) -> str:
    engine = profile.engine
    if not isinstance(engine, VllmEngine):
        return "engine.kind is external, so nothing is started."
    if engine.distributed == "ray":
        return "engine.distributed is ray, so the Ray cluster knows its hosts, and `launcher up` runs on one of them."
    return "engine.nodes is 1, so the engine runs on this host alone."


def commands_of_all(command: str, nodes: int, head: str | None) -> str:
    """What to run on each host, a line each."""
    where = head or "ADDRESS"
    lines = [f"on host {rank}:  {command} --node-rank {rank} --head {where}" for rank in range(nodes)]
    note = "" if head else "\nADDRESS is host 0's own, on the network that joins them"
    return "\n".join(lines) + note


def split_head(written: str) -> tuple[str, int]:
    """Address and port of --head. Raises LauncherError."""
    host, colon, port = written.rpartition(":")
    if not colon or written.endswith("]") or (":" in host and not host.startswith("[")):  # no port; IPv6 has colons
        host, port = written, str(PORT)
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdigit() or not 0 < int(port) < 65535:
        raise LauncherError(
            f"--head {written!r} is not an address: write 10.0.0.1 or 10.0.0.1:{PORT}; the port and the next one are used",
            exit_code=EXIT_USAGE,
        )
    return host, int(port)


def own_place(node: Node) -> Node:
    """The head's place with its own address, as the others reach it. Raises PreconditionError."""
    try:
        address = str(socket.getaddrinfo(node.head, node.port, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        raise PreconditionError(
            f"--head: {node.head} cannot be looked up: {error.strerror}",
            "Give this host's own address, such as 10.0.0.1.",
        ) from None
    if ip_address(address).is_loopback and node.head not in (address, "localhost"):
        raise PreconditionError(
            f"--head: {node.head} is {address} here, where no other host can come (see /etc/hosts)",
            "Give this host's address on the network that joins them, such as 10.0.0.1.",
        )
    return at_address(Node(node.rank, node.count, address, node.port), address)


def at_address(node: Node, address: str) -> Node:
    """The place with this host's own address."""
    return Node(node.rank, node.count, node.head, node.port, address, interface_of(address))


def meeting_port(node: Node) -> int:
    """Where the launchers meet: beside the port where vLLM's processes do."""
    return node.port + 1


def check_meeting_point(node: Node) -> None:
    """Listen there for a moment, as with the gateway's address. Raises PreconditionError."""

    async def listen_once() -> None:
        server = await listen_for_nodes(lambda reader, writer: writer.close(), node.address, meeting_port(node))
        server.close()
        await server.wait_closed()

    asyncio.run(listen_once())


def hello_of(profile: Profile, build: VllmBuild, node: Node) -> Hello:
    """What this host says of itself; nonce and proof are added for each conversation."""
    return Hello(
        PROTOCOL, node.rank, node.count, f"{build.distribution} {build.version}", settings_of(profile), nonce=""
    )


def make_crew(profile: Profile, build: VllmBuild, node: Node, key: str, on_word: Callable[[str], None]) -> Crew:
    """The head's meeting with the other hosts."""
    return Crew(hello_of(profile, build, node), node.address, meeting_port(node), key=key, on_word=on_word)
