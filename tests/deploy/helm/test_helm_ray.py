"""An engine on Ray: KubeRay's RayCluster, and what its two containers run, with stand-ins for Ray and the launcher."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from launcher.cli import cli, execute
from launcher.profile.load import load_profile
from launcher.render import container
from tests.deploy.helm.cases import CASES, ON_RAY
from tests.deploy.helm.chart import Doc, Helm, one, templates_of

CASE = "two nodes on Ray"
START = "ray start --block --resources='{\"a b\": 1}'"  # quoted as KubeRay does


def cluster(helm: Helm, **more: Any) -> Doc:
    return one(helm.template({**CASES[CASE], **more}), "RayCluster", "")


def containers(helm: Helm) -> list[Doc]:
    """The head's and the worker's."""
    return [template["spec"]["containers"][0] for template in templates_of(cluster(helm))]


def test_it_is_there_instead_of_the_other_workloads(helm: Helm) -> None:
    docs = helm.template(CASES[CASE])
    assert [doc["metadata"]["name"] for doc in docs if doc["kind"] in ("Deployment", "LeaderWorkerSet")] == [
        "demo-gateway"
    ]
    assert cluster(helm)["metadata"]["annotations"] == {"ray.io/overwrite-container-cmd": "true"}
    assert not [doc for doc in helm.template(CASES["two nodes"]) if doc["kind"] == "RayCluster"]


@pytest.mark.parametrize(("stages", "nodes"), [(1, 1), (2, 2), (4, 4), (4, 2)])
def test_pods_and_their_cards_make_up_the_width(helm: Helm, stages: int, nodes: int) -> None:
    engine = {**ON_RAY["engine"], "pipeline_parallel": stages, "nodes": nodes}
    spec = cluster(helm, profile={**ON_RAY, "engine": engine})["spec"]
    groups = spec.get("workerGroupSpecs", [])
    assert [group["replicas"] for group in groups] == ([nodes - 1] if nodes > 1 else [])
    assert all(group["minReplicas"] == group["maxReplicas"] == nodes - 1 for group in groups)
    for group in (spec["headGroupSpec"], *groups):
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        assert limits["nvidia.com/gpu"] * nodes == 8 * stages
        assert group["rayStartParams"]["num-gpus"] == str(limits["nvidia.com/gpu"])


def test_only_heads_are_engines(helm: Helm) -> None:
    docs = helm.template(CASES[CASE])
    head, worker = (template["metadata"]["labels"] for template in templates_of(cluster(helm)))
    for selector in (
        one(docs, "Service", "-engine")["spec"]["selector"],
        one(docs, "PodDisruptionBudget", "-engine")["spec"]["selector"]["matchLabels"],
    ):
        assert selector.items() <= head.items()
        assert not selector.items() <= worker.items()


def test_each_replica_is_a_cluster_of_its_own(helm: Helm) -> None:
    docs = helm.template(CASES["one node on Ray, two of them, monitoring"])
    clusters = [doc for doc in docs if doc["kind"] == "RayCluster"]
    assert len({doc["metadata"]["name"] for doc in clusters}) == 2
    assert clusters[0]["spec"] == clusters[1]["spec"]


def test_what_is_changed_is_another_cluster(helm: Helm, tmp_path: Path) -> None:
    """KubeRay leaves the pods of a changed one as they are."""

    def name(**more: Any) -> str:
        found: str = cluster(helm, **more)["metadata"]["name"]
        return found

    assert name() == name(gateway={"replicas": 2})
    other_engine = {**CASES[CASE]["engine"], "preStop": 20}
    assert len({name(), name(engine=other_engine), name(profile={**ON_RAY, "description": "x"})}) == 3


def test_a_long_name_is_one_that_kuberay_takes(helm: Helm) -> None:
    found = cluster(helm, fullnameOverride="a" + "-long-name" * 6)["metadata"]["name"]
    assert len(found) <= 53


def test_a_head_is_found_before_it_is_ready_and_nothing_is_probed_by_kuberay(helm: Helm) -> None:
    """The head is ready when the workers have joined it; and KubeRay adds probes of Ray's dashboard where there are none."""
    service = cluster(helm)["spec"]["headGroupSpec"]["headService"]["spec"]
    assert service == {"clusterIP": "None", "publishNotReadyAddresses": True}
    head, worker = containers(helm)
    assert head["startupProbe"]["exec"]["command"] == ["test", "-f", container.READY_FILE]
    assert head["readinessProbe"]["exec"] == head["startupProbe"]["exec"]
    assert worker["readinessProbe"]["exec"]["command"][:2] == ["test", "-S"]
    assert head["livenessProbe"]["exec"] == worker["livenessProbe"]["exec"] == {"command": ["true"]}


def test_memory_times_and_image_are_those_of_an_engine_on_ray(helm: Helm, tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(yaml.safe_dump(ON_RAY))
    profile = load_profile(path, env={}).profile
    spec = cluster(helm)["spec"]
    for template, group in zip(
        templates_of(cluster(helm)), (spec["headGroupSpec"], spec["workerGroupSpecs"][0]), strict=True
    ):
        pod = template["spec"]
        shm = next(volume["emptyDir"]["sizeLimit"] for volume in pod["volumes"] if volume["name"] == "shm")
        assert shm == f"{container.shm_bytes(profile) // 2**20}Mi"
        assert int(group["rayStartParams"]["object-store-memory"]) == container.RAY_STORE < container.shm_bytes(profile)
        assert pod["terminationGracePeriodSeconds"] == 15 + container.engine_grace_s(profile)
        assert pod["containers"][0]["image"] == f"{container.ENGINE_IMAGE}-ray"


def test_the_launcher_takes_what_it_is_told(helm: Helm) -> None:
    head, worker = containers(helm)
    verb, *words = head["args"]
    command = cli.get_command(click.Context(cli), verb)
    assert command is not None
    assert command.make_context(verb, list(words)).params["node_rank"] is None
    assert "args" not in worker


def stand_ins(folder: Path, **bodies: str) -> dict[str, str]:
    for name, body in bodies.items():
        (folder / name).write_text(f"#!/bin/bash\n{body}\n")
        (folder / name).chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}", "KUBERAY_GEN_RAY_START_CMD": START, "FQ_RAY_IP": "head.svc"}


def test_the_head_starts_ray_waits_for_all_and_becomes_the_launcher(helm: Helm, tmp_path: Path) -> None:
    env = stand_ins(
        tmp_path,
        ray=f'printf "[%s]" "$@" >{tmp_path}/started; exec sleep 60',
        # the second time that it is asked, Ray has two nodes
        python3=f'[[ $2 == *"ray.nodes()) < 2"* ]] && [ -e {tmp_path}/asked ] || {{ touch {tmp_path}/asked; exit 1; }}',
        launcher=f'echo "$BASHPID [$*]"; while [ ! -s {tmp_path}/started ]; do sleep 0.01; done; pkill -P $$ sleep',
        sleep='[ "$1" == 2 ] || exec /bin/sleep "$@"',
    )
    head = containers(helm)[0]
    words = [*head["command"], *head["args"]]
    process = subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    printed, said = process.communicate(timeout=30)
    assert printed == f"{process.pid} [{' '.join(head['args'])}]\n", (
        said
    )  # in the shell's place, so signals are its own
    assert said.count("waiting until Ray has 2 pods") == 1
    assert (tmp_path / "started").read_text() == '[start][--block][--resources={"a b": 1}]'


def test_a_head_without_ray_says_so_and_ends(helm: Helm, tmp_path: Path) -> None:
    env = stand_ins(tmp_path, ray="exit 1", python3="exit 1", sleep="exec /bin/sleep 0.05")
    done = subprocess.run(containers(helm)[0]["command"], env=env, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert "Ray has ended. Is it in the image? deploy/Dockerfile.engine: --build-arg RAY=VERSION" in done.stderr


def test_a_head_that_still_waits_ends_when_it_is_told_to(helm: Helm, tmp_path: Path) -> None:
    env = stand_ins(tmp_path, ray="exec /bin/sleep 60", python3="exit 1", sleep="exec /bin/sleep 0.05")
    process = subprocess.Popen(
        containers(helm)[0]["command"], env=env, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stderr is not None
    while "waiting" not in process.stderr.readline():
        pass
    process.terminate()
    assert process.wait(timeout=30) == 128 + signal.SIGTERM
    os.killpg(process.pid, signal.SIGKILL)  # what a container's end does for Ray


def here(text: str, folder: Path) -> str:
    """A pod's folder, here."""
    assert "/run/launcher/head" in text
    return text.replace("/run/launcher/head", str(folder / "head"))


def test_a_worker_starts_ray_and_outlasts_the_head(helm: Helm, tmp_path: Path) -> None:
    """At its end Ray would take the streams along that the head still lets finish."""
    worker = containers(helm)[1]
    env = stand_ins(tmp_path, ray='printf "[%s]" "$@"', getent='[ "$2" == head.svc ] && echo "127.0.0.1 head.svc"')
    words = [here(word, tmp_path) for word in worker["command"][2:]]
    done = subprocess.run([*worker["command"][:2], *words], env=env, capture_output=True, text=True, timeout=30)
    assert done.stdout == '[start][--block][--resources={"a b": 1}]', done.stderr
    assert (tmp_path / "head").read_text() == "127.0.0.1\n"

    *shell, wait = worker["lifecycle"]["preStop"]["exec"]["command"]
    with socket.create_server(("127.0.0.1", 0)) as gcs:
        asked = threading.Event()
        threading.Thread(target=lambda: (gcs.accept(), gcs.accept(), asked.set()), daemon=True).start()
        own = here(wait, tmp_path).replace("6379", str(gcs.getsockname()[1])).replace("sleep 1", "sleep 0.02")
        waiting = subprocess.Popen([*shell, own])
        assert asked.wait(timeout=10), "it asks again while the head is there"
    waiting.wait(timeout=30)


def test_render_helm_knows_that_it_is_on_ray(helm: Helm, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p.yaml").write_text(yaml.safe_dump({**ON_RAY, "model": {"id": "zai-org/GLM-4.6V-Flash"}}))
    assert execute(["render", "helm", str(tmp_path / "p.yaml")]) == 0
    values = yaml.safe_load(capsys.readouterr().out)
    found = one(helm.template(values), "RayCluster", "")
    assert len(templates_of(found)) == 2
    assert values["engine"]["shmSize"] == "9216Mi"
