{{/* A rule for the host network's addresses, or nothing. Arguments: root, way (from, to), ports, protocol. */}}
{{- define "open5gs.hostNetworks" -}}
{{- include "open5gs.networks" (set . "networks" .root.Values.epc.hostNetworks) }}
{{- end }}

{{/* The same for addresses of any list. Arguments: networks, way (from, to), ports, protocol. */}}
{{- define "open5gs.networks" -}}
{{- with .networks -}}
- {{ $.way }}:
    {{- range . }}
    - ipBlock: {cidr: {{ . }}}
    {{- end }}
  ports:
    {{- range $.ports }}
    - {port: {{ . }}, protocol: {{ $.protocol }}}
    {{- end }}
{{- end }}
{{- end }}

{{/* A function of every brand. */}}
{{- define "open5gs.everyBrands" -}}
namespaceSelector: {matchLabels: {mvno.box/layer: brand}}
podSelector: {matchLabels: {app.kubernetes.io/name: {{ . }}}}
{{- end }}

{{/* Where a brand's packet gateway is. */}}
{{- define "open5gs.packetGateway" -}}
{{- $peers := .Values.peers -}}
{{- include "common.peer" (dict "namespace" ($peers.packetGatewayNamespace | default $peers.brandNamespace) "name" "pgwc") }}
{{- end }}

{{/* To where subscribers are read: the directory, or a MongoDB of the user's own. */}}
{{- define "open5gs.databaseEgress" -}}
{{- if .Values.subscribers.ports -}}
{{ include "common.mongodbEgress" .Values.subscribers }}
{{- else -}}
- to:
    - {{- include "common.peer" (dict "namespace" .Values.peers.platformNamespace "name" "directory") | nindent 6 }}
  ports: [{port: 27017}]
{{- end }}
{{- end }}
