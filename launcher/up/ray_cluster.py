"""Whether a Ray cluster runs that this profile's engines can be put on: asked of Ray itself, by the engine's Python."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

from launcher.errors import PreconditionError
from launcher.profile.model import Profile, VllmEngine

ASK_TIMEOUT_S = 60.0
# The exit code tells what went wrong. RAY_ADDRESS=auto: the cluster that runs on this host, rather than a new one.
ASK = """
import json, logging, os, sys
os.environ.setdefault("RAY_ADDRESS", "auto")
try:
    import ray
except ModuleNotFoundError as missing:
    sys.exit(f"{missing}") if missing.name != "ray" else sys.exit(20)
try:
    ray.init(logging_level=logging.ERROR, log_to_driver=False)
except Exception as problem:
    sys.stderr.write(f"{type(problem).__name__}: {problem}\\n".splitlines()[0] + "\\n")
    sys.exit(21)
nodes = [node.get("Resources", {}).get("GPU", 0) for node in ray.nodes() if node.get("Alive")]
json.dump({"version": ray.__version__, "gpus": nodes, "free": ray.available_resources().get("GPU", 0)}, sys.stdout)
"""
NO_RAY, NO_CLUSTER = 20, 21


def check_ray(profile: Profile, python: str) -> str:
    """What the cluster has, as a line worth saying. Raises PreconditionError where it will not do."""
    engine = profile.engine
    assert isinstance(engine, VllmEngine)
    cluster = ask_ray(python)
    gpus = [int(count) for count in cluster["gpus"]]
    width = engine.tensor_parallel * engine.pipeline_parallel
    needed = engine.replicas * width
    said = f"Ray {cluster['version']}: {len(gpus)} node(s), {sum(gpus)} GPU(s), {int(cluster['free'])} of them free"
    if sum(gpus) < needed:
        raise PreconditionError(
            f"the plan needs {needed} cards, and the Ray cluster has {sum(gpus)} on {len(gpus)} node(s)",
            "`ray status` shows it; start more nodes: ray start --address=HEAD:6379 --num-gpus=N",
        )
    share = width // engine.nodes
    if sum(count >= share for count in gpus) < engine.nodes:
        raise PreconditionError(
            f"engine.nodes is {engine.nodes}: the plan needs as many Ray nodes with {share} cards or more, and the cluster's "
            f"nodes have {', '.join(map(str, gpus))}",
            "`ray status` shows it; lower engine.nodes, or start more nodes.",
        )
    return said


def ask_ray(python: str) -> dict[str, Any]:
    """Version, each node's GPUs and how many are free. Raises PreconditionError where there is no Ray, or no cluster."""
    try:
        done = subprocess.run([python, "-c", ASK], cwd="/", capture_output=True, text=True, timeout=ASK_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise _no_cluster(f"no answer within {ASK_TIMEOUT_S:g} s") from None
    if done.returncode == NO_RAY:
        raise PreconditionError(
            f"engine.distributed is ray, and Ray is not installed in {python}",
            f"{python} -m pip install ray, the same version on every host (vLLM does not bring it).",
        )
    if done.returncode == NO_CLUSTER:
        raise _no_cluster(done.stderr.strip())
    try:
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        last = (done.stderr.strip().splitlines() or ["it wrote nothing"])[-1]
        raise PreconditionError(
            f"Ray in {python} could not be asked for its cluster: {last}", "Try it by hand: ray status"
        ) from None
    return found


def _no_cluster(why: str) -> PreconditionError:
    where = os.environ.get("RAY_ADDRESS")
    return PreconditionError(
        f"engine.distributed is ray, and no Ray cluster answers {f'at {where} (RAY_ADDRESS)' if where else 'on this host'}: {why}",
        "Start one: `ray start --head --port=6379` here, `ray start --address=HEAD:6379` on the others; or set RAY_ADDRESS.",
    )
