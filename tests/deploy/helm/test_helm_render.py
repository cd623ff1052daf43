"""`launcher render helm`: values that the chart takes, with what the plan knows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from launcher.cli import execute
from launcher.errors import EXIT_PRECONDITION
from launcher.profile.load import load_profile
from launcher.profile.model import Profile
from tests.deploy.helm.chart import PROFILES, ROOT, Helm, container_of, one, pod_of
from tests.deploy.helm.golden_files import values_of

Render = Callable[..., tuple[int, str, str]]


@pytest.fixture
def render(capsys: pytest.CaptureFixture[str]) -> Render:
    """Runs the command; returns its exit code, what it printed and what it said."""

    def called(*words: str) -> tuple[int, str, str]:
        code = execute(["render", "helm", *words])
        return code, *capsys.readouterr()

    return called


@pytest.mark.parametrize("name", PROFILES)
def test_the_profile_is_in_it_whole(name: str) -> None:
    found = Profile.model_validate(yaml.safe_load(values_of(name))["profile"])
    shipped = load_profile(ROOT / "profiles" / f"{name}.yaml", env={}).profile
    assert found.model_copy(update={"engine": shipped.engine}) == shipped
    assert found.engine == shipped.engine or name == "external"  # whose servers are elsewhere for a pod


def test_it_says_what_the_plan_knows(helm: Helm, render: Render) -> None:
    found = yaml.safe_load(render(str(ROOT / "profiles" / "2x4090.yaml"), "--set", "engine.max_num_seqs=64")[1])
    assert found["profile"]["engine"]["max_num_seqs"] == 64
    assert found["engine"]["gpuProducts"] == ["NVIDIA-GeForce-RTX-4090"]
    docs = helm.template(found)
    engine = one(docs, "Deployment", "-engine")
    [term] = pod_of(engine)["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
        "nodeSelectorTerms"
    ]
    assert term["matchExpressions"][0]["values"] == ["NVIDIA-GeForce-RTX-4090"]
    probe = container_of(engine)["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] < 3600 + 900 + 300, "the download's size is known"


def test_a_cpu_gets_the_memory_that_the_plan_reckons_with(render: Render, tmp_path: Path) -> None:
    text = (ROOT / "profiles" / "cpu-smollm2.yaml").read_text().replace("  memory: 4GiB", "  #")
    (tmp_path / "p.yaml").write_text(text)
    assert yaml.safe_load(render(str(tmp_path / "p.yaml"))[1])["engine"]["memory"].endswith("Mi")


def test_a_chat_template_goes_along(helm: Helm, render: Render, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "t.jinja").write_text("{{ messages }}\n")
    (tmp_path / "p.yaml").write_text("name: x\nmodel: {id: zai-org/GLM-4.6V-Flash, chat_template: in/t.jinja}\n")
    found = yaml.safe_load(render(str(tmp_path / "p.yaml"))[1])
    assert found["profile"]["model"]["chat_template"] == "t.jinja"
    assert one(helm.template(found), "ConfigMap", "-profile")["data"]["t.jinja"] == "{{ messages }}\n"


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ("model: {path: ./glm}", "model.path: ./glm is a path on this machine, which no pod has"),
        ("model: {id: a/b}\nwarmup: {image: cat.png}", "warmup.image: cat.png is a path on this machine"),
        ("model: {id: a/b}\ngateway: {tls_cert: a.pem, tls_key: b.pem}", "gateway.tls_key: b.pem is a path on this"),
        ("engine: {kind: external, urls: [http://localhost:1]}", "engine.urls: http://localhost:1 is in a pod the pod"),
        ("model: {id: a/b, chat_template: none.jinja}", "none.jinja cannot be read"),
    ],
)
def test_what_no_pod_can_have_is_refused(render: Render, tmp_path: Path, lines: str, sentence: str) -> None:
    (tmp_path / "p.yaml").write_text(f"name: x\n{lines}\n")
    code, printed, said = render(str(tmp_path / "p.yaml"))
    assert (code, printed) == (EXIT_PRECONDITION, "")
    assert sentence in said


def test_it_writes_a_file_and_says_what_next(render: Render, tmp_path: Path) -> None:
    _, _, said = render(str(ROOT / "profiles" / "2x4090.yaml"), "-o", str(tmp_path / "v.yaml"))
    assert "helm install 2x4090 helm -f" in said
    assert (tmp_path / "v.yaml").read_text().startswith("# Values for helm/, written by: launcher render helm")
