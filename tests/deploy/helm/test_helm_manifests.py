"""Every manifest of many renderings is strictly what three versions of Kubernetes, and the operators, take."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.deploy.helm.cases import CASES
from tests.deploy.helm.chart import Doc, Helm, container_of, one, pod_of, templates_of
from tests.deploy.helm.validity import VERSIONS, faults


@pytest.mark.parametrize("case", CASES)
def test_every_manifest_is_valid(helm: Helm, case: str) -> None:
    docs = helm.template(CASES[case])
    assert [fault for doc in docs for version in VERSIONS for fault in faults(doc, version)] == []
    assert_names_and_labels_agree(docs)


def assert_names_and_labels_agree(docs: list[Doc]) -> None:
    """No two of a kind have one name; each selector finds the pods of exactly one template; what a pod names is there."""
    names = [(doc["kind"], doc["metadata"]["name"]) for doc in docs]
    assert len(set(names)) == len(names)
    pods = [template["metadata"]["labels"] for doc in docs for template in templates_of(doc)]
    for doc in docs:
        for selector in selectors_of(doc):
            assert sum(selector.items() <= labels.items() for labels in pods) >= 1, doc["metadata"]["name"]
    for kind, name in (
        (kind, name) for doc in docs for template in templates_of(doc) for kind, name in named_by(template)
    ):
        own = name.removesuffix(name.rpartition("-")[2]).rstrip("-") in {"demo", "llm"} or name in {"demo", "llm"}
        assert not own or (kind, name) in names, f"{kind} {name} is named and not made"


def selectors_of(doc: Doc) -> list[dict[str, str]]:
    spec = doc.get("spec", {})
    if doc["kind"] == "Service":
        return [spec["selector"]]
    if doc["kind"] in ("PodDisruptionBudget", "Deployment"):
        return [spec["selector"]["matchLabels"]]
    if doc["kind"] in ("NetworkPolicy",):
        return [spec["podSelector"]["matchLabels"]]
    return [spec["selector"]["matchLabels"]] if doc["kind"] == "InferencePool" else []


def named_by(template: Doc) -> list[tuple[str, str]]:
    spec = template["spec"]
    found = [("ServiceAccount", spec["serviceAccountName"])]
    for volume in spec["volumes"]:
        found += [("ConfigMap", volume["configMap"]["name"])] if "configMap" in volume else []
        claim = volume.get("persistentVolumeClaim")
        found += [("PersistentVolumeClaim", claim["claimName"])] if claim else []
    for entry in spec["containers"][0]["env"]:
        secret = entry.get("valueFrom", {}).get("secretKeyRef")
        found += [("Secret", secret["name"])] if secret else []
    return found


@pytest.mark.parametrize(
    ("kind", "path", "wrong"),
    [
        ("Deployment", ["spec", "replicass"], 1),
        ("Deployment", ["spec", "template", "spec", "containers", 0, "livenesProbe"], {}),
        ("PodDisruptionBudget", ["spec", "maxUnavailable"], {}),
        ("ScaledObject", ["spec", "triggers", 0, "metadata", "treshold"], "1"),
        ("ServiceMonitor", ["spec", "endpoints", 0, "intervall"], "1s"),
        ("PrometheusRule", ["spec", "groups", 0, "rules", 0, "exp"], "up"),
    ],
)
def test_a_slip_in_a_manifest_would_be_found(helm: Helm, kind: str, path: list[Any], wrong: Any) -> None:
    doc = copy.deepcopy(next(doc for doc in helm.template(CASES["keda to zero"]) if doc["kind"] == kind))
    *above, last = path
    place: Any = doc
    for step in above:
        place = place[step]
    place[last] = wrong
    assert list(faults(doc, VERSIONS[0]))


def test_a_slip_in_the_pods_of_a_group_would_be_found(helm: Helm) -> None:
    group = copy.deepcopy(one(helm.template(CASES["two nodes"]), "LeaderWorkerSet", "-group"))
    group["spec"]["leaderWorkerTemplate"]["workerTemplate"]["spec"]["containers"][0]["imgae"] = "x"
    assert list(faults(group, VERSIONS[-1]))


@pytest.mark.parametrize(
    "path",
    [
        ["spec", "headGroupSpec", "rayStartParam"],
        ["spec", "headGroupSpec", "rayStartParams", "num-gpu"],
        ["spec", "headGroupSpec", "rayStartParams", "num-gpus"],  # a number, where KubeRay takes strings
        ["spec", "workerGroupSpecs", 0, "replica"],
        ["spec", "headGroupSpec", "headService", "spec", "publishNotReadyAdresses"],
        ["spec", "workerGroupSpecs", 0, "template", "spec", "containers", 0, "imgae"],
    ],
)
def test_a_slip_in_a_ray_cluster_would_be_found(helm: Helm, path: list[Any]) -> None:
    place = doc = one(helm.template(CASES["two nodes on Ray"]), "RayCluster", "")
    *above, last = path
    for step in above:
        place = place[step]
    place[last] = 1
    assert list(faults(doc, VERSIONS[-1]))


@pytest.mark.parametrize("case", ["two nodes", "two nodes on Ray"])
def test_pods_have_no_rights(helm: Helm, case: str) -> None:
    """What the restricted Pod Security Standard asks for, and more."""
    docs = helm.template(CASES[case])
    pods = [template["spec"] for doc in docs for template in templates_of(doc)]
    pods += [doc["spec"] for doc in docs if doc["kind"] == "Pod"]
    assert len(pods) == 4  # leader, worker, gateway, and that of helm test
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 10001
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostIPC", "hostPID"} & set(pod)
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": True,
            }


def test_a_security_context_can_be_laid_over(helm: Helm) -> None:
    engine = one(helm.template(CASES["everything of a pod"]), "Deployment", "-engine")
    assert pod_of(engine)["securityContext"]["runAsUser"] == 2000
    assert container_of(engine)["securityContext"]["readOnlyRootFilesystem"] is False
