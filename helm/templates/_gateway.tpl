{{/* The parts of the gateway's pod. */}}

{{/* As a JSON list. */}}
{{- define "launcher.gateway.args" -}}
{{- $p := include "launcher.profile" . | fromJson -}}
{{- $args := list "gateway" "/etc/launcher/profile.yaml" "--listen" "0.0.0.0:8000" -}}
{{- if include "launcher.hasEngines" . -}}
{{- $args = concat $args (list "--engines" (printf "dns+http://%s.%s.svc:8000" (include "launcher.engine.name" .) .Release.Namespace)) -}}
{{- end -}}
{{- if gt (int .Values.gateway.replicas) 1 -}}
{{- $args = concat $args (list "--peers" (printf "%s-peers.%s.svc" (include "launcher.gateway.name" .) .Release.Namespace)) -}}
{{- end -}}
{{- toJson $args -}}
{{- end -}}

{{- define "launcher.gateway.env" -}}
{{- $p := include "launcher.profile" . | fromJson -}}
{{- $gateway := .Values.gateway -}}
env:
  - {name: HOME, value: /var/cache/launcher}
  - {name: USER, value: launcher}
  - {name: LAUNCHER_STATE_DIR, value: /var/lib/launcher}
  {{- if .Values.airGap }}
  - {name: HF_HUB_OFFLINE, value: "1"}
  {{- else if .Values.engine.hubToken.existingSecret }}
  # It reads the model's config from the hub, to price requests as the engine will count them.
  - name: HF_TOKEN
    valueFrom: {secretKeyRef: {name: {{ .Values.engine.hubToken.existingSecret }}, key: {{ .Values.engine.hubToken.key }}}}
  {{- end }}
  {{- if ne (index $p "gateway.auth") "none" }}
  {{- $clients := or $gateway.apiKeys.existingSecret (not $gateway.keysFile.existingSecret) }}
  {{- $metrics := include "launcher.hasMetricsKey" . }}
  {{- if $clients }}
  - name: {{ ternary "CLIENT_KEYS" "LAUNCHER_API_KEYS" (eq $metrics "true") }}
    valueFrom: {secretKeyRef: {name: {{ include "launcher.apiKeys.secret" . }}, key: {{ $gateway.apiKeys.key }}}}
  {{- end }}
  {{- if $metrics }}
  - name: METRICS_KEY
    valueFrom: {secretKeyRef: {name: {{ include "launcher.name" . }}-keys, key: METRICS_KEY}}
  - {name: LAUNCHER_API_KEYS, value: "{{ if $clients }}$(CLIENT_KEYS),{{ end }}metrics=$(METRICS_KEY)"}
  {{- end }}
  {{- if $gateway.keysFile.existingSecret }}
  - {name: LAUNCHER__GATEWAY__KEYS_FILE, value: /etc/launcher-keys/{{ $gateway.keysFile.key }}}
  {{- end }}
  {{- end }}
  {{- if include "launcher.hasEngines" . }}
  {{- include "launcher.engineKey.env" . | nindent 2 }}
  {{- end }}
  {{- with $gateway.env }}{{ toYaml . | nindent 2 }}{{ end }}
{{- end -}}

{{/* Where clients need a key, so does Prometheus, for the gateway's /metrics: it gets one of its own. */}}
{{- define "launcher.hasMetricsKey" -}}
{{- $p := include "launcher.profile" . | fromJson -}}
{{- if and .Values.monitoring.enabled (ne (index $p "gateway.auth") "none") }}true{{ end -}}
{{- end -}}

{{- define "launcher.apiKeys.secret" -}}
{{- .Values.gateway.apiKeys.existingSecret | default (printf "%s-keys" (include "launcher.name" .)) -}}
{{- end -}}

{{/* Pictures that are sent ahead are kept in memory, up to the profile's gateway.uploads.memory. */}}
{{- define "launcher.gateway.resources" -}}
{{- $p := include "launcher.profile" . | fromJson -}}
{{- $own := include "launcher.bytes" (dict "key" "gateway.memory" "value" .Values.gateway.memory) | float64 -}}
{{- $uploads := include "launcher.bytes" (dict "key" "profile.gateway.uploads.memory" "value" (index $p "gateway.uploads.memory")) | float64 -}}
{{- $memory := include "launcher.quantity" (addf $own $uploads) -}}
{{- $all := dict "requests" (dict "cpu" .Values.gateway.cpu "memory" $memory) "limits" (dict "memory" $memory) -}}
{{- mergeOverwrite $all (deepCopy .Values.gateway.resources) | toYaml -}}
{{- end -}}
