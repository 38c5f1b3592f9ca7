{{- define "flowhooks.fullname" -}}
{{- $name := ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) (contains .Chart.Name .Release.Name) -}}
{{- trunc 50 $name | trimSuffix "-" -}}
{{- end }}

{{- define "flowhooks.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "flowhooks.labels" -}}
{{ include "flowhooks.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{- define "flowhooks.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{/* Refuse values that contradict each other, before Kubernetes runs anything. */}}
{{- define "flowhooks.validate" -}}
{{- with .Values }}
{{- $_ := required "image.repository: name your image of flowhooks and its plugins" .image.repository }}
{{- $_ = required "database.host: name the host of PostgreSQL" .database.host }}
{{- $_ = required "database.existingSecret: name the Secret that has the password of PostgreSQL" .database.existingSecret }}
{{- if eq (empty .settings.text) (empty .settings.existingSecret) }}
{{- fail "settings: set either text or existingSecret; the listeners need a source and an operator" }}
{{- end }}
{{- if not (or .server.runHandlers .worker.enabled) }}
{{- fail "server.runHandlers is false and worker.enabled is false: no process would run handlers" }}
{{- end }}
{{- if and .networkPolicy.enabled (not .networkPolicy.database.namespaces) (not .networkPolicy.database.cidrs) }}
{{- fail "networkPolicy.database: list the namespaces or cidrs of PostgreSQL, otherwise no process reaches it" }}
{{- end }}
{{- if .serviceMonitor.enabled }}
{{- $_ = required "serviceMonitor.tokenSecret.name: /metrics needs the token of an operator" .serviceMonitor.tokenSecret.name }}
{{- end }}
{{- end }}
{{- end }}

{{- define "flowhooks.podSecurity" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001  # the user of the image
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "flowhooks.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  privileged: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{- define "flowhooks.databaseEnv" -}}
{{- with .Values.database -}}
- name: FLOWHOOKS_DATABASE
  value: {{ printf "postgresql://%s@%s:%d/%s" .user .host (int .port) .name | quote }}
- name: FLOWHOOKS_RUNNER_KIND
  value: {{ $.Values.runnerKind }}
- name: PGPASSWORD
  valueFrom: {secretKeyRef: {name: {{ .existingSecret | quote }}, key: {{ .passwordKey | quote }}}}
- name: PGSSLMODE
  value: {{ .sslMode }}
{{- if .caSecret }}
- name: PGSSLROOTCERT
  value: /etc/postgresql-ca/{{ .caKey }}
{{- end }}
{{- end }}
{{- end }}

{{/* The variables of a server or worker. They override the settings file. */}}
{{- define "flowhooks.env" -}}
{{ include "flowhooks.databaseEnv" .root }}
- name: FLOWHOOKS_CONFIG
  value: /etc/flowhooks/flowhooks.toml
- name: FLOWHOOKS_PROCESSES
  value: {{ .processes | quote }}
- name: FLOWHOOKS_SHUTDOWN_TIMEOUT
  value: {{ .root.Values.shutdownTimeout | quote }}
# Pods of one node would choose the same core.
- name: FLOWHOOKS_CPU_AFFINITY
  value: "false"
{{- with .root.Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "flowhooks.probes" -}}
# Until the start has ended, only the startup probe runs.
startupProbe:
  httpGet: {path: /healthz, port: admin}
  periodSeconds: 2
  failureThreshold: {{ div .Values.startTimeoutSeconds 2 }}
  timeoutSeconds: 5
# The process answers. A database that is down does not restart it.
livenessProbe:
  httpGet: {path: /healthz, port: admin}
  periodSeconds: 10
  failureThreshold: 6
  timeoutSeconds: 5
# The process can store callbacks and run its handlers.
readinessProbe:
  httpGet: {path: /readyz, port: admin}
  periodSeconds: 5
  failureThreshold: 2
  timeoutSeconds: 5
{{- end }}

{{- define "flowhooks.volumeMounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: settings, mountPath: /etc/flowhooks, readOnly: true}
{{- if .Values.secretFiles.existingSecret }}
- {name: secret-files, mountPath: /etc/flowhooks-secrets, readOnly: true}
{{- end }}
{{- if .Values.database.caSecret }}
- {name: database-ca, mountPath: /etc/postgresql-ca, readOnly: true}
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "flowhooks.volumes" -}}
- name: tmp
  emptyDir: {}
- name: settings
  {{- if .Values.settings.existingSecret }}
  secret:
    secretName: {{ .Values.settings.existingSecret | quote }}
    defaultMode: 0440
    items: [{key: {{ .Values.settings.key | quote }}, path: flowhooks.toml}]
  {{- else }}
  configMap: {name: {{ include "flowhooks.fullname" . }}}
  {{- end }}
{{- with .Values.secretFiles.existingSecret }}
- name: secret-files
  secret: {secretName: {{ . | quote }}, defaultMode: 0440}  # flowhooks refuses secrets that every user can read
{{- end }}
{{- with .Values.database.caSecret }}
- name: database-ca
  secret: {secretName: {{ . | quote }}, defaultMode: 0440}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The Deployment of a server or worker: root, component, values, args, ports. */}}
{{- define "flowhooks.deployment" -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "flowhooks.fullname" .root }}-{{ .component }}
  labels: {{- include "flowhooks.labels" . | nindent 4 }}
spec:
  replicas: {{ .values.replicas }}
  minReadySeconds: 5
  # A pod is stopped only after another one is ready.
  strategy:
    type: RollingUpdate
    rollingUpdate: {maxUnavailable: 0, maxSurge: 1}
  selector:
    matchLabels: {{- include "flowhooks.selector" . | nindent 6 }}
  template:
    metadata:
      labels: {{- include "flowhooks.labels" . | nindent 8 }}
      annotations:
        checksum/settings: {{ sha256sum .root.Values.settings.text }}
        {{- with .root.Values.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      {{- include "flowhooks.podSecurity" .root | nindent 6 }}
      shareProcessNamespace: true  # the pause process reaps the processes that handlers leave behind
      # preStop, shutdown.timeout, and 30 s for answers before it and outcomes after it.
      terminationGracePeriodSeconds: {{ add .preStopSeconds .root.Values.shutdownTimeout 30 }}
      topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: kubernetes.io/hostname
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels: {{- include "flowhooks.selector" . | nindent 14 }}
      containers:
        - name: flowhooks
          image: {{ include "flowhooks.image" .root | quote }}
          imagePullPolicy: {{ .root.Values.image.pullPolicy }}
          args: {{- toYaml .args | nindent 12 }}
          {{- include "flowhooks.containerSecurity" .root | nindent 10 }}
          env:
            {{- include "flowhooks.env" (dict "root" .root "processes" .values.processes) | nindent 12 }}
          ports: {{- toYaml .ports | nindent 12 }}
          {{- include "flowhooks.probes" .root | nindent 10 }}
          {{- if .preStopSeconds }}
          # New connections arrive until every node knows that the pod is leaving.
          lifecycle:
            preStop:
              exec: {command: [sleep, {{ .preStopSeconds | quote }}]}
          {{- end }}
          resources: {{- toYaml .values.resources | nindent 12 }}
          volumeMounts:
            {{- include "flowhooks.volumeMounts" .root | nindent 12 }}
      volumes:
        {{- include "flowhooks.volumes" .root | nindent 8 }}
{{- end }}

{{/* Namespaces and networks as peers of a network policy. */}}
{{- define "flowhooks.peers" -}}
{{- range .namespaces }}
- namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ . | quote }}}}
{{- end }}
{{- range .cidrs }}
- ipBlock: {cidr: {{ . | quote }}}
{{- end }}
{{- end }}
