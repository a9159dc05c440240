"""The pod of a stage: container, environment, volumes. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from srlm_contract.spec.run import RunSpec
from srlm_contract.stages import INFERENCE, STAGES, TRAINERS
from srlm_contract.tasks import MAX_TASK_BYTES, EvaluateParams, JudgeParams, PreflightParams, StageTask
from srlm_operator import names
from srlm_operator.errors import InvalidPodTemplate
from srlm_operator.settings import Settings

from .resources import image, resources
from .security import CONTAINER_SECURITY, POD_SECURITY

WORK_DIR = "/srlm/work"
CACHE_DIR = "/srlm/cache"
CONFIG_DIR = "/srlm/config"
TERMINATION_LOG = "/dev/termination-log"


def pod_spec(task: StageTask, job: str, spec: RunSpec, settings: Settings, parameters: int = 0) -> dict[str, Any]:
    """Pod spec of a stage, before podTemplate patches. parameters: of the base model, 0 for not known.
    Raises InvalidPodTemplate when the task is too long."""
    stage = task.stage
    chosen = image(stage, spec, settings)
    container: dict[str, Any] = {
        "name": names.CONTAINER,
        "image": chosen,
        "command": ["python", "-m", "srlm_stages", stage],
        "env": _environment(task, job, chosen, spec, settings),
        "resources": dict(resources(stage, task.params, spec, settings, parameters)),
        "securityContext": dict(CONTAINER_SECURITY),
        "terminationMessagePath": TERMINATION_LOG,
        "terminationMessagePolicy": "File",
        "volumeMounts": [
            {"name": "work", "mountPath": WORK_DIR},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - an emptyDir of the pod
        ],
    }
    if settings.image_pull_policy:
        container["imagePullPolicy"] = settings.image_pull_policy
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": dict(POD_SECURITY),
        "containers": [container],
        "volumes": [
            {"name": "work", **_work_volume(settings)},
            {"name": "tmp", **_empty_dir(settings.tmp_volume_size)},
        ],
    }
    if stage in TRAINERS or stage in INFERENCE:
        # Processes of several GPUs meet there, and containers have 64 MiB of it.
        _mount(pod, "shm", "/dev/shm", {"emptyDir": {"medium": "Memory"}})  # noqa: S108 - the same
    _mount_cache(pod, task.run.namespace, settings)
    if settings.fs_group and (settings.cache_claim or settings.work_claim_size):
        # A new volume belongs to root; files that are there already need no look at each start.
        pod["securityContext"] |= {"fsGroup": settings.fs_group, "fsGroupChangePolicy": "OnRootMismatch"}
    _mount_templates(pod, task, spec)
    for field, value in (
        ("serviceAccountName", spec.service_account_name or settings.service_account_name),
        ("priorityClassName", spec.scheduling.priority_class_name or settings.priority_class_name),
        ("runtimeClassName", settings.runtime_class_name),
    ):
        if value:
            pod[field] = value
    if settings.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in settings.image_pull_secrets]
    return pod


def _work_volume(settings: Settings) -> Mapping[str, Any]:
    """Scratch space: of the node, or a volume made for the pod."""
    if not settings.work_claim_size:
        return _empty_dir(settings.work_volume_size)
    claim: dict[str, Any] = {
        "accessModes": list(settings.work_claim_modes),
        "resources": {"requests": {"storage": settings.work_claim_size}},
    }
    if settings.work_claim_class:
        claim["storageClassName"] = settings.work_claim_class
    return {"ephemeral": {"volumeClaimTemplate": {"spec": claim}}}


def _empty_dir(limit: str) -> Mapping[str, Any]:
    return {"emptyDir": {"sizeLimit": limit} if limit else {}}


def task_text(task: StageTask) -> str:
    """`SRLM_TASK`: fields at their default are left out, so that an older stage image can read a newer task."""
    body = task.wire(defaults=False)
    body["params"]["kind"] = task.params.kind  # the discriminator is a default too
    for link, written in zip(task.chain, body.get("chain", ()), strict=True):
        written["params"]["kind"] = link.params.kind
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False)


def _environment(task: StageTask, job: str, chosen: str, spec: RunSpec, settings: Settings) -> list[dict[str, Any]]:
    text = task_text(task)
    if len(text.encode()) > MAX_TASK_BYTES:
        raise InvalidPodTemplate(
            f"the task of {task.stage} is {len(text.encode())} bytes, more than {MAX_TASK_BYTES}: shorten the spec"
        )
    plain = {
        # torch and others ask for the user's name, and the user of a container need not have one.
        "USER": "srlm",
        "LOGNAME": "srlm",
        **settings.extra_env,
        "SRLM_TASK": text,
        "SRLM_WORK_DIR": WORK_DIR,
        "SRLM_TERMINATION_LOG": TERMINATION_LOG,
        "SRLM_JOB_NAME": job,
        "SRLM_IMAGE": chosen,
        "HOME": WORK_DIR,  # the root file system is read-only; libraries cache under the home directory
        "PYTHONUNBUFFERED": "1",
    }
    env: list[dict[str, Any]] = [{"name": k, "value": v} for k, v in plain.items()]
    env.append(_field("SRLM_POD_NAME", "metadata.name"))
    env.append(_field("SRLM_POD_UID", "metadata.uid"))
    return env + _secrets(task, spec)


def _secrets(task: StageTask, spec: RunSpec) -> list[dict[str, Any]]:
    """Only references, and only to the stages that need them."""
    found: list[dict[str, Any]] = []
    credentials = spec.storage.credentials_secret_ref
    if credentials is not None:
        for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            found.append(_secret(variable, credentials.name, variable))
        found.append(_secret("AWS_SESSION_TOKEN", credentials.name, "AWS_SESSION_TOKEN", optional=True))
    token = spec.base_model.token_secret_ref
    sources = [*task.sources.values(), *(source for link in task.chain for source in link.sources.values())]
    outside = isinstance(task.params, PreflightParams) or any(source.uri.startswith("hf://") for source in sources)
    if token is not None and outside:
        found.append(_secret("HF_TOKEN", token.name, token.key))
    key = spec.judging.external.api_key_secret_ref
    if key is not None and isinstance(task.params, JudgeParams | EvaluateParams) and task.params.external.url:
        found.append(_secret("SRLM_JUDGE_API_KEY", key.name, key.key))
    if task.stage in (*TRAINERS, "preflight", "report"):
        found += _tracking_secrets(spec)
    return found


def _tracking_secrets(spec: RunSpec) -> list[dict[str, Any]]:
    """Optional all of them: a Secret that is missing costs the run its tracker, which preflight says, not its pods."""
    tracking, found = spec.tracking, []
    if tracking.mlflow is not None and (credentials := tracking.mlflow.credentials_secret_ref) is not None:
        for variable in ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
            found.append(_secret(variable, credentials.name, variable, optional=True))
    if tracking.wandb is not None:
        key = tracking.wandb.api_key_secret_ref
        found.append(_secret("WANDB_API_KEY", key.name, key.key, optional=True))
    if tracking.trackio is not None:
        key = tracking.trackio.write_token_secret_ref
        found.append(_secret("TRACKIO_WRITE_TOKEN", key.name, key.key, optional=True))
    return found


def _field(variable: str, path: str) -> dict[str, Any]:
    return {"name": variable, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def _secret(variable: str, name: str, key: str, *, optional: bool = False) -> dict[str, Any]:
    reference: dict[str, Any] = {"name": name, "key": key}
    if optional:
        reference["optional"] = True
    return {"name": variable, "valueFrom": {"secretKeyRef": reference}}


def _mount(pod: dict[str, Any], name: str, path: str, source: Mapping[str, Any], **extra: Any) -> None:
    pod["volumes"].append({"name": name, **source})
    pod["containers"][0]["volumeMounts"].append({"name": name, "mountPath": path, **extra})


def _mount_cache(pod: dict[str, Any], namespace: str, settings: Settings) -> None:
    """A volume that outlives the pod, when one is configured. No two namespaces share one."""
    if settings.cache_claim:
        source: Mapping[str, Any] = {"persistentVolumeClaim": {"claimName": settings.cache_claim}}
    elif settings.cache_host_path:
        path = f"{settings.cache_host_path.rstrip('/')}/{namespace}"
        source = {"hostPath": {"path": path, "type": "DirectoryOrCreate"}}
    else:
        return
    _mount(pod, "model-cache", CACHE_DIR, source)
    env = pod["containers"][0]["env"]
    env.append({"name": "SRLM_MODEL_CACHE", "value": CACHE_DIR})
    env.append({"name": "SRLM_MODEL_CACHE_BYTES", "value": str(settings.cache_gib * 2**30)})


def _mount_templates(pod: dict[str, Any], task: StageTask, spec: RunSpec) -> None:
    """ConfigMaps a run names: chat template, rubric, certificate authority."""
    chat, rubric, bundle = (
        spec.base_model.chat_template_ref,
        spec.judging.template_ref,
        spec.storage.ca_bundle_ref,
    )
    stages = (task.stage, *(link.stage for link in task.chain))
    read = {template for stage in stages for template in STAGES[stage].templates}
    if chat is not None and chat.key and "chat" in read:
        _config_map(pod, "chat-template", "SRLM_CHAT_TEMPLATE_FILE", chat.name, chat.key)
    if rubric is not None and rubric.key and "rubric" in read:
        _config_map(pod, "rubric", "SRLM_RUBRIC_FILE", rubric.name, rubric.key)
    if bundle is not None:
        _config_map(pod, "ca-bundle", "SRLM_CA_BUNDLE_FILE", bundle.name, bundle.key)


def _config_map(pod: dict[str, Any], volume: str, variable: str, name: str, key: str) -> None:
    path = f"{CONFIG_DIR}/{volume}"
    source = {"configMap": {"name": name, "items": [{"key": key, "path": volume}]}}
    _mount(pod, volume, path, source, readOnly=True)
    pod["containers"][0]["env"].append({"name": variable, "value": f"{path}/{volume}"})
