"""A profile as a script that starts a Ray cluster on its hosts, and the launcher on the first of them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from string import Template

from launcher.engine.nodes import uses_ray
from launcher.errors import PreconditionError
from launcher.plan.placement import gpus_needed
from launcher.profile.load import LoadedProfile
from launcher.profile.model import VllmEngine

RAY_PORT = 6379  # Ray's own default
SCRIPT = Template("""\
#!/bin/bash
# ${name}: written by `launcher render ray`; write it anew when the profile changes.
# On the first host:         bash FILE head ADDRESS
# On each of the ${others} others:   bash FILE worker ADDRESS
# ADDRESS is the first host's own, on the network that joins them; keep that network private, for Ray asks nobody who he
# is. Afterwards, on each: ray stop. With KubeRay all this is done: run `launcher up` in a pod with cards.
set -euo pipefail
role=$${1:?head or worker?}
head=$${2:?the address of the first host?}

case "$$role" in
head)
    export VLLM_HOST_IP="$$head"
    ray start --head --node-ip-address="$$head" --port=${port} --num-gpus=${gpus} --include-dashboard=false
    there='import ray, sys; ray.init(address="auto"); sys.exit(sum(node["Alive"] for node in ray.nodes()) < ${nodes})'
    until ${python} -c "$$there" 2>/dev/null; do
        echo "waiting until ${nodes} hosts are there" >&2
        sleep 2
    done
    exec ${command}
    ;;
worker)
    VLLM_HOST_IP=$${VLLM_HOST_IP:-$$(hostname -I | awk '{ print $$1 }')}
    export VLLM_HOST_IP
    exec ray start --address="$$head:${port}" --node-ip-address="$$VLLM_HOST_IP" --num-gpus=${gpus} --block
    ;;
*)
    echo "$$role is neither head nor worker" >&2
    exit 2
    ;;
esac
""")


def ray_script(loaded: LoadedProfile, program: str, profile_path: str, sets: Sequence[str] = ()) -> str:
    """The script; ``program`` and ``profile_path`` are the launcher and the profile on the first host.

    Raises PreconditionError for a profile that does not run on Ray.
    """
    profile = loaded.profile
    engine = profile.engine
    if not isinstance(engine, VllmEngine) or not uses_ray(profile):
        raise PreconditionError(
            "engine.distributed is not ray: there is no Ray cluster to start",
            "Write engine.distributed: ray; or run `launcher up` on each host, or `launcher render slurm`.",
        )
    words = [program, "up", profile_path, *(word for one in sets for word in ("--set", one))]
    return SCRIPT.substitute(
        name=profile.name,
        nodes=engine.nodes,
        others=engine.nodes - 1,
        gpus=gpus_needed(profile),
        port=RAY_PORT,
        python=shlex.quote(engine.python or "python3"),
        command=shlex.join(words),
    )
