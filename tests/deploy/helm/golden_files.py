"""What is installed for each shipped profile, kept to be read in a diff: one file each in golden/.

``python -m tests.deploy.helm.golden_files`` writes them anew, with the helm beside that Python.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

import yaml

from launcher.plan.plan import make_plan
from launcher.probe.model_files import read_model_facts
from launcher.profile.load import load_profile
from launcher.render.helm import helm_values
from tests.deploy.helm.cases import CASES
from tests.deploy.helm.chart import PROFILES, ROOT, SERVERS, Helm

GOLDEN = Path(__file__).with_name("golden")
# The profile is in its own file already, and keys are made by chance.
LEFT_OUT = ("ConfigMap", "Secret")
ON_RAY = "two-hosts-ray"  # of no shipped profile, which all fit one machine
NAMES = [*PROFILES, ON_RAY]
WHOLE = "2x4090"  # of the others only the workloads: the rest is the same for all


def values_of(name: str) -> str:
    """As `launcher render helm profiles/NAME.yaml` prints them, with what is known without a network."""
    path = Path("profiles") / f"{name}.yaml"
    loaded = load_profile(ROOT / path, sets=[f'engine.urls=["{SERVERS}"]'] if name == "external" else (), env={})
    facts = read_model_facts(loaded.profile, loaded.base_dir, offline=True)
    weight_bytes = facts.weights.total if facts and facts.weights else None
    plan = make_plan(loaded.profile, facts)
    return helm_values(loaded, plan, weight_bytes, written_by=f"launcher render helm {path}")


def golden_text(helm: Helm, name: str) -> str:
    """The manifests, as helm writes them."""
    values = CASES["two nodes on Ray"] if name == ON_RAY else yaml.safe_load(values_of(name))
    text = helm.template_text(values)
    docs = re.split(r"^---\n", text, flags=re.MULTILINE)[1:]
    kinds = [yaml.safe_load(doc)["kind"] for doc in docs]
    shown = set(kinds) - set(LEFT_OUT) if name == WHOLE else {"Deployment", "RayCluster"}
    kept = [doc.rstrip() + "\n" for doc, kind in zip(docs, kinds, strict=True) if kind in shown]
    return "---\n".join(re.sub(r"^ +$", "", doc, flags=re.MULTILINE) for doc in kept)


def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        helm = Helm(Path(sys.executable).with_name("helm"), Path(home))
        for name in NAMES:
            (GOLDEN / f"{name}.yaml").write_text(golden_text(helm, name), encoding="utf-8")


if __name__ == "__main__":
    main()
