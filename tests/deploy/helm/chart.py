"""The chart through the real helm: rendered with values, or refused with a sentence."""

from __future__ import annotations

import copy
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
CHART = ROOT / "helm"
PROFILES = sorted(path.stem for path in (ROOT / "profiles").glob("*.yaml"))
SERVERS = "http://sglang.models.svc:30000"
Doc = dict[str, Any]


@dataclass(frozen=True)
class Helm:
    """The program, with a home of its own."""

    program: Path
    home: Path
    _rendered: dict[str, list[Doc]] = field(default_factory=dict, repr=False)  # the same is rendered once

    def run(self, *arguments: str, values: Mapping[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
        words = [str(self.program), *arguments]
        given = None
        if values is not None:
            words += ["-f", "-"]
            given = yaml.safe_dump(dict(values))
        return subprocess.run(words, input=given, cwd=ROOT, env=self.environment(), capture_output=True, text=True)

    def environment(self) -> dict[str, str]:
        homes = {f"HELM_{name}_HOME": str(self.home / name) for name in ("CACHE", "CONFIG", "DATA")}
        return {**os.environ, **homes}

    def template(self, values: Mapping[str, Any] | None = None, *arguments: str, chart: Path = CHART) -> list[Doc]:
        """What would be installed."""
        key = json.dumps([values, arguments, str(chart)], sort_keys=True)
        if key not in self._rendered:
            text = self.template_text(values, *arguments, chart=chart)
            self._rendered[key] = list(yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
        return copy.deepcopy(self._rendered[key])

    def template_text(self, values: Mapping[str, Any] | None = None, *arguments: str, chart: Path = CHART) -> str:
        done = self.run("template", "demo", str(chart), "-n", "serving", *arguments, values=values or {})
        assert done.returncode == 0, done.stderr
        assert not done.stderr, done.stderr  # no warning
        return done.stdout

    def refusal(self, values: Mapping[str, Any] | None = None, *arguments: str) -> str:
        """Why these values are refused, in helm's words."""
        done = self.run("template", "demo", str(CHART), *arguments, values=values or {})
        assert done.returncode != 0, "it was not refused"
        return done.stderr


def shipped(name: str) -> str:
    """The profile's file; with the servers of `external` where a pod reaches them, which on loopback it does not."""
    text = (ROOT / "profiles" / f"{name}.yaml").read_text(encoding="utf-8")
    return text.replace("http://127.0.0.1:30000", SERVERS)


def one(docs: Sequence[Doc], kind: str, name: str) -> Doc:
    """The one document of that kind whose name ends so."""
    found = [doc for doc in docs if doc["kind"] == kind and doc["metadata"]["name"].endswith(name)]
    assert len(found) == 1, [(doc["kind"], doc["metadata"]["name"]) for doc in docs]
    return found[0]


def pod_of(doc: Doc) -> Doc:
    found: Doc = doc["spec"]["template"]["spec"]
    return found


def container_of(doc: Doc) -> Doc:
    found: Doc = pod_of(doc)["containers"][0]
    return found


def templates_of(doc: Doc) -> list[Doc]:
    """The pod templates of a workload."""
    spec = doc.get("spec", {})
    if doc["kind"] == "RayCluster":
        return [spec["headGroupSpec"]["template"], *(group["template"] for group in spec.get("workerGroupSpecs", ()))]
    group = spec.get("leaderWorkerTemplate", {})
    return [spec["template"]] if "template" in spec else [group[name] for name in group if name.endswith("Template")]
