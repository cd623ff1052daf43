"""A profile as a Slurm batch script: one task a host, each with its rank; the first host is the head.

See sbatch(1) and srun(1). Signals go to every task at once, so the hosts beyond the head outlive its drain (--once).
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from string import Template

from launcher.engine.nodes import PORT, has_nodes, uses_ray
from launcher.errors import PreconditionError
from launcher.plan.placement import gpus_needed
from launcher.profile.load import LoadedProfile
from launcher.profile.model import Profile, VllmEngine
from launcher.profile.units import format_duration

MARGIN_S = 20  # above the waits that it covers, as in systemd.py
SCRIPT = Template("""\
#!/bin/bash
# ${name}: written by `launcher render slurm`; write it anew when the profile changes.
# Start it:  sbatch FILE  (what this cluster wants beside it goes first: sbatch --partition=… --time=… FILE)
# Stop it:   scancel --signal=TERM JOB  (without --signal Slurm kills after its KillWait, which may be in the drain)
#SBATCH --job-name=${name}
#SBATCH --nodes=${nodes}
#SBATCH --ntasks-per-node=1
${cards}#SBATCH --output=${name}-%j.log
# Told so long before the time limit: timeouts.drain (${drain}), timeouts.stop (${stop}) and ${margin} s more.
#SBATCH --signal=TERM@${notice_s}
set -euo pipefail

# Clients connect to gateway.listen, ${listen}, on the first host of the job.
${body}""")
ALONE = Template("""\
exec srun --ntasks-per-node=1 ${command}
""")
TOGETHER = Template("""\
# The address by which the others reach it: its first one, unless HEAD_ADDRESS says which. Ports ${port} and ${next_port} are used.
first=$$(scontrol show hostnames "$$SLURM_JOB_NODELIST" | sed -n 1p)
HEAD_ADDRESS=$${HEAD_ADDRESS:-$$(srun --nodes=1 --ntasks=1 --nodelist="$$first" hostname -I | awk '{ print $$1 }')}
export HEAD_ADDRESS

exec srun --ntasks-per-node=1 --kill-on-bad-exit=1 \\
    bash -c 'exec "$$@" --node-rank "$$SLURM_NODEID" --head "$$HEAD_ADDRESS" --once' launcher \\
    ${command}
""")


def slurm_script(loaded: LoadedProfile, program: str, profile_path: str, sets: Sequence[str] = ()) -> str:
    """The script; ``program`` and ``profile_path`` are the launcher and the profile on the hosts of the cluster.

    Raises PreconditionError for a profile that such a job cannot run.
    """
    profile = loaded.profile
    engine = _engine_of(profile)
    words = [program, "up", profile_path, *(word for one in sets for word in ("--set", one))]
    gpus = gpus_needed(profile)
    body = TOGETHER if has_nodes(profile) else ALONE
    timeouts = profile.timeouts
    return SCRIPT.substitute(
        name=profile.name,
        nodes=engine.nodes,
        cards=f"#SBATCH --gpus-per-node={gpus}\n" if gpus else "",
        drain=format_duration(timeouts.drain),
        stop=format_duration(timeouts.stop),
        margin=MARGIN_S,
        notice_s=math.ceil(timeouts.drain + timeouts.stop + MARGIN_S),
        listen=profile.gateway.listen,
        body=body.substitute(command=shlex.join(words), port=PORT, next_port=PORT + 1),
    )


def _engine_of(profile: Profile) -> VllmEngine:
    engine = profile.engine
    if not isinstance(engine, VllmEngine):
        raise PreconditionError(
            "engine.kind is external: a job of its own would start nothing but a gateway",
            "Run `launcher up` with it where clients reach it.",
        )
    if uses_ray(profile):
        raise PreconditionError(
            "engine.distributed is ray: a Slurm job would have to start a Ray cluster first",
            "Write mp, vLLM's own way over several hosts; or start the cluster by what `launcher render ray` writes.",
        )
    return engine
