"""The README's commands on Kubernetes, in their order, as they stand there: against the stand-in for an API server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.deploy.helm.chart import ROOT, Helm
from tests.deploy.helm.validity import VERSIONS, faults
from tests.deploy.kube_stub import kube_stub

HEADING = "## On Kubernetes"


def console_blocks() -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"\n{HEADING}\n" in text, f"the README has no section {HEADING}"
    section = text.partition(f"\n{HEADING}\n")[2].partition("\n## ")[0]
    return re.findall(r"^```console\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


def test_every_command_runs_and_says_what_is_shown(helm: Helm, kubectl: Path, tmp_path: Path) -> None:
    for name in ("helm", "profiles"):
        (tmp_path / name).symlink_to(ROOT / name)
    path = os.pathsep.join([str(helm.program.parent), str(Path(sys.executable).parent), os.environ["PATH"]])
    kubeconfig = tmp_path / "kubeconfig"
    env = {**helm.environment(), "PATH": path, "KUBECONFIG": str(kubeconfig), "NO_COLOR": "1"}
    ran = 0
    with kube_stub(lambda found: list(faults(found, VERSIONS[1])), kubeconfig) as cluster:
        for block in console_blocks():
            for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
                command, _, shown = part.partition("\n")
                done = subprocess.run(command, shell=True, cwd=tmp_path, env=env, capture_output=True, text=True)
                said = done.stdout + done.stderr
                assert (done.returncode == 0) == ("Error" not in shown), f"{command}\n{said}"
                assert all(line in said.splitlines() for line in shown.splitlines()), f"{command}\n{said}"
                ran += 1
    assert ran >= 7
    assert {key.plural for key in cluster.objects} <= {"namespaces"}, "all but the namespace is uninstalled"
