{{- define "strata.labels" -}}
app.kubernetes.io/name: strata
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "strata.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag }}
{{- end }}

{{- define "strata.security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
runAsUser: 10001
capabilities: {drop: [ALL]}
{{- end }}

{{- define "strata.environment" -}}
- {name: STRATA_STATE_DIR, value: /state}
- {name: STRATA_HOME, value: /app}
- {name: STRATA_BIND_HOST, value: 0.0.0.0}
- {name: STRATA_PEER_HOST, value: "{{ .Release.Name }}-{service}"}
- {name: OMP_NUM_THREADS, value: "1"}
{{- if .Values.opensearch.enabled }}
{{- range list "INGESTOR" "RETRIEVER" }}
- {name: STRATA_{{ . }}_KNOWLEDGE__BACKEND, value: opensearch}
- {name: STRATA_{{ . }}_KNOWLEDGE__URL, value: "https://{{ $.Release.Name }}-opensearch:9200"}
{{- end }}
{{- end }}
{{- range $name, $value := .Values.env }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}

{{- define "strata.mounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: scratch, mountPath: /state}
- {name: state, mountPath: /state/credentials, subPath: public, readOnly: true}
- {name: state, mountPath: /state/credentials/{{ .module }}, subPath: credentials/{{ .module }}, readOnly: {{ not .keepsKeys }}}
{{- range .keeps }}
- {name: state, mountPath: /state/{{ . }}, subPath: {{ . }}}
{{- end }}
{{- range .reads }}
- {name: state, mountPath: /state/{{ . }}, subPath: {{ . }}, readOnly: true}
{{- end }}
{{- end }}
