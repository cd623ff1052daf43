"""Plans for engines over several hosts: cards of one host, what goes over the network, and whether it is needed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from launcher.cli.output import Invocation
from launcher.cli.plan import plan_command
from launcher.plan.placement import Placement, gpus_needed, place
from launcher.profile.model import Profile
from tests.unit.plan.profiles import codes, llama, plan_of, profile_of, said

EIGHT_OF_TWO = {"tensor_parallel": 4, "pipeline_parallel": 2, "nodes": 2}


def test_cards_are_counted_on_one_host() -> None:
    profile = profile_of({}, {"gpus": 4}, EIGHT_OF_TWO)
    assert gpus_needed(profile) == 4
    assert place(profile) == (Placement(0, (0, 1, 2, 3), 2),)


def test_too_few_on_each() -> None:
    plan = plan_of({}, {"gpus": 2}, EIGHT_OF_TWO)
    assert plan.placements == ()
    assert said(plan, "too-few-gpus") == (
        "error hardware.gpus: engine.replicas 1 × engine.tensor_parallel 4 × engine.pipeline_parallel 2 over engine.nodes 2 "
        "need 4 cards on each host, but hardware.gpus, which counts those of one, is 2. → Set hardware.gpus to 4 if the "
        "machine has them, or raise engine.nodes."
    )


def test_layers_over_the_network_are_warned_of() -> None:
    wide = {"tensor_parallel": 8, "nodes": 2}
    plan = plan_of({}, {"gpus": 4}, wide, facts=llama())
    assert said(plan, "tensor-parallel-over-network") == (
        "warning engine.tensor_parallel: 8 spans hosts with 4 cards of it each: every layer's sums go over the network "
        "between them, twice a layer. → Set engine.tensor_parallel to 4 and engine.pipeline_parallel to 2: then only the "
        "stages' ends do. Keep it where they are joined by InfiniBand or the like."
    )
    assert "tensor-parallel-over-network" not in codes(plan_of({}, {"gpus": 4}, EIGHT_OF_TWO, facts=llama()))


def test_one_host_that_holds_the_model_is_enough() -> None:
    small = plan_of({}, {"gpus": 4}, EIGHT_OF_TWO, facts=llama())
    assert "one host with 4 cards holds the model" in said(small, "one-node-instead")
    large = llama(num_hidden_layers=600, num_key_value_heads=8, intermediate_size=28672, hidden_size=8192)
    plan = plan_of(
        {"max_len": 8192}, {"gpus": 8}, {"tensor_parallel": 8, "pipeline_parallel": 2, "nodes": 2}, facts=large
    )
    assert plan.verdict == "fits"
    assert "one-node-instead" not in codes(plan)
    assert said(plan, "several-nodes") == (
        "note engine.nodes: One replica runs over 2 hosts, on 8 cards of each: `launcher up` runs on each, with --node-rank "
        "and --head. → "
    )


def test_ray_is_said_differently() -> None:
    plan = plan_of({}, {"gpus": 4}, {**EIGHT_OF_TWO, "distributed": "ray"})
    assert "a Ray cluster over them must run already" in said(plan, "several-nodes")


def test_a_card_without_peers_on_its_host_has_none_to_talk_to() -> None:
    lone = plan_of({}, {"gpu": "RTX 4090", "gpus": 1}, {"tensor_parallel": 2, "nodes": 2})
    assert "no-peer-to-peer" not in codes(lone)


def test_each_host_needs_its_share_of_main_memory() -> None:
    def before_kv(**engine: int) -> int:
        profile = Profile.model_validate(
            {
                "name": "x",
                "model": {"id": "a/b", "max_len": 2048},
                "hardware": {"device": "cpu"},
                "engine": {"kv_cache_memory": "1GiB", "tensor_parallel": 2, **engine},
            }
        )
        from launcher.plan.finding import make_case

        return make_case(profile, llama()).budgets[0].weights

    assert before_kv(nodes=2) == pytest.approx(before_kv() / 2, rel=0.01)


PROFILE = """\
name: two
model: {id: zai-org/AutoGLM-Phone-9B, max_len: 8192}
hardware: {gpu: H200, gpus: 2}
engine: {tensor_parallel: 2, pipeline_parallel: 2, nodes: 2}
"""


def test_the_plan_shows_what_each_host_runs(tmp_path: Path) -> None:
    path = tmp_path / "two.yaml"
    path.write_text(PROFILE)
    shown = CliRunner().invoke(plan_command, [str(path), "--offline"], obj=Invocation()).output
    assert "# replica 0, host 0 of 2, cards 0, 1" in shown
    assert "# replica 0, host 1 of 2, cards 0, 1" in shown
    assert "--node-rank 1 --master-addr ADDRESS --master-port 29501 --headless" in shown
    data = json.loads(CliRunner().invoke(plan_command, [str(path), "--offline", "-o", "json"], obj=Invocation()).output)
    assert data["placements"] == [{"replica": 0, "gpus": [0, 1], "nodes": 2}]
    assert [(row["node"], row["nodes"]) for row in data["commands"]] == [(0, 2), (1, 2)]
