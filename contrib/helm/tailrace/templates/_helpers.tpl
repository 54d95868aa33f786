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

{{/* The directories below /run/secrets/tailrace that are mounted, and the Secret of each. */}}
{{- define "tailrace.secrets" -}}
{{- $all := dict
      "tls" (include "tailrace.secret" (list . "tls" .Values.tls .Values.tls.key))
      "client" (include "tailrace.secret" (list . "client" .Values.clientCertificate .Values.clientCertificate.key))
      "intercept" (include "tailrace.secret" (list . "intercept" .Values.interceptCa .Values.interceptCa.key))
      "spool" (include "tailrace.secret" (list . "spool-key" .Values.spoolKey .Values.spoolKey.key))
      "ticket" (include "tailrace.secret" (list . "ticket-key" .Values.ticket .Values.ticket.key))
      "users-admin" (include "tailrace.secret" (list . "users-admin" .Values.users.admin .Values.users.admin.users)) -}}
{{- if .Values.listeners.proxy.enabled -}}
{{- $_ := set $all "users-proxy" (include "tailrace.secret" (list . "users-proxy" .Values.users.proxy .Values.users.proxy.users)) -}}
{{- end -}}
{{- if .Values.parent.url -}}
{{- $_ := set $all "parent" (include "tailrace.secret" (list . "parent" .Values.parent.credentials .Values.parent.credentials.credentials)) -}}
{{- end -}}
{{- range $directory, $secret := $all }}{{ if $secret }}
{{ $directory }}: {{ $secret }}
{{- end }}{{ end -}}
{{- end -}}

{{/* The same of certificates of authorities, below /etc/tailrace-ca, and their ConfigMaps. */}}
{{- define "tailrace.authorities" -}}
{{- $root := . -}}
{{- range $directory, $v := dict "upstream" .Values.upstreamCa "clients" .Values.clientCa -}}
{{- if or $v.configMapName $v.pem }}
{{ $directory }}: {{ $v.configMapName | default (printf "%s-ca-%s" (include "tailrace.fullname" $root) $directory) }}
{{- end }}{{ end -}}
{{- end -}}

{{/* Its options certificate and key are the files of a Secret for TLS. (list OPTIONS SECRETS "tls") */}}
{{- define "tailrace.pair" -}}
{{- $options := index . 0 -}}{{- $directory := index . 2 -}}
{{- if hasKey (index . 1) $directory -}}
{{- $_ := set $options "certificate" (printf "/run/secrets/tailrace/%s/tls.crt" $directory) -}}
{{- $_ := set $options "key" (printf "/run/secrets/tailrace/%s/tls.key" $directory) -}}
{{- end -}}
{{- end -}}

{{/* tailrace.yaml */}}
{{- define "tailrace.config" -}}
{{- $secrets := fromYaml (include "tailrace.secrets" .) -}}
{{- $authorities := fromYaml (include "tailrace.authorities" .) -}}
{{- $listen := dict -}}
{{- $upstreamListener := dict "address" (printf "0.0.0.0:%d" (int .Values.listeners.upstream.port)) -}}
{{- include "tailrace.pair" (list $upstreamListener $secrets "tls") -}}
{{- if $authorities.clients }}{{ $_ := set $upstreamListener "client-ca" "/etc/tailrace-ca/clients/ca.pem" }}{{ end -}}
{{- $_ := set $listen "upstream" $upstreamListener -}}
{{- $admin := dict "address" (printf "0.0.0.0:%d" (int .Values.listeners.admin.port)) -}}
{{- if hasKey $secrets "users-admin" }}{{ $_ := set $admin "users" "/run/secrets/tailrace/users-admin/users" }}{{ end -}}
{{- $_ := set $listen "admin" $admin -}}
{{- if .Values.listeners.proxy.enabled -}}
{{- $proxy := dict "address" (printf "0.0.0.0:%d" (int .Values.listeners.proxy.port)) -}}
{{- if hasKey $secrets "users-proxy" }}{{ $_ := set $proxy "users" "/run/secrets/tailrace/users-proxy/users" }}{{ end -}}
{{- $_ := set $listen "proxy" $proxy -}}
{{- end -}}
{{- range $name, $v := .Values.moreListeners -}}
{{- $_ := set $listen $name (merge (dict "address" (printf "0.0.0.0:%d" (int $v.port))) (deepCopy ($v.options | default dict))) -}}
{{- end -}}
{{- $spool := dict "directory" "/var/lib/tailrace/spool" "limit" .Values.spool.limit -}}
{{- if $secrets.spool }}{{ $_ := set $spool "key" "/run/secrets/tailrace/spool/spool.key" }}{{ end -}}
{{- $upstream := dict -}}
{{- include "tailrace.pair" (list $upstream $secrets "client") -}}
{{- if $authorities.upstream }}{{ $_ := set $upstream "ca" "/etc/tailrace-ca/upstream/ca.pem" }}{{ end -}}
{{- if .Values.parent.url -}}
{{- $_ := set $upstream "parent" .Values.parent.url -}}
{{- with .Values.parent.bypass }}{{ $_ := set $upstream "parent-bypass" . }}{{ end -}}
{{- if $secrets.parent }}{{ $_ := set $upstream "parent-credentials" "/run/secrets/tailrace/parent/credentials" }}{{ end -}}
{{- end -}}
{{- $c := dict "harness" (dict "url" .Values.harness.url "upload-logs" .Values.harness.uploadLogs) "listen" $listen "spool" $spool -}}
{{- if $upstream }}{{ $_ := set $c "upstream" $upstream }}{{ end -}}
{{- if $secrets.ticket }}{{ $_ := set $c "ticket" (dict "key" "/run/secrets/tailrace/ticket/ticket.key") }}{{ end -}}
{{- if $secrets.intercept -}}
{{- $_ := set $c "intercept" (dict "ca" "/run/secrets/tailrace/intercept/tls.crt" "key" "/run/secrets/tailrace/intercept/tls.key") -}}
{{- end -}}
{{- toYaml (mustMergeOverwrite $c (deepCopy .Values.config)) -}}
{{- end -}}
