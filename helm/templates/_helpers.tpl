{{/* Names and labels: one place for both workloads, so that Services, policies and scalers find what they mean. */}}

{{- define "launcher.name" -}}
{{- $name := .Values.fullnameOverride | default .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- /* A Service's name begins with a letter; profiles are called 2x4090, and so may releases be. */ -}}
{{- if regexMatch `^[0-9]` $name }}vllm-{{ end }}{{ $name -}}
{{- end -}}

{{- define "launcher.engine.name" -}}{{ include "launcher.name" . }}-engine{{- end -}}
{{/* Not the engines' Service: the group's controller makes one of the group's name, for pods that are not ready too. */}}
{{- define "launcher.group.name" -}}{{ include "launcher.name" . }}-group{{- end -}}
{{- define "launcher.gateway.name" -}}{{ include "launcher.name" . }}-gateway{{- end -}}

{{/* component: engine, engine-worker (the further pods of one that spans several nodes) or gateway. */}}
{{- define "launcher.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "launcher.labels" -}}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "launcher.metadata" -}}
name: {{ .name }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "launcher.labels" .root | nindent 2 }}
  {{- with .component }}
  app.kubernetes.io/component: {{ . }}
  {{- end }}
{{- end -}}

{{- define "launcher.gateway.image" -}}
{{- .Values.gateway.image | default (printf "vllm-profile-launcher:%s" .Chart.AppVersion) -}}
{{- end -}}

{{/* What both pods share: nobody's root, no rights, no token for the cluster. */}}
{{- define "launcher.podSecurity" -}}
{{- $usual := dict "runAsNonRoot" true "runAsUser" 10001 "runAsGroup" 10001 "fsGroup" 10001 "fsGroupChangePolicy" "OnRootMismatch" "seccompProfile" (dict "type" "RuntimeDefault") -}}
{{- range $key, $value := . }}{{ $_ := set $usual $key $value }}{{ end -}}
{{- toYaml $usual -}}
{{- end -}}

{{- define "launcher.containerSecurity" -}}
{{- $usual := dict "allowPrivilegeEscalation" false "readOnlyRootFilesystem" true "capabilities" (dict "drop" (list "ALL")) -}}
{{- range $key, $value := . }}{{ $_ := set $usual $key $value }}{{ end -}}
{{- toYaml $usual -}}
{{- end -}}

{{/* Pods of one kind on different nodes, as far as there are some: never a reason to leave one waiting. */}}
{{- define "launcher.spread" -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "launcher.selector" . | nindent 8 }}
{{- end -}}

{{/* A pod's own settings for where it may run, as they were given. */}}
{{- define "launcher.placement" -}}
{{- $set := dict -}}
{{- range $key := list "nodeSelector" "affinity" "priorityClassName" "runtimeClassName" "tolerations" -}}
{{- with get $.values $key }}{{ $_ := set $set $key . }}{{ end -}}
{{- end -}}
{{- if $set }}{{ toYaml $set }}
{{ end -}}
{{- if .values.spread }}{{ include "launcher.spread" . }}{{ end -}}
{{- end -}}

{{/* A new profile is a new pod: nothing in a running one reads it again. */}}
{{- define "launcher.checksum" -}}
{{- printf "%s%s" (include "launcher.profile.text" .) (toJson .Values.files) | sha256sum -}}
{{- end -}}
