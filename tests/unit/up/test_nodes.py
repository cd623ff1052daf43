"""Which host this is, by the command line; and whether a Ray cluster will do."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from launcher.engine.nodes import Node
from launcher.errors import LauncherError, PreconditionError
from launcher.probe.interfaces import interface_of
from launcher.profile.model import Profile
from launcher.up.nodes import check_meeting_point, node_of, split_head
from launcher.up.ray_cluster import check_ray
from tests.process.parts import free_pair


def profile_of(**engine: Any) -> Profile:
    return Profile.model_validate(
        {"name": "x", "model": {"id": "a/b"}, "engine": {"tensor_parallel": 4, "nodes": 2, **engine}}
    )


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("10.0.0.1", ("10.0.0.1", 29501)),
        ("10.0.0.1:700", ("10.0.0.1", 700)),
        ("host-a:700", ("host-a", 700)),
        ("[fd00::1]:700", ("fd00::1", 700)),
        ("[fd00::1]", ("fd00::1", 29501)),
        ("fd00::1", ("fd00::1", 29501)),
    ],
)
def test_the_heads_address(written: str, read: tuple[str, int]) -> None:
    assert split_head(written) == read


@pytest.mark.parametrize("written", ["", ":700", "host:", "host:x", "host:0", "host:65535"])
def test_what_is_no_address(written: str) -> None:
    with pytest.raises(LauncherError, match=r"is not an address: write 10\.0\.0\.1 or 10\.0\.0\.1:29501"):
        split_head(written)


def test_the_head_knows_its_own_address_and_interface() -> None:
    assert node_of(profile_of(), "up", 0, "127.0.0.1") == Node(0, 2, "127.0.0.1", 29501, "127.0.0.1", "lo")
    assert node_of(profile_of(), "up", 1, "host-a:700") == Node(1, 2, "host-a", 700)


def test_a_head_that_names_itself_by_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Debian's /etc/hosts has it: no other host could come."""
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(2, 1, 6, "", ("127.0.1.1", 0))])
    with pytest.raises(PreconditionError, match=r"--head: host-a is 127\.0\.1\.1 here, where no other host can come"):
        node_of(profile_of(), "up", 0, "host-a")


def test_a_head_that_is_elsewhere_or_whose_port_is_taken() -> None:
    with pytest.raises(
        PreconditionError, match=r"port 29502 of 192\.0\.2\.1, where the launchers of the other hosts come"
    ):
        check_meeting_point(Node(0, 2, "192.0.2.1", 29501, "192.0.2.1"))
    port = free_pair()
    with socket.create_server(("127.0.0.1", port + 1)), pytest.raises(PreconditionError, match="in use"):
        check_meeting_point(Node(0, 2, "127.0.0.1", port, "127.0.0.1"))


@pytest.mark.parametrize(
    ("rank", "head", "said"),
    [
        (None, "h", "engine.nodes is 2, and --node-rank is not given"),
        (0, None, "engine.nodes is 2, and --head is not given"),
        (2, "h", "--node-rank 2 is not one of the 2 hosts of engine.nodes, which are 0 to 1"),
        (-1, "h", "--node-rank -1 is not one of"),
    ],
)
def test_a_place_that_is_incomplete_tells_all_commands(rank: int | None, head: str | None, said: str) -> None:
    with pytest.raises(LauncherError) as refused:
        node_of(profile_of(), "launcher up p.yaml", rank, head)
    assert refused.value.message.startswith(said)
    assert f"on host 1:  launcher up p.yaml --node-rank 1 --head {head or 'ADDRESS'}" in refused.value.hint
    assert refused.value.exit_code == 2


@pytest.mark.parametrize(
    ("engine", "why"),
    [
        ({"nodes": 1}, "engine.nodes is 1, so the engine runs on this host alone"),
        ({"distributed": "ray"}, "engine.distributed is ray, so the Ray cluster knows its hosts"),
    ],
)
def test_a_place_that_has_no_use(engine: dict[str, Any], why: str) -> None:
    assert node_of(profile_of(**engine), "up", None, None) is None
    with pytest.raises(LauncherError, match=f"--node-rank and --head have no use here: {why}"):
        node_of(profile_of(**engine), "up", 0, "h")


def test_interfaces() -> None:
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("192.0.2.1") == ""


def python_with_ray(folder: Path, gpus: list[int] | None = None, body: str = "") -> str:
    """A Python whose ray module knows a cluster of nodes with so many GPUs; or one that does what ``body`` says."""
    nodes = [{"Alive": True, "Resources": {"GPU": count} if count else {}} for count in gpus or []]
    module = folder / "ray.py"
    module.write_text(
        body
        or f"__version__ = '2.60.0'\ndef init(**_): pass\ndef nodes(): return {nodes}\n"
        f"def available_resources(): return {{'GPU': {sum(gpus or [])}}}\n"
    )
    script = folder / "python"
    script.write_text(f'#!/bin/sh\nPYTHONPATH={folder} exec {sys.executable} "$@"\n')
    script.chmod(0o755)
    return str(script)


def test_a_cluster_that_will_do(tmp_path: Path) -> None:
    profile = profile_of(distributed="ray")
    said = check_ray(profile, python_with_ray(tmp_path, [0, 2, 2]))
    assert said == "Ray 2.60.0: 3 node(s), 4 GPU(s), 4 of them free"


def test_a_cluster_that_is_too_small_or_unevenly_so(tmp_path: Path) -> None:
    profile = profile_of(distributed="ray")
    with pytest.raises(PreconditionError, match=r"the plan needs 4 cards, and the Ray cluster has 2 on 1 node\(s\)"):
        check_ray(profile, python_with_ray(tmp_path, [2]))
    with pytest.raises(
        PreconditionError, match="as many Ray nodes with 2 cards or more, and the cluster's nodes have 3, 1"
    ):
        check_ray(profile, python_with_ray(tmp_path, [3, 1]))


def test_no_cluster_and_no_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    profile = profile_of(distributed="ray")
    none = "def init(**_):\n    import os\n    raise ConnectionError('Could not find any running Ray instance at ' + os.environ['RAY_ADDRESS'])\n"
    with pytest.raises(PreconditionError) as refused:
        check_ray(profile, python_with_ray(tmp_path, body=none))
    assert refused.value.message == (
        "engine.distributed is ray, and no Ray cluster answers on this host: ConnectionError: Could not find any running Ray "
        "instance at auto"
    )
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with pytest.raises(PreconditionError, match=r"at 10\.0\.0\.1:6379 \(RAY_ADDRESS\): ConnectionError"):
        check_ray(profile, python_with_ray(tmp_path, body=none))
    missing = "raise ModuleNotFoundError(\"No module named 'ray'\", name='ray')"
    with pytest.raises(PreconditionError, match=r"engine\.distributed is ray, and Ray is not installed in"):
        check_ray(profile, python_with_ray(tmp_path, body=missing))
