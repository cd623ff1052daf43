"""A release's life with the real helm against a stand-in for the API server (see ``tests.deploy.kube_stub``)."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.helm.cases import CASES, gpu
from tests.deploy.helm.chart import Helm
from tests.deploy.helm.validity import VERSIONS, faults
from tests.deploy.kube_stub import Cluster, kube_stub


class Release:
    """The release `demo`, and what it has left in the cluster."""

    def __init__(self, helm: Helm, cluster: Cluster, kubeconfig: Path) -> None:
        self.helm, self.cluster, self.kubeconfig = helm, cluster, kubeconfig

    def try_helm(self, verb: str, *arguments: str, values: Any = None) -> subprocess.CompletedProcess[str]:
        return self.helm.run(verb, *arguments, "--kubeconfig", str(self.kubeconfig), values=values)

    def run(self, verb: str, *arguments: str, values: Any = None) -> str:
        done = self.try_helm(verb, *arguments, values=values)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def put(self, verb: str, values: Any) -> str:
        return self.run(verb, "demo", "helm", values=values)

    def history(self) -> list[tuple[int, str]]:
        found = json.loads(self.run("history", "demo", "-o", "json"))
        return [(entry["revision"], entry["status"]) for entry in found]


@pytest.fixture
def release(helm: Helm, tmp_path: Path) -> Iterator[Release]:
    kubeconfig = tmp_path / "kubeconfig"
    with kube_stub(lambda found: list(faults(found, VERSIONS[1])), kubeconfig) as cluster:
        yield Release(helm, cluster, kubeconfig)


def test_install_upgrade_rollback_uninstall(release: Release, kubectl: Path) -> None:
    said = release.put("install", CASES["many replicas, several gateways"])
    assert "helm -n serving test demo --logs" in said
    assert release.cluster.names("deployments") == {"demo-engine", "demo-gateway"}
    assert replicas(release, kubectl) == "3"
    keys = release.cluster.get("secrets", "demo-keys")["data"]

    more = CASES["many replicas, several gateways"] | {"gateway": {"replicas": 1}}
    release.put("upgrade", more)
    assert replicas(release, kubectl) == "1"
    assert "demo-gateway-peers" not in release.cluster.names("services")
    assert release.cluster.get("secrets", "demo-keys")["data"] == keys, "an upgrade keeps the keys"

    release.run("rollback", "demo", "1")
    assert replicas(release, kubectl) == "3"
    assert "demo-gateway-peers" in release.cluster.names("services")
    assert release.history() == [(1, "superseded"), (2, "superseded"), (3, "deployed")]

    release.run("uninstall", "demo")
    assert {key.plural for key in release.cluster.objects} == {"persistentvolumeclaims"}, "what was downloaded stays"


def replicas(release: Release, kubectl: Path) -> str:
    """As kubectl sees it."""
    words = ["get", "deployment", "demo-gateway", "-o", "jsonpath={.spec.replicas}"]
    done = subprocess.run(
        [str(kubectl), "--kubeconfig", str(release.kubeconfig), *words], capture_output=True, text=True, check=True
    )
    return done.stdout


def test_operators_resources_are_installed_and_the_question_is_asked(release: Release) -> None:
    release.put("install", CASES["keda to zero"])
    assert release.cluster.names("scaledobjects") == {"demo-engine"}
    assert release.cluster.names("prometheusrules") == {"demo"}
    assert "demo-test" not in release.cluster.names("pods")
    assert "Phase:          Succeeded" in release.run("test", "demo")


def test_a_changed_engine_on_ray_takes_the_place_of_the_old(release: Release) -> None:
    """KubeRay would leave the pods of a changed RayCluster as they are."""
    case = CASES["two nodes on Ray"]
    release.put("install", case)
    [first] = release.cluster.names("rayclusters")
    release.put("upgrade", case | {"gateway": {"replicas": 2}})
    assert release.cluster.names("rayclusters") == {first}
    release.put("upgrade", case | {"engine": {**case["engine"], "preStop": 20}})
    [second] = release.cluster.names("rayclusters")
    assert second != first
    release.run("rollback", "demo", "1")
    assert release.cluster.names("rayclusters") == {first}


def test_what_is_not_valid_never_gets_in(release: Release) -> None:
    bad = gpu(engine={"volumes": [{"name": "x", "emptyDirr": {}}]})
    done = release.try_helm("install", "demo", "helm", values=bad)
    assert done.returncode != 0
    assert "'emptyDirr' was unexpected" in done.stderr
    assert "demo-engine" not in release.cluster.names("deployments")
