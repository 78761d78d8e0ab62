{{- define "common.selector" -}}
app.kubernetes.io/name: {{ .name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- end }}

{{- define "common.labels" -}}
{{ include "common.selector" . }}
app.kubernetes.io/part-of: mvno-in-a-box
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- with .root.Values.brand }}
mvno.box/brand: {{ . }}
mvno.box/layer: brand
{{- else }}
mvno.box/layer: platform
{{- end }}
{{- end }}

{{- define "common.image" -}}
{{ .repository }}:{{ .tag }}
{{- end }}

{{/* Restricted (Pod Security Standards), for pods that need nothing. */}}
{{- define "common.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "common.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "common.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: {{ . }}}
  periodSeconds: 1
  failureThreshold: 120
livenessProbe:
  httpGet: {path: /healthz, port: {{ . }}}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
readinessProbe:
  httpGet: {path: /readyz, port: {{ . }}}
  periodSeconds: 2
  timeoutSeconds: 3
  failureThreshold: 3
{{- end }}

{{/* Names are looked up in kube-system, or at the node's own name server, which no policy concerns. */}}
{{- define "common.dnsEgress" -}}
- to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}}]
  ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
{{- end }}

{{/* To a MongoDB of the user's own: its namespaces or networks, and ports. */}}
{{- define "common.mongodbEgress" -}}
- to:
    {{- range .namespaces }}
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ . }}}}
    {{- end }}
    {{- range .networks }}
    - ipBlock: {cidr: {{ . | quote }}}
    {{- end }}
  ports:
    {{- range .ports }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
{{- end }}

{{- define "common.peer" -}}
namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ .namespace }}}}
podSelector: {matchLabels: {app.kubernetes.io/name: {{ .name }}}}
{{- end }}

{{/*
A stateless Python service: ConfigMap, Deployment, Service, PodDisruptionBudget.
Arguments: root, name, module, ports (list of name, port, protocol), health (port name), migrate (bool), files (extra),
tlsSecret (in /etc/mvno-tls), sbiTlsSecret (in /etc/mvno-sbi-tls).
*/}}
{{- define "common.service" -}}
{{- $values := .root.Values -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ .name }}-config
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "common.labels" . | nindent 4 }}
data:
  {{ .name }}.yaml: {{ $values.config | quote }}
  {{- range $file, $text := .files }}
  {{ $file }}: {{ $text | quote }}
  {{- end }}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "common.labels" . | nindent 4 }}
spec:
  replicas: {{ $values.replicas }}
  revisionHistoryLimit: 3
  strategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}
  selector:
    matchLabels: {{- include "common.selector" . | nindent 6 }}
  template:
    metadata:
      labels: {{- include "common.labels" . | nindent 8 }}
      annotations:
        checksum/config: {{ printf "%s%v" $values.config .files | sha256sum | trunc 16 }}
        checksum/secret: {{ $values.secretChecksum | quote }}
        {{- with $values.podAnnotations }}{{- toYaml . | nindent 8 }}{{- end }}
    spec:
      automountServiceAccountToken: false
      enableServiceLinks: false
      # A deleted pod serves on until its successor, on a slow node too, is there.
      terminationGracePeriodSeconds: 30
      securityContext: {{- include "common.podSecurity" . | nindent 8 }}
      {{- if .migrate }}
      initContainers:
        - name: migrate
          image: {{ include "common.image" $values.image }}
          imagePullPolicy: {{ $values.image.pullPolicy }}
          args: ["-m", {{ .module }}, migrate, --config, /etc/mvno/{{ .name }}.yaml]
          envFrom: [{secretRef: {name: {{ $values.existingSecret }}}}]
          securityContext: {{- include "common.containerSecurity" . | nindent 12 }}
          resources: {{- toYaml $values.resources | nindent 12 }}
          volumeMounts: [{name: config, mountPath: /etc/mvno, readOnly: true}, {name: tmp, mountPath: /tmp}]
      {{- end }}
      containers:
        - name: {{ .name }}
          image: {{ include "common.image" $values.image }}
          imagePullPolicy: {{ $values.image.pullPolicy }}
          args: ["-m", {{ .module }}, serve, --config, /etc/mvno/{{ .name }}.yaml]
          env: [{name: LINGER_SECONDS, value: "20"}]
          envFrom: [{secretRef: {name: {{ $values.existingSecret }}}}]
          ports:
            {{- range .ports }}
            - {name: {{ .name }}, containerPort: {{ .port }}, protocol: {{ .protocol }}}
            {{- end }}
          securityContext: {{- include "common.containerSecurity" . | nindent 12 }}
          resources: {{- toYaml $values.resources | nindent 12 }}
          {{- include "common.probes" .health | nindent 10 }}
          volumeMounts: [{name: config, mountPath: /etc/mvno, readOnly: true}, {name: tmp, mountPath: /tmp}{{ if .tlsSecret }}, {name: tls, mountPath: /etc/mvno-tls, readOnly: true}{{ end }}{{ if .sbiTlsSecret }}, {name: sbi-tls, mountPath: /etc/mvno-sbi-tls, readOnly: true}{{ end }}{{ if .mongodbTls }}, {name: mongodb-tls, mountPath: /etc/mvno-mongodb, readOnly: true}{{ end }}]
      volumes:
        - name: config
          configMap: {name: {{ .name }}-config}
        - name: tmp
          emptyDir: {sizeLimit: 64Mi}
        {{- with .tlsSecret }}
        - name: tls
          secret: {secretName: {{ . }}, defaultMode: 0440}
        {{- end }}
        {{- with .sbiTlsSecret }}
        - name: sbi-tls
          secret: {secretName: {{ . }}, defaultMode: 0440}
        {{- end }}
        {{- with .mongodbTls }}
        - name: mongodb-tls
          secret: {secretName: {{ . }}, defaultMode: 0440}
        {{- end }}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "common.labels" . | nindent 4 }}
spec:
  selector: {{- include "common.selector" . | nindent 4 }}
  ports:
    {{- range .ports }}
    - {name: {{ .name }}, port: {{ .port }}, targetPort: {{ .name }}, protocol: {{ .protocol }}}
    {{- end }}
{{- if gt (int $values.replicas) 1 }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "common.labels" . | nindent 4 }}
spec:
  maxUnavailable: 1
  selector:
    matchLabels: {{- include "common.selector" . | nindent 6 }}
{{- end }}
{{- end }}
