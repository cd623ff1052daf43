"""Whether a manifest is strictly what Kubernetes, or an operator's resource, takes: unknown fields are refused."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from tests.deploy.helm.chart import Doc, templates_of

VERSIONS = ("1.29", "1.33", "1.37")  # Chart.yaml's oldest, one between, the newest that there are schemas of
SCHEMAS = Path(__file__).with_name("schemas")


def faults(doc: Doc, version: str) -> Iterator[str]:
    """Sentences about what is wrong with it, for Kubernetes 1.x."""
    what = f"{doc['kind']} {doc.get('metadata', {}).get('name')}, {version}"
    for path, message in _faults(json.dumps(doc, sort_keys=True), version):
        yield f"{what}: {path}: {message}"
    # Pods that no schema of Kubernetes has looked into: those of an operator's resource.
    for template in templates_of(doc) if doc["kind"] in ("LeaderWorkerSet", "RayCluster") else ():
        yield from faults({"apiVersion": "v1", "kind": "Pod", **template}, version)


@cache  # most manifests of two renderings are the same
def _faults(text: str, version: str) -> tuple[tuple[str, str], ...]:
    doc = json.loads(text)
    validator = _validator(doc["apiVersion"], doc["kind"], version)
    return tuple((error.json_path, error.message) for error in validator.iter_errors(doc))


@cache
def _validator(api_version: str, kind: str, version: str) -> Draft202012Validator:
    """Kubernetes' own schema in its strict form, or one of ours for a resource that an operator brings."""
    own = SCHEMAS / f"{kind.lower()}.json"
    if own.exists():
        return Draft202012Validator(json.loads(own.read_text()))
    group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)  # policy/v1 → policy-v1, apps/v1 → apps-v1
    schema = json.loads(_folder(version).joinpath(f"{kind.lower()}-{group}.json").read_text())
    return Draft202012Validator(schema, registry=_definitions(version))


def _folder(version: str) -> Any:
    everything = files("kubernetes_validate").joinpath("kubernetes-json-schema")
    return next(
        folder for folder in everything.iterdir() if re.fullmatch(rf"v{version}\.\d+-local-strict", folder.name)
    )


@cache
def _definitions(version: str) -> Registry[Any]:
    text = _folder(version).joinpath("_definitions.json").read_text()
    return Resource.from_contents(json.loads(text)) @ Registry()
