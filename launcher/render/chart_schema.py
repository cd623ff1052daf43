"""The JSON Schema of the Helm chart's values: the profile's own under ``profile``, and what Kubernetes needs beside it."""

from __future__ import annotations

import copy
import json
from typing import Any

from launcher.profile.schema import DIALECT, build_schema
from launcher.profile.units import DURATION_PATTERN

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}
COUNT: Schema = {"type": "integer", "minimum": 0}
SOME: Schema = {"type": "integer", "minimum": 1}
# What Kubernetes checks itself, and what has keys that are the user's own.
OBJECT: Schema = {"type": "object"}
OBJECTS: Schema = {"type": "array", "items": OBJECT}
WORDS: Schema = {"type": "object", "additionalProperties": TEXT}
LIST: Schema = {"type": "array", "items": TEXT}
# 24Gi, 500m, 2: or empty, for what the chart works out.
QUANTITY: Schema = {"type": ["string", "number"], "pattern": r"^$|^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"}
POD = {
    "image": TEXT,
    "imagePullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
    "cpu": QUANTITY,
    "memory": QUANTITY,
    "resources": OBJECT,
    "nodeSelector": WORDS,
    "affinity": OBJECT,
    "tolerations": {"type": ["array", "null"], "items": OBJECT},
    "priorityClassName": TEXT,
    "spread": FLAG,
    "preStop": COUNT,
    "env": OBJECTS,
    "volumes": OBJECTS,
    "volumeMounts": OBJECTS,
    "podLabels": WORDS,
    "podAnnotations": WORDS,
    "podSecurityContext": OBJECT,
    "securityContext": OBJECT,
}
SECRET = {"existingSecret": TEXT, "key": TEXT}


def closed(**properties: Schema) -> Schema:
    """An object that has these keys and no others."""
    return {"type": "object", "additionalProperties": False, "properties": properties}


def choice(*words: str) -> Schema:
    return {"enum": list(words)}


def engine_schema() -> Schema:
    return closed(
        **POD,
        replicas={"type": ["integer", "null"], "minimum": 0},
        shmSize=QUANTITY,
        gpuResource=TEXT,
        gpuProducts=LIST,
        runtimeClassName=TEXT,
        rollout=closed(maxSurge=COUNT, maxUnavailable=COUNT),
        cache=closed(
            kind=choice("emptyDir", "pvc", "hostPath", "none"),
            size=QUANTITY,
            existingClaim=TEXT,
            accessModes={"type": "array", "items": choice("ReadWriteOnce", "ReadWriteMany", "ReadOnlyMany")},
            storageClassName=TEXT,
            path={"type": "string", "pattern": "^$|^/"},
        ),
        fetchTime={"type": "string", "pattern": f"^$|{DURATION_PATTERN}"},
        key=closed(enabled=FLAG, **SECRET),
        hubToken=closed(**SECRET),
    )


def gateway_schema() -> Schema:
    return closed(
        **POD,
        replicas=SOME,
        apiKeys=closed(**SECRET),
        keysFile=closed(**SECRET),
        service=closed(
            type=choice("ClusterIP", "NodePort", "LoadBalancer"),
            port={"type": "integer", "minimum": 1, "maximum": 65535},
            annotations=WORDS,
        ),
        ingress=closed(enabled=FLAG, className=TEXT, host=TEXT, tlsSecret=TEXT, readTimeout=SOME, annotations=WORDS),
        httpRoute=closed(enabled=FLAG, apiVersion=TEXT, parentRefs=OBJECTS, hostnames=LIST, annotations=WORDS),
    )


def autoscaling_schema() -> Schema:
    return closed(
        kind=choice("none", "hpa", "keda"),
        minReplicas=COUNT,
        maxReplicas=SOME,
        queuedPerReplica=SOME,
        kvUse={"type": "number", "exclusiveMinimum": 0, "maximum": 1},
        cooldown=COUNT,
        gatewaySelector=TEXT,
        engineSelector=TEXT,
        keda=closed(prometheus=TEXT, pollingInterval=SOME, authenticationRef=TEXT),
        hpa=closed(queueMetric=TEXT, kvMetric=TEXT),
    )


def values_schema() -> Schema:
    """The whole schema. A profile given as text is read and checked in the templates."""
    profile = copy.deepcopy(build_schema())
    sections = profile.pop("$defs")
    del profile["$schema"], profile["title"]
    properties = {
        "profile": {
            "description": "The profile: its keys, or the text of its file (--set-file profile=profiles/2x4090.yaml).",
            "type": ["object", "string", "null"],
            "if": {"type": "object"},
            "then": {"$ref": "#/$defs/profile"},
        },
        "files": WORDS,
        "fullnameOverride": {"type": "string", "pattern": "^$|^[a-z]([a-z0-9-]*[a-z0-9])?$"},
        "imagePullSecrets": OBJECTS,
        "airGap": FLAG,
        "engine": engine_schema(),
        "gateway": gateway_schema(),
        "serviceAccount": closed(annotations=WORDS),
        "disruption": closed(enabled=FLAG),
        "autoscaling": autoscaling_schema(),
        "monitoring": closed(
            enabled=FLAG, interval=TEXT, labels=WORDS, rules=FLAG, dashboards=FLAG, dashboardLabels=WORDS
        ),
        "networkPolicy": closed(
            enabled=FLAG, prometheus=OBJECT, gatewayFrom=OBJECTS, engineFrom=OBJECTS, egress=OBJECTS
        ),
        "inferencePool": closed(enabled=FLAG, apiVersion=TEXT, endpointPicker=closed(name=TEXT, port=SOME)),
        "leaderWorkerSet": closed(apiVersion=TEXT),
        "rayCluster": closed(apiVersion=TEXT),
        "global": OBJECT,  # of a chart that this one is part of
    }
    head = {"$schema": DIALECT, "title": "Values of the chart vllm-profile-launcher"}
    return {**head, **closed(**properties), "$defs": {"profile": profile, **sections}}


def values_schema_text() -> str:
    """As it stands in helm/values.schema.json."""
    return json.dumps(values_schema(), indent=1, ensure_ascii=False) + "\n"
