{{/*
The profile: as a string (a whole file, by --set-file) it goes into the pods as it is, comments and all; as an object as
JSON, which is YAML too and keeps whole numbers whole (toYaml would write 5000000 as 5e+06, which the launcher refuses).
Both are then read alike.
*/}}
{{- define "launcher.profile.text" -}}
{{- if not .Values.profile -}}
{{- .Files.Get "files/default-profile.yaml" -}}
{{- else if kindIs "string" .Values.profile -}}
{{- .Values.profile -}}
{{- else -}}
{{- toPrettyJson .Values.profile -}}
{{- end -}}
{{- end -}}

{{/* Every key of the profile, dotted, with its value or default, as JSON. Read once: the answer is kept in the values. */}}
{{- define "launcher.profile" -}}
{{- if not (hasKey .Values "readProfile") -}}
{{- $given := include "launcher.profile.text" . | fromYaml -}}
{{- if hasKey $given "Error" -}}
{{- fail (printf "profile: is not YAML: %s" $given.Error) -}}
{{- end -}}
{{- $known := .Files.Get "files/launcher.yaml" | fromYaml -}}
{{- $kind := dig "engine" "kind" "vllm" $given -}}
{{- $flat := dict -}}
{{- range $part := list $known.common (get $known (ternary "external" "vllm" (eq $kind "external"))) -}}
{{- range $key, $default := $part }}{{ $_ := set $flat $key $default }}{{ end -}}
{{- end -}}
{{- include "launcher.profile.flatten" (dict "given" $given "path" "" "flat" $flat "free" $known.free) -}}
{{- if not (index $flat "name") -}}
{{- fail "profile.name: is missing: a profile has a name, such as 2x4090" -}}
{{- end -}}
{{- $_ := set .Values "readProfile" ($flat | toJson) -}}
{{- end -}}
{{- .Values.readProfile -}}
{{- end -}}

{{/* Lays what is given over the defaults in `flat`, and refuses what is no key. */}}
{{- define "launcher.profile.flatten" -}}
{{- range $key, $value := .given -}}
{{- $path := printf "%s%s" $.path $key -}}
{{- $below := list -}}
{{- range $name, $_ := $.flat }}{{ if hasPrefix (printf "%s." $path) $name }}{{ $below = append $below $name }}{{ end }}{{ end -}}
{{- if kindIs "invalid" $value -}}
{{- /* as if it were not written */ -}}
{{- else if and $below (kindIs "map" $value) (not (has $path $.free)) -}}
{{- include "launcher.profile.flatten" (dict "given" $value "path" (printf "%s." $path) "flat" $.flat "free" $.free) -}}
{{- else if hasKey $.flat $path -}}
{{- $_ := set $.flat $path $value -}}
{{- else if $below -}}
{{- fail (printf "profile.%s: is %v, but has keys of its own: %s" $path $value (join ", " (sortAlpha $below))) -}}
{{- else -}}
{{- $beside := list -}}
{{- range $name, $_ := $.flat }}{{ if hasPrefix $.path $name }}{{ $beside = append $beside ($name | trimPrefix $.path | splitList "." | first) }}{{ end }}{{ end -}}
{{- fail (printf "profile.%s: there is no such key. There are: %s" $path ($beside | uniq | sortAlpha | join ", ")) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The name that clients put in "model"; empty where only the servers know it. */}}
{{- define "launcher.model" -}}
{{- $p := include "launcher.profile" . | fromJson -}}
{{- $path := index $p "model.path" | default "" -}}
{{- coalesce (index $p "model.served_name") (index $p "model.id") (index $p "model.packaged") ($path | trimSuffix "/" | base) "" | trimAll "." -}}
{{- end -}}

{{- define "launcher.scheme" -}}
{{- $p := include "launcher.profile" . | fromJson -}}
{{- if index $p "gateway.tls_cert" }}HTTPS{{ else }}HTTP{{ end -}}
{{- end -}}

{{/* true: engines are started here. Empty: they run elsewhere (engine.kind: external) and are only watched. */}}
{{- define "launcher.hasEngines" -}}
{{- $p := include "launcher.profile" . | fromJson -}}
{{- if ne (index $p "engine.kind") "external" }}true{{ end -}}
{{- end -}}

{{- define "launcher.nodes" -}}
{{- $p := include "launcher.profile" . | fromJson -}}
{{- index $p "engine.nodes" | default 1 | int -}}
{{- end -}}

{{- define "launcher.replicas" -}}
{{- $p := include "launcher.profile" . | fromJson -}}
{{- ternary (index $p "engine.replicas" | default 1) .Values.engine.replicas (kindIs "invalid" .Values.engine.replicas) | int -}}
{{- end -}}

{{/* Cards of one pod. */}}
{{- define "launcher.gpus" -}}
{{- $p := include "launcher.profile" . | fromJson -}}
{{- if eq (index $p "hardware.device") "cuda" -}}
{{- div (mul (index $p "engine.tensor_parallel" | int) (index $p "engine.pipeline_parallel" | int)) (include "launcher.nodes" . | int) -}}
{{- else -}}0{{- end -}}
{{- end -}}
