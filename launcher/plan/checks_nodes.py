"""What several hosts cost, and whether they are needed."""

from __future__ import annotations

from launcher.plan.checks_memory import ENOUGH_KV
from launcher.plan.finding import Case, Finding, Findings
from launcher.plan.placement import cards_of_replica

KEY = "engine.nodes"


def check_nodes(case: Case) -> Findings:
    """What goes over the network between the hosts, and where each of them needs its part."""
    nodes = case.engine.nodes
    if nodes == 1:
        return
    per_host = cards_of_replica(case.engine)
    on_cpu = case.profile.hardware.device == "cpu"
    share = f"{per_host} processes each" if on_cpu else f"{per_host} card{'s' if per_host > 1 else ''} of each"
    how = (
        "a Ray cluster over them must run already; `launcher up` runs on one of them"
        if case.engine.distributed == "ray"
        else "`launcher up` runs on each, with --node-rank and --head"
    )
    yield Finding("note", "several-nodes", KEY, f"One replica runs over {nodes} hosts, on {share}: {how}.")
    if on_cpu:
        return
    yield from _layers_over_the_network(case, per_host)
    yield from _one_is_enough(case, per_host)


def _layers_over_the_network(case: Case, per_host: int) -> Findings:
    tensor = case.engine.tensor_parallel
    if tensor <= per_host:
        return
    stages = tensor * case.engine.pipeline_parallel // per_host
    remedy = f"Set engine.tensor_parallel to {per_host} and engine.pipeline_parallel to {stages}: then only the stages' ends do."
    yield Finding(
        "warning",
        "tensor-parallel-over-network",
        "engine.tensor_parallel",
        f"{tensor} spans hosts with {per_host} card{'s' if per_host > 1 else ''} of it each: every layer's sums go over the network "
        "between them, twice a layer.",
        f"{remedy} Keep it where they are joined by InfiniBand or the like.",
    )


def _one_is_enough(case: Case, per_host: int) -> Findings:
    """One host that holds the model serves alone what it serves, and falls alone."""
    if not case.kv_known:
        return
    alone = case.changed(engine={"nodes": 1, "tensor_parallel": per_host, "pipeline_parallel": 1})
    if case.shape.heads % per_host or not alone.has_room:
        return
    if case.engine.nodes * alone.kv_tokens < ENOUGH_KV * case.kv_tokens:
        return
    yield Finding(
        "warning",
        "one-node-instead",
        KEY,
        f"one host with {per_host} card{'s' if per_host > 1 else ''} holds the model, with {alone.kv_tokens} tokens of KV cache "
        f"({case.kv_tokens} now): {case.engine.nodes} hosts that each run it whole wait for no network, and fall one by one.",
        f"Set {KEY} to 1 and engine.tensor_parallel to {per_host}, run `launcher engine` on each host and one `launcher gateway` "
        "before them.",
    )


CHECKS = (check_nodes,)
