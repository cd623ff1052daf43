"""What the chart is rendered with: a little of everything, so that each template and each switch is met."""

from __future__ import annotations

from typing import Any

from tests.deploy.helm.chart import shipped

Values = dict[str, Any]
TWO_HOSTS = {
    "name": "two-hosts",
    "model": {"id": "zai-org/GLM-4.6V", "max_len": 32768},
    "hardware": {"gpu": "H100", "gpus": 8},
    "engine": {"tensor_parallel": 8, "pipeline_parallel": 2, "nodes": 2},
}
ON_RAY = {**TWO_HOSTS, "engine": {**TWO_HOSTS["engine"], "distributed": "ray"}}  # type: ignore[dict-item]
KEDA = {"kind": "keda", "minReplicas": 0, "maxReplicas": 8, "keda": {"prometheus": "http://prometheus:9090"}}
SHARED_CACHE = {"kind": "pvc", "accessModes": ["ReadWriteMany"], "storageClassName": "nfs"}
POD = {
    "nodeSelector": {"pool": "gpu"},
    "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
    "priorityClassName": "serving",
    "env": [{"name": "NCCL_DEBUG", "value": "WARN"}],
    "volumes": [{"name": "extra", "emptyDir": {}}],
    "volumeMounts": [{"name": "extra", "mountPath": "/extra"}],
    "podLabels": {"team": "ml"},
    "podAnnotations": {"note": "yes"},
    "podSecurityContext": {"runAsUser": 2000, "runAsNonRoot": True},
    "securityContext": {"readOnlyRootFilesystem": False},
    "resources": {"limits": {"cpu": "8"}},
}


def gpu(**more: Any) -> Values:
    return {"profile": shipped("2x4090"), **more}


CASES: dict[str, Values] = {
    "as it comes, on the CPU": {},
    "one replica of two cards": gpu(),
    "many replicas, several gateways": {
        "profile": shipped("2x4090-replicas"),
        "engine": {"cache": SHARED_CACHE, "gpuProducts": ["NVIDIA-GeForce-RTX-4090"], "rollout": {"maxSurge": 1}},
        "gateway": {"replicas": 3},
    },
    "two nodes": {"profile": TWO_HOSTS},
    "two nodes, four groups by keda, a cache of the nodes": {
        "profile": TWO_HOSTS,
        "autoscaling": KEDA,
        "engine": {"cache": {"kind": "hostPath", "path": "/srv/models"}},
    },
    "two nodes on Ray": {"profile": ON_RAY, "engine": {"cache": SHARED_CACHE}},
    "one node on Ray, two of them, monitoring": {
        "profile": shipped("2x4090-replicas").replace("engine:", "engine:\n  distributed: ray", 1),
        "monitoring": {"enabled": True},
        "engine": {"memory": "24Gi", "rollout": {"maxUnavailable": 0}},
    },
    "air gap, the model on each of three nodes, on Ray": {
        "airGap": True,
        "profile": {**ON_RAY, "engine": {**ON_RAY["engine"], "pipeline_parallel": 3, "nodes": 3}},
        "engine": {**POD, "cache": {"kind": "hostPath", "path": "/srv/models"}, "gpuProducts": ["NVIDIA-H200"]},
        "fullnameOverride": "llm",
    },
    "keda to zero": gpu(autoscaling=KEDA | {"cooldown": 60}, monitoring={"enabled": True}),
    "keda with a password, by labels of its own": gpu(
        autoscaling=KEDA
        | {
            "keda": {"prometheus": "https://prometheus", "authenticationRef": "prometheus"},
            "gatewaySelector": 'app="gateway"',
        }
    ),
    "an hpa": gpu(autoscaling={"kind": "hpa", "minReplicas": 2}),
    "monitoring": gpu(monitoring={"enabled": True, "labels": {"release": "kube-prometheus-stack"}}),
    "air gap, the model on a claim": gpu(
        airGap=True, engine={"cache": {"kind": "pvc", "existingClaim": "models"}, "memory": "64Gi"}
    ),
    "air gap, the model in the image, two nodes": {
        "airGap": True,
        "profile": TWO_HOSTS,
        "engine": {"cache": {"kind": "none"}, "image": "registry.example/engine:1"},
    },
    "an ingress with tls": gpu(
        gateway={"ingress": {"enabled": True, "className": "nginx", "host": "llm.example.org", "tlsSecret": "llm-tls"}}
    ),
    "an http route": gpu(
        gateway={"httpRoute": {"enabled": True, "parentRefs": [{"name": "public"}], "hostnames": ["llm.example.org"]}}
    ),
    "keys of one's own, https within": {
        "profile": {
            **TWO_HOSTS,
            "engine": {},
            "gateway": {"tls_cert": "/etc/tls/tls.crt", "tls_key": "/etc/tls/tls.key"},
        },
        "gateway": {
            "apiKeys": {"existingSecret": "clients"},
            "keysFile": {"existingSecret": "key-file"},
            "ingress": {"enabled": True, "host": "llm.example.org"},
        },
        "engine": {"key": {"existingSecret": "engine-key"}, "hubToken": {"existingSecret": "hub"}},
        "monitoring": {"enabled": True, "rules": False, "dashboards": False},
    },
    "an inference pool": gpu(
        engine={"key": {"enabled": False}}, inferencePool={"enabled": True, "endpointPicker": {"name": "picker"}}
    ),
    "servers that run elsewhere": {"profile": shipped("external"), "monitoring": {"enabled": True}, "airGap": True},
    "everything of a pod": gpu(
        engine={**POD, "runtimeClassName": "nvidia", "tolerations": [], "shmSize": "8Gi", "fetchTime": "2h"},
        gateway={**POD, "service": {"type": "LoadBalancer", "annotations": {"a": "b"}}},
        imagePullSecrets=[{"name": "registry"}],
        serviceAccount={"annotations": {"a": "b"}},
        fullnameOverride="llm",
    ),
    "as little as can be": {
        "profile": {"name": "small", "model": {"packaged": "smollm2-135m-instruct"}, "gateway": {"auth": "none"},
                    "hardware": {"device": "cpu"}, "engine": {"kv_cache_memory": "1GiB"}},
        "engine": {"key": {"enabled": False}, "spread": False, "cpu": 2},
        "gateway": {"spread": False},
        "disruption": {"enabled": False},
        "networkPolicy": {"enabled": False},
    },
    "a closed gateway": gpu(
        networkPolicy={
            "gatewayFrom": [{"namespaceSelector": {"matchLabels": {"team": "ml"}}}],
            "engineFrom": [{"podSelector": {"matchLabels": {"app": "picker"}}}],
        }
    ),
}  # fmt: skip
