"""The scripts for Slurm and for Ray: as they are kept, valid for bash, and run with stand-ins for the cluster's commands."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from launcher.cli.output import Invocation
from launcher.cli.render_cluster import ray_command, slurm_command

GOLDEN = Path(__file__).with_name("golden")
TWO_HOSTS = """\
name: two-hosts
model: {id: zai-org/GLM-4.6V-Flash}
hardware: {gpu: H200, gpus: 8}
engine: {tensor_parallel: 8, pipeline_parallel: 2, nodes: 2, distributed: MP}
timeouts: {drain: 90s}
"""
ALONE = (
    "name: alone\nmodel: {packaged: smollm2-135m-instruct}\nhardware: {device: cpu}\nengine: {kv_cache_memory: 1GiB}\n"
)
WHERE = ("--program", "/shared/bin/launcher", "--profile-path", "/shared/two hosts.yaml")


def render(tmp_path: Path, command: object, profile: str, *options: str) -> str:
    path = tmp_path / "p.yaml"
    path.write_text(profile)
    done = CliRunner().invoke(command, [str(path), *options], obj=Invocation(), catch_exceptions=False)  # type: ignore[arg-type]
    assert done.exit_code == 0, done.output
    return done.output


def slurm(tmp_path: Path, profile: str = TWO_HOSTS.replace("MP", "mp"), *options: str) -> str:
    return render(tmp_path, slurm_command, profile, *WHERE, *options)


def ray(tmp_path: Path, *options: str) -> str:
    return render(tmp_path, ray_command, TWO_HOSTS.replace("MP", "ray"), *WHERE, *options)


@pytest.mark.parametrize("kind", ["slurm", "slurm-alone", "ray"])
def test_they_are_as_kept_and_bash_takes_them(tmp_path: Path, kind: str) -> None:
    text = {
        "slurm": lambda: slurm(tmp_path),
        "slurm-alone": lambda: slurm(tmp_path, ALONE),
        "ray": lambda: ray(tmp_path),
    }
    written = text[kind]()
    assert written == (GOLDEN / f"{kind}.sh").read_text()
    checked = subprocess.run(["bash", "-n"], input=written, capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")


def stand_in(folder: Path, name: str, body: str) -> None:
    """A command that comes before the machine's own."""
    path = folder / name
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(0o755)


def run_in_job(tmp_path: Path, script: str, *words: str, **environ: str) -> str:
    """What the script's commands say they were called with."""
    commands = tmp_path / "bin"
    commands.mkdir(exist_ok=True)
    stand_in(commands, "scontrol", 'printf "%s\\n" node-a node-b')
    stand_in(commands, "hostname", "echo 10.0.0.1 192.168.0.1")
    # one task for each host; what the asking one prints is its answer
    stand_in(
        commands,
        "srun",
        "while [[ $1 == --* ]]; do [[ $1 == --nodelist=* ]] && one=1; shift; done\n"
        '[[ ${one:-} ]] && exec "$@"\n'
        'for SLURM_NODEID in $(seq 0 $((SLURM_NNODES - 1))); do export SLURM_NODEID; "$@"; done',
    )
    stand_in(commands, "launcher", 'echo "launcher $(printf "[%s]" "$@")"')
    stand_in(commands, "ray", 'echo "ray $* VLLM_HOST_IP=$VLLM_HOST_IP"')
    stand_in(commands, "python3", "exit 0")
    path = {"PATH": f"{commands}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-s", *words], input=script, env={**path, **environ}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_slurm_gives_each_host_its_rank_and_all_the_same_head(tmp_path: Path) -> None:
    script = slurm(tmp_path, TWO_HOSTS.replace("MP", "mp"), "--program", "launcher", "--set", "name=x")
    said = run_in_job(tmp_path, script, SLURM_JOB_NODELIST="node-[a-b]", SLURM_NNODES="2")
    assert said.splitlines() == [
        f"launcher [up][/shared/two hosts.yaml][--set][name=x][--node-rank][{rank}][--head][10.0.0.1][--once]"
        for rank in (0, 1)
    ]
    chosen = run_in_job(tmp_path, script, SLURM_JOB_NODELIST="node-[a-b]", SLURM_NNODES="2", HEAD_ADDRESS="192.168.0.1")
    assert chosen.count("[--head][192.168.0.1]") == 2


def test_slurm_on_one_host_says_nothing_of_ranks(tmp_path: Path) -> None:
    script = slurm(tmp_path, ALONE, "--program", "launcher")
    assert run_in_job(tmp_path, script, SLURM_NNODES="1") == "launcher [up][/shared/two hosts.yaml]\n"


def test_ray_starts_the_cluster_and_then_the_launcher(tmp_path: Path) -> None:
    script = ray(tmp_path, "--program", "launcher")
    assert run_in_job(tmp_path, script, "head", "10.0.0.1").splitlines() == [
        "ray start --head --node-ip-address=10.0.0.1 --port=6379 --num-gpus=8 --include-dashboard=false VLLM_HOST_IP=10.0.0.1",
        "launcher [up][/shared/two hosts.yaml]",
    ]
    assert run_in_job(tmp_path, script, "worker", "10.0.0.7") == (
        "ray start --address=10.0.0.7:6379 --node-ip-address=10.0.0.1 --num-gpus=8 --block VLLM_HOST_IP=10.0.0.1\n"
    )


EXTERNAL = "name: x\nengine: {kind: external, urls: ['http://h:1']}\n"


@pytest.mark.parametrize(
    ("command", "profile", "said"),
    [
        (slurm_command, EXTERNAL, "engine.kind is external: a job of its own would start nothing but a gateway"),
        (
            slurm_command,
            TWO_HOSTS.replace("MP", "ray"),
            "engine.distributed is ray: a Slurm job would have to start a Ray",
        ),
        (ray_command, TWO_HOSTS.replace("MP", "mp"), "engine.distributed is not ray: there is no Ray cluster to start"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path: Path, command: object, profile: str, said: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(profile)
    done = CliRunner().invoke(command, [str(path)], obj=Invocation())  # type: ignore[arg-type]
    assert said in str(done.exception)


def test_the_profiles_own_path_where_none_is_given_and_into_a_file(tmp_path: Path) -> None:
    written = tmp_path / "job.sh"
    said = render(tmp_path, slurm_command, ALONE, "-o", str(written))
    assert said == f"{written} is written. Start it with: sbatch {written}\n"
    assert f"launcher up {tmp_path}/p.yaml" in written.read_text()
