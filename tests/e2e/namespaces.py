"""Two hosts on one machine: network namespaces joined by a cable of their own. They share its disks and its clock, no more."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.endpoint import ROOT
from tests.e2e.host import Host


class NamespaceHost(Host):
    """A namespace with an address, and the launcher that runs there."""

    def __init__(self, folder: Path, name: str, rank: int, address: str, head: str) -> None:
        super().__init__(folder / f"host-{rank}", name, rank, head)
        self.namespace, self.address = f"launcher-{os.getpid()}-{rank}", address

    def argv(self, *words: str) -> list[str]:
        return ["ip", "netns", "exec", self.namespace, *words]

    def run(self, *words: str, timeout_s: float = 60) -> str:
        """What a command on this host prints."""
        done = subprocess.run(
            self.argv(*words), env=self.environment, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def pids(self) -> set[int]:
        """Every process on this host."""
        return {int(pid) for pid in ip("netns", "pids", self.namespace).split()}

    def lose_power(self) -> None:
        """Every process on this host is gone at once."""
        while pids := self.pids():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if self.running is not None:
                self.running.wait()


def ip(*words: str) -> str:
    """What the command of iproute2 prints."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"
    return done.stdout


def require_namespaces() -> None:
    """Skips with the reason where hosts cannot be made."""
    if shutil.which("ip") is None:
        pytest.skip("needs ip (Debian package iproute2)")
    if os.geteuid() != 0:
        pytest.skip("needs root, to make network namespaces")
    name = f"launcher-{os.getpid()}-try"
    try:
        ip("netns", "add", name)
    except AssertionError as error:
        pytest.skip(f"network namespaces cannot be made here: {error}")
    ip("netns", "delete", name)


@contextlib.contextmanager
def two_hosts(folder: Path, name: str) -> Iterator[tuple[NamespaceHost, NamespaceHost]]:
    """Host 0 and host 1; whatever is left on them is ended afterwards."""
    require_namespaces()
    me = os.getpid()
    addresses = [f"10.77.{me % 250}.{rank + 1}" for rank in (0, 1)]
    hosts = [NamespaceHost(folder, name, rank, addresses[rank], addresses[0]) for rank in (0, 1)]
    plugs = [f"lp{me % 99999}-{rank}" for rank in (0, 1)]
    with contextlib.ExitStack() as undo:
        for host in hosts:
            ip("netns", "add", host.namespace)
            undo.callback(ip, "netns", "delete", host.namespace)  # and with it its end of the cable
            undo.callback(host.lose_power)
        ip("link", "add", plugs[0], "type", "veth", "peer", "name", plugs[1])
        for host, plug in zip(hosts, plugs, strict=True):
            ip("link", "set", plug, "netns", host.namespace)
            for words in (f"address add {host.address}/24 dev {plug}", f"link set {plug} up", "link set lo up"):
                ip("-n", host.namespace, *words.split())
        yield hosts[0], hosts[1]
