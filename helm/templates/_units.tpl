{{/* Durations and sizes as the profile writes them ('1500ms', '15m'; '256MiB'), and as Kubernetes does ('24Gi'). */}}

{{/* {key, value} → seconds. Refused, with its name, in the words that the launcher has for it. */}}
{{- define "launcher.seconds" -}}
{{- $text := .value | toString | trim -}}
{{- if not (regexMatch `^[0-9]+(\.[0-9]+)?\s*(ms|s|m|h|d)$` $text) -}}
{{- fail (printf "%s: %v is not a duration: write a number and a unit (ms, s, m, h or d), such as 200ms or 10m" .key .value) -}}
{{- end -}}
{{- $units := dict "ms" 0.001 "s" 1 "m" 60 "h" 3600 "d" 86400 -}}
{{- printf "%.4f" (mulf (regexFind `^[0-9.]+` $text | float64) (get $units (regexFind `[a-z]+$` $text))) -}}
{{- end -}}

{{/* {key, value} → bytes. */}}
{{- define "launcher.bytes" -}}
{{- $text := .value | toString | trim -}}
{{- if not (regexMatch `^[0-9]+(\.[0-9]+)?\s*(B|[kKMGT]i?B?)?$` $text) -}}
{{- fail (printf "%s: %v is not a size: write a number and a unit, such as 24Gi" .key .value) -}}
{{- end -}}
{{- $units := dict "" 1 "k" 1000 "K" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- $unit := regexFind `[A-Za-z]*$` $text | trimSuffix "B" -}}
{{- printf "%.0f" (mulf (regexFind `^[0-9.]+` $text | float64) (get $units $unit)) -}}
{{- end -}}

{{/* Bytes → the quantity in whole mebibytes, rounded up. */}}
{{- define "launcher.quantity" -}}
{{- printf "%.0fMi" (ceil (divf (float64 .) 1048576.0)) -}}
{{- end -}}
