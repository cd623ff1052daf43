{{/* The engine's pod: one for each replica, or with engine.nodes above 1 the leader and the workers of each group. */}}

{{/* {root, component} → the pod template. */}}
{{- define "launcher.engine.pod" -}}
{{- $p := include "launcher.profile" .root | fromJson -}}
{{- $engine := .root.Values.engine -}}
metadata:
  labels:   # without the chart's version: a new chart alone is no reason to load a model anew
    {{- include "launcher.selector" . | nindent 4 }}
    {{- with $engine.podLabels }}{{ toYaml . | nindent 4 }}{{ end }}
  annotations:
    checksum/profile: {{ include "launcher.checksum" .root }}
    {{- with $engine.podAnnotations }}{{ toYaml . | nindent 4 }}{{ end }}
spec:
  serviceAccountName: {{ include "launcher.name" .root }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ include "launcher.engine.grace" .root }}
  {{- with .root.Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    {{- include "launcher.podSecurity" $engine.podSecurityContext | nindent 4 }}
  {{- with include "launcher.engine.placement" . }}
  {{- trim . | nindent 2 }}
  {{- end }}
  containers:
    - name: engine
      image: {{ include "launcher.engine.image" .root }}
      imagePullPolicy: {{ $engine.imagePullPolicy }}
      {{- if include "launcher.onRay" .root }}
      {{- include "launcher.ray.command" . | nindent 6 }}
      {{- else }}
      args:   # of the image's entry point, launcher
        {{- include "launcher.engine.args" .root | fromJsonArray | toYaml | nindent 8 }}
      {{- end }}
      {{- include "launcher.engine.env" .root | nindent 6 }}
        {{- with include "launcher.ray.env" . }}{{ . | nindent 8 }}{{ end }}
      ports:
        - {name: http, containerPort: 8000}
        - {name: status, containerPort: 8001}
      {{- if and (include "launcher.onRay" .root) (eq .component "engine-worker") }}
      {{- include "launcher.ray.worker.probes" . | nindent 6 }}
      {{- else }}
      {{- include "launcher.engine.probes" .root | nindent 6 }}
      {{- end }}
      {{- with include "launcher.ray.liveness" .root }}{{ . | nindent 6 }}{{ end }}
      resources:
        {{- include "launcher.engine.resources" .root | nindent 8 }}
      securityContext:
        {{- include "launcher.containerSecurity" $engine.securityContext | nindent 8 }}
      volumeMounts:
        - {name: profile, mountPath: /etc/launcher, readOnly: true}
        - {name: run, mountPath: /run/launcher}
        - {name: state, mountPath: /var/lib/launcher}
        - {name: tmp, mountPath: /tmp}
        - {name: shm, mountPath: /dev/shm}
        {{- if ne $engine.cache.kind "none" }}
        - {name: cache, mountPath: /var/cache/launcher{{ if include "launcher.cache.isReadOnly" .root }}, readOnly: true{{ end }}}
        {{- end }}
        {{- with $engine.volumeMounts }}{{ toYaml . | nindent 8 }}{{ end }}
  volumes:
    - name: profile
      configMap: {name: {{ include "launcher.name" .root }}-profile}
    - {name: run, emptyDir: {}}
    - {name: state, emptyDir: {}}
    - {name: tmp, emptyDir: {}}
    # The cards of a pod and vLLM's processes speak through it; Kubernetes' own 64 MiB are too little.
    - {name: shm, emptyDir: {medium: Memory, sizeLimit: {{ include "launcher.engine.shm" .root }}}}
    {{- include "launcher.engine.cache" .root | nindent 4 }}
    {{- with $engine.volumes }}{{ toYaml . | nindent 4 }}{{ end }}
{{- end -}}

{{/* As a JSON list. The leader of a group is rank 0; the group's controller tells each pod its rank and the leader's name. */}}
{{- define "launcher.engine.args" -}}
{{- $args := list "engine" "/etc/launcher/profile.yaml" "--listen" "0.0.0.0:8000" "--ready-file" "/run/launcher/ready" -}}
{{- $args = concat $args (list "--notice" (printf "%ss" (include "launcher.engine.notice" .))) -}}
{{- if and (gt (include "launcher.nodes" . | int) 1) (not (include "launcher.onRay" .)) -}}
{{- $args = concat $args (list "--node-rank" "$(LWS_WORKER_INDEX)" "--head" "$(LWS_LEADER_ADDRESS)") -}}
{{- end -}}
{{- toJson $args -}}
{{- end -}}

{{- define "launcher.engine.image" -}}
{{- $p := include "launcher.profile" . | fromJson -}}
{{- $kind := ternary "engine-cpu" "engine" (eq (index $p "hardware.device") "cpu") -}}
{{- $plugin := ternary "-bnb" "" (eq (index $p "model.quantization" | default "" | toString) "bitsandbytes") -}}
{{- $ray := ternary "-ray" "" (eq (include "launcher.onRay" .) "true") -}}
{{- .Values.engine.image | default (printf "vllm-profile-launcher-%s:%s%s%s" $kind .Chart.AppVersion $plugin $ray) -}}
{{- end -}}

{{/* No liveness probe: the launcher itself watches the engine's tokens, ends one that hangs and exits. A probe would also end
engines that are only busy. The file is there exactly while the engine is warmed and well; a worker's while its part runs. */}}
{{- define "launcher.engine.probes" -}}
{{- $startup := include "launcher.engine.startup" . | int -}}
startupProbe:
  exec: {command: [test, -f, /run/launcher/ready]}
  periodSeconds: 10
  timeoutSeconds: 5
  # {{ $startup }} s for download, start and warm-up; and a minute, so that the launcher gives up first and says why.
  failureThreshold: {{ add (ceil (divf $startup 10)) 6 }}
readinessProbe:
  exec: {command: [test, -f, /run/launcher/ready]}
  periodSeconds: 5
  timeoutSeconds: 5
lifecycle:
  preStop:
    # Meanwhile its name goes from DNS and gateways send it nothing new. `sleep` as an action needs Kubernetes 1.30.
    exec: {command: [sleep, {{ .Values.engine.preStop | int | toString | quote }}]}
{{- end -}}

{{- define "launcher.engine.env" -}}
{{- $engine := .Values.engine -}}
{{- /* Where nothing may be written beside the model, compiled code goes elsewhere. */ -}}
{{- $elsewhere := or (eq $engine.cache.kind "none") (eq (include "launcher.cache.isReadOnly" .) "true") -}}
{{- $caches := ternary "/var/lib/launcher/caches" "/var/cache/launcher" $elsewhere -}}
env:
  - {name: HOME, value: {{ $caches }}}
  - {name: USER, value: launcher}   # torch asks for it, and user 10001 may have no name in the image
  - {name: LAUNCHER_STATE_DIR, value: /var/lib/launcher}
  - {name: XDG_CACHE_HOME, value: {{ $caches }}}
  - {name: XDG_CONFIG_HOME, value: {{ $caches }}/config}
  - {name: VLLM_CACHE_ROOT, value: {{ $caches }}/vllm}
  {{- if ne $engine.cache.kind "none" }}
  - {name: HF_HOME, value: /var/cache/launcher/huggingface}
  {{- end }}
  {{- if .Values.airGap }}
  - {name: HF_HUB_OFFLINE, value: "1"}
  {{- else if $engine.hubToken.existingSecret }}
  - name: HF_TOKEN
    valueFrom: {secretKeyRef: {name: {{ $engine.hubToken.existingSecret }}, key: {{ $engine.hubToken.key }}}}
  {{- end }}
  {{- include "launcher.engineKey.env" . | nindent 2 }}
  {{- with $engine.env }}{{ toYaml . | nindent 2 }}{{ end }}
{{- end -}}

{{/* Both sides of the key: the engine asks for it, the gateway sends it. */}}
{{- define "launcher.engineKey.env" -}}
{{- with .Values.engine.key -}}
{{- if .enabled -}}
- name: LAUNCHER_ENGINE_KEY
  valueFrom: {secretKeyRef: {name: {{ .existingSecret | default (printf "%s-keys" (include "launcher.name" $)) }}, key: {{ .key }}}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* /dev/shm as `launcher render compose` reckons it: vLLM's queues between processes, and NCCL's buffers. */}}
{{- define "launcher.engine.shm" -}}
{{- $p := include "launcher.profile" . | fromJson -}}
{{- $shm := (.Files.Get "files/launcher.yaml" | fromYaml).container.shm -}}
{{- $width := mul (index $p "engine.tensor_parallel" | int) (index $p "engine.pipeline_parallel" | int) -}}
{{- $each := add $shm.eachProcess (ternary $shm.eachCard 0 (eq (index $p "hardware.device") "cuda")) -}}
{{- $store := ternary $shm.rayStore 0 (eq (include "launcher.onRay" .) "true") -}}
{{- $bytes := mul 1073741824 (ceil (divf (add $shm.engine (mul $each $width) $store) 1073741824.0) | int64) -}}
{{- if .Values.engine.shmSize -}}
{{- $bytes = include "launcher.bytes" (dict "key" "engine.shmSize" "value" .Values.engine.shmSize) -}}
{{- end -}}
{{- include "launcher.quantity" $bytes -}}
{{- end -}}

{{- define "launcher.engine.resources" -}}
{{- $p := include "launcher.profile" . | fromJson -}}
{{- $engine := .Values.engine -}}
{{- $gpus := include "launcher.gpus" . | int -}}
{{- $requests := dict "cpu" ($engine.cpu | default (add 2 $gpus) | toString) -}}
{{- $limits := dict -}}
{{- with $engine.memory | default (index $p "hardware.memory") -}}
{{- $own := include "launcher.bytes" (dict "key" "engine.memory" "value" .) | float64 -}}
{{- /* hardware.memory is for all replicas of one machine. */ -}}
{{- if not $engine.memory }}{{ $own = divf $own (index $p "engine.replicas") }}{{ end -}}
{{- $shm := include "launcher.bytes" (dict "key" "engine.shmSize" "value" (include "launcher.engine.shm" $)) | float64 -}}
{{- $_ := set $requests "memory" (include "launcher.quantity" $own) -}}
{{- /* What lies in /dev/shm counts as the pod's memory. */ -}}
{{- $_ := set $limits "memory" (include "launcher.quantity" (addf $own $shm)) -}}
{{- end -}}
{{- if $gpus }}{{ $_ := set $limits $engine.gpuResource $gpus }}{{ $_ := set $requests $engine.gpuResource $gpus }}{{ end -}}
{{- $all := dict "requests" $requests -}}
{{- if $limits }}{{ $_ := set $all "limits" $limits }}{{ end -}}
{{- mergeOverwrite $all (deepCopy $engine.resources) | toYaml -}}
{{- end -}}

{{- define "launcher.engine.placement" -}}
{{- $engine := .root.Values.engine -}}
{{- $tolerations := $engine.tolerations -}}
{{- if and (kindIs "invalid" $tolerations) (include "launcher.gpus" .root | int) -}}
{{- $tolerations = list (dict "key" $engine.gpuResource "operator" "Exists" "effect" "NoSchedule") -}}
{{- end -}}
{{- $values := deepCopy $engine -}}
{{- with $engine.gpuProducts -}}
{{- $match := dict "key" "nvidia.com/gpu.product" "operator" "In" "values" . -}}
{{- $terms := list (dict "matchExpressions" (list $match)) -}}
{{- $_ := set $values "affinity" (merge (deepCopy $engine.affinity) (dict "nodeAffinity" (dict "requiredDuringSchedulingIgnoredDuringExecution" (dict "nodeSelectorTerms" $terms)))) -}}
{{- end -}}
{{- $_ := set $values "tolerations" $tolerations -}}
{{- include "launcher.placement" (dict "root" .root "component" .component "values" $values) -}}
{{- end -}}

{{/* A claim that many may read and nobody write: models that somebody has put there. */}}
{{- define "launcher.cache.isReadOnly" -}}
{{- with .Values.engine.cache -}}
{{- if and (eq .kind "pvc") (has "ReadOnlyMany" .accessModes) (not (has "ReadWriteMany" .accessModes)) (not (has "ReadWriteOnce" .accessModes)) }}true{{ end -}}
{{- end -}}
{{- end -}}

{{- define "launcher.engine.cache" -}}
{{- $cache := .Values.engine.cache -}}
{{- if eq $cache.kind "pvc" -}}
- name: cache
  persistentVolumeClaim: {claimName: {{ $cache.existingClaim | default (printf "%s-cache" (include "launcher.name" .)) }}}
{{- else if eq $cache.kind "hostPath" -}}
- name: cache
  hostPath: {path: {{ $cache.path }}, type: Directory}
{{- else if eq $cache.kind "emptyDir" -}}
- name: cache
  emptyDir: {sizeLimit: {{ $cache.size }}}
{{- end -}}
{{- end -}}
