"""Stage task → Job manifest: names, labels, sharding, multi-node training, failure policy. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from srlm_contract.graph import NodeId
from srlm_contract.keys import canonical_json, sha256
from srlm_contract.spec.run import RunSpec
from srlm_contract.spec.storage import Storage
from srlm_contract.spec.tracking import TrackingSpec
from srlm_contract.stages import TRAINERS, StageName
from srlm_contract.tasks import (
    EXIT_BAD_INPUT,
    EXIT_INVALID_TASK,
    EXIT_NOT_PERMITTED,
    MAX_TASK_BYTES,
    ArtifactRef,
    Link,
    Params,
    Pins,
    ProcessSettings,
    RunIdentity,
    SourceRef,
    StageTask,
    StorageLocation,
)
from srlm_operator import names
from srlm_operator.jobs.shards import format_ranges
from srlm_operator.settings import Settings
from srlm_operator.values import CreateJob, Run

from .pod import pod_spec, task_text
from .podtemplate import apply_patches
from .resources import asks_for_gpus, check_gpus, processes


@dataclass(frozen=True)
class Work:
    """What one stage has to do, apart from who asks and which attempt it is."""

    iteration: int
    name: str
    stage: StageName
    key: str
    params: Params
    revision: int = 1
    inputs: Mapping[str, ArtifactRef] = field(default_factory=dict)
    sources: Mapping[str, SourceRef] = field(default_factory=dict)
    shards: int = 1
    round: int = 1
    repair: bool = False
    pins: Pins | None = None
    """What preflight found out; None before it has."""
    deadline_seconds: int | None = None
    """Instead of failurePolicy.stageDeadlineSeconds."""
    chain: tuple[Link, ...] = ()
    """What the same pods do next, in order; as much of it as the task has room for."""

    @property
    def id(self) -> NodeId:
        return NodeId(self.iteration, self.name)


def render(
    run: Run,
    spec: RunSpec,
    work: Work,
    attempt: int,
    missing: tuple[int, ...],
    settings: Settings,
    pod_groups: str = "",
) -> CreateJob:
    """The Job of one attempt, and its Service and PodGroup when training spans nodes.

    missing: shards this attempt covers; empty for all. pod_groups: group and version in which the cluster serves
    PodGroups; empty where it has none.
    Raises InvalidPodTemplate when a podTemplate of the spec breaks a guarantee.
    """
    name = names.job_name(run.name, run.uid, work.iteration, work.name, work.key, attempt)
    task = _task(run, spec, work, attempt, missing, name, settings)
    labels = _labels(run, work, attempt)
    nodes = spec.training.nodes if work.stage in TRAINERS else 1
    subdomain = names.service_name(run.name, run.uid) if nodes > 1 else ""

    def made(told: StageTask) -> tuple[dict[str, Any], bool]:
        pod = pod_spec(told, name, spec, settings, parameters=work.pins.parameters if work.pins is not None else 0)
        if subdomain:
            pod["subdomain"] = subdomain
        plain = {"metadata": {"labels": labels, "annotations": dict(names.NO_SIDECARS)}, "spec": pod}
        return _patched(plain, spec, work.stage, settings)

    template, gpus = made(task)
    check_gpus(work.stage, template["spec"], spec, settings)
    queue = _queue(spec, settings, gpus=gpus)
    # What a chain needs beside is left out: how far it goes depends on the moment, and changes nothing of the stage.
    alone = made(task.model_copy(update={"chain": ()}))[0] if task.chain else template
    annotations = {
        names.ANNOTATION_SETTINGS: settings_digest(alone, queue, ungrouped=nodes > 1 and spec.scheduling.gang == "Off"),
        names.ANNOTATION_SHARD_COUNT: str(work.shards),
    }
    chain = {NodeId(link.iteration, link.node): link_digest(link) for link in task.chain}
    if chain:
        annotations[names.ANNOTATION_CHAIN] = ",".join(f"{node_id}={digest}" for node_id, digest in chain.items())
    if missing:
        annotations[names.ANNOTATION_SHARDS] = format_ranges(missing)
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": run.namespace,
        "labels": dict(labels),
        "annotations": annotations,
        "ownerReferences": [owner(run)],
    }
    job: dict[str, Any] = {
        **_completion(len(missing) or work.shards, nodes),
        "activeDeadlineSeconds": (work.deadline_seconds or spec.failure_policy.stage_deadline_seconds)
        * (1 + len(task.chain)),
        "podFailurePolicy": {"rules": _failure_rules(nodes)},
        "template": template,
    }
    if queue:
        metadata["labels"][names.QUEUE_LABEL] = queue
        job["suspend"] = True  # the queue starts it
    manifest = {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": job}
    if nodes == 1:
        return CreateJob(name, manifest, chain=chain)
    group = None
    if pod_groups and not queue and spec.scheduling.gang == "Auto" and "schedulingGroup" not in template["spec"]:
        group = _pod_group(run, name, nodes, template["spec"], pod_groups)
        # After the digest: a cluster that begins to serve PodGroups is no reason to replace a Job that waits.
        template["spec"]["schedulingGroup"] = {"podGroupName": group["metadata"]["name"]}
    return CreateJob(name, manifest, _service(run), group)


def owner(run: Run) -> dict[str, Any]:
    """Owner reference to the run: the API removes what we made when the run goes."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "name": run.name,
        "uid": run.uid,
        "controller": True,
    }


def _patched(
    template: Mapping[str, Any], spec: RunSpec, stage: StageName, settings: Settings
) -> tuple[dict[str, Any], bool]:
    """The template with the patches of operator, run and stage, and whether its pods ask for GPUs: then those for
    GPUs come after the general ones of operator and run. GPUs may come with a patch."""
    own = getattr(spec.stages, stage).pod_template
    plain = apply_patches(template, [settings.pod_template, spec.pod_template, own], settings.pod_security)
    if not asks_for_gpus(plain["spec"], settings):
        return plain, False
    patches = [settings.pod_template, settings.gpu_pod_template, spec.pod_template, spec.gpu_pod_template, own]
    return apply_patches(template, patches, settings.pod_security), True


def _queue(spec: RunSpec, settings: Settings, *, gpus: bool) -> str:
    """Kueue local queue of a Job, empty for none: work without GPUs does not wait behind work that needs them."""
    if gpus:
        return spec.scheduling.queue_name or settings.queue_name
    return spec.scheduling.cpu_queue_name or settings.cpu_queue_name


def settings_digest(template: Mapping[str, Any], queue: str, *, ungrouped: bool = False) -> str:
    """Digest of everything about the pods that is outside the key: image, resources, environment, placement.

    ungrouped: they shall start one by one, whatever the cluster could do.
    """
    pod = dict(template["spec"])
    pod["containers"] = [
        {**c, "env": [e for e in c.get("env") or () if e["name"] not in ("SRLM_TASK", "SRLM_JOB_NAME")]}
        for c in pod["containers"]
    ]
    pod.pop("subdomain", None)
    labels = {k: v for k, v in template["metadata"]["labels"].items() if not k.startswith(names.GROUP)}
    body = {"pod": pod, "labels": labels, "queue": queue} | ({"gang": "Off"} if ungrouped else {})
    return sha256(canonical_json(body))[7:23]


def link_digest(link: Link) -> str:
    """Digest of what a link computes, whatever it reads."""
    plain = link.model_copy(update={"inputs": {}, "awaited": {}, "revision": 1})
    return sha256(canonical_json(plain.wire(defaults=False)))[7:15]


def _task(
    run: Run,
    spec: RunSpec,
    work: Work,
    attempt: int,
    missing: tuple[int, ...],
    job: str,
    settings: Settings,
) -> StageTask:
    storage = Storage.parse(spec.storage.wire())
    task = StageTask(
        stage=work.stage,
        run=RunIdentity(namespace=run.namespace, name=run.name, uid=run.uid),
        iteration=work.iteration,
        node=work.name,
        round=work.round,
        attempt=attempt,
        key=work.key,
        revision=work.revision,
        seed=spec.seed,
        params=work.params,
        inputs=dict(work.inputs),
        sources=dict(work.sources),
        shards=work.shards,
        shard_indexes=missing,
        storage=StorageLocation.of(storage, work.pins),
        process=_process(run, spec, work, job, settings),
        tracking=spec.tracking if work.stage in TRAINERS else TrackingSpec(),
        repair=work.repair,
        chain=work.chain,
    )
    while task.chain and len(task_text(task).encode()) > MAX_TASK_BYTES:
        task = task.model_copy(update={"chain": task.chain[:-1]})
    return task


def _process(run: Run, spec: RunSpec, work: Work, job: str, settings: Settings) -> ProcessSettings:
    if work.stage not in TRAINERS:
        return ProcessSettings()
    t = spec.training
    service = names.service_name(run.name, run.uid)
    address = "127.0.0.1" if settings.local else f"{job}-0.{service}.{run.namespace}.svc"
    return ProcessSettings(
        nodes=t.nodes,
        processes_per_node=processes(work.stage, spec, settings),
        parallelism=t.parallelism,
        fsdp=t.fsdp,
        deepspeed=t.deepspeed,
        attn_implementation=t.attn_implementation,
        padding_free=t.padding_free,
        micro_batch_size=t.micro_batch_size,
        gradient_checkpointing=t.gradient_checkpointing,
        checkpoint_every_steps=t.checkpoint_every_steps,
        master_address=address if t.nodes > 1 else "",
        # On one machine all Jobs share the ports.
        master_port=29500 + (int(sha256(job.encode())[7:15], 16) % 2000 if settings.local else 0),
    )


def _labels(run: Run, work: Work, attempt: int) -> dict[str, str]:
    return {
        names.LABEL_MANAGED_BY: names.MANAGER,
        names.LABEL_RUN: run.name[:63],
        names.LABEL_RUN_UID: run.uid,
        names.LABEL_ITERATION: str(work.iteration),
        names.LABEL_STAGE: work.stage,
        names.LABEL_NODE: work.name,
        names.LABEL_KEY: work.key,
        names.LABEL_ATTEMPT: str(attempt),
    }


def _completion(shards: int, nodes: int) -> dict[str, Any]:
    """Shards fail one by one and the others go on; nodes of one training fail together."""
    if nodes > 1:
        return {
            "completionMode": "Indexed",
            "completions": nodes,
            "parallelism": nodes,
            "backoffLimit": 0,
        }
    if shards > 1:
        # backoffLimit stays unset: a total of 0 would stop all shards with the first failure.
        return {
            "completionMode": "Indexed",
            "completions": shards,
            "parallelism": shards,
            "backoffLimitPerIndex": 0,
        }
    # Indexed too, so that JOB_COMPLETION_INDEX is there for a retry of a single shard.
    return {"completionMode": "Indexed", "completions": 1, "parallelism": 1, "backoffLimit": 0}


def _failure_rules(nodes: int) -> list[dict[str, Any]]:
    """A disrupted pod is replaced without counting, unless its peers cannot go on without it.

    Exit codes that a further shard would only repeat stop the whole Job.
    """
    disrupted = {
        "action": "FailJob" if nodes > 1 else "Ignore",
        "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
    }
    hopeless = {
        "action": "FailJob",
        "onExitCodes": {
            "containerName": names.CONTAINER,
            "operator": "In",
            "values": [EXIT_INVALID_TASK, EXIT_BAD_INPUT, EXIT_NOT_PERMITTED],
        },
    }
    return [disrupted, hopeless]


def _beside(run: Run, name: str) -> dict[str, Any]:
    """Metadata of what a Job needs beside it: it can be there before the Job, and goes with the run."""
    labels = {
        names.LABEL_MANAGED_BY: names.MANAGER,
        names.LABEL_RUN: run.name[:63],
        names.LABEL_RUN_UID: run.uid,
    }
    return {"name": name, "namespace": run.namespace, "labels": labels, "ownerReferences": [owner(run)]}


def _pod_group(run: Run, job: str, nodes: int, pod: Mapping[str, Any], version: str) -> dict[str, Any]:
    """What has the scheduler place all nodes of a training or none: half of them would hold GPUs and wait for the rest.

    Only fields that every version of the API has.
    """
    spec: dict[str, Any] = {"schedulingPolicy": {"gang": {"minCount": nodes}}}
    if pod.get("priorityClassName"):
        spec["priorityClassName"] = pod["priorityClassName"]  # without it the group counts as the lowest
    metadata = _beside(run, names.pod_group_name(job, nodes))
    return {"apiVersion": version, "kind": "PodGroup", "metadata": metadata, "spec": spec}


def _service(run: Run) -> dict[str, Any]:
    """Headless Service through which the nodes of a training find each other before they are ready.

    One for all trainings of a run.
    """
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _beside(run, names.service_name(run.name, run.uid)),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {names.LABEL_RUN_UID: run.uid},
            "ports": [{"name": "rendezvous", "port": 29500}],
        },
    }
