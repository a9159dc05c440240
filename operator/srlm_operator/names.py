"""Names, labels and annotations the operator writes."""

from __future__ import annotations

import hashlib

from srlm_contract.graph import model_name
from srlm_contract.stages import STAGES

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
#: In `managedBy` of a run: this operator, as where there is none. The same of a Job: the Job controller.
MANAGED_BY, JOB_CONTROLLER = f"{GROUP}/{MANAGER}", "kubernetes.io/job-controller"
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
#: Stages that a Job runs after its own, where there are any: node ids, each with a digest of what it computes.
ANNOTATION_CHAIN = f"{GROUP}/chain"
#: Name of the stage's container.
CONTAINER = "stage"
#: Of stage pods, unless a podTemplate says otherwise: a mesh's proxy runs on when the stage has ended, and its Job too.
NO_SIDECARS = {"sidecar.istio.io/inject": "false", "linkerd.io/inject": "disabled"}
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"


#: Characters of a run's name in those of its Jobs, and of the digests there.
_RUN, _DIGEST = 20, 6
#: Stages outside the graph, which belong to no iteration.
_OUTSIDE = tuple(name for name, stage in STAGES.items() if not stage.revision)


def job_name(run_name: str, uid: str, iteration: int, node: str, key: str, attempt: int) -> str:
    """`srr-base-m2-train-063548-a1`: run, model that the iteration makes, node, digest of what is computed, attempt.

    At most 56 characters: with an index of four digits behind it, it is a host name, and those have 63. Nothing reads
    a name: labels say what a Job is.
    """
    run = _dashed(run_name)
    if len(run_name) > _RUN:
        run = f"{_dashed(run_name[: _RUN - _DIGEST - 1])}-{_digest(run_name)}"
    place = node if node in _OUTSIDE else f"{model_name(iteration).lower()}-{node}"
    digest = _digest(uid, str(iteration), node, key)
    return f"srr-{run}-{place}-{digest}-a{attempt}"


def pod_group_name(job: str, nodes: int) -> str:
    """The PodGroup of a Job. How many pods it waits for is in the name: it cannot be changed in one that is there."""
    return f"{job}-n{nodes}"


def service_name(run_name: str, uid: str) -> str:
    """The headless Service of a run; at most 39 characters."""
    return f"srr-{_dashed(run_name[:24])}-{hashlib.sha256(uid.encode()).hexdigest()[:10]}"


def _digest(*parts: str) -> str:
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:_DIGEST]


def _dashed(run_name: str) -> str:
    """Dots are refused in the names of Indexed Jobs and of Services."""
    return run_name.replace(".", "-").rstrip("-")
