"""The profile in the chart: whole, however it is given; and each of its keys has a place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from launcher.profile.keys import profile_keys
from launcher.profile.load import load_profile
from tests.deploy.helm.cases import gpu
from tests.deploy.helm.chart import PROFILES, Doc, Helm, container_of, one, shipped

# Keys that shape manifests, or are refused there by name. All others reach the launcher in the pod by the file, and change nothing here.
IN_THE_CHART = {
    "name", "model.id", "model.path", "model.packaged", "model.served_name", "model.quantization", "model.chat_template",
    "hardware.device", "hardware.memory", "engine.kind", "engine.replicas", "engine.tensor_parallel",
    "engine.pipeline_parallel", "engine.urls", "engine.api_key_env", "engine.nodes", "engine.distributed", "engine.max_num_seqs", "engine.python",
    "gateway.listen", "gateway.peers", "gateway.tls_cert", "gateway.tls_key", "gateway.auth", "gateway.keys_file",
    "gateway.max_body", "gateway.uploads.memory",
    "gateway.tracing.endpoint", "admission.max_in_flight", "admission.counting", "warmup.image", "logging.dir",
    "timeouts.start", "timeouts.warmup", "timeouts.drain", "timeouts.stop",
}  # fmt: skip


def in_the_pod(docs: list[Doc]) -> str:
    text: str = one(docs, "ConfigMap", "-profile")["data"]["profile.yaml"]
    return text


@pytest.mark.parametrize("name", PROFILES)
def test_a_file_reaches_the_pod_as_it_is(helm: Helm, name: str, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(shipped(name))
    assert in_the_pod(helm.template({}, "--set-file", f"profile={tmp_path / 'p.yaml'}")) == shipped(name)


@pytest.mark.parametrize("name", PROFILES)
def test_keys_are_the_same_profile_as_the_file(helm: Helm, name: str, tmp_path: Path) -> None:
    """Whole numbers stay whole: YAML written by Go has 5e+06 for 5000000."""
    docs = helm.template({"profile": yaml.safe_load(shipped(name))})
    for file, text in (("given.yaml", in_the_pod(docs)), ("shipped.yaml", shipped(name))):
        (tmp_path / file).write_text(text)
    given, as_shipped = (load_profile(tmp_path / file, env={}).profile for file in ("given.yaml", "shipped.yaml"))
    assert given == as_shipped
    workloads = [doc for doc in docs if doc["kind"] in ("Deployment", "Service")]
    from_file = helm.template({"profile": shipped(name)})
    assert without_marks(workloads) == without_marks(
        [doc for doc in from_file if doc["kind"] in ("Deployment", "Service")]
    )


def without_marks(docs: list[Doc]) -> list[Doc]:
    for doc in docs:
        doc["spec"].get("template", {}).get("metadata", {}).pop("annotations", None)
    return docs


def test_a_text_that_begins_indented_stays_so(helm: Helm) -> None:
    odd = "  name: odd\n  model: {id: a/b}\n"
    template = "  {{ x }}\n\n\ttab: 'quoted' \\ \"too\"\n\n"
    docs = helm.template({"profile": odd, "files": {"t.jinja": template}})
    assert one(docs, "ConfigMap", "-profile")["data"] == {"profile.yaml": odd, "t.jinja": template}


def test_a_file_beside_the_profile_satisfies_a_relative_path(helm: Helm) -> None:
    profile = {"name": "x", "model": {"id": "a/b", "chat_template": "./t.jinja"}}
    assert one(helm.template({"profile": profile, "files": {"t.jinja": "x"}}), "ConfigMap", "-profile")


def test_the_keys_that_shape_manifests_are_those_that_are_listed() -> None:
    """A key that a template reads is listed above, and a key of the profile that is new has to be thought about here."""
    chart = Path(__file__).resolve().parents[3] / "helm" / "templates"
    texts = "".join(path.read_text() for path in chart.rglob("*") if path.is_file())
    keys = {key.path for key in profile_keys()}
    read = {key for key in keys if f'"{key}"' in texts}
    timeouts = {f"timeouts.{name}" for name in ("start", "warmup", "drain", "stop") if f'"{name}"' in texts}
    assert read | timeouts == IN_THE_CHART
    assert keys >= IN_THE_CHART


def test_a_key_that_another_setting_replaces_is_said_so(helm: Helm) -> None:
    gateway = {"listen": "0.0.0.0:9000", "peers": "gateways"}
    profile = {"name": "x", "model": {"id": "a/b"}, "gateway": gateway}
    done = helm.run("install", "demo", "helm", "--dry-run=client", values={"profile": profile})
    for name in gateway:
        assert f"profile.gateway.{name} has no effect here" in done.stdout, done.stderr


def test_hours_and_milliseconds_count_in_the_grace(helm: Helm) -> None:
    profile = {"name": "x", "model": {"id": "a/b"}, "timeouts": {"drain": "1.5h", "stop": "1500ms"}}
    pod = one(helm.template({"profile": profile}), "Deployment", "-engine")["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] == 15 + 3 + 5402 + 15


def test_every_size_of_the_profile_is_read(helm: Helm) -> None:
    profile = json.loads(json.dumps({"name": "x", "model": {"id": "a/b"}, "gateway": {"uploads": {"memory": "1.5GB"}}}))
    gateway = container_of(one(helm.template(gpu(profile=profile)), "Deployment", "-gateway"))
    assert gateway["resources"]["limits"]["memory"] == f"{1024 + -(-1_500_000_000 // 2**20)}Mi"
