"""The planner over whole runs: which stages run in which order, and that it comes to rest."""

from __future__ import annotations

from srlm_contract.status import RunStatus
from srlm_operator.plan.status import MAX_STATUS_BYTES, size
from support.builders import spec
from support.fake_cluster import FakeCluster


def test_two_iterations_in_order() -> None:
    """Where no gate can stop the run and the shards are as many, stages come with those before them."""
    world = FakeCluster()
    world.settle()
    assert [world.node_of(name) for name in world.created] == [
        "0/preflight", "0/data", "0/sft-ift", "0/judge-ranked", "0/select", "0/sft",
        "0/judge-heldout",
        "1/generate", "1/judge", "1/pairs", "1/train", "1/judge-heldout",
        "2/prompts", "2/generate", "2/judge", "2/pairs", "2/train", "2/judge-heldout",
        "0/report",
    ]  # fmt: skip
    assert world.status.phase == "Succeeded"
    assert world.condition("Ready") == "Succeeded"
    assert [m.name for m in world.status.models] == ["M1", "M2", "M3"]
    assert world.status.current_model == "M3"
    assert world.status.progress.percent == 100
    metrics = world.status.iterations[1].metrics
    assert (metrics.pairs, metrics.parse_rate, metrics.mean_length) == (600, 1.0, 100.0)


def test_baselines_are_measured_after_m1_and_before_the_loop_and_stand_apart() -> None:
    world = FakeCluster(spec=spec(evaluation={"baselines": ["M0", "SFT"]}))
    world.settle()
    ran = [str(world.node_of(name)) for name in world.created]
    before = ran[ran.index("0/judge-heldout") + 1 : ran.index("1/generate")]
    assert set(before) == {"0/evaluate-m0", "0/evaluate-sft"}
    assert [(b.name, b.metrics.judge_accuracy, b.metrics.win_rate) for b in world.status.baselines] == [
        ("M0", 0.6, 0.5), ("SFT", 0.6, 0.5),
    ]  # fmt: skip
    assert [i.name for i in world.status.iterations] == ["M1", "M2", "M3"]


def test_finished_run_writes_nothing_more() -> None:
    world = FakeCluster()
    world.settle()
    before = world.writes
    for _ in range(5):
        world.advance(3600)
        world.reconcile()
    assert world.writes == before


def test_a_transition_costs_at_most_four_writes() -> None:
    world = FakeCluster()
    world.reconcile()
    most = 0
    while world.status.phase != "Succeeded":
        name = world.active()[0]
        world.start_pods(name)
        world.reconcile()
        world.finish(name)
        before = world.writes
        world.reconcile()
        # And one for each further stage that the Job has done; when a model is done, its evaluation and nothing else
        # starts beside it.
        further = len(world.tasks[name].chain)
        most = max(most, world.writes - before - further - (world.status.phase == "Succeeded"))  # an event at the end
        world.advance()
    assert most <= 4


def test_raising_iterations_goes_on_and_lowering_keeps_models() -> None:
    world = FakeCluster()
    world.settle()
    jobs = len(world.created)
    world.edit(iterations=3)
    world.settle()
    nodes = [world.node_of(name) for name in world.created[jobs:]]
    assert nodes[0] == "0/preflight"
    assert {node.partition("/")[0] for node in nodes[1:-1]} == {"3"}
    assert nodes[-1] == "0/report"
    assert [m.name for m in world.status.models] == ["M1", "M2", "M3", "M4"]
    jobs = len(world.created)
    world.edit(iterations=1)
    world.settle()
    assert [world.node_of(name) for name in world.created[jobs:]] == ["0/preflight", "0/report"]
    assert [m.name for m in world.status.models] == ["M1", "M2", "M3", "M4"]
    assert world.status.phase == "Succeeded"


def test_many_iterations_stay_small_and_resume_after_lost_status() -> None:
    world = FakeCluster(spec=spec(iterations=12))
    world.settle(1000)
    assert world.status.phase == "Succeeded"
    assert len(world.status.models) == 13
    assert size(world.status) < 64 * 1024
    digests = [(m.name, m.content_digest) for m in world.status.models]
    jobs = len(world.created)
    world.status = RunStatus()
    world.jobs.clear()
    world.pods.clear()
    world.created.clear()  # after a loss of status attempts begin anew: the Jobs are long gone
    world.stages.portion = 10
    world.settle(1000)
    assert [(m.name, m.content_digest) for m in world.status.models] == digests
    assert {world.node_of(name) for name in world.created} == {"0/preflight", "0/report"}
    assert len(world.created) < jobs


def test_fifty_iterations_with_every_figure_fit_into_status() -> None:
    world = FakeCluster(spec=spec(iterations=50, evaluation={"baselines": ["M0", "SFT"]}))
    third = 1234.0 + 1 / 3
    names = ("judged", "verdicts", "parsed", "freeVerdicts", "freeParsed", "meanScore", "tokens", "winRate", "loss")
    names += ("winRateLow", "winRateHigh", "wins", "orderFlips", "lengthControlledWinRate", "selfPreference", "answers")
    names += ("rewardAccuracy", "rewardMargin", "meanLength", "judgeAccuracy", "judgeAccuracyPairs", "tieRate")
    rich = dict.fromkeys((*names, "lengthOnlyAccuracy", "prompts", "candidates", "pairs"), third)
    rich |= {f"some{i}": third for i in range(20)}
    stages = ("judge", "prompts", "generate", "pairs", "train", "judge-heldout", "evaluate")
    world.stages.statistics = dict.fromkeys(stages, rich)
    world.settle(2000, watched=False)  # each look at so large a run takes a while
    assert world.status.phase == "Succeeded"
    assert len(world.status.models) == 51
    assert all(iteration.metrics.pairs == 1234 for iteration in world.status.iterations[1:])
    assert size(world.status) <= MAX_STATUS_BYTES
    before = world.writes
    world.advance(5000)
    world.reconcile()
    assert world.writes == before


def test_a_figure_stays_when_the_details_before_it_go() -> None:
    world = FakeCluster(spec=spec(iterations=9, evaluation={"enabled": False}))
    world.settle(1000)
    growth = [iteration.metrics.candidate_length_growth for iteration in world.status.iterations]
    assert growth == [None, None] + [1.0] * 8


def test_sibling_run_reuses_everything_before_train() -> None:
    first = FakeCluster()
    first.settle()
    training = first.spec.training
    other = training.model_copy(update={"dpo": training.dpo.model_copy(update={"beta": 0.5})})
    second = FakeCluster(spec=first.spec.model_copy(update={"training": other}), stages=first.stages, uid="other-uid")
    second.settle()
    nodes = [second.node_of(name) for name in second.created]
    assert nodes[:2] == ["0/preflight", "1/train"]
    assert second.status.phase == "Succeeded"


def test_events_tell_the_stage_and_its_outcome() -> None:
    world = FakeCluster()
    world.settle()
    told = set(world.events)
    stages = ("Preflight", "Data", "Sft", "Judge", "Select", "Prompts", "Generate", "Pairs", "Train", "Evaluate")
    assert {f"{stage}Succeeded" for stage in stages} <= told
    assert "PreflightStarted" in told
    assert not {reason for reason in told if reason.startswith("Stage")}
