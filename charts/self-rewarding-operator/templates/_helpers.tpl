{{- define "sro.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* 54 characters leave room for the suffixes of other objects. */}}
{{- define "sro.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 54 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "sro.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 54 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 54 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Names of cluster-wide objects carry the namespace, so that two releases do not meet. */}}
{{- define "sro.clusterName" -}}
{{- printf "%s:%s" .Release.Namespace (include "sro.fullname" .) -}}
{{- end -}}

{{- define "sro.selector" -}}
app.kubernetes.io/name: {{ include "sro.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "sro.labels" -}}
{{ include "sro.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "sro.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "sro.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name is needed when serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "sro.metricsService" -}}
{{- printf "%s-metrics" (include "sro.fullname" .) -}}
{{- end -}}

{{/* A list of an image and the root context to a reference by digest or by tag. */}}
{{- define "sro.image" -}}
{{- $image := index . 0 -}}
{{- $root := index . 1 -}}
{{- $name := $image.repository -}}
{{- if $root.Values.registry -}}
{{- $name = printf "%s/%s" (trimSuffix "/" $root.Values.registry) $name -}}
{{- end -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $name $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (default $root.Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{/*
Not empty when somebody else has installed the definition of runs: Helm would refuse to touch it. One that names no release
is somebody else's on installation, and as long as this release has left it out, which the Deployment remembers. Otherwise it is
ours and lost its annotations, to `kubectl replace` say: left out of the manifest, Helm would delete it, and all runs with it.
*/}}
{{- define "sro.foreignDefinition" -}}
{{- with lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" "selfrewardingruns.selfrewarding.dev" -}}
{{- $by := .metadata.annotations | default dict -}}
{{- if get $by "meta.helm.sh/release-name" -}}
{{- $release := list (get $by "meta.helm.sh/release-name") (get $by "meta.helm.sh/release-namespace") -}}
{{- if ne (join "/" $release) (printf "%s/%s" $.Release.Name $.Release.Namespace) }}true{{ end -}}
{{- else if $.Release.IsInstall -}}
true
{{- else -}}
{{- range (lookup "apps/v1" "Deployment" $.Release.Namespace "").items -}}
{{- $labels := .metadata.labels | default dict -}}
{{- $notes := .metadata.annotations | default dict -}}
{{- $release := list (get $labels "app.kubernetes.io/instance") (get $labels "app.kubernetes.io/managed-by") -}}
{{- if and (eq (join "/" $release) (printf "%s/Helm" $.Release.Name)) (get $notes "selfrewarding.dev/without-definition") }}true{{ end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/*
Not empty when the definition of runs is part of this release. With crds.install false it is once more where ours has lost what has
Helm keep it: Helm deletes what a release no longer renders, and all runs with it. The next upgrade leaves it out.
*/}}
{{- define "sro.definition" -}}
{{- if not (include "sro.foreignDefinition" .) -}}
{{- if .Values.crds.install -}}
true
{{- else if and .Values.crds.keep .Release.IsUpgrade -}}
{{- with lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" "selfrewardingruns.selfrewarding.dev" -}}
{{- if ne (get (.metadata.annotations | default dict) "helm.sh/resource-policy") "keep" }}true{{ end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What the operator does with objects in the namespaces it serves. */}}
{{- define "sro.rules" -}}
- apiGroups: [selfrewarding.dev]
  resources: [selfrewardingruns]
  verbs: [get, list, watch, patch]
- apiGroups: [selfrewarding.dev]
  resources: [selfrewardingruns/status]
  verbs: [patch]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
- apiGroups: [""]
  resources: [pods/log]
  verbs: [get]
- apiGroups: [""]
  resources: [services]
  verbs: [create]
- apiGroups: [scheduling.k8s.io]
  resources: [podgroups]
  verbs: [create]
- apiGroups: [""]
  resources: [events]
  verbs: [list, create]
{{- end -}}

{{/* Environment of the operator: settings that srlm_operator/settings.py reads. */}}
{{- define "sro.environment" -}}
{{- $op := .Values.operator -}}
{{- $pods := .Values.stagePods -}}
{{- $scratch := $pods.workVolume -}}
{{- $storage := .Values.storage -}}
{{- $proxy := .Values.proxy -}}
{{- $env := dict
  "SRLM_NAMESPACES" (join "," .Values.watchNamespaces)
  "SRLM_IMAGE_INFERENCE" (include "sro.image" (list .Values.stageImages.inference .))
  "SRLM_IMAGE_TRAIN" (include "sro.image" (list .Values.stageImages.train .))
  "SRLM_IMAGE_LIGHT" (include "sro.image" (list .Values.stageImages.light .))
  "SRLM_IMAGE_PULL_POLICY" $pods.imagePullPolicy
  "SRLM_IMAGE_PULL_SECRETS" (join "," $pods.imagePullSecrets)
  "SRLM_GPU_RESOURCE" $pods.gpuResource
  "SRLM_QUEUE_NAME" $pods.queueName
  "SRLM_CPU_QUEUE_NAME" $pods.cpuQueueName
  "SRLM_PRIORITY_CLASS_NAME" $pods.priorityClassName
  "SRLM_SERVICE_ACCOUNT_NAME" $pods.serviceAccountName
  "SRLM_RUNTIME_CLASS_NAME" $pods.runtimeClassName
  "SRLM_POD_TEMPLATE" (ternary (toJson $pods.podTemplate) "" (not (empty $pods.podTemplate)))
  "SRLM_GPU_POD_TEMPLATE" (ternary (toJson $pods.gpuPodTemplate) "" (not (empty $pods.gpuPodTemplate)))
  "SRLM_POD_SECURITY" $pods.podSecurity
  "SRLM_TMP_VOLUME_SIZE" $pods.tmpSizeLimit
  "SRLM_STORAGE_URI" $storage.uri
  "SRLM_STORAGE_ENDPOINT_URL" $storage.endpointUrl
  "SRLM_STORAGE_REGION" $storage.region
  "SRLM_STORAGE_ADDRESSING_STYLE" $storage.addressingStyle
  "SRLM_STORAGE_CREDENTIALS_SECRET" $storage.credentialsSecretName
  "SRLM_STORAGE_RETENTION" $storage.retention
  "SRLM_CA_BUNDLE_CONFIG_MAP" .Values.caBundle.configMapName
  "SRLM_CA_BUNDLE_KEY" .Values.caBundle.key
  "SRLM_WORK_VOLUME_SIZE" $scratch.sizeLimit
  "SRLM_WORK_CLAIM_SIZE" $scratch.ephemeral.size
  "SRLM_WORK_CLAIM_CLASS" $scratch.ephemeral.storageClassName
  "SRLM_WORK_CLAIM_MODES" (join "," $scratch.ephemeral.accessModes)
  "SRLM_CACHE_CLAIM" $pods.modelCache.claimName
  "SRLM_CACHE_HOST_PATH" $pods.modelCache.hostPath
  "SRLM_CACHE_GIB" ($pods.modelCache.sizeGiB | int64 | toString)
  "SRLM_FS_GROUP" ($pods.fsGroup | int64 | toString)
  "HTTP_PROXY" $proxy.httpProxy
  "HTTPS_PROXY" $proxy.httpsProxy
  "SRLM_STAGE_ENV_HTTP_PROXY" $proxy.httpProxy
  "SRLM_STAGE_ENV_HTTPS_PROXY" $proxy.httpsProxy
  "SRLM_STAGE_ENV_NO_PROXY" $proxy.noProxy
  "SRLM_WORKERS" ($op.workers | int64 | toString)
  "SRLM_RESYNC_SECONDS" (printf "%v" $op.resyncSeconds)
  "SRLM_PROGRESS_SECONDS" (printf "%v" $op.progressSeconds)
  "SRLM_SLOW_RECHECK_SECONDS" (printf "%v" $op.slowRecheckSeconds)
  "SRLM_REFUSED_RETRY_SECONDS" (printf "%v" $op.refusedRetrySeconds)
  "SRLM_IMAGE_PULL_PATIENCE_SECONDS" (printf "%v" $op.imagePullPatienceSeconds)
  "SRLM_CLEANUP_DEADLINE_SECONDS" ($op.cleanupDeadlineSeconds | int64 | toString)
  "SRLM_MAX_BACKOFF_SECONDS" (printf "%v" $op.maxBackoffSeconds)
  "SRLM_LOG_FORMAT" $op.logFormat
  "SRLM_HEALTH_HOST" .Values.health.host
  "SRLM_HEALTH_PORT" (.Values.health.port | int64 | toString)
  "SRLM_WATCH_SILENCE_SECONDS" (printf "%v" .Values.health.watchSilenceSeconds)
  "SRLM_METRICS_RUNS" (.Values.metrics.maxRuns | int64 | toString)
-}}
{{- if .Values.leaderElection.enabled -}}
{{- $_ := set $env "SRLM_LEADER_ELECT" "true" -}}
{{- $_ := set $env "SRLM_LEASE_NAME" (include "sro.fullname" .) -}}
{{- $_ := set $env "SRLM_LEASE_SECONDS" (.Values.leaderElection.leaseSeconds | int64 | toString) -}}
{{- end -}}
{{- if or $proxy.httpProxy $proxy.httpsProxy -}}
{{- /* Python compares addresses letter by letter: a network such as 10.0.0.0/8 would not cover the API server. */ -}}
{{- $_ := set $env "NO_PROXY" (join "," (compact (list "$(KUBERNETES_SERVICE_HOST)" "kubernetes.default.svc" $proxy.noProxy))) -}}
{{- end -}}
{{- range $name, $value := $pods.env -}}
{{- $_ := set $env (printf "SRLM_STAGE_ENV_%s" $name) $value -}}
{{- end -}}
{{- range $name := keys $env | sortAlpha }}
{{- with index $env $name }}
- name: {{ $name }}
  value: {{ . | quote }}
{{- end }}
{{- end }}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
{{- end -}}
