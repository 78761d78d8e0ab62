{{/* One part: ConfigMap and Deployment. Arguments: root, name, args, ports, health, plane (user plane or not). */}}
{{- define "coresim.part" -}}
{{- $part := index .root.Values .name -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ .name }}-config
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "common.labels" . | nindent 4 }}
data:
  {{ .name }}.yaml: {{ $part.config | quote }}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "common.labels" . | nindent 4 }}
  annotations: {mvno.box/simulation: "true"}
spec:
  replicas: 1
  revisionHistoryLimit: 3
  # Its state is its own: never two at a time.
  strategy: {type: Recreate}
  selector:
    matchLabels: {{- include "common.selector" . | nindent 6 }}
  template:
    metadata:
      labels: {{- include "common.labels" . | nindent 8 }}
      annotations:
        checksum/config: {{ $part.config | sha256sum | trunc 16 }}
        {{- if $part.existingSecret }}
        checksum/secret: {{ .root.Values.secretChecksum | quote }}
        {{- end }}
        mvno.box/simulation: "true"
    spec:
      automountServiceAccountToken: false
      enableServiceLinks: false
      terminationGracePeriodSeconds: 5
      securityContext:
        {{- if .plane }}
        seccompProfile: {type: RuntimeDefault}
        {{- if and (eq .name "upf") (eq .root.Values.forwarding "sysctl") }}
        sysctls:
          - {name: net.ipv4.ip_forward, value: "1"}
          {{- if $part.ipv6 }}
          - {name: net.ipv6.conf.all.forwarding, value: "1"}
          {{- end }}
        {{- end }}
        {{- else }}
        {{- include "common.podSecurity" . | nindent 8 }}
        {{- end }}
      containers:
        - name: {{ .name }}
          image: {{ include "common.image" .root.Values.image }}
          imagePullPolicy: {{ .root.Values.image.pullPolicy }}
          args: {{ .args | toJson }}
          {{- with $part.existingSecret }}
          envFrom: [{secretRef: {name: {{ . }}}}]
          {{- end }}
          terminationMessagePolicy: FallbackToLogsOnError
          ports:
            {{- range .ports }}
            - {name: {{ .name }}, containerPort: {{ .port }}, protocol: {{ .protocol }}}
            {{- end }}
          securityContext:
            {{- if .plane }}
            # Addresses, routes and rules of its own network namespace, and nothing else; never privileged.
            runAsUser: 0
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {drop: [ALL], add: {{ .capabilities | toJson }}}
            {{- else }}
            {{- include "common.containerSecurity" . | nindent 12 }}
            {{- end }}
          resources: {{- toYaml .root.Values.resources | nindent 12 }}
          {{- include "common.probes" .health | nindent 10 }}
          volumeMounts:
            - {name: config, mountPath: /etc/mvno, readOnly: true}
            - {name: tmp, mountPath: /tmp}
            {{- if .plane }}
            - {name: run, mountPath: /run/mvno}
            - {name: tun, mountPath: /dev/net/tun}
            {{- end }}
      volumes:
        - name: config
          configMap: {name: {{ .name }}-config}
        - name: tmp
          emptyDir: {sizeLimit: 64Mi}
        {{- if .plane }}
        - name: run
          emptyDir: {sizeLimit: 16Mi}
        - name: tun
          hostPath: {path: /dev/net/tun, type: CharDevice}
        {{- end }}
{{- end }}

{{- define "coresim.service" -}}
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
{{- end }}
