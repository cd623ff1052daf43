"""What contradicts itself, or is misspelt, is refused in a sentence with its name."""

from __future__ import annotations

from typing import Any

import pytest

from tests.deploy.helm.cases import KEDA, SHARED_CACHE, TWO_HOSTS, gpu
from tests.deploy.helm.chart import ROOT, Helm, shipped


def relative(**model: str) -> dict[str, Any]:
    return {"profile": {"name": "x", "model": model}}


def two_hosts(**engine: Any) -> dict[str, Any]:
    return {"profile": {**TWO_HOSTS, "engine": {**TWO_HOSTS["engine"], **engine}}}  # type: ignore[dict-item]


MISSPELT = [
    ({"engine": {"replicass": 2}}, "at '/engine': additional properties 'replicass' not allowed"),
    ({"gatway": {}}, "additional properties 'gatway' not allowed"),
    ({"engine": {"cache": {"kind": "pcv"}}}, "at '/engine/cache/kind': value must be one of 'emptyDir', 'pvc'"),
    ({"autoscaling": {"kind": "both"}}, "at '/autoscaling/kind': value must be one of 'none', 'hpa', 'keda'"),
    ({"gateway": {"replicas": 0}}, "at '/gateway/replicas': minimum: got 0, want 1"),
    ({"engine": {"memory": "24GB"}}, "at '/engine/memory'"),
    (
        {"profile": {"name": "x", "engine": {"tensor_paralel": 2}}},
        "at '/profile/engine': additional properties 'tensor_paralel' not allowed",
    ),
    ({"profile": {"name": "x", "timeouts": {"drain": 30}}}, "at '/profile/timeouts/drain': got number, want string"),
    ({"profile": {"model": {"id": "a/b"}}}, "at '/profile': missing property 'name'"),
]  # fmt: skip
IN_A_FILE = [
    ("engine:\n  tensor_paralel: 2\n", "profile.engine.tensor_paralel: there is no such key. There are: "),
    ("enginee: {}\n", "profile.enginee: there is no such key. There are: admission, description, engine, gateway"),
    ("timeouts: 30s\n", "profile.timeouts: is 30s, but has keys of its own: timeouts.drain"),
    ("timeouts: {drain: 30}\n", "profile.timeouts.drain: 30 is not a duration: write a number and a unit"),
    ("timeouts: {stop: 5 min}\n", "profile.timeouts.stop: 5 min is not a duration"),
    ("engine: {urls: [http://a]}\n", "profile.engine.urls: there is no such key"),
    ("a: b: c\n", "profile: is not YAML: "),
]
AT_ODDS = [
    (
        relative(path="models/glm"),
        "profile.model.path: models/glm is relative to the profile's file, beside which a pod",
    ),
    (relative(id="a/b", chat_template="t.jinja"), "--set-file 'files.t\\.jinja=PATH'"),
    (gpu(engine={"rollout": {"maxUnavailable": 0}}), "engine.rollout: maxSurge and maxUnavailable are both 0"),
    (gpu(engine={"preStop": 2}), "engine.preStop: 2 s is less than gateway.preStop 5 s"),
    (gpu(engine={"cache": {"kind": "hostPath"}}), "engine.cache.path: is missing"),
    (
        gpu(engine={"replicas": 2, "cache": {"kind": "pvc"}}),
        "engine.cache.accessModes: ReadWriteOnce is for the pods of one node, but there may be 2",
    ),
    (
        gpu(autoscaling={"kind": "hpa"}, engine={"cache": {"kind": "pvc"}}),
        "engine.cache.accessModes: ReadWriteOnce is for the pods of one node, but there may be 4",
    ),
    (gpu(airGap=True), "airGap: profile.model.id zai-org/AutoGLM-Phone-9B can come neither from the hub nor"),
    (
        gpu(airGap=True, engine={"cache": {"kind": "none"}, "hubToken": {"existingSecret": "hub"}}),
        "engine.hubToken.existingSecret: nothing is asked of the hub while airGap is on",
    ),
    (
        two_hosts(nodes=3),
        "profile.engine.nodes: 3 pods cannot have equal shares of tensor_parallel × pipeline_parallel = 16",
    ),
    (
        two_hosts(distributed="ray"),
        "engine.cache.kind: emptyDir is each pod's own, and on Ray the model is fetched in one of the 2 pods alone",
    ),
    (
        {"profile": shipped("cpu-smollm2").replace("engine:", "engine:\n  distributed: ray", 1)},
        "profile.engine.distributed: ray needs cards, and profile.hardware.device is cpu: write mp",
    ),
    (
        two_hosts(distributed="ray") | {"autoscaling": KEDA, "engine": {"cache": SHARED_CACHE}},
        "autoscaling.kind: keda counts a Deployment's or a LeaderWorkerSet's replicas",
    ),
    (
        {"profile": shipped("external"), "autoscaling": {"kind": "hpa"}},
        "with profile.engine.kind external there are none",
    ),
    (gpu(autoscaling={"kind": "hpa", "minReplicas": 5}), "autoscaling.minReplicas: 5 is more than maxReplicas 4"),
    (gpu(autoscaling={"kind": "hpa", "minReplicas": 0}), "autoscaling.minReplicas: 0 needs kind keda"),
    (gpu(autoscaling={"kind": "keda"}), "autoscaling.keda.prometheus: is missing"),
    (gpu(autoscaling={"kind": "hpa"}, engine={"replicas": 2}), "engine.replicas: autoscaling.kind hpa decides"),
    (gpu(gateway={"ingress": {"enabled": True}}), "gateway.ingress.host: is missing"),
    (gpu(gateway={"httpRoute": {"enabled": True}}), "gateway.httpRoute.parentRefs: is empty"),
    (
        gpu(
            gateway={
                "ingress": {"enabled": True, "host": "a"},
                "httpRoute": {"enabled": True, "parentRefs": [{"name": "a"}]},
            }
        ),
        "gateway.ingress and gateway.httpRoute are both enabled",
    ),
    (
        {"profile": shipped("external").replace("http://sglang.models.svc", "http://127.0.0.1")},
        "profile: http://127.0.0.1:30000 is in a pod the pod itself",
    ),
    (
        {"profile": shipped("external").replace("# api_key_env", "api_key_env")},
        "profile.engine.api_key_env: BACKEND_API_KEY is not among gateway.env",
    ),
    ({"profile": {**TWO_HOSTS, "admission": {"counting": "exact"}}}, "profile.admission.counting: exact counts with"),
    (
        {
            "profile": {**TWO_HOSTS, "gateway": {"tracing": {"endpoint": "http://collector.tracing.svc:4318"}}},
            "airGap": True,
            "engine": {"cache": {"kind": "none"}},
        },
        "airGap: traces could not reach profile.gateway.tracing.endpoint",
    ),
    (gpu(inferencePool={"enabled": True}), "inferencePool.endpointPicker.name: is missing"),
    (gpu(inferencePool={"enabled": True, "endpointPicker": {"name": "a"}}), "set engine.key.enabled: false"),
]


@pytest.mark.parametrize(
    ("values", "sentence"), [*MISSPELT, *AT_ODDS], ids=lambda found: found if isinstance(found, str) else ""
)
def test_it_is_refused(helm: Helm, values: dict[str, Any], sentence: str) -> None:
    assert sentence in helm.refusal(values)


@pytest.mark.parametrize(("lines", "sentence"), IN_A_FILE)
def test_it_is_refused_in_a_file_too(helm: Helm, lines: str, sentence: str) -> None:
    """The schema does not look into text: the templates do."""
    assert sentence in helm.refusal({"profile": f"name: x\nmodel: {{id: a/b}}\n{lines}"})


def test_a_profile_without_a_name_is_refused(helm: Helm) -> None:
    assert "profile.name: is missing" in helm.refusal({"profile": "model: {id: a/b}\n"})


def test_helm_lint_finds_nothing(helm: Helm) -> None:
    done = helm.run("lint", "--strict", str(ROOT / "helm"))
    assert done.returncode == 0, done.stdout
    assert "WARN" not in done.stdout
    bad = helm.run("lint", "--strict", str(ROOT / "helm"), values={"engine": {"replicass": 2}})
    assert bad.returncode == 1
    assert "additional properties 'replicass' not allowed" in bad.stdout + bad.stderr
