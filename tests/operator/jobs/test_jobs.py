"""Job manifests against committed ones; `SRLM_GOLDEN=write pytest tests/operator/jobs` writes them anew."""

from __future__ import annotations

import io
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from srlm_contract.spec.run import RunSpec
from srlm_contract.status import PreflightStatus, RunStatus
from srlm_contract.tasks import (
    MAX_TASK_BYTES,
    GenerateParams,
    JudgeParams,
    Link,
    Pins,
    PreflightParams,
    PromptsParams,
    SftParams,
    SourceRef,
    StageTask,
    TrainParams,
)
from srlm_operator.cluster.views import job_view
from srlm_operator.errors import InvalidPodTemplate
from srlm_operator.jobs.job import Work, render
from srlm_operator.names import job_name
from srlm_operator.plan.report_task import report_params
from srlm_operator.values import CreateJob
from support.builders import run, settings
from support.builders import spec as spec_of
from support.works import MODEL, generate, make

GOLDEN = Path(__file__).with_name("golden")
FULL: dict[str, Any] = {
    "baseModel": {
        "uri": "hf://org/base",
        "tokenSecretRef": {"name": "hf-token"},
        "chatTemplateRef": {"name": "templates", "key": "chat"},
    },
    "storage": {
        "uri": "s3://bucket/prefix",
        "credentialsSecretRef": {"name": "s3"},
        "caBundleRef": {"name": "corp-ca", "key": "ca.crt"},
    },
    "judging": {
        "templateRef": {"name": "templates", "key": "rubric"},
        "external": {
            "url": "https://judge.example/v1",
            "model": "judge-70b",
            "apiKeySecretRef": {"name": "judge", "key": "api-key"},
        },
    },
    "training": {"nodes": 2, "processesPerNode": 4},
    "scheduling": {"queueName": "gpu-queue", "priorityClassName": "research"},
    "serviceAccountName": "training",
    "podTemplate": {
        "metadata": {"labels": {"team": "alignment"}},
        "spec": {"tolerations": [{"key": "gpu", "operator": "Exists"}]},
    },
    "stages": {
        "train": {
            "image": "registry.example/train:2",
            "resources": {"limits": {"nvidia.com/gpu": 4, "memory": "200Gi"}},
            "podTemplate": {
                "spec": {
                    "containers": [{"name": "stage", "env": [{"name": "NCCL_DEBUG", "value": "WARN"}]}],
                    "volumes": [{"name": "work", "emptyDir": {"sizeLimit": "500Gi"}}],
                }
            },
        }
    },
}


def preflight(spec: RunSpec) -> Work:
    return Work(0, "preflight", "preflight", "c" * 24, PreflightParams(spec=spec))


def train() -> Work:
    return Work(1, "train", "train", "d" * 24, TrainParams(), inputs={"model": MODEL})


def judge(spec: RunSpec) -> Work:
    params = JudgeParams(external=spec.judging.external)
    return Work(1, "judge", "judge", "e" * 24, params, inputs={"candidates": MODEL})


def chained(spec: RunSpec, earlier: int = 0) -> CreateJob:
    """Prompts, answers and verdicts in one pod; `earlier` sets of prompts make the task longer."""
    source = SourceRef(uri="hf://org/judge", revision="abc")
    judging = Link(
        iteration=1, node="judge", stage="judge", params=JudgeParams(), inputs={"model": MODEL},
        awaited={"candidates": "1/generate"}, sources={"judge": source},
    )  # fmt: skip
    answers = Link(
        iteration=1, node="generate", stage="generate", params=GenerateParams(),
        inputs={"model": MODEL} | {f"earlier-{n}": MODEL for n in range(earlier)}, awaited={"prompts": "1/prompts"},
    )  # fmt: skip
    work = Work(1, "prompts", "prompts", "a" * 24, PromptsParams(), inputs={"model": MODEL}, chain=(answers, judging))
    return make(work, spec)


TEMPLATES: dict[str, Any] = {
    "baseModel": FULL["baseModel"],
    "judging": {"templateRef": {"name": "templates", "key": "rubric"}},
}


def report(spec: RunSpec) -> CreateJob:
    params = report_params(spec, PreflightStatus(), RunStatus(phase="Succeeded"))
    return make(Work(0, "report", "report", "f" * 24, params), spec)


def pinned(parameters: int) -> Work:
    source = SourceRef(uri="hf://owner/model", revision="abc")
    return replace(train(), pins=Pins(base_model=source, seed_data=source, parameters=parameters))


@pytest.mark.parametrize(
    ("training", "memory"),
    [
        ({}, "68Gi"),  # sharded: one process reads, 8 bytes a parameter
        ({"parallelism": "DDP", "processesPerNode": 8}, "248Gi"),  # each of 8 loads 4 bytes a parameter
        ({"parallelism": "DDP", "processesPerNode": 1}, "68Gi"),
    ],
)
def test_pods_that_train_ask_for_memory_that_fits_the_model(training: dict[str, Any], memory: str) -> None:
    spec = spec_of(training=training) if training else spec_of()
    made = make(pinned(8_030_261_248), spec)
    container = made.manifest["spec"]["template"]["spec"]["containers"][0]
    assert container["resources"]["requests"]["memory"] == memory
    assert "memory" not in container["resources"]["limits"]


def test_memory_that_the_spec_names_stays_and_an_unknown_model_asks_for_the_least() -> None:
    own = make(pinned(8_030_261_248), spec_of(**FULL)).manifest["spec"]["template"]["spec"]["containers"][0]
    assert own["resources"] == {"limits": {"nvidia.com/gpu": 4, "memory": "200Gi"}}
    unknown = make(pinned(0)).manifest["spec"]["template"]["spec"]["containers"][0]
    assert unknown["resources"]["requests"]["memory"] == "8Gi"


def test_inference_pods_ask_for_memory_for_each_process() -> None:
    def requests(work: Work, spec: RunSpec) -> Any:
        container = make(work, spec).manifest["spec"]["template"]["spec"]["containers"][0]
        return container["resources"]["requests"]

    assert requests(generate(), spec_of()) == {"cpu": "1", "memory": "8Gi"}
    four = spec_of(stages={"generate": {"engine": {"name": "vllm", "args": {"tensor_parallel_size": 4}}}})
    assert requests(generate(), four)["memory"] == "20Gi"
    elsewhere = spec_of(judging={"external": {"url": "https://judge.example/v1", "model": "m"}})
    assert requests(judge(elsewhere), elsewhere)["memory"] == "1Gi"


def together(pod_groups: str = "scheduling.k8s.io/v1beta1", stage: str = "train", **changes: Any) -> CreateJob:
    """A trainer's Job on a cluster that has PodGroups."""
    wanted = spec_of(**changes)
    return render(run(spec_=wanted), wanted, trainer(stage), 1, (), settings(), pod_groups)


CASES = {
    "preflight": lambda: make(preflight(spec_of())),
    "generate-sharded": lambda: make(generate()),
    "generate-missing-shards": lambda: make(generate(), missing=(1, 3), attempt=2),
    "train-default": lambda: make(train()),
    "train-two-nodes-everything": lambda: make(train(), spec_of(**FULL)),
    "train-two-nodes-together": lambda: together(training={"nodes": 2}, scheduling={"priorityClassName": "research"}),
    "generate-ephemeral-volume": lambda: render(
        run(), spec_of(), generate(), 1, (), settings(work_claim_size="500Gi", work_claim_class="fast")
    ),
    "generate-model-cache": lambda: render(
        run(), spec_of(), generate(), 1, (), settings(cache_claim="models", cache_gib=500)
    ),
    "prompts-chained": lambda: chained(spec_of(**TEMPLATES)),
    "judge-external": lambda: make(judge(spec_of(**FULL)), spec_of(**FULL)),
    "report": lambda: report(spec_of(**FULL)),
}


@pytest.mark.parametrize("name", CASES)
def test_manifest_is_the_committed_one(name: str) -> None:
    made = CASES[name]()
    documents = [d for d in (made.manifest, made.service, made.pod_group) if d]
    yaml = YAML()
    out = io.StringIO()
    yaml.dump_all([json.loads(json.dumps(d)) for d in documents], out)
    path = GOLDEN / f"{name}.yaml"
    if os.environ.get("SRLM_GOLDEN") == "write":
        path.write_text(out.getvalue())
    assert out.getvalue() == path.read_text()


@pytest.mark.parametrize(
    "changes",
    [
        {"training": {"nodes": 1}},
        {"pod_groups": ""},
        {"scheduling": {"gang": "Off"}},
        {"scheduling": {"queueName": "gpus"}},
        {"podTemplate": {"spec": {"schedulingGroup": {"podGroupName": "theirs"}}}},
    ],
    ids=["one node", "not served", "off", "a queue starts it", "a group of their own"],
)
def test_no_pod_group_where_none_is_wanted(changes: dict[str, Any]) -> None:
    made = together(**{"training": {"nodes": 2}} | changes)
    theirs = changes.get("podTemplate", {"spec": {}})["spec"].get("schedulingGroup")
    pod = made.manifest["spec"]["template"]["spec"]
    assert (made.pod_group, pod.get("schedulingGroup")) == (None, theirs)


def test_what_replaces_a_training_that_waits_for_its_nodes() -> None:
    def digest(**changes: Any) -> str:
        made = together(**{"training": {"nodes": 2}} | changes)
        return str(made.manifest["metadata"]["annotations"]["selfrewarding.dev/pod-settings"])

    assert digest() == digest(pod_groups=""), "not that the cluster begins to have PodGroups"
    assert digest() != digest(scheduling={"gang": "Off"}), "but that a person wants none"


def test_another_number_of_nodes_is_another_group() -> None:
    groups = [together(training={"nodes": nodes}).pod_group for nodes in (2, 3)]
    assert [group and group["spec"]["schedulingPolicy"]["gang"]["minCount"] for group in groups] == [2, 3]
    assert len({group and group["metadata"]["name"] for group in groups}) == 2


GPU_POOL = {"spec": {"nodeSelector": {"pool": "gpu"}}}


def placed(work: Work, spec: RunSpec, **configured: Any) -> dict[str, Any]:
    made = render(run(), spec, work, 1, (), settings(**configured)).manifest
    pod = made["spec"]["template"]["spec"]
    names = ("nodeSelector", "priorityClassName", "serviceAccountName", "runtimeClassName")
    return {name: pod.get(name) for name in names} | {
        "queue": made["metadata"]["labels"].get("kueue.x-k8s.io/queue-name")
    }


def test_what_the_operator_says_about_pods_holds_where_the_run_says_nothing() -> None:
    configured: dict[str, Any] = {
        "pod_template": {"spec": {"nodeSelector": {"pool": "any", "zone": "a"}}},
        "gpu_pod_template": GPU_POOL, "queue_name": "gpus", "priority_class_name": "low",
        "service_account_name": "theirs", "runtime_class_name": "nvidia",
    }  # fmt: skip
    assert placed(generate(), spec_of(), **configured) == {
        "nodeSelector": {"pool": "gpu", "zone": "a"}, "priorityClassName": "low", "serviceAccountName": "theirs",
        "runtimeClassName": "nvidia", "queue": "gpus",
    }  # fmt: skip
    without_gpus = placed(preflight(spec_of()), spec_of(), **configured)
    assert (without_gpus["nodeSelector"], without_gpus["queue"]) == ({"pool": "any", "zone": "a"}, None)
    own = spec_of(
        podTemplate={"spec": {"nodeSelector": {"zone": "b"}}},
        gpuPodTemplate={"spec": {"nodeSelector": {"pool": "mine"}}},
        scheduling={"queueName": "ours", "priorityClassName": "high"}, serviceAccountName="ours",
    )  # fmt: skip
    assert placed(generate(), own, **configured) == {
        "nodeSelector": {"pool": "mine", "zone": "b"}, "priorityClassName": "high", "serviceAccountName": "ours",
        "runtimeClassName": "nvidia", "queue": "ours",
    }  # fmt: skip


def test_work_without_gpus_queues_only_where_it_is_asked_to() -> None:
    spec = spec_of(scheduling={"queueName": "gpus"})
    assert placed(preflight(spec), spec)["queue"] is None
    assert placed(judge(spec_of(**FULL)), spec_of(**FULL))["queue"] is None, "an external judge needs no GPU here"
    assert placed(preflight(spec), spec, cpu_queue_name="cpus")["queue"] == "cpus"
    asked = spec_of(scheduling={"queueName": "gpus", "cpuQueueName": "small"})
    assert placed(preflight(asked), asked, cpu_queue_name="cpus")["queue"] == "small"
    claims = {"spec": {"containers": [{"name": "stage", "resources": {"claims": [{"name": "gpu"}]}}]}}
    claimed = spec_of(stages={"generate": {"podTemplate": claims}})
    configured = {"queue_name": "gpus", "gpu_resource": "none", "gpu_pod_template": GPU_POOL}
    by_claim = placed(generate(), claimed, **configured)
    assert (by_claim["queue"], by_claim["nodeSelector"]) == ("gpus", {"pool": "gpu"}), "GPUs by a ResourceClaim"


def test_pods_of_several_gpus_share_memory_and_tmp_is_bounded() -> None:
    volumes = {v["name"]: v for v in make(generate()).manifest["spec"]["template"]["spec"]["volumes"]}
    assert volumes["shm"]["emptyDir"] == {"medium": "Memory"}
    assert volumes["tmp"]["emptyDir"] == {"sizeLimit": "10Gi"}


def test_no_two_namespaces_share_a_nodes_directory() -> None:
    made = render(run(), spec_of(), generate(), 1, (), settings(cache_host_path="/var/cache/"))
    pod = made.manifest["spec"]["template"]["spec"]
    (volume,) = [v for v in pod["volumes"] if v["name"] == "model-cache"]
    assert volume["hostPath"]["path"] == "/var/cache/team"
    assert "fsGroup" not in pod["securityContext"]  # of no use for a directory of the node


def test_the_cluster_may_choose_the_group() -> None:
    made = render(run(), spec_of(), generate(), 1, (), settings(work_claim_size="1Gi", fs_group=0))
    assert "fsGroup" not in made.manifest["spec"]["template"]["spec"]["securityContext"]


def task_of(job: CreateJob) -> StageTask:
    env = job.manifest["spec"]["template"]["spec"]["containers"][0]["env"]
    return StageTask.model_validate_json(next(e["value"] for e in env if e["name"] == "SRLM_TASK"))


def test_task_survives_its_journey() -> None:
    task = task_of(make(generate(), missing=(1, 3), attempt=2))
    assert (task.shards, task.shard_indexes, task.attempt, task.inputs["model"]) == (4, (1, 3), 2, MODEL)
    assert isinstance(task.params, GenerateParams)


@pytest.mark.parametrize("run_name", ["x" * 63, "a.b.c", "demo-", "n" * 23 + ".y"])
def test_names_fit_indexed_jobs(run_name: str) -> None:
    name = job_name(run_name, "uid", 50, "judge-heldout", "k" * 24, 99_999)
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)
    assert len(f"{name}-1023") <= 63


def test_a_name_tells_run_model_stage_and_attempt() -> None:
    assert re.fullmatch(r"srr-base-m2-train-[0-9a-f]{6}-a1", job_name("base", "uid", 1, "train", "key", 1))
    assert re.fullmatch(r"srr-base-preflight-[0-9a-f]{6}-a2", job_name("base", "uid", 0, "preflight", "key", 2))
    assert job_name("base", "uid", 1, "train", "key", 1) == job_name("base", "uid", 1, "train", "key", 1)


def test_no_two_stages_of_any_runs_share_a_name() -> None:
    long = "llama3-8b-self-rewarding-beta"
    nodes = [(t, node) for t in range(51) for node in ("data", "sft", "judge", "judge-r2", "judge-heldout", "train")]
    runs = [("a", "1"), ("a", "2"), ("a.b", "3"), ("a-b", "4"), (f"{long}-0.1", "5"), (f"{long}-0.2", "6")]
    names = {
        job_name(run_name, uid, t, node, key, attempt)
        for run_name, uid in runs
        for t, node in nodes
        for key in ("k", "l")
        for attempt in (1, 2)
    }
    assert len(names) == 6 * len(nodes) * 2 * 2


def test_settings_digest_ignores_the_task_and_sees_the_pods() -> None:
    def digest(job: CreateJob) -> str:
        return str(job.manifest["metadata"]["annotations"]["selfrewarding.dev/pod-settings"])

    same = digest(make(generate()))
    assert digest(make(generate(), attempt=7)) == same
    assert digest(make(generate(), missing=(1, 2))) == same
    image = {"stages": {"generate": {"image": "other:1"}}}
    labels = {"podTemplate": {"metadata": {"labels": {"team": "x"}}}}
    queue = {"scheduling": {"queueName": "q"}}
    changed = [digest(make(generate(), spec_of(**change))) for change in (image, labels, queue)]
    assert len({same, *changed}) == 4


def test_what_a_chain_needs_replaces_no_job() -> None:
    spec = spec_of(**TEMPLATES)
    alone = make(Work(1, "prompts", "prompts", "a" * 24, PromptsParams(), inputs={"model": MODEL}), spec)
    name = "selfrewarding.dev/pod-settings"
    digests = [job.manifest["metadata"]["annotations"][name] for job in (alone, chained(spec))]
    assert digests[0] == digests[1]


def test_a_chain_is_as_long_as_its_task_has_room_for_and_each_stage_has_its_time() -> None:
    def links(job: CreateJob) -> tuple[list[str], int]:
        assert job.chain == job_view(dict(job.manifest, metadata={**job.manifest["metadata"], "uid": "u"}), "").chain
        assert list(job.chain) == [f"1/{link.node}" for link in task_of(job).chain]
        return [link.node for link in task_of(job).chain], job.manifest["spec"]["activeDeadlineSeconds"] // 86400

    assert links(chained(spec_of())) == (["generate", "judge"], 3)
    assert links(chained(spec_of(), MAX_TASK_BYTES // 100)) == ([], 1)
    room = next(n for n in range(400, 1000) if links(chained(spec_of(), n))[0] == ["generate"])
    assert links(chained(spec_of(), room)) == (["generate"], 2)


def test_a_task_too_long_for_one_argument_is_refused() -> None:
    inputs = {f"earlier-{i}": MODEL for i in range(MAX_TASK_BYTES // 100)}
    work = Work(1, "prompts", "prompts", "f" * 24, GenerateParams(), inputs=inputs)
    with pytest.raises(InvalidPodTemplate, match="bytes"):
        make(work)


def test_default_gpus() -> None:
    def gpus(job: CreateJob) -> Any:
        limits = job.manifest["spec"]["template"]["spec"]["containers"][0]["resources"].get("limits", {})
        return limits.get("nvidia.com/gpu")

    assert gpus(make(train())) == "8"
    assert gpus(make(generate())) == "1"
    assert gpus(make(preflight(spec_of()))) is None
    wide = spec_of(stages={"generate": {"engine": {"args": {"tensor_parallel_size": 4}}}})
    assert gpus(make(generate(), wide)) == "4"
    assert gpus(make(judge(spec_of(**FULL)), spec_of(**FULL))) is None
    local = render(run(), spec_of(), generate(), 1, (), settings(local=True))
    assert gpus(local) is None


def test_secrets_are_references_and_only_where_needed() -> None:
    spec = spec_of(**FULL)

    def names(job: CreateJob) -> set[str]:
        env = job.manifest["spec"]["template"]["spec"]["containers"][0]["env"]
        return {e["name"] for e in env if "secretKeyRef" in e.get("valueFrom", {})}

    s3 = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"}
    assert names(make(preflight(spec), spec)) == {*s3, "HF_TOKEN"}
    assert names(make(train(), spec)) == s3
    assert names(make(judge(spec), spec)) == {*s3, "SRLM_JUDGE_API_KEY"}
    first = Work(0, "sft", "sft", "9" * 24, TrainParams(), sources={"model": SourceRef(uri="hf://org/base")})
    assert names(make(first, spec)) == {*s3, "HF_TOKEN"}


def test_only_stages_that_tell_trackers_get_their_secrets_and_none_waits_for_one() -> None:
    spec = spec_of(**FULL, tracking={
        "mlflow": {"uri": "https://mlflow.example", "credentialsSecretRef": {"name": "mlflow"}},
        "wandb": {"apiKeySecretRef": {"name": "wandb", "key": "key"}},
        "trackio": {"serverUrl": "https://trackio.example", "writeTokenSecretRef": {"name": "trackio"}},
    })  # fmt: skip

    def secrets(job: CreateJob) -> dict[str, Any]:
        env = job.manifest["spec"]["template"]["spec"]["containers"][0]["env"]
        return {e["name"]: e["valueFrom"]["secretKeyRef"] for e in env if "secretKeyRef" in e.get("valueFrom", {})}

    def told(job: CreateJob) -> bool:
        env = job.manifest["spec"]["template"]["spec"]["containers"][0]["env"]
        return StageTask.model_validate_json(next(e["value"] for e in env if e["name"] == "SRLM_TASK")).tracking.wanted

    ours = {
        **{
            f"MLFLOW_TRACKING_{name}": {"name": "mlflow", "key": f"MLFLOW_TRACKING_{name}", "optional": True}
            for name in ("TOKEN", "USERNAME", "PASSWORD")
        },
        "WANDB_API_KEY": {"name": "wandb", "key": "key", "optional": True},
        "TRACKIO_WRITE_TOKEN": {"name": "trackio", "key": "token", "optional": True},
    }
    report = Work(0, "report", "report", "9" * 24, report_params(spec, PreflightStatus(), RunStatus()))
    for work in (train(), preflight(spec), report):
        assert ours.items() <= secrets(make(work, spec)).items()
    for work in (generate(), judge(spec)):
        assert not ours.keys() & secrets(make(work, spec)).keys()
    assert [told(make(work, spec)) for work in (train(), preflight(spec), generate())] == [True, False, False]


def processes_of(stage: str, **changes: Any) -> tuple[int, Any]:
    """Processes a pod of a trainer is told to run, and its limits."""
    job = render(run(spec_=spec_of(**changes)), spec_of(**changes), trainer(stage), 1, (), settings(**SETTINGS))
    container = job.manifest["spec"]["template"]["spec"]["containers"][0]
    text = next(item["value"] for item in container["env"] if item["name"] == "SRLM_TASK")
    return StageTask.model_validate_json(text).process.processes_per_node, container["resources"].get("limits")


SETTINGS: dict[str, Any] = {"gpu_resource": "vendor.example/card"}


def trainer(stage: str) -> Work:
    params = TrainParams() if stage == "train" else SftParams()
    return Work(0, stage, stage, "a" * 24, params)  # type: ignore[arg-type]


@pytest.mark.parametrize("stage", ["sft", "train"])
@pytest.mark.parametrize(
    ("limits", "asked", "expected"),
    [
        (None, None, 8),
        (None, 2, 2),
        ({"nvidia.com/gpu": 4}, None, 4),
        ({"amd.com/gpu": "2"}, None, 2),
        ({"vendor.example/card": 3}, None, 3),
        ({"nvidia.com/gpu": 4}, 2, 2),
        ({"cpu": 16}, None, 8),
        ({"cpu": 16, "nvidia.com/gpu": 0}, 16, 16),
    ],
)
def test_a_process_for_each_gpu(stage: str, limits: Any, asked: int | None, expected: int) -> None:
    changes: dict[str, Any] = {"training": {"processesPerNode": asked} if asked else {}}
    if limits is not None:
        changes["stages"] = {stage: {"resources": {"limits": limits}}}
    found, held = processes_of(stage, **changes)
    assert found == expected
    assert held == (limits or {"vendor.example/card": str(expected)})


@pytest.mark.parametrize(
    ("work", "changes", "says"),
    [
        ("train", {"stages": {"train": {"resources": {"limits": {"vendor.example/card": 4}}}}}, "PerNode is 8"),
        (
            "sft",
            {"podTemplate": {"spec": {"containers": [
                {"name": "stage", "resources": {"limits": {"nvidia.com/gpu": 4, "vendor.example/card": None}}}]}}},
            "processesPerNode is 8",
        ),
    ],
)  # fmt: skip
def test_more_processes_than_gpus_are_refused_however_they_come_about(work: str, changes: Any, says: str) -> None:
    wanted = spec_of(training={"processesPerNode": 8}, **changes)
    with pytest.raises(InvalidPodTemplate, match=rf"{says}.*{work}.*4 GPUs"):
        render(run(spec_=wanted), wanted, trainer(work), 1, (), settings(**SETTINGS))


def test_more_ranks_than_gpus_are_refused() -> None:
    engine = {"args": {"tensor_parallel_size": 4}}
    wanted = spec_of(stages={"generate": {"engine": engine, "resources": {"limits": {"vendor.example/card": 2}}}})
    work = Work(1, "generate", "generate", "a" * 24, GenerateParams())
    with pytest.raises(InvalidPodTemplate, match=r"tensor_parallel_size is 4.*2 GPUs"):
        render(run(spec_=wanted), wanted, work, 1, (), settings(**SETTINGS))
