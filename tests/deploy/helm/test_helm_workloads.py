"""What the workloads are like: cards, memory, probes, the way traffic takes, and what ends before what."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import click
import pytest

from launcher.cli import cli
from launcher.profile.load import load_profile
from launcher.render import container
from tests.deploy.helm.cases import CASES, KEDA, TWO_HOSTS, gpu
from tests.deploy.helm.chart import CHART, PROFILES, ROOT, Helm, container_of, one, pod_of, shipped, templates_of


def test_an_engine_gets_its_cards_and_the_gateway_none(helm: Helm) -> None:
    docs = helm.template(gpu())
    engine, gateway = one(docs, "Deployment", "-engine"), one(docs, "Deployment", "-gateway")
    assert container_of(engine)["resources"]["limits"]["nvidia.com/gpu"] == 2
    assert pod_of(engine)["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert "nvidia.com/gpu" not in str(gateway)


def test_cards_are_shared_out_over_nodes(helm: Helm) -> None:
    group = one(helm.template({"profile": TWO_HOSTS}), "LeaderWorkerSet", "-group")["spec"]["leaderWorkerTemplate"]
    assert group["size"] == 2
    for template in (group["leaderTemplate"], group["workerTemplate"]):
        engine = template["spec"]["containers"][0]
        assert engine["resources"]["limits"]["nvidia.com/gpu"] == 8
        assert engine["args"][-4:] == ["--node-rank", "$(LWS_WORKER_INDEX)", "--head", "$(LWS_LEADER_ADDRESS)"]


def test_a_group_is_not_called_as_a_service_of_ours(helm: Helm) -> None:
    """Its controller makes a Service of the group's name, by which its pods find each other; ours would stand in its way."""
    docs = helm.template({"profile": TWO_HOSTS})
    names = {doc["metadata"]["name"] for doc in docs if doc["kind"] == "Service"}
    assert one(docs, "LeaderWorkerSet", "-group")["metadata"]["name"] not in names


def test_only_leaders_are_engines_to_the_service(helm: Helm) -> None:
    docs = helm.template({"profile": TWO_HOSTS})
    group = one(docs, "LeaderWorkerSet", "-group")["spec"]["leaderWorkerTemplate"]
    chosen = one(docs, "Service", "-engine")["spec"]["selector"].items()
    assert chosen <= group["leaderTemplate"]["metadata"]["labels"].items()
    assert not chosen <= group["workerTemplate"]["metadata"]["labels"].items()


@pytest.mark.parametrize("name", PROFILES)
def test_shared_memory_and_grace_are_those_of_every_container(helm: Helm, name: str) -> None:
    """The chart reckons in its templates what `launcher render compose` reckons in Python."""
    profile = load_profile(ROOT / "profiles" / f"{name}.yaml", env={}).profile
    docs = helm.template({"profile": shipped(name)})
    gateway = pod_of(one(docs, "Deployment", "-gateway"))
    assert gateway["terminationGracePeriodSeconds"] == 5 + container.gateway_grace_s(profile)
    if profile.engine.kind == "external":
        assert not [doc for doc in docs if doc["metadata"]["name"] == "demo-engine"]
        return
    pod = pod_of(one(docs, "Deployment", "-engine"))
    shm = next(volume["emptyDir"] for volume in pod["volumes"] if volume["name"] == "shm")
    assert shm == {"medium": "Memory", "sizeLimit": f"{container.shm_bytes(profile) // 2**20}Mi"}
    assert pod["terminationGracePeriodSeconds"] == 15 + container.engine_grace_s(profile)
    probe = pod["containers"][0]["startupProbe"]
    fetch = None if profile.model.id else 1
    assert probe["periodSeconds"] * probe["failureThreshold"] >= container.start_period_s(profile, fetch) + 60


def test_shared_memory_counts_in_the_limit(helm: Helm) -> None:
    values = gpu(engine={"memory": "24Gi", "shmSize": "1.5Gi"})
    resources = container_of(one(helm.template(values), "Deployment", "-engine"))["resources"]
    assert (resources["requests"]["memory"], resources["limits"]["memory"]) == ("24576Mi", "26112Mi")


def test_replicas_share_a_machines_memory(helm: Helm) -> None:
    values = {"profile": shipped("cpu-smollm2").replace("engine:", "engine:\n  replicas: 2", 1)}
    engine = one(helm.template(values), "Deployment", "-engine")
    assert engine["spec"]["replicas"] == 2
    assert container_of(engine)["resources"]["requests"]["memory"] == "2048Mi"


def test_an_engine_is_probed_by_its_file_and_never_for_being_alive(helm: Helm) -> None:
    engine = container_of(one(helm.template(gpu()), "Deployment", "-engine"))
    ready = {"command": ["test", "-f", container.READY_FILE]}
    assert engine["startupProbe"]["exec"] == engine["readinessProbe"]["exec"] == ready
    assert engine["args"][engine["args"].index("--ready-file") + 1] == container.READY_FILE
    assert "livenessProbe" not in engine


def test_the_gateway_stays_while_no_engine_is_ready(helm: Helm) -> None:
    """By /ready, which is 503 then, it would be taken out of its Service: nobody would be told to come back, or wake one."""
    gateway = container_of(one(helm.template(gpu()), "Deployment", "-gateway"))
    for probe in ("readinessProbe", "livenessProbe"):
        assert gateway[probe]["httpGet"] == {"path": "/health", "port": "http", "scheme": "HTTP"}
        assert gateway[probe]["timeoutSeconds"] == 5


def test_the_gateway_finds_engines_by_name_and_its_like_too(helm: Helm) -> None:
    docs = helm.template(CASES["many replicas, several gateways"])
    args = container_of(one(docs, "Deployment", "-gateway"))["args"]
    assert args[args.index("--engines") + 1] == "dns+http://demo-engine.serving.svc:8000"
    assert args[args.index("--peers") + 1] == "demo-gateway-peers.serving.svc"
    for name, also_unready in (("-engine", False), ("-peers", True)):
        spec = one(docs, "Service", name)["spec"]
        assert (spec["clusterIP"], spec["publishNotReadyAddresses"]) == ("None", also_unready)
    assert "--peers" not in container_of(one(helm.template(gpu()), "Deployment", "-gateway"))["args"]


def test_servers_elsewhere_are_named_by_the_profile(helm: Helm) -> None:
    docs = helm.template({"profile": shipped("external")})
    assert "--engines" not in container_of(one(docs, "Deployment", "-gateway"))["args"]
    assert "LAUNCHER_ENGINE_KEY" not in str(docs)


def test_both_sides_have_the_same_key_of_the_engine(helm: Helm) -> None:
    docs = helm.template(gpu())
    keys = [
        entry["valueFrom"]["secretKeyRef"]
        for name in ("-engine", "-gateway")
        for entry in container_of(one(docs, "Deployment", name))["env"]
        if entry["name"] == "LAUNCHER_ENGINE_KEY"
    ]
    assert keys == [{"name": "demo-keys", "key": "LAUNCHER_ENGINE_KEY"}] * 2


def test_a_changed_profile_or_file_is_a_new_pod(helm: Helm) -> None:
    def mark(**values: object) -> str:
        template = one(helm.template(gpu(**values)), "Deployment", "-engine")["spec"]["template"]
        found: str = template["metadata"]["annotations"]["checksum/profile"]
        return found

    assert mark() == mark(gateway={"replicas": 2})
    assert len({mark(), mark(files={"a": "b"}), mark(profile=shipped("1x4090"))}) == 3


def test_a_new_version_of_the_chart_alone_is_none(helm: Helm, tmp_path: Path) -> None:
    """Engines take minutes to load; their images are named by the values or by appVersion."""
    shutil.copytree(CHART, tmp_path / "helm")
    chart = tmp_path / "helm" / "Chart.yaml"
    chart.write_text(re.sub(r"^version: .*", "version: 9.9.9", chart.read_text(), flags=re.MULTILINE))
    before, after = (one(helm.template(gpu(), chart=at), "Deployment", "-engine") for at in (CHART, tmp_path / "helm"))
    assert before["spec"] == after["spec"]
    assert before["metadata"] != after["metadata"]


def test_an_autoscaler_has_the_number_to_itself(helm: Helm) -> None:
    assert "replicas" not in one(helm.template(gpu(autoscaling=KEDA)), "Deployment", "-engine")["spec"]
    assert one(helm.template(gpu(engine={"replicas": 0})), "Deployment", "-engine")["spec"]["replicas"] == 0


@pytest.mark.parametrize(
    ("cache", "has_model_home"),
    [({"kind": "none"}, False), ({"kind": "pvc", "existingClaim": "models", "accessModes": ["ReadOnlyMany"]}, True)],
)
def test_what_is_compiled_goes_elsewhere_where_models_are_only_read(
    helm: Helm, cache: dict[str, object], has_model_home: bool
) -> None:
    engine = container_of(one(helm.template(gpu(airGap=True, engine={"cache": cache})), "Deployment", "-engine"))
    env = {entry["name"]: entry.get("value") for entry in engine["env"]}
    assert ("HF_HOME" in env) == has_model_home  # else the image's
    assert env["HF_HUB_OFFLINE"] == "1"
    mounts = [mount for mount in engine["volumeMounts"] if mount["mountPath"] == "/var/cache/launcher"]
    assert mounts == (
        [{"name": "cache", "mountPath": "/var/cache/launcher", "readOnly": True}] if has_model_home else []
    )
    writable = [env[name] for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "VLLM_CACHE_ROOT")]
    assert all(path is not None and path.startswith("/var/lib/launcher") for path in writable)


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("monitoring", "$(CLIENT_KEYS),metrics=$(METRICS_KEY)"),
        ("keys of one's own, https within", "$(CLIENT_KEYS),metrics=$(METRICS_KEY)"),
        ("one replica of two cards", None),  # straight from the Secret
    ],
)
def test_prometheus_has_a_key_of_its_own(helm: Helm, case: str, expected: str | None) -> None:
    """The gateway's /metrics asks for one where clients need one; vLLM's does not."""
    docs = helm.template(CASES[case])
    env = container_of(one(docs, "Deployment", "-gateway"))["env"]
    assert [entry.get("value") for entry in env if entry["name"] == "LAUNCHER_API_KEYS"] == [expected]
    monitors = [doc for doc in docs if doc["kind"] == "ServiceMonitor"]
    asked = {doc["metadata"]["name"]: doc["spec"]["endpoints"][0].get("authorization") for doc in monitors}
    credentials = {"type": "Bearer", "credentials": {"name": "demo-keys", "key": "METRICS_KEY"}}
    assert asked == ({"demo-gateway": credentials, "demo-engine": None} if expected else {})
    assert ("METRICS_KEY" in one(docs, "Secret", "-keys")["data"]) == bool(expected)


def test_prometheus_knows_the_jobs_as_the_rules_do(helm: Helm) -> None:
    """Alerts name launcher-gateway and launcher-engine; how engines ended is on their second page."""
    docs = helm.template(CASES["monitoring"])
    scraped = {
        (endpoint["port"], relabeling["targetLabel"], relabeling["replacement"])
        for doc in docs
        if doc["kind"] == "ServiceMonitor"
        for endpoint in doc["spec"]["endpoints"]
        for relabeling in endpoint["relabelings"]
    }
    assert scraped == {
        ("http", "job", "launcher-gateway"), ("http", "job", "launcher-engine"), ("status", "job", "launcher-engine"),
    }  # fmt: skip
    engine = one(docs, "Service", "-engine")
    assert {"http", "status"} <= {port["name"] for port in engine["spec"]["ports"]}


@pytest.mark.parametrize("case", ["one replica of two cards", "many replicas, several gateways", "two nodes"])
def test_the_launcher_takes_what_it_is_told(helm: Helm, case: str) -> None:
    """The arguments in the pods are such as the command line has, and LWS puts in a rank and a name."""
    docs = helm.template(CASES[case])
    templates = [pod["spec"] for doc in docs for pod in templates_of(doc)]
    for pod in templates:
        verb, *words = pod["containers"][0]["args"]
        given = [word.replace("$(LWS_WORKER_INDEX)", "1") for word in words]
        command = cli.get_command(click.Context(cli), verb)
        assert command is not None
        context = command.make_context(verb, given)
        assert str(context.params["profile"]) == container.PROFILE
    assert len(templates) == (3 if case == "two nodes" else 2)
