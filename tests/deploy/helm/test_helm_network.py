"""Who reaches whom: the network policies, by playing them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.deploy.helm.cases import CASES
from tests.deploy.helm.chart import Doc, Helm

OF_RELEASE = {"app.kubernetes.io/name": "vllm-profile-launcher", "app.kubernetes.io/instance": "demo"}
GATEWAY, ENGINE, WORKER = (
    {**OF_RELEASE, "app.kubernetes.io/component": c} for c in ("gateway", "engine", "engine-worker")
)
PROMETHEUS, STRANGER = {"app.kubernetes.io/name": "prometheus"}, {"app": "other"}
OTHER_RELEASE = {**GATEWAY, "app.kubernetes.io/instance": "another"}


def matches(selector: Doc, labels: dict[str, str]) -> bool:
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(wanted["key"]) in wanted["values"] for wanted in selector.get("matchExpressions", ())
    )


def may(docs: list[Doc], source: dict[str, str], target: dict[str, str], port: str) -> bool:
    """Whether the policies let a pod of the same namespace through; pods that no policy chooses are open."""
    policies = [doc["spec"] for doc in docs if doc["kind"] == "NetworkPolicy"]
    return _passes(policies, target, source, port, "Ingress", "from") and _passes(
        policies, source, target, port, "Egress", "to"
    )


def _passes(policies: list[Any], own: dict[str, str], other: dict[str, str], port: str, way: str, peers: str) -> bool:
    chosen = [spec for spec in policies if matches(spec["podSelector"], own) and way in spec["policyTypes"]]
    rules = [rule for spec in chosen for rule in spec.get(way.lower(), ())]
    return not chosen or any(
        (peers not in rule or any(matches(peer.get("podSelector", {}), other) for peer in rule[peers]))
        and ("ports" not in rule or port in [entry["port"] for entry in rule["ports"]])
        for rule in rules
    )


@pytest.mark.parametrize("case", ["one replica of two cards", "air gap, the model on a claim"])
def test_only_the_gateway_and_prometheus_reach_an_engine(helm: Helm, case: str) -> None:
    docs = helm.template(CASES[case])
    assert may(docs, GATEWAY, ENGINE, "http")
    assert may(docs, GATEWAY, ENGINE, "status")
    assert may(docs, PROMETHEUS, ENGINE, "http")
    for other in (STRANGER, OTHER_RELEASE, ENGINE):
        assert not may(docs, other, ENGINE, "http")
    assert may(docs, STRANGER, GATEWAY, "http")


def test_the_pods_of_a_group_reach_each_other_by_any_port(helm: Helm) -> None:
    for case in ("two nodes", "two nodes on Ray", "air gap, the model in the image, two nodes"):
        docs = helm.template(CASES[case])
        assert may(docs, WORKER, ENGINE, "29501")  # and 6379, of Ray's head
        assert may(docs, ENGINE, WORKER, "41234")
        assert not may(docs, STRANGER, WORKER, "29501")


def test_nothing_leaves_in_an_air_gap(helm: Helm) -> None:
    docs = helm.template(CASES["air gap, the model on a claim"])
    for own in (ENGINE, GATEWAY):
        assert not may(docs, own, STRANGER, "443")
        assert _passes([d["spec"] for d in docs if d["kind"] == "NetworkPolicy"], own, {}, 53, "Egress", "to")  # type: ignore[arg-type]
    assert may(helm.template(CASES["one replica of two cards"]), ENGINE, STRANGER, "443")  # the hub


def test_a_gateway_can_be_closed_but_not_to_helm_test(helm: Helm) -> None:
    docs = helm.template(CASES["a closed gateway"])
    asking = next(doc["metadata"]["labels"] for doc in docs if doc["kind"] == "Pod")
    assert may(docs, asking, GATEWAY, "http")
    assert may(docs, GATEWAY, GATEWAY, "http")
    assert may(docs, {"app": "picker"}, ENGINE, "http")
    closed = [rule for doc in docs if doc["metadata"]["name"] == "demo-gateway" and doc["kind"] == "NetworkPolicy"
              for rule in doc["spec"]["ingress"]]  # fmt: skip
    assert all("from" in rule for rule in closed)
