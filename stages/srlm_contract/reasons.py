"""Condition reasons and stage error reasons: every constant with what it means and what to do.

The operator writes them into conditions and events, stages into their termination message. What follows the first
sentence ends the message of a condition: what to do, where the message itself does not say it.
"""

from __future__ import annotations

from collections.abc import Mapping

#: `Reconciling=True`: work goes on or is waited for; no person is needed yet.
WAITING: Mapping[str, str] = {
    "Progressing": "A stage runs or the next one is being started.",
    "WaitingForQueue": "The Job is suspended by its queue; it starts when the queue admits it.",
    "Unschedulable": "No node fits the pod. Check resources, node selectors and free GPUs.",
    "QuotaExceeded": "The namespace's quota refuses the pod or Job. Free or raise the quota.",
    "ImagePullFailed": "The image cannot be pulled. Check its name, registry and pull secrets.",
    "StorageUnavailable": "The object store does not answer. It is tried again until the time budget is spent.",
    "Retrying": "An attempt failed; the next one starts after a pause.",
    "PodConfigError": "The pod cannot be configured. Create the Secret or ConfigMap that the message names.",
    "WebhookFailed": "An admission webhook cannot be called. It is tried again; look after the webhook's service.",
    "NodeLost": "The node of a pod does not answer. Look after the node; the attempt is given up some minutes after"
    " the pod's grace period and does not count.",
    "NewerSpec": "The definition of runs is newer than the operator. It goes on when the operator is upgraded, too.",
    "Deleting": "The run is being deleted; its clean-up runs.",
}

#: `Stalled=True`: only a person can help. Checked again, more and more seldom; recovers by itself once fixed.
STALLED: Mapping[str, str] = {
    "InvalidSpec": "The spec does not fit the schema of this operator. Correct the field in the message.",
    "SecretNotFound": "A Secret, ConfigMap or key that the run names does not exist. Create it.",
    "StorageNotSet": "Neither the run nor the operator says where artifacts shall lie: set spec.storage.uri.",
    "ObjectNotFound": "A ServiceAccount, PriorityClass or other object that the pods name does not exist. Create it.",
    "StorageNotFound": "The bucket does not exist. Create it or correct storage.uri.",
    "StorageNotPermitted": "The store refuses the credentials or the right. Correct the Secret or the policy.",
    "NotPermitted": "A hub or an external judge refuses the credentials. Correct the Secret that the message names.",
    "InvalidSeedData": "The seed data cannot be used. Correct the file or seedData.",
    "ModelNotUsable": "The base model cannot be used. Correct baseModel.",
    "TemplateNotUsable": "A chat template or rubric cannot be used. Correct the ConfigMap.",
    "JudgeNotUsable": "The judge never gave a readable score. Use judging.constrain, another scorer or another model.",
    "TooFewPrompts": "Too few new prompts passed the filters. Look at the dropped counts; widen prompts.filters.",
    "NoPairs": "No preference pair is left. Look at tie rate, truncated answers and minMargin.",
    "InputTooLong": "Rows do not fit the model's context. Raise maxLength or shorten the prompts.",
    "GateFailed": "A gate of spec.gates was missed and onFailure is Stop. Change gates or the recipe.",
    "Held": "A gate was missed and onFailure is Hold: annotate selfrewarding.dev/continue or change the spec.",
    "BudgetExceeded": "spec.budget is spent. Raise it to go on.",
    "AttemptsExhausted": "A stage failed failurePolicy.maxAttempts times. Mend the cause, then annotate"
    " selfrewarding.dev/retry or change the spec.",
    "NameConflict": "A Job or Service of the needed name belongs to somebody else: delete or rename it.",
    "ManagedElsewhere": "A Job was taken over by another controller, and its pods cannot be seen here. Name a queue"
    " that runs Jobs in this cluster, or have the whole run dispatched: spec.managedBy.",
    "LimitsRequired": "The namespace's quota demands requests or limits that the pods do not state: set the field that"
    " the message names.",
    "Forbidden": "The API server or an admission webhook refuses the object: see the message.",
    "BranchNotFound": "The run or model of branchFrom does not exist. Correct it.",
    "InvalidPodTemplate": "A podTemplate patch breaks a guarantee of stage pods. Correct it.",
    "InvalidTask": "The stage refused its task (exit 64). Operator and stage image versions may differ.",
    "ArtifactDamaged": "An artifact is damaged and could not be made again.",
}

#: Further reasons of `Ready`.
READY: Mapping[str, str] = {
    "Succeeded": "All iterations are done.",
    "Suspended": "spec.suspend is set.",
}

#: Why an attempt failed, in `lastFailure.reason` and retry metrics, besides the reasons above.
FAILURES: Mapping[str, str] = {
    "Crashed": "The container ended with an exit code that says nothing more.",
    "OutOfMemory": "The container was killed for memory. Raise stages.<stage>.resources.limits.memory.",
    "DeadlineExceeded": "The attempt took longer than failurePolicy.stageDeadlineSeconds.",
    "Disrupted": "The pod was evicted or its node lost; the attempt does not count.",
    "Suspended": "The attempt was stopped by spec.suspend; it does not count.",
    "Superseded": "The spec changed; the attempt was stopped.",
    "JobGone": "The Job was deleted by somebody; the attempt does not count.",
    "NoResult": "The pods ended well, but none says readably what it committed. Check that the images of"
    " stages.<stage>.image and of the operator fit, and that nothing else writes the container's termination log.",
    "PodsGone": "The pods of a complete Job were removed before their result was read. Preflight looks for the"
    " artifact; keep whatever cleans up pods from those of running Jobs.",
    "Temporary": "Network or storage failed for a while (exit 75).",
    "InputDamaged": "An input artifact is missing or damaged (exit 65); its producer runs again.",
    "DiskFull": "The pod's disk is full. Raise ephemeral storage or the work volume.",
}


def remedy(reason: str) -> str:
    """What to do about the reason of a condition; empty where there is nothing to do, or the message says it."""
    text = WAITING.get(reason) or STALLED.get(reason) or ""
    return text.partition(". ")[2]


def advised(message: str, what: str) -> str:
    """The message, ended by what to do unless it says so already."""
    if not what or message.endswith(what):
        return message
    return f"{message}{'' if message.endswith(('.', '!', '?')) else '.'} {what}"
