"""Names, labels and annotations the operator writes."""

from __future__ import annotations

import hashlib

GROUP = "selfrewarding.dev"
VERSION = "v1alpha1"
PLURAL = "selfrewardingruns"
KIND = "SelfRewardingRun"
API_VERSION = f"{GROUP}/{VERSION}"

#: Finalizer of runs whose retention deletes something.
FINALIZER = f"{GROUP}/cleanup"
#: Put on a run by people: the model whose missed gates are accepted, or `all`.
CONTINUE_ANNOTATION = f"{GROUP}/continue"
#: Put on a run by people and by `srlm report`: a new value asks for a new report.
REPORT_ANNOTATION = f"{GROUP}/report"
#: Put on a run by people: a new value has what failed tried again at once, with all its attempts.
RETRY_ANNOTATION = f"{GROUP}/retry"

MANAGER = "self-rewarding-operator"
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
LABEL_RUN = f"{GROUP}/run"
LABEL_RUN_UID = f"{GROUP}/run-uid"
LABEL_ITERATION = f"{GROUP}/iteration"
LABEL_STAGE = f"{GROUP}/stage"
LABEL_NODE = f"{GROUP}/node"
LABEL_ATTEMPT = f"{GROUP}/attempt"
LABEL_KEY = f"{GROUP}/key"
#: Digest of the pod settings a Job was made with.
ANNOTATION_SETTINGS = f"{GROUP}/pod-settings"
#: Shards a Job covers, when not all.
ANNOTATION_SHARDS = f"{GROUP}/shards"
#: Number of shards the artifact has.
ANNOTATION_SHARD_COUNT = f"{GROUP}/shard-count"
#: Name of the stage's container.
CONTAINER = "stage"
#: Of stage pods, unless a podTemplate says otherwise: a mesh's proxy runs on when the stage has ended, and its Job too.
NO_SIDECARS = {"sidecar.istio.io/inject": "false", "linkerd.io/inject": "disabled"}
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"


def job_name(run_name: str, uid: str, iteration: int, node: str, key: str, attempt: int) -> str:
    """At most 45 characters: Indexed Jobs fail near 61, and dots are refused."""
    digest = hashlib.sha256(f"{uid}\x1f{iteration}\x1f{node}\x1f{key}".encode()).hexdigest()[:10]
    return f"srr-{_short(run_name)}-{digest}-a{attempt}"


def service_name(run_name: str, uid: str) -> str:
    """The headless Service of a run; at most 39 characters."""
    return f"srr-{_short(run_name)}-{hashlib.sha256(uid.encode()).hexdigest()[:10]}"


def _short(run_name: str) -> str:
    return run_name[:24].replace(".", "-").rstrip("-")
