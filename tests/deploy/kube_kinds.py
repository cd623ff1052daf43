"""Which kinds the stand-in for an API server has (``kube_stub``), and what it tells clients of them."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]
VERSION = "1.33"
# Group and version → the plural, the kind. All of them belong to namespaces but Namespace itself.
KINDS: dict[str, dict[str, str]] = {
    "v1": {
        "namespaces": "Namespace",
        "secrets": "Secret",
        "services": "Service",
        "configmaps": "ConfigMap",
        "serviceaccounts": "ServiceAccount",
        "persistentvolumeclaims": "PersistentVolumeClaim",
        "pods": "Pod",
    },
    "apps/v1": {"deployments": "Deployment"},
    "policy/v1": {"poddisruptionbudgets": "PodDisruptionBudget"},
    "networking.k8s.io/v1": {"networkpolicies": "NetworkPolicy", "ingresses": "Ingress"},
    "autoscaling/v2": {"horizontalpodautoscalers": "HorizontalPodAutoscaler"},
    "keda.sh/v1alpha1": {"scaledobjects": "ScaledObject"},
    "monitoring.coreos.com/v1": {"servicemonitors": "ServiceMonitor", "prometheusrules": "PrometheusRule"},
    "leaderworkerset.x-k8s.io/v1": {"leaderworkersets": "LeaderWorkerSet"},
    "ray.io/v1": {"rayclusters": "RayCluster"},
}


class Refused(Exception):
    """An answer that is none of 2xx."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        about = {"reason": reason, "message": message, "code": code}
        self.status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", **about}


def discovery(parts: list[str]) -> Object:
    """What a client asks before anything else: which kinds there are."""
    path = "/".join(parts)
    if path == "version":
        major, minor = VERSION.split(".")
        return {"major": major, "minor": minor, "gitVersion": f"v{VERSION}.0", "platform": "linux/amd64"}
    if path == "api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "apis":
        groups: dict[str, list[Object]] = {}
        for version in KINDS:
            if "/" in version:
                group, _, short = version.partition("/")
                groups.setdefault(group, []).append({"groupVersion": version, "version": short})
        listed = [{"name": name, "versions": found, "preferredVersion": found[0]} for name, found in groups.items()]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}
    if parts[:2] == ["openapi", "v3"]:
        return openapi("/".join(parts[2:]))
    version = "/".join(parts[1:])
    if parts[0] not in ("api", "apis") or version not in KINDS:
        raise Refused(404, "NotFound", f"{path} is not served")
    verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
    resources = [
        {"name": plural, "singularName": kind.lower(), "kind": kind, "namespaced": kind != "Namespace", "verbs": verbs}
        for plural, kind in KINDS[version].items()
    ]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources}


def openapi(path: str) -> Object:
    """No schemas: only the word that this server itself looks at each field, so that its client need not."""
    documents = {("api/" if "/" not in version else "apis/") + version: version for version in KINDS}
    if not path:
        return {"paths": {name: {"serverRelativeURL": f"/openapi/v3/{name}"} for name in documents}}
    group, _, short = documents[path].rpartition("/")
    paths = {}
    for plural, kind in KINDS[documents[path]].items():
        patch = {"parameters": [{"name": "fieldValidation", "in": "query"}], "responses": {},
                 "x-kubernetes-group-version-kind": {"group": group, "version": short, "kind": kind}}  # fmt: skip
        paths[f"/{path}/namespaces/{{namespace}}/{plural}/{{name}}"] = {"patch": patch}
    return {"openapi": "3.0.0", "info": {"title": path, "version": short}, "paths": paths}
