{{/* What both autoscalers count with. */}}

{{- define "launcher.scaled" -}}
{{- if gt (include "launcher.nodes" . | int) 1 -}}
apiVersion: {{ .Values.leaderWorkerSet.apiVersion }}
kind: LeaderWorkerSet
name: {{ include "launcher.group.name" . }}
{{- else -}}
apiVersion: apps/v1
kind: Deployment
name: {{ include "launcher.engine.name" . }}
{{- end -}}
{{- end -}}

{{/* An engine that took minutes to load does not go for a shorter pause. In seconds. */}}
{{- define "launcher.cooldown" -}}
{{- .Values.autoscaling.cooldown | default (include "launcher.timeouts" (dict "root" . "keys" (list "start" "warmup"))) | int -}}
{{- end -}}

{{/* One engine goes at a time, after the pause; new ones come at once. */}}
{{- define "launcher.scaling.behavior" -}}
scaleUp:
  stabilizationWindowSeconds: 0
scaleDown:
  stabilizationWindowSeconds: {{ min 3600 (include "launcher.cooldown" . | int) }}
  policies:
    - {type: Pods, value: 1, periodSeconds: 60}
{{- end -}}

{{/* Labels in PromQL, as the ServiceMonitors give them: job is the Service's name. */}}
{{- define "launcher.gateway.series" -}}
{{- .Values.autoscaling.gatewaySelector | default (printf `namespace="%s",service="%s"` .Release.Namespace (include "launcher.gateway.name" .)) -}}
{{- end -}}
{{- define "launcher.engine.series" -}}
{{- .Values.autoscaling.engineSelector | default (printf `namespace="%s",service="%s"` .Release.Namespace (include "launcher.engine.name" .)) -}}
{{- end -}}

{{/* Most sequences that one engine works on at once: the profile's, or the gateway's own default. */}}
{{- define "launcher.sequences" -}}
{{- $p := include "launcher.profile" . | fromJson -}}
{{- coalesce (index $p "admission.max_in_flight") (index $p "engine.max_num_seqs") 256 | int -}}
{{- end -}}
