{{/*
An engine on Ray: KubeRay's RayCluster. Its head is the pod in which `launcher engine` runs, for a launcher must be where
Ray and a card are, and containers of one pod share no cards; so Ray's head and the launcher are one container.

Of KubeRay (docs.ray.io, "Specify container commands for Ray head/worker Pods"): with the annotation
ray.io/overwrite-container-cmd a container keeps its command, and finds the `ray start` that KubeRay would have run in
KUBERAY_GEN_RAY_START_CMD. It has --block. FQ_RAY_IP is the name of the head's Service.
*/}}

{{/* true: Ray gives out the cards (engine.distributed: ray). */}}
{{- define "launcher.onRay" -}}
{{- $p := include "launcher.profile" . | fromJson -}}
{{- if and (include "launcher.hasEngines" .) (eq (index $p "engine.distributed" | default "" | toString) "ray") }}true{{ end -}}
{{- end -}}

{{/* {root, component} → what the container runs. */}}
{{- define "launcher.ray.command" -}}
command:
  - /bin/bash
  - -c
  - |
    {{- include (printf "launcher.ray.script.%s" .component) .root | nindent 4 }}
{{- if eq .component "engine" }}
  - launcher
args:   # the script hands them to launcher
  {{- include "launcher.engine.args" .root | fromJsonArray | toYaml | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Ray's head beside the launcher, which becomes process 1 when all pods are there: it drains on SIGTERM, Ray stays meanwhile. */}}
{{- define "launcher.ray.script.engine" -}}
{{- $p := include "launcher.profile" . | fromJson -}}
trap 'exit 143' TERM   # until then: what process 1 does not catch is ignored
ulimit -n 65536
bash -c "$KUBERAY_GEN_RAY_START_CMD" &
ray=$!
there='import ray, sys; ray.init(address="auto"); sys.exit(sum(node["Alive"] for node in ray.nodes()) < {{ include "launcher.nodes" . }})'
until "${LAUNCHER__ENGINE__PYTHON:-{{ index $p "engine.python" | default "python3" }}}" -c "$there" >/dev/null 2>&1; do
    if ! kill -0 "$ray" 2>/dev/null; then
        echo "Ray has ended. Is it in the image? deploy/Dockerfile.engine: --build-arg RAY=VERSION" >&2
        exit 1
    fi
    echo "waiting until Ray has {{ include "launcher.nodes" . }} pods" >&2
    sleep 2
done
exec "$0" "$@"
{{- end -}}

{{/* The head's address is kept for preStop: when a release goes, so does its Service, and the name with it. */}}
{{- define "launcher.ray.script.engine-worker" -}}
trap 'exit 143' TERM
ulimit -n 65536
until read -r head _ < <(getent hosts "$FQ_RAY_IP"); do sleep 1; done
echo "$head" >/run/launcher/head
exec bash -c "$KUBERAY_GEN_RAY_START_CMD"
{{- end -}}

{{/* {root, component}: more variables of the pod. */}}
{{- define "launcher.ray.env" -}}
{{- if include "launcher.onRay" .root -}}
- {name: RAY_USAGE_STATS_ENABLED, value: "0"}   # Ray reports to its makers unless told not to
{{- if eq .component "engine" }}
- {name: RAY_ADDRESS, value: "127.0.0.1:6379"}
{{- end }}
{{- end -}}
{{- end -}}

{{/* KubeRay adds one of its own where there is none. That asks Ray's dashboard, which is not there, and would end engines
that are only busy; a Ray that ends takes the container with it. */}}
{{- define "launcher.ray.liveness" -}}
{{- if include "launcher.onRay" . -}}
livenessProbe:
  exec: {command: ["true"]}
  periodSeconds: 60
{{- end -}}
{{- end -}}

{{- define "launcher.ray.worker.probes" -}}
readinessProbe:
  exec: {command: [test, -S, /tmp/ray/session_latest/sockets/raylet]}
  periodSeconds: 5
  timeoutSeconds: 5
lifecycle:
  preStop:
    # Ray ends at SIGTERM, and with it the streams that the head still lets finish: so not before the head has gone.
    exec: {command: [/bin/bash, -c, 'read -r head </run/launcher/head && while (exec 3<>"/dev/tcp/$head/6379") 2>/dev/null; do sleep 1; done']}
{{- end -}}

{{/* What KubeRay makes `ray start` of; all are strings. */}}
{{- define "launcher.ray.params" -}}
num-gpus: {{ include "launcher.gpus" . | quote }}
object-store-memory: {{ (.Files.Get "files/launcher.yaml" | fromYaml).container.shm.rayStore | int64 | toString | quote }}
{{- end -}}

{{- define "launcher.ray.spec" -}}
headGroupSpec:
  # By its name workers join the head, which is ready only when they have: so it stands for one that is not, too.
  headService:
    spec: {clusterIP: None, publishNotReadyAddresses: true}
  rayStartParams:
    include-dashboard: "false"
    {{- include "launcher.ray.params" . | nindent 4 }}
  template:
    {{- include "launcher.engine.pod" (dict "root" . "component" "engine") | nindent 4 }}
{{- $workers := sub (include "launcher.nodes" . | int) 1 }}
{{- if $workers }}
workerGroupSpecs:
  - groupName: workers
    replicas: {{ $workers }}
    minReplicas: {{ $workers }}
    maxReplicas: {{ $workers }}
    rayStartParams:
      {{- include "launcher.ray.params" . | nindent 6 }}
    template:
      {{- include "launcher.engine.pod" (dict "root" . "component" "engine-worker") | nindent 6 }}
{{- end }}
{{- end -}}
