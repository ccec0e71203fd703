{{/* portcullis.yaml of the webhook. */}}
{{- define "portcullis.admission.config" -}}
{{- $values := .Values.admission -}}
{{- $name := printf "%s-admission" (include "portcullis.fullname" .) -}}
{{- $admission := deepCopy $values.config -}}
{{- $_ := set $admission "listen" (printf "%s:%d" .Values.bindAddress (int $values.port)) -}}
{{- $_ := set $admission "management" (printf "%s:%d" .Values.bindAddress (int $values.managementPort)) -}}
{{- $_ := set $admission "namespace" .Release.Namespace -}}
{{- $_ := set $admission "service" $name -}}
{{- $_ := set $admission "webhook_configuration" $name -}}
{{- $limits := dict "drain" (printf "%ds" (int $values.drainSeconds)) -}}
{{- if $values.drainDelaySeconds -}}
{{- $_ := set $limits "drain_delay" (printf "%ds" (int $values.drainDelaySeconds)) -}}
{{- end -}}
{{- $_ := set $admission "limits" (merge $limits ($admission.limits | default dict)) -}}
{{- if $values.certManager.enabled -}}
{{- $_ := set $admission "ca_bundle" "external" -}}
{{- $_ := set $admission "certificate" (dict "files" (dict "certificate" "/etc/portcullis/tls/tls.crt" "key" "/etc/portcullis/tls/tls.key")) -}}
{{- else if include "portcullis.admission.ownAuthority" . -}}
{{- $secret := merge (dict "name" (printf "%s-authority" $name)) (dig "certificate" "secret" dict $admission) -}}
{{- $_ := set $admission "certificate" (dict "secret" $secret) -}}
{{- end -}}
{{- $config := dict "admission" $admission "kubernetes" (omit .Values.kubernetes "status") -}}
{{- with .Values.mesh -}}
{{- $_ := set $config "mesh" . -}}
{{- end -}}
{{- $_ := set $config "log" (dict "level" .Values.log.level "format" .Values.log.format) -}}
{{- toYaml $config -}}
{{- end -}}

{{/* Says something where the webhook's certificate comes from a small authority in a Secret. */}}
{{- define "portcullis.admission.ownAuthority" -}}
{{- $certificate := dig "certificate" dict .Values.admission.config -}}
{{- if not (or .Values.admission.certManager.enabled (hasKey $certificate "files") (hasKey $certificate "workload_api")) -}}
yes
{{- end -}}
{{- end -}}
