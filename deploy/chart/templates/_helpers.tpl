{{/* Name of every object: the release's, with the chart's where it does not say so already. */}}
{{- define "portcullis.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains "portcullis" .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-portcullis" .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Labels that select the pods of a component. Takes (dict "root" $ "component" NAME). */}}
{{- define "portcullis.selectorLabels" -}}
app.kubernetes.io/name: portcullis
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Labels of an object. Takes the same. */}}
{{- define "portcullis.labels" -}}
{{ include "portcullis.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: portcullis
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* A digest names one image for ever; a tag is what somebody says today. */}}
{{- define "portcullis.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Name of a component's service account. Takes (dict "root" $ "component" NAME). */}}
{{- define "portcullis.serviceAccountName" -}}
{{- $account := (index .root.Values .component).serviceAccount -}}
{{- $account.name | default (printf "%s-%s" (include "portcullis.fullname" .root) .component) -}}
{{- end -}}

{{/* What the restricted Pod Security Standard asks of a container, and a root file system that nobody writes. */}}
{{- define "portcullis.containerSecurityContext" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
readOnlyRootFilesystem: true
{{- end -}}

{{/* The same of a pod. Where the platform chooses the user (OpenShift), `runAsUser` is null. */}}
{{- define "portcullis.podSecurityContext" -}}
runAsNonRoot: true
{{- if not (kindIs "invalid" .Values.runAsUser) }}
runAsUser: {{ .Values.runAsUser }}
runAsGroup: {{ .Values.runAsUser }}
fsGroup: {{ .Values.runAsUser }}
fsGroupChangePolicy: OnRootMismatch
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* `/livez` and `/readyz` of the management listener. Takes its port. */}}
{{- define "portcullis.probes" -}}
startupProbe:
  httpGet: {path: /livez, port: management}
  periodSeconds: 1
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /livez, port: management}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: management}
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 2
{{- end -}}

{{/* What each pod template says alike. Takes the values of the component. */}}
{{- define "portcullis.placement" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{/* Replicas stand on different nodes and zones where they can. Takes (dict "root" $ "component" NAME). */}}
{{- define "portcullis.spread" -}}
topologySpreadConstraints:
{{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: ScheduleAnyway
    matchLabelKeys: [pod-template-hash]
    labelSelector:
      matchLabels:
        {{- include "portcullis.selectorLabels" $ | nindent 8 }}
{{- end }}
{{- end -}}

{{/* Volume with a SPIFFE Workload API that somebody else serves. Takes `csi` or `hostPath` and the folder. */}}
{{- define "portcullis.workloadAPIVolume" -}}
- name: workload-api
{{- if eq .mount "csi" }}
  csi:
    driver: csi.spiffe.io
    readOnly: true
{{- else }}
  hostPath:
    path: {{ .hostPath }}
    type: Directory
{{- end }}
{{- end -}}

{{/* `mesh` of portcullis.yaml. */}}
{{- define "portcullis.mesh" -}}
{{- with .Values.mesh }}
mesh:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Seconds that a pod of `authz` or `admission` gets to end: what draining takes at most, and some. */}}
{{- define "portcullis.grace" -}}
{{ add .drainDelaySeconds .drainSeconds 5 }}
{{- end -}}
