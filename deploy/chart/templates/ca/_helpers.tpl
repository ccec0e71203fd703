{{/* portcullis.yaml of the certificate authority. */}}
{{- define "portcullis.ca.config" -}}
{{- $values := .Values.ca -}}
{{- $ca := deepCopy $values.config -}}
{{- $_ := set $ca "trust_domain" ($values.trustDomain | default (dig "trustDomain" "cluster.local" (.Values.mesh | default dict))) -}}
{{- $_ := set $ca "data" "/var/lib/portcullis/ca" -}}
{{- $_ := set $ca "socket" (printf "%s/workload.sock" $values.workloadAPI.path) -}}
{{- $_ := set $ca "management" (dict "address" (printf "%s:%d" .Values.bindAddress (int $values.managementPort))) -}}
{{- if $values.kubernetes.enabled -}}
{{- $_ := set $ca "kubernetes" $values.kubernetes.settings -}}
{{- end -}}
{{- if $values.passphraseSecret.name -}}
{{- $_ := set $ca "passphrase_file" (printf "/etc/portcullis/passphrase/%s" $values.passphraseSecret.key) -}}
{{- end -}}
{{- if $values.upstreamSecret.name -}}
{{- $_ := set $ca "upstream" (dict "certificate" "/etc/portcullis/upstream/tls.crt" "key" "/etc/portcullis/upstream/tls.key") -}}
{{- end -}}
{{- toYaml (dict "ca" $ca "log" (dict "level" .Values.log.level "format" .Values.log.format)) -}}
{{- end -}}
