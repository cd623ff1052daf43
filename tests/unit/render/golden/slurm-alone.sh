#!/bin/bash
# alone: written by `launcher render slurm`; write it anew when the profile changes.
# Start it:  sbatch FILE  (what this cluster wants beside it goes first: sbatch --partition=… --time=… FILE)
# Stop it:   scancel --signal=TERM JOB  (without --signal Slurm kills after its KillWait, which may be in the drain)
#SBATCH --job-name=alone
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --output=alone-%j.log
# Told so long before the time limit: timeouts.drain (30s), timeouts.stop (10s) and 20 s more.
#SBATCH --signal=TERM@60
set -euo pipefail

# Clients connect to gateway.listen, 127.0.0.1:8000, on the first host of the job.
exec srun --ntasks-per-node=1 /shared/bin/launcher up '/shared/two hosts.yaml'
