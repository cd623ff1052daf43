#!/bin/bash
# two-hosts: written by `launcher render ray`; write it anew when the profile changes.
# On the first host:         bash FILE head ADDRESS
# On each of the 1 others:   bash FILE worker ADDRESS
# ADDRESS is the first host's own, on the network that joins them; keep that network private, for Ray asks nobody who he
# is. Afterwards, on each: ray stop. With KubeRay all this is done: run `launcher up` in a pod with cards.
set -euo pipefail
role=${1:?head or worker?}
head=${2:?the address of the first host?}

case "$role" in
head)
    export VLLM_HOST_IP="$head"
    ray start --head --node-ip-address="$head" --port=6379 --num-gpus=8 --include-dashboard=false
    there='import ray, sys; ray.init(address="auto"); sys.exit(sum(node["Alive"] for node in ray.nodes()) < 2)'
    until python3 -c "$there" 2>/dev/null; do
        echo "waiting until 2 hosts are there" >&2
        sleep 2
    done
    exec /shared/bin/launcher up '/shared/two hosts.yaml'
    ;;
worker)
    VLLM_HOST_IP=${VLLM_HOST_IP:-$(hostname -I | awk '{ print $1 }')}
    export VLLM_HOST_IP
    exec ray start --address="$head:6379" --node-ip-address="$VLLM_HOST_IP" --num-gpus=8 --block
    ;;
*)
    echo "$role is neither head nor worker" >&2
    exit 2
    ;;
esac
