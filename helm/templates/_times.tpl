{{/* Every time that follows from the profile's. The pods' grace must outlast what ends in it, or streams are cut. */}}

{{/* keys of timeouts → their sum in whole seconds, rounded up. */}}
{{- define "launcher.timeouts" -}}
{{- $p := include "launcher.profile" .root | fromJson -}}
{{- $sum := 0.0 -}}
{{- range .keys -}}
{{- $key := printf "timeouts.%s" . -}}
{{- $sum = addf $sum (include "launcher.seconds" (dict "key" (printf "profile.%s" $key) "value" (index $p $key)) | float64) -}}
{{- end -}}
{{- ceil $sum | int64 -}}
{{- end -}}

{{/* A figure of the launcher's own, as it has it for every container. */}}
{{- define "launcher.figure" -}}
{{- $figures := (.root.Files.Get "files/launcher.yaml" | fromYaml).container -}}
{{- get $figures .name | int64 -}}
{{- end -}}

{{/* Before the drain the launcher says at /ready that it stops, for gateways that have looked its name up already. */}}
{{- define "launcher.engine.notice" -}}
{{- include "launcher.figure" (dict "root" . "name" "noticeSeconds") -}}
{{- end -}}

{{- define "launcher.margin" -}}
{{- include "launcher.figure" (dict "root" . "name" "marginSeconds") -}}
{{- end -}}

{{/* preStop, notice, vLLM's drain, the time until the signal that it cannot ignore; and a margin. */}}
{{- define "launcher.engine.grace" -}}
{{- add .Values.engine.preStop (include "launcher.engine.notice" .) (include "launcher.timeouts" (dict "root" . "keys" (list "drain" "stop"))) (include "launcher.margin" .) -}}
{{- end -}}

{{- define "launcher.gateway.grace" -}}
{{- add .Values.gateway.preStop (include "launcher.timeouts" (dict "root" . "keys" (list "drain"))) (include "launcher.margin" .) -}}
{{- end -}}

{{/* Seconds until a started engine's pod is ready: download (of whose size nothing is known here), load and compile, warm-up. */}}
{{- define "launcher.engine.startup" -}}
{{- $p := include "launcher.profile" . | fromJson -}}
{{- $fetch := include "launcher.figure" (dict "root" . "name" (ternary "unknownFetchSeconds" "shortestFetchSeconds" (not (not (index $p "model.id"))))) -}}
{{- if .Values.engine.fetchTime -}}
{{- $fetch = include "launcher.seconds" (dict "key" "engine.fetchTime" "value" .Values.engine.fetchTime) | float64 | ceil -}}
{{- end -}}
{{- add $fetch (include "launcher.timeouts" (dict "root" . "keys" (list "start" "warmup"))) -}}
{{- end -}}
