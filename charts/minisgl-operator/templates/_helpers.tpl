{{/* All objects carry the release's name: `helm install minisgl-operator` gives minisgl-operator, another name its own. */}}
{{- define "minisgl-operator.name" -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- end }}

{{/* What selects the operator's pod; never changes between versions. */}}
{{- define "minisgl-operator.selector" -}}
app.kubernetes.io/name: minisgl-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "minisgl-operator.labels" -}}
{{ include "minisgl-operator.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: minisgl
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "minisgl-operator.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end }}

{{/* What both of its containers, the operator and `helm test`, may do: nothing. PSS restricted. */}}
{{- define "minisgl-operator.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "minisgl-operator.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* The operator's settings; `python -m minisgl_operator --help` explains them. Unset ones keep its own defaults. */}}
{{- define "minisgl-operator.args" -}}
{{- with .Values.watchNamespaces }}
- --watch-namespaces={{ join "," . }}
{{- end }}
{{- with .Values.runtime.image }}
- --runtime-image={{ . }}
{{- end }}
- --runtime-image-pull-policy={{ .Values.runtime.imagePullPolicy }}
{{- with .Values.runtime.runtimeClassName }}
- --runtime-class-name={{ . }}
{{- end }}
- --lease-namespace={{ .Release.Namespace }}
- --lease-name={{ include "minisgl-operator.name" . }}
- --metrics-port={{ int .Values.metrics.port }}
- --resync-seconds={{ int .Values.resyncSeconds }}
- --workers={{ int .Values.workers }}
- --log-format={{ .Values.logFormat }}
{{- end }}
