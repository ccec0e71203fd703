{{/* portcullis.yaml of the authorization service. Takes (dict "root" $ "bind" ADDRESS "sidecar" BOOL). */}}
{{- define "portcullis.authz.config" -}}
{{- $values := .root.Values.authz -}}
{{- $bind := .bind -}}
{{- $config := deepCopy $values.config -}}
{{- $kubernetes := deepCopy .root.Values.kubernetes -}}
{{- if .sidecar -}}
{{- /* Many instances, none of which has the right. */ -}}
{{- $_ := set $kubernetes "status" "none" -}}
{{- else -}}
{{- $_ := set $kubernetes "lease_namespace" .root.Release.Namespace -}}
{{- end -}}
{{- $_ := set $config "kubernetes" $kubernetes -}}
{{- if $values.policies -}}
{{- $_ := set $config "policies" (list "/etc/portcullis-policies") -}}
{{- end -}}
{{- with .root.Values.mesh -}}
{{- $_ := set $config "mesh" . -}}
{{- end -}}
{{- $listeners := list -}}
{{- range $values.listeners -}}
{{- $listeners = append $listeners (merge (dict "address" (printf "%s:%d" $bind (int .port))) (.settings | default dict)) -}}
{{- end -}}
{{- $_ := set $config "listeners" $listeners -}}
{{- $_ := set $config "management" (dict "address" (printf "%s:%d" .root.Values.bindAddress (int $values.managementPort))) -}}
{{- $limits := dict "drain" (printf "%ds" (int $values.drainSeconds)) -}}
{{- if $values.drainDelaySeconds -}}
{{- $_ := set $limits "drain_delay" (printf "%ds" (int $values.drainDelaySeconds)) -}}
{{- end -}}
{{- $_ := set $config "limits" (merge $limits ($config.limits | default dict)) -}}
{{- $_ := set $config "log" (dict "level" .root.Values.log.level "format" .root.Values.log.format) -}}
{{- toYaml $config -}}
{{- end -}}

{{/* The container, in a pod of its own or beside a workload. Takes (dict "root" $ "sidecar" BOOL). */}}
{{- define "portcullis.authz.container" -}}
{{- $values := .root.Values.authz -}}
name: portcullis
image: {{ include "portcullis.image" .root }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
args: [authz, serve, --config, /etc/portcullis/portcullis.yaml]
env:
  - name: POD_NAMESPACE
    valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
  - name: POD_NAME
    valueFrom: {fieldRef: {fieldPath: metadata.name}}
  {{- with $values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
ports:
  {{- range $values.listeners }}
  - {name: {{ .name }}, containerPort: {{ .port }}, protocol: TCP}
  {{- end }}
  - {name: {{ .sidecar | ternary "authz-mgmt" "management" }}, containerPort: {{ $values.managementPort }}, protocol: TCP}
{{ include "portcullis.probes" .root | replace "port: management" (printf "port: %s" (.sidecar | ternary "authz-mgmt" "management")) }}
resources:
  {{- toYaml $values.resources | nindent 2 }}
securityContext:
  {{- include "portcullis.containerSecurityContext" .root | nindent 2 }}
  {{- if .sidecar }}
  # The workload's pod may say otherwise of itself.
  runAsNonRoot: true
  {{- if not (kindIs "invalid" .root.Values.runAsUser) }}
  runAsUser: {{ .root.Values.runAsUser }}
  runAsGroup: {{ .root.Values.runAsUser }}
  {{- end }}
  seccompProfile: {type: RuntimeDefault}
  {{- end }}
volumeMounts:
  - {name: portcullis-config, mountPath: /etc/portcullis, readOnly: true}
  {{- if $values.policies }}
  - {name: portcullis-policies, mountPath: /etc/portcullis-policies, readOnly: true}
  {{- end }}
  {{- if $values.workloadAPI.mount }}
  - {name: workload-api, mountPath: {{ $values.workloadAPI.path }}, readOnly: true}
  {{- end }}
  {{- with $values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* Its volumes. Takes (dict "root" $ "config" NAME). */}}
{{- define "portcullis.authz.volumes" -}}
{{- $values := .root.Values.authz -}}
- name: portcullis-config
  configMap: {name: {{ .config }}, items: [{key: portcullis.yaml, path: portcullis.yaml}]}
{{- if $values.policies }}
- name: portcullis-policies
  configMap: {name: {{ .config }}-policies}
{{- end }}
{{- if $values.workloadAPI.mount }}
{{ include "portcullis.workloadAPIVolume" $values.workloadAPI }}
{{- end }}
{{- with $values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Pod template of Deployment and DaemonSet. */}}
{{- define "portcullis.authz.pod" -}}
{{- $values := .Values.authz -}}
{{- $component := dict "root" . "component" "authz" -}}
metadata:
  labels:
    {{- include "portcullis.labels" $component | nindent 4 }}
    {{- with $values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    # portcullis.yaml is read once: a change of it starts new pods.
    checksum/config: {{ include "portcullis.authz.config" (dict "root" . "bind" .Values.bindAddress) | sha256sum }}
    {{- with $values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "portcullis.serviceAccountName" $component }}
  automountServiceAccountToken: true
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ include "portcullis.grace" $values }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    {{- include "portcullis.podSecurityContext" . | nindent 4 }}
  containers:
    - {{- include "portcullis.authz.container" (dict "root" . "sidecar" false) | nindent 6 }}
  volumes:
    {{- include "portcullis.authz.volumes" (dict "root" . "config" (printf "%s-authz" (include "portcullis.fullname" .))) | nindent 4 }}
  {{- if eq $values.mode "deployment" }}
  {{- include "portcullis.spread" $component | nindent 2 }}
  {{- end }}
  {{- with include "portcullis.placement" $values }}
  {{- . | nindent 2 }}
  {{- end }}
{{- end -}}
