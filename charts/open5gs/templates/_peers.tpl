{{/* A rule for the host network's addresses, or nothing. Arguments: root, way (from, to), port, protocol. */}}
{{- define "open5gs.hostNetworks" -}}
{{- with .root.Values.epc.hostNetworks -}}
- {{ $.way }}:
    {{- range . }}
    - ipBlock: {cidr: {{ . }}}
    {{- end }}
  ports: [{port: {{ $.port }}, protocol: {{ $.protocol }}}]
{{- end }}
{{- end }}

{{/* A function of every brand. */}}
{{- define "open5gs.everyBrands" -}}
namespaceSelector: {matchLabels: {mvno.box/layer: brand}}
podSelector: {matchLabels: {app.kubernetes.io/name: {{ . }}}}
{{- end }}

{{/* To where subscribers are read: the directory, or a MongoDB of the user's own. */}}
{{- define "open5gs.databaseEgress" -}}
{{- if .Values.subscribers.secretName -}}
{{ include "common.mongodbEgress" .Values.subscribers }}
{{- else -}}
- to:
    - {{- include "common.peer" (dict "namespace" .Values.peers.platformNamespace "name" "directory") | nindent 6 }}
  ports: [{port: 27017}]
{{- end }}
{{- end }}
