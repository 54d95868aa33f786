{{- define "tailrace.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "tailrace.fullname" -}}
{{- $name := include "tailrace.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "tailrace.selector" -}}
app.kubernetes.io/name: {{ include "tailrace.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "tailrace.labels" -}}
{{ include "tailrace.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* The Secret of a thing: the one that is named, the one that the chart makes, or nothing.
     (list $ "tls" .Values.tls (or a text that is there)) */}}
{{- define "tailrace.secret" -}}
{{- $root := index . 0 -}}{{- $suffix := index . 1 -}}{{- $v := index . 2 -}}{{- $text := index . 3 -}}
{{- if $v.secretName -}}
{{- $v.secretName -}}
{{- else if $text -}}
{{- printf "%s-%s" (include "tailrace.fullname" $root) $suffix -}}
{{- end -}}
{{- end -}}

{{- define "tailrace.tlsSecret" -}}
{{- include "tailrace.secret" (list . "tls" .Values.tls .Values.tls.key) -}}
{{- end -}}
{{- define "tailrace.clientSecret" -}}
{{- include "tailrace.secret" (list . "client" .Values.clientCertificate .Values.clientCertificate.key) -}}
{{- end -}}
{{- define "tailrace.spoolSecret" -}}
{{- include "tailrace.secret" (list . "spool-key" .Values.spoolKey .Values.spoolKey.key) -}}
{{- end -}}
{{- define "tailrace.ticketSecret" -}}
{{- include "tailrace.secret" (list . "ticket-key" .Values.ticket .Values.ticket.key) -}}
{{- end -}}
{{- define "tailrace.parentSecret" -}}
{{- include "tailrace.secret" (list . "parent" .Values.parent.credentials .Values.parent.credentials.credentials) -}}
{{- end -}}
{{- define "tailrace.caConfigMap" -}}
{{- if .Values.upstreamCa.configMapName -}}
{{- .Values.upstreamCa.configMapName -}}
{{- else if .Values.upstreamCa.pem -}}
{{- include "tailrace.fullname" . }}-ca
{{- end -}}
{{- end -}}

{{/* tailrace.yaml */}}
{{- define "tailrace.config" -}}
{{- $upstreamListener := dict "address" (printf "0.0.0.0:%d" (int .Values.listeners.upstream.port)) -}}
{{- if include "tailrace.tlsSecret" . -}}
{{- $_ := set $upstreamListener "certificate" "/run/secrets/tailrace/tls/tls.crt" -}}
{{- $_ := set $upstreamListener "key" "/run/secrets/tailrace/tls/tls.key" -}}
{{- end -}}
{{- $listen := dict "upstream" $upstreamListener "admin" (dict "address" (printf "0.0.0.0:%d" (int .Values.listeners.admin.port))) -}}
{{- if .Values.listeners.proxy.enabled -}}
{{- $_ := set $listen "proxy" (dict "address" (printf "0.0.0.0:%d" (int .Values.listeners.proxy.port))) -}}
{{- end -}}
{{- $spool := dict "directory" "/var/lib/tailrace/spool" "limit" .Values.spool.limit -}}
{{- if include "tailrace.spoolSecret" . -}}
{{- $_ := set $spool "key" "/run/secrets/tailrace/spool/spool.key" -}}
{{- end -}}
{{- $upstream := dict -}}
{{- if include "tailrace.clientSecret" . -}}
{{- $_ := set $upstream "certificate" "/run/secrets/tailrace/client/tls.crt" -}}
{{- $_ := set $upstream "key" "/run/secrets/tailrace/client/tls.key" -}}
{{- end -}}
{{- if include "tailrace.caConfigMap" . -}}
{{- $_ := set $upstream "ca" "/etc/tailrace-ca/ca.pem" -}}
{{- end -}}
{{- if .Values.parent.url -}}
{{- $_ := set $upstream "parent" .Values.parent.url -}}
{{- with .Values.parent.bypass }}{{ $_ := set $upstream "parent-bypass" . }}{{ end -}}
{{- if include "tailrace.parentSecret" . -}}
{{- $_ := set $upstream "parent-credentials" "/run/secrets/tailrace/parent/credentials" -}}
{{- end -}}
{{- end -}}
{{- $c := dict "harness" (dict "url" .Values.harness.url "upload-logs" .Values.harness.uploadLogs) "listen" $listen "spool" $spool -}}
{{- if $upstream }}{{ $_ := set $c "upstream" $upstream }}{{ end -}}
{{- if include "tailrace.ticketSecret" . -}}
{{- $_ := set $c "ticket" (dict "key" "/run/secrets/tailrace/ticket/ticket.key") -}}
{{- end -}}
{{- toYaml (mustMergeOverwrite $c (deepCopy .Values.config)) -}}
{{- end -}}
