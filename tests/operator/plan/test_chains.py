"""Chains: which stages a Job does behind its own, and what becomes of them."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from typing import Any

import pytest

from srlm_contract.progress import Progress
from srlm_operator.plan.plan import plan
from srlm_operator.times import parse
from support.builders import spec
from support.fake_cluster import FakeCluster, attempts, until_node
from support.stage_script import Ending, error

ONE = {"generation": {"shards": 1}}
EXTERNAL = {"external": {"url": "https://judge.example/v1", "model": "judge"}}
WHOLE = ["0/evaluate", "1/prompts", "1/generate", "1/judge"]
PLAIN = {**ONE, "seedData": {"uri": "hf://org/data", "eft": {"enabled": False}}, "evaluation": {"enabled": False}}
OPEN = {"gates": {"onFailure": "Continue"}}


def chain(world: FakeCluster, job: str) -> list[str]:
    return [f"{link.iteration}/{link.node}" for link in world.tasks[job].chain]


@pytest.mark.parametrize(
    ("changes", "lead", "expected"),
    [
        ({**ONE}, "0/judge-heldout", WHOLE),
        ({**ONE}, "0/judge-ranked", []),
        ({**ONE}, "1/judge-heldout", ["1/evaluate"]),
        ({**ONE}, "2/prompts", ["2/generate", "2/judge"]),
        ({**ONE, **OPEN}, "1/judge-heldout", ["1/evaluate", "2/prompts", "2/generate", "2/judge"]),
        ({**ONE, **OPEN, "iterations": 1}, "1/judge-heldout", ["1/evaluate"]),
        ({**ONE, **OPEN, "budget": {"tokens": 1e9}}, "1/judge-heldout", ["1/evaluate"]),
        ({**ONE, **OPEN, "budget": {"gpuSeconds": 1e9}, "iterations": 2}, "0/judge-heldout", WHOLE),
        ({**ONE, "gates": {"minJudgeAccuracy": 0.1}}, "0/judge-heldout", ["0/evaluate"]),
        ({**ONE, "gates": {"minWinRate": 0.1}}, "0/judge-heldout", WHOLE),
        ({**ONE, "evaluation": {"baselines": ["M0", "SFT"]}}, "0/judge-heldout", WHOLE),
        ({**ONE, "evaluation": {"baselines": ["M0", "SFT"]}}, "0/evaluate-sft", []),
        ({**ONE, "evaluation": {"baselines": ["SFT"], "winRate": {"prompts": 0}}}, "0/judge-ranked", []),
        ({**ONE, "evaluation": {"enabled": False}}, "1/prompts", ["1/generate", "1/judge"]),
        ({**ONE, "bootstrap": {"strategy": "None"}}, "0/judge-heldout", WHOLE),
        ({**ONE, "training": {"choose": {"enabled": True}}}, "1/judge-heldout", ["1/evaluate"]),
        ({**ONE, "training": {"choose": {"enabled": True}}}, "1/choose", []),
        ({"generation": {"shards": 2}}, "0/judge-heldout", ["0/evaluate", "1/prompts"]),
        ({"generation": {"shards": 2}, "judging": {"shards": 2}}, "1/generate", ["1/judge"]),
        ({"generation": {"shards": 2}, "judging": {"shards": 2}}, "0/judge-heldout", []),
        ({"generation": {"shards": 2}, "judging": {"shards": 3}}, "1/generate", []),
        ({**ONE, "judging": EXTERNAL}, "0/evaluate", ["1/prompts", "1/generate"]),
        (
            {**ONE, "judging": EXTERNAL, "evaluation": {"winRate": {"judge": {"source": "External"}}}},
            "1/prompts", ["1/generate"],
        ),
        ({**ONE, "prompts": {"generator": {"source": "Fixed", "uri": "hf://org/writer"}}}, "1/generate", ["1/judge"]),
        ({**ONE, "prompts": {"generator": {"source": "Fixed", "uri": "hf://org/writer"}}}, "1/prompts", []),
        ({**ONE, "prompts": {"generator": {"source": "Pool", "uri": "hf://org/pool"}}}, "1/prompts", []),
        ({**ONE, "stages": {"evaluate": {"engine": {"dtype": "Float16"}}}}, "0/judge-heldout", []),
        ({**ONE, "stages": {"judge": {"engine": {"dtype": "Float16"}}}}, "2/prompts", ["2/generate"]),
        ({**ONE, "stages": {"judge": {"image": "mine"}}}, "2/prompts", ["2/generate"]),
        ({**ONE, "stages": {"judge": {"resources": {"limits": {"cpu": 1}}}}}, "2/prompts", ["2/generate"]),
        (
            {**ONE, "stages": {"judge": {"podTemplate": {"metadata": {"labels": {"a": "b"}}}}}},
            "2/prompts", ["2/generate"],
        ),
        ({**ONE, "scheduling": {"chain": "Off"}}, "0/judge-heldout", []),
        # An image of the spec may be older than chains.
        ({**ONE, "stages": {s: {"image": "mine"} for s in ("judge", "evaluate")}}, "0/judge-heldout", []),
    ],
)  # fmt: skip
def test_what_comes_behind_a_stage(changes: dict[str, Any], lead: str, expected: list[str]) -> None:
    world = FakeCluster(spec=spec(**changes))
    assert chain(world, until_node(world, lead)) == expected


def test_a_link_waits_for_what_its_chain_makes_and_is_told_the_rest() -> None:
    world = FakeCluster(spec=spec(**ONE))
    evaluate, prompts, generate, judge = world.tasks[until_node(world, "0/judge-heldout")].chain
    sft = world.record("0/sft")
    assert (evaluate.awaited, prompts.awaited) == ({"judgements": "0/judge-heldout"}, {})
    assert (generate.awaited, judge.awaited) == ({"prompts": "1/prompts"}, {"candidates": "1/generate"})
    for link in (evaluate, prompts, generate, judge):
        model = link.inputs["model"]
        assert (model.stage, model.key, model.content_digest) == ("sft", sft.key, sft.content_digest)


def test_chained_and_single_stages_make_the_same() -> None:
    ends = []
    for mode in ("Auto", "Off"):
        world = FakeCluster(spec=spec(**ONE, **OPEN, scheduling={"chain": mode}))
        world.settle()
        records = [s for iteration in world.status.iterations for s in iteration.stages]
        ends.append([(s.name, s.state, s.key, s.content_digest, s.statistics, s.reused) for s in records])
        assert world.status.tokens == sum(s.statistics.get("tokens", 0) for s in records)
    assert ends[0] == ends[1]
    assert len(world.created) == 23


def test_time_and_cost_of_a_pod_are_those_of_its_stages() -> None:
    world = FakeCluster(spec=spec(**ONE))
    world.stages.link_seconds = 20
    name = until_node(world, "0/judge-heldout")
    world.start_pods(name)
    world.pods[name] = [replace(pod, gpus=2) for pod in world.pods[name]]
    world.reconcile()
    world.advance(100)
    world.finish(name)
    world.reconcile()
    records = [world.record(node) for node in ("0/judge-heldout", *WHOLE)]
    assert {r.job for r in records} == {name}
    assert [r.gpu_seconds for r in records] == [40, 40, 40, 40, 40]
    assert world.status.gpu_seconds == 200
    times = [(parse(r.started_at), parse(r.finished_at)) for r in records]
    assert all(end == begin for (_, end), (begin, _) in itertools.pairwise(times))
    assert [(end - begin).total_seconds() for begin, end in times if begin and end] == [20, 20, 20, 20, 20]
    assert {(r.attempt, r.state) for r in records} == {(1, "Succeeded")}
    assert {"JudgeSucceeded", "EvaluateSucceeded", "PromptsSucceeded", "GenerateSucceeded"} <= set(world.events)


@pytest.mark.parametrize("seconds", [1e12, -5.0, float("nan"), float("inf")])
def test_no_stage_takes_longer_than_its_pod(seconds: float) -> None:
    world = FakeCluster(spec=spec(**ONE))
    name = until_node(world, "0/judge-heldout")
    world.start_pods(name)
    world.advance(100)
    world.finish(name)
    (pod,) = world.pods[name]
    body = json.loads(pod.message)
    body["chained"][0] |= {"seconds": seconds, "novel": 1, "statistics": {"tokens": "many", "judgeAccuracy": 0.5}}
    body["chained"].append({"node": "1/train", "key": "k", "contentDigest": "sha256:1"})
    body["chained"].append({"node": "nonsense"})
    world.pods[name] = [replace(pod, message=json.dumps(body))]
    world.reconcile()
    lead, link = world.record("0/judge-heldout"), world.record("0/evaluate")
    assert (link.state, link.statistics) == ("Succeeded", {"judgeAccuracy": 0.5})
    begin, end = parse(lead.started_at), parse(lead.finished_at)
    assert begin is not None
    assert end is not None
    assert begin <= end
    assert world.record("1/train").state == "Pending", "it is not of this Job's chain"


@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        (Ending(1, "it breaks"), "Crashed"),
        (Ending(137, "", "OOMKilled"), "OutOfMemory"),
        (Ending(143, "", "Error", disrupted=True), "Disrupted"),
    ],
)
def test_a_stage_that_ends_a_chain_is_blamed_in_a_job_of_its_own(ending: Ending, reason: str) -> None:
    world = FakeCluster(spec=spec(**ONE))
    world.stages.fail("generate", ending)
    name = until_node(world, "0/judge-heldout")
    world.start_pods(name)
    world.finish(name)
    world.reconcile()
    done = [world.record(node) for node in ("0/judge-heldout", "0/evaluate", "1/prompts")]
    assert [(r.state, r.counted_failures, r.attempt) for r in done] == [("Succeeded", 0, 1)] * 3
    alone = world.active()[0]
    assert (world.node_of(alone), chain(world, alone)) == ("1/generate", ["1/judge"])
    world.start_pods(alone)
    world.finish(alone)
    world.reconcile()
    assert world.record("1/generate").last_failure.reason == reason
    world.settle()
    assert world.status.phase == "Succeeded"
    assert (attempts(world, "0/judge-heldout"), attempts(world, "1/generate")) == (1, 2)
    again = world.record("1/judge").job == world.record("1/generate").job
    assert again == (reason == "Disrupted"), "what has failed is tried again alone"


def test_a_deadline_in_a_link_ends_the_chain_and_costs_the_lead_nothing() -> None:
    world = FakeCluster(spec=spec(**ONE))
    name = until_node(world, "0/judge-heldout")
    world.stages.fail("evaluate", Ending(137, "", "OOMKilled"))
    world.finish(name)
    world.jobs[name] = replace(world.jobs[name], failure_reason="DeadlineExceeded")
    world.reconcile()
    record = world.record("0/judge-heldout")
    assert (record.state, record.counted_failures) == ("Succeeded", 0)


@pytest.mark.parametrize("deleted", [False, True], ids=["deadline", "by hand"])
def test_what_a_chain_has_committed_is_looked_for_where_its_pods_are_gone(deleted: bool) -> None:
    world = FakeCluster(spec=spec(**ONE))
    name = until_node(world, "0/judge-heldout")
    world.start_pods(name)
    world.reconcile()
    world.stages.run(world.tasks[name].model_copy(update={"chain": ()}))  # the lead is committed, evaluate hangs
    world.pods[name] = []
    if deleted:
        del world.jobs[name]
    else:
        ended = {"state": "Failed", "active": 0, "finished_at": world.now}
        why = {"failure_reason": "DeadlineExceeded", "failure_message": "it took too long"}
        world.jobs[name] = replace(world.jobs[name], **ended, **why)
    until_node(world, "0/evaluate")
    record = world.record("0/judge-heldout")
    assert (record.state, record.reused, attempts(world, "0/judge-heldout")) == ("Succeeded", True, 1)
    assert chain(world, world.record("0/evaluate").job) == WHOLE[1:]


def test_a_lead_that_failed_is_tried_again_alone() -> None:
    world = FakeCluster(spec=spec(**ONE))
    world.stages.fail("judge-heldout", error(65, "ModelNotUsable", "no room for the key-value cache"))
    name = until_node(world, "0/judge-heldout")
    assert chain(world, name) == WHOLE
    world.start_pods(name)
    world.finish(name)
    world.reconcile()
    world.advance(4000)
    assert chain(world, until_node(world, "0/judge-heldout")) == []


def test_links_of_an_iteration_that_is_cut_off_cost_no_look_after_the_other() -> None:
    world = FakeCluster(spec=spec(**ONE, **OPEN))
    name = until_node(world, "1/judge-heldout")
    world.start_pods(name)
    world.reconcile()
    world.edit(iterations=1)
    world.reconcile()
    found = plan(world.run(), world.observed(), world.now, world.settings)
    assert found.requeue_after is None or found.requeue_after > 0


def test_a_pod_that_replaces_an_evicted_one_goes_on_where_that_has_stopped() -> None:
    world = FakeCluster(spec=spec(**ONE))
    name = until_node(world, "0/judge-heldout")
    world.start_pods(name)
    (pod,) = world.pods[name]
    text = world.stages.interrupt(world.tasks[name], 0, links=2).message
    world.pods[name] = [
        replace(pod, phase="Failed", disrupted=True, exit_code=143, message=text, finished_at=world.now)
    ]
    world.reconcile()
    assert world.record("0/judge-heldout").state == "Running", "the Job makes another pod"
    world.pods[name].append(replace(pod, name=f"{pod.name}+", uid="another"))
    world.finish(name)
    world.pods[name] = world.pods[name][1:]
    world.jobs[name] = replace(world.jobs[name], state="Complete")
    world.reconcile()
    records = [world.record(node) for node in ("0/judge-heldout", *WHOLE)]
    assert {(r.state, r.reused) for r in records} == {("Succeeded", False)}, "made by this Job"
    assert world.stages.ran.count("0/evaluate") == 1


def test_a_job_deleted_by_hand_keeps_what_its_pods_have_said() -> None:
    world = FakeCluster(spec=spec(**ONE))
    name = until_node(world, "0/judge-heldout")
    world.stages.fail("generate", Ending(143, "", "Error", disrupted=True))
    world.finish(name)
    del world.jobs[name]
    world.stages.faults.clear()
    world.reconcile()
    assert [world.record(node).state for node in ("0/judge-heldout", "1/prompts")] == ["Succeeded", "Succeeded"]
    world.settle()
    assert attempts(world, "1/prompts") == 0


def test_suspended_in_a_chain_and_resumed() -> None:
    """Nothing has told what was committed: the stage begins anew and finds it."""
    world = FakeCluster(spec=spec(**ONE))
    name = until_node(world, "0/judge-heldout")
    world.start_pods(name)
    world.stages.run(world.tasks[name])
    world.edit(suspend=True)
    world.reconcile()
    assert name not in world.jobs
    world.edit(suspend=False)
    world.settle()
    assert world.status.phase == "Succeeded"
    assert world.stages.ran.count("1/judge") == 1


def test_an_edit_makes_links_anew_and_only_those() -> None:
    world = FakeCluster(spec=spec(**PLAIN))
    name = until_node(world, "1/prompts")
    world.start_pods(name)
    world.reconcile()
    world.edit(judging=world.spec.judging.model_copy(update={"samples": 5}))
    world.reconcile()
    world.finish(name)
    world.settle()
    assert world.status.phase == "Succeeded"
    ran = world.stages.ran
    assert (ran.count("1/prompts"), ran.count("1/generate"), ran.count("1/judge")) == (1, 1, 2)
    assert world.record("1/judge").job != name
    assert world.record("1/generate").job == name


def test_a_link_that_an_edit_has_outdated_is_stopped_when_the_pod_has_come_to_it() -> None:
    world = FakeCluster(spec=spec(**PLAIN))
    name = until_node(world, "1/prompts")
    world.start_pods(name)
    world.edit(judging=world.spec.judging.model_copy(update={"samples": 5}))
    for stage in ("prompts", "generate"):
        shown(world, name, line(stage))
        assert name in world.active()
    shown(world, name, line("judge"))
    assert name not in world.active()
    world.settle()
    assert (world.status.phase, world.record("1/prompts").counted_failures) == ("Succeeded", 0)


def test_an_edit_of_something_else_leaves_a_chain_alone() -> None:
    """Preflight looks again and finds what the Job itself has committed."""
    world = FakeCluster(spec=spec(**ONE, evaluation={"enabled": False}))
    name = until_node(world, "1/prompts")
    world.start_pods(name)
    world.stages.run(world.tasks[name].model_copy(update={"chain": ()}))
    dpo = world.spec.training.dpo.model_copy(update={"beta": 0.3})
    world.edit(training=world.spec.training.model_copy(update={"dpo": dpo}))
    world.reconcile()
    (preflight,) = [job for job in world.active() if job != name]
    world.finish(preflight)
    world.reconcile()
    assert world.active() == [name]
    world.settle()
    assert attempts(world, "1/generate") == 0


def test_what_the_shards_of_a_chain_say_is_put_together() -> None:
    world = FakeCluster(spec=spec(generation={"shards": 2}, judging={"shards": 2}))
    name = until_node(world, "1/generate")
    world.start_pods(name)
    world.finish(name)
    told = [json.loads(pod.message) for pod in world.pods[name]]
    assert ["contentDigest" in body and bool(body["contentDigest"]) for body in told] == [False, True]
    told[0]["chained"], told[1]["chained"] = told[1]["chained"], []
    world.pods[name] = [replace(p, message=json.dumps(m)) for p, m in zip(world.pods[name], told, strict=True)]
    world.reconcile()
    records = [world.record("1/generate"), world.record("1/judge")]
    assert [(r.state, r.shards, r.job) for r in records] == [("Succeeded", 2, name)] * 2


def test_only_the_shards_that_are_missing_are_made_and_the_next_stage_begins_alone() -> None:
    world = FakeCluster(spec=spec(generation={"shards": 2}, judging={"shards": 2}))
    world.stages.fail("generate", Ending(1, "one shard breaks"))
    world.finish(until_node(world, "1/generate"))
    again = until_node(world, "1/generate")
    assert (world.missing_of(again), chain(world, again)) == ((0,), [])
    world.settle()
    assert (attempts(world, "1/generate"), attempts(world, "1/judge")) == (2, 1)


def test_an_artifact_that_is_made_again_is_made_alone() -> None:
    world = FakeCluster(spec=spec(**ONE, evaluation={"enabled": False}))
    until_node(world, "1/pairs")
    first, second = world.status.iterations
    stages = tuple(
        s.model_copy(update={"state": "Pending", "repair": True}) if s.name == "generate" else s for s in second.stages
    )
    world.status = world.status.model_copy(update={"iterations": (first, second.model_copy(update={"stages": stages}))})
    assert chain(world, until_node(world, "1/generate")) == []


def test_a_job_that_waits_is_not_replaced_because_its_chain_would_be_another_one() -> None:
    world = FakeCluster(spec=spec(**ONE, gates={"minJudgeAccuracy": 0.1}))
    name = until_node(world, "0/judge-heldout")
    assert chain(world, name) == ["0/evaluate"]
    world.edit(gates=world.spec.gates.model_copy(update={"min_judge_accuracy": None}))
    world.reconcile()
    assert world.active() == [name]


def shown(world: FakeCluster, job: str, *lines: Progress) -> tuple[str, str, int]:
    """Stage, message and percent of status with these lines in the logs of the Job's pods."""
    world.progress |= {pod.name: line for pod, line in zip(world.pods[job], lines, strict=True)}
    world.reconcile()
    return world.status.stage, world.status.progress.message, world.status.progress.percent


def line(stage: str, done: int = 1) -> Progress:
    return Progress(stage=stage, done=done, total=4)


def test_progress_is_that_of_the_stage_that_the_pod_has_come_to() -> None:
    world = FakeCluster(spec=spec(**ONE))
    name = until_node(world, "0/judge-heldout")
    world.start_pods(name)
    seen = [shown(world, name, line(stage)) for stage in ("judge", "judge", "evaluate", "prompts", "generate", "judge")]
    assert [(stage, text) for stage, text, _ in seen] == [
        ("judge-heldout", "judge-heldout of M1: 1/4 rows"),
        ("judge-heldout", "judge-heldout of M1: 1/4 rows"),
        ("evaluate", "evaluate of M1: 1/4 rows"),
        ("prompts", "prompts of M2: 1/4 rows"),
        ("generate", "generate of M2: 1/4 rows"),
        ("judge", "judge of M2: 1/4 rows"),
    ]
    assert shown(world, name, line("judge", 2))[:2] == ("judge", "judge of M2: 2/4 rows")
    percents = [percent for *_, percent in seen]
    assert percents == sorted(percents)
    assert percents[-1] - percents[0] == 19, "four stages of 21"


def test_progress_of_shards_that_are_at_different_stages() -> None:
    world = FakeCluster(spec=spec(generation={"shards": 2}, judging={"shards": 2}))
    name = until_node(world, "1/generate")
    world.start_pods(name)
    assert shown(world, name, line("generate"), line("judge"))[1] == "generate of M2: 5/~8 rows"
    assert world.status.progress.shards_done == 1
    assert shown(world, name, line("judge", 2), line("judge"))[1] == "judge of M2: 3/8 rows"


def test_people_are_told_what_comes_next_and_in_which_job() -> None:
    world = FakeCluster(spec=spec(**ONE))
    name = until_node(world, "0/judge-heldout")
    begun = world.writes
    world.reconcile()
    assert world.writes == begun, "the next look says the same"
    (message,) = [c.message for c in world.status.conditions if c.type == "Reconciling"]
    assert message.startswith("judge-heldout of M1 runs, then evaluate, prompts of M2, generate of M2, judge of M2")
    for node in WHOLE:
        assert (world.record(node).state, world.record(node).job) == ("Pending", name)
    world.remove(name)
    world.reconcile()
    assert world.record("0/evaluate").job != name
