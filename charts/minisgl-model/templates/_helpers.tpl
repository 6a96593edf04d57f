{{/* The name of the MiniSGLModel, and so of its Service. */}}
{{- define "minisgl-model.name" -}}
{{- default .Release.Name .Values.name -}}
{{- end }}

{{- define "minisgl-model.labels" -}}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
app.kubernetes.io/name: minisgl-model
app.kubernetes.io/instance: {{ include "minisgl-model.name" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* What the chart passes on by name; objects such as `runtime` and `podTemplate` go on whole. Empty means unset. */}}
{{- define "minisgl-model.spec" -}}
model:
  source: {{ .Values.model.source | quote }}
  {{- with .Values.model.servedName }}
  servedName: {{ . | quote }}
  {{- end }}
  {{- with .Values.model.tokenSecret }}
  tokenSecret:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.model.s3 }}
  s3:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- with .Values.device }}
device:
  {{- with .type }}
  type: {{ . }}
  {{- end }}
  {{- with .resourceName }}
  resourceName: {{ . | quote }}
  {{- end }}
  {{- with .gpu }}
  gpu: {{ . | quote }}
  {{- end }}
  {{- with .memory }}
  memory: {{ . | quote }}
  {{- end }}
{{- end }}
{{- with .Values.runtime }}
runtime:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if not (kindIs "invalid" .Values.replicas) }}
replicas: {{ int .Values.replicas }}
{{- end }}
{{- with .Values.image }}
image: {{ . | quote }}
{{- end }}
{{- with .Values.imagePullPolicy }}
imagePullPolicy: {{ . }}
{{- end }}
{{- with .Values.cache }}
cache:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.extraArgs }}
extraArgs:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.rollout }}
rollout:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.podTemplate }}
podTemplate:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.networkPolicy }}
networkPolicy:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.monitoring }}
monitoring:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.pause }}
pause: {{ . }}
{{- end }}
{{- end }}
