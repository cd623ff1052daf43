"""One host's part of an engine that runs over several: its place among them, and what vLLM is told of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from launcher.profile.model import Profile, VllmEngine

PORT = 29501  # vLLM's own default for --master-port


@dataclass(frozen=True)
class Node:
    """Host ``rank`` of ``count``. ``head`` and ``port``: where host 0 is met by torch.distributed.

    ``address`` and ``interface`` are this host's own, on the network that joins them. Without them vLLM takes what the
    host's name resolves to, and gloo then fails with 'connectFullMesh: Connection refused'.
    """

    rank: int
    count: int
    head: str
    port: int = PORT
    address: str = ""
    interface: str = ""

    @property
    def is_head(self) -> bool:
        """Whether it is the one that answers requests."""
        return self.rank == 0

    def __str__(self) -> str:
        return f"node {self.rank} of {self.count}"


def has_nodes(profile: Profile) -> bool:
    """Whether each replica runs over several hosts, with a launcher on each."""
    engine = profile.engine
    return isinstance(engine, VllmEngine) and engine.nodes > 1 and engine.distributed == "mp"


def uses_ray(profile: Profile) -> bool:
    """Whether vLLM leaves it to a Ray cluster where its workers run."""
    return isinstance(profile.engine, VllmEngine) and profile.engine.distributed == "ray"


def node_arguments(node: Node) -> list[str]:
    """Where this host is among the others; all but the head answer no requests."""
    words = ["--nnodes", str(node.count), "--node-rank", str(node.rank)]
    words += ["--master-addr", node.head, "--master-port", str(node.port)]
    return words if node.is_head else [*words, "--headless"]


def node_environment(node: Node, device: str, inherited: Mapping[str, str]) -> dict[str, str]:
    """By which address and interface this host is reached by the others; what is ``inherited`` has the last word."""
    env = {"VLLM_HOST_IP": node.address, "GLOO_SOCKET_IFNAME": node.interface}
    if device == "cuda":
        env["NCCL_SOCKET_IFNAME"] = node.interface
    return {name: value for name, value in env.items() if value and name not in inherited}
