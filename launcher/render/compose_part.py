"""One profile within a compose file: what its services are called, where they are reached, and what cannot be placed."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from launcher.errors import PreconditionError
from launcher.plan.placement import Placement, place
from launcher.profile.load import LoadedProfile
from launcher.profile.model import ExternalEngine, Profile, VllmEngine

Kind = Literal["cpu", "gpu", "external"]


@dataclass(frozen=True)
class Given:
    """A profile as the command line has it. ``weight_bytes``: of its checkpoint, None where that is not known."""

    loaded: LoadedProfile
    sets: tuple[str, ...] = ()
    weight_bytes: int | None = None


@dataclass(frozen=True)
class Part:
    """A profile in the file. ``folder`` is the file's; ``suffix`` ends the names of all but the first one's services."""

    given: Given
    folder: Path
    checkout: Path | None
    suffix: str = ""
    compose_profile: str | None = None

    @property
    def loaded(self) -> LoadedProfile:
        return self.given.loaded

    @property
    def profile(self) -> Profile:
        return self.loaded.profile

    @property
    def kind(self) -> Kind:
        return kind_of(self.profile)

    @property
    def engines(self) -> dict[str, Placement]:
        """The services of the engines, each with its cards."""
        placements = place(self.profile)
        if len(placements) == 1:
            return {f"engine{self.suffix}": placements[0]}
        return {f"engine{self.suffix}-{placement.replica}": placement for placement in placements}

    @property
    def gateway(self) -> str:
        return f"gateway{self.suffix}"

    @property
    def network(self) -> str:
        return f"serving{self.suffix}"

    @property
    def state(self) -> str:
        """The volume of the gateway's state: its API keys."""
        return f"state{self.suffix}"

    @property
    def on_host_network(self) -> bool:
        """Whether its engines can be reached from the host's own network only: what they name is this machine."""
        engine = self.profile.engine
        return isinstance(engine, ExternalEngine) and any(names_this_machine(url) for url in engine.urls)

    @property
    def published(self) -> tuple[str, str]:
        """Address and port of the host that clients connect to, by gateway.listen; port '' where any free one will do."""
        host, _, port = self.profile.gateway.listen.rpartition(":")
        host = host.strip("[]")
        return "127.0.0.1" if host == "localhost" else host, "" if port == "0" else port

    @property
    def is_private(self) -> bool:
        """Whether gateway.listen lets nobody but this machine in."""
        return ipaddress.ip_address(self.published[0]).is_loopback


def kind_of(profile: Profile) -> Kind:
    """By which of the images its engines run; external: by none."""
    if isinstance(profile.engine, ExternalEngine):
        return "external"
    return "cpu" if profile.hardware.device == "cpu" else "gpu"


def names_this_machine(url: str) -> bool:
    """Whether a URL's host is loopback, which within a container is the container itself."""
    host = urlsplit(url.removeprefix("dns+")).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def refuse_what_has_no_place(part: Part) -> None:
    """Raises PreconditionError for a setting that a compose file cannot keep, by its name, with what to do instead."""
    for refuse in (_refuse_several_hosts, _refuse_exact_counting, _refuse_own_collector, _refuse_address):
        refuse(part)


def _refuse_several_hosts(part: Part) -> None:
    engine, path = part.profile.engine, part.loaded.path
    if not isinstance(engine, VllmEngine):
        return
    if engine.nodes > 1:
        raise PreconditionError(
            f"engine.nodes: compose starts containers on one host, not on {engine.nodes}",
            f"For several hosts: launcher render helm {path}, or launcher render slurm {path}",
        )
    if engine.distributed == "ray":
        raise PreconditionError(
            "engine.distributed: ray wants a Ray cluster that runs already, and a compose file has none",
            "Set engine.distributed: mp, which is all that one host needs.",
        )


def _refuse_exact_counting(part: Part) -> None:
    if part.profile.admission.counting == "exact":
        raise PreconditionError(
            "admission.counting: exact counts with the model's tokenizer, which a gateway by itself does not have",
            "Set admission.counting: estimate, which learns the model's bytes per token from its answers.",
        )


def _refuse_own_collector(part: Part) -> None:
    tracing = part.profile.gateway.tracing
    if tracing is not None and names_this_machine(tracing.endpoint) and not part.on_host_network:
        raise PreconditionError(
            f"gateway.tracing.endpoint: in a container {tracing.endpoint} is the container itself",
            "Name the collector as other machines reach it, or as a service beside these: http://collector:4318",
        )


def _refuse_address(part: Part) -> None:
    host, _ = part.published
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise PreconditionError(
            f"gateway.listen: a port is published on an address of the host, and {host!r} is a name",
            "Write the address, or 0.0.0.0 for every interface.",
        ) from None
