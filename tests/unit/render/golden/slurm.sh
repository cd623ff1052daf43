#!/bin/bash
# two-hosts: written by `launcher render slurm`; write it anew when the profile changes.
# Start it:  sbatch FILE  (what this cluster wants beside it goes first: sbatch --partition=… --time=… FILE)
# Stop it:   scancel --signal=TERM JOB  (without --signal Slurm kills after its KillWait, which may be in the drain)
#SBATCH --job-name=two-hosts
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --output=two-hosts-%j.log
# Told so long before the time limit: timeouts.drain (90s), timeouts.stop (10s) and 20 s more.
#SBATCH --signal=TERM@120
set -euo pipefail

# Clients connect to gateway.listen, 127.0.0.1:8000, on the first host of the job.
# The address by which the others reach it: its first one, unless HEAD_ADDRESS says which. Ports 29501 and 29502 are used.
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)
HEAD_ADDRESS=${HEAD_ADDRESS:-$(srun --nodes=1 --ntasks=1 --nodelist="$first" hostname -I | awk '{ print $1 }')}
export HEAD_ADDRESS

exec srun --ntasks-per-node=1 --kill-on-bad-exit=1 \
    bash -c 'exec "$@" --node-rank "$SLURM_NODEID" --head "$HEAD_ADDRESS" --once' launcher \
    /shared/bin/launcher up '/shared/two hosts.yaml'
