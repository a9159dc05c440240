"""The stage graph: what runs, what it reads, and what reuses what."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srlm_contract.graph import Node, NodeId, Outcome, graph, node_key
from srlm_contract.spec.run import RunSpec
from srlm_contract.tasks import ArtifactRef, EvaluateParams, JudgeParams, PairsParams, Pins, SourceRef, TrainParams

PINS = Pins(
    base_model=SourceRef(uri="hf://owner/model", revision="abc"),
    seed_data=SourceRef(uri="s3://seed/trees.jsonl", revision="sha256:0"),
)


def spec(**changes: Any) -> RunSpec:
    return RunSpec.parse(
        {
            "baseModel": {"uri": "hf://owner/model"},
            "storage": {"uri": "s3://bucket/prefix"},
            "seedData": {"uri": "s3://seed/trees.jsonl"},
            **changes,
        }
    )


def walk(run: RunSpec, pins: Pins = PINS, **statistics: dict[str, float]) -> tuple[list[Node], dict[str, Outcome]]:
    """Commit every node in order, as if its content digest were a function of its key."""
    outcomes: dict[str, Outcome] = {}
    while True:
        nodes = graph(run, pins, outcomes)
        node = next((n for n in nodes if n.id not in outcomes), None)
        if node is None:
            return list(nodes), outcomes
        key = node_key(node, outcomes, run.seed)
        assert key is not None, f"{node.id} comes before one of its inputs"
        name = node.id.replace("/", "_").replace("-", "_")
        outcomes[node.id] = Outcome(key, f"sha256:{key}", statistics.get(f"n{name}", {}))


def keys(run: RunSpec, pins: Pins = PINS) -> dict[str, str]:
    return {node_id: outcome.key for node_id, outcome in walk(run, pins)[1].items()}


def test_the_papers_loop() -> None:
    nodes, _ = walk(spec())
    assert [n.id for n in nodes] == [
        "0/data", "0/sft-ift", "0/judge-ranked", "0/select", "0/sft", "0/judge-heldout", "0/evaluate",
        "1/prompts", "1/generate", "1/judge", "1/pairs", "1/train", "1/judge-heldout", "1/evaluate",
        "2/prompts", "2/generate", "2/judge", "2/pairs", "2/train", "2/judge-heldout", "2/evaluate",
    ]  # fmt: skip


def test_m3_is_trained_from_m2_or_from_m1() -> None:
    previous = {n.id: n for n in walk(spec())[0]}["2/train"]
    bootstrap = {n.id: n for n in walk(spec(training={"startFrom": "Bootstrap"}))[0]}["2/train"]
    assert previous.inputs == {"pairs": "2/pairs", "model": "1/train"}
    assert bootstrap.inputs == {"pairs": "2/pairs", "model": "0/sft"}


def test_the_reference_is_named_only_when_it_is_another_model() -> None:
    nodes = {n.id: n for n in walk(spec(training={"reference": "Bootstrap"}))[0]}
    assert "reference" not in nodes["1/train"].inputs
    assert nodes["2/train"].inputs["reference"] == "0/sft"


def test_prompts_know_all_earlier_prompts() -> None:
    nodes = {n.id: n for n in walk(spec(iterations=3))[0]}
    assert nodes["3/prompts"].inputs == {
        "data": "0/data", "model": "2/train", "earlier-1": "1/prompts", "earlier-2": "2/prompts",
    }  # fmt: skip


def test_without_eft_m1_learns_from_answers_alone() -> None:
    nodes, _ = walk(spec(seedData={"uri": "s3://seed/t", "eft": {"enabled": False, "heldOutExamples": 0}}))
    assert [n.id for n in nodes if n.iteration == 0] == ["0/data", "0/sft", "0/evaluate"]


def test_baselines_are_stages_of_their_own_and_change_no_key() -> None:
    measured = spec(evaluation={"baselines": ["M0", "SFT"]})
    nodes = {n.id: n for n in walk(measured)[0]}
    assert set(nodes) - set(keys(spec())) == {"0/evaluate-m0", "0/evaluate-sft"}
    assert {name: key for name, key in keys(measured).items() if name in keys(spec())} == keys(spec())
    m0, sft = nodes["0/evaluate-m0"], nodes["0/evaluate-sft"]
    assert m0.inputs == {"data": "0/data", "answers-M1": "0/evaluate", "judge": "0/sft"}
    assert (m0.sources, sft.inputs["model"]) == ({"model": PINS.base_model}, "0/sft-ift")
    assert isinstance(m0.params, EvaluateParams)
    assert isinstance(m0.params.judging, JudgeParams)
    assert (m0.params.model, m0.params.opponents, m0.params.judging.rows) == ("M0", ("M1",), "ranked-heldout")


def test_there_are_baselines_only_where_they_are_other_models_than_m1() -> None:
    asked = {"baselines": ["M0", "SFT"]}
    plain = spec(evaluation=asked, seedData={"uri": "s3://seed/t", "eft": {"enabled": False}})
    assert [n.id for n in walk(plain)[0] if "-" in n.name and n.stage == "evaluate"] == ["0/evaluate-m0"], "SFT is M1"
    assert "0/evaluate-m0" not in keys(spec(evaluation=asked, bootstrap={"strategy": "None"})), "M0 is M1"
    assert "0/evaluate-m0" not in keys(spec(evaluation={**asked, "enabled": False}))
    external = {"external": {"url": "https://judge.example/v1", "model": "big"}}
    outside = {n.id: n for n in walk(spec(evaluation=asked, judging=external))[0]}["0/evaluate-m0"].params
    assert isinstance(outside, EvaluateParams)
    assert outside.judging is None, "whose judging it would be is measured with M1"


def test_the_verdicts_that_m1_learns_from_are_the_models_own() -> None:
    judging = {"external": {"url": "https://judge.example/v1", "model": "big"}, "samples": 2}
    nodes = {n.id: n for n in walk(spec(judging=judging))[0]}
    assert "model" not in nodes["1/judge"].inputs
    assert nodes["0/judge-ranked"].inputs["model"] == "0/sft-ift"
    own, outside = nodes["0/judge-ranked"].params, nodes["1/judge"].params
    assert isinstance(own, JudgeParams)
    assert isinstance(outside, JudgeParams)
    assert (own.external.url, own.samples) == (None, 2)
    assert outside.external.url == "https://judge.example/v1"
    digits = spec(judging={"scorer": "ExpectedScore", "shadowScorer": {"scorer": "Sampled"}})
    expected = {n.id: n for n in walk(digits)[0]}
    own = expected["0/judge-ranked"].params
    assert isinstance(own, JudgeParams)
    assert (own.scorer, own.shadow_scorer.scorer) == ("Sampled", "None")


def test_an_external_judge_judges_everything_but_writes_nothing() -> None:
    run = spec(
        judging={"external": {"url": "https://judge.example/v1", "model": "big"}},
        evaluation={"winRate": {"judge": {"source": "External"}}},
        seedData={"uri": "s3://seed/t", "eft": {"enabled": False}},
    )
    nodes = {n.id: n for n in walk(run)[0]}
    assert all("model" not in n.inputs for n in nodes.values() if n.stage == "judge")
    assert "judge" not in nodes["1/evaluate"].inputs
    params = nodes["1/evaluate"].params
    assert isinstance(params, EvaluateParams)
    assert params.external.model == "big"
    assert "0/select" not in nodes
    assert nodes["1/generate"].inputs["model"] == "0/sft"


@pytest.mark.parametrize(("scorer", "perfect"), [("Sampled", 5), ("ExpectedScore", 4.5)])
def test_what_counts_as_a_perfect_score_depends_on_the_scorer(scorer: str, perfect: float) -> None:
    nodes = {n.id: n for n in walk(spec(judging={"scorer": scorer}))[0]}
    params = nodes["1/evaluate"].params
    assert isinstance(params, EvaluateParams)
    assert params.perfect_score == perfect


def test_checkpoints_are_compared_by_the_model_that_was_trained() -> None:
    """On the validation prompts, by M_t: the head-to-head judge of the evaluation has no part in the choice."""
    nodes = {n.id: n for n in walk(spec(training={"choose": {"enabled": True}}))[0]}
    assert nodes["1/choose"].inputs == {"data": "0/data", "train": "1/train", "judge": "0/sft"}
    assert nodes["2/choose"].inputs == {"data": "0/data", "train": "2/train", "judge": "1/choose"}
    assert nodes["2/evaluate"].inputs["judge"] == "0/sft"
    assert nodes["2/evaluate"].inputs["model"] == "2/choose"


def test_without_bootstrap_the_base_model_is_m1() -> None:
    nodes = {n.id: n for n in walk(spec(bootstrap={"strategy": "None"}))[0]}
    assert nodes["1/generate"].sources["model"] == PINS.base_model
    assert "0/sft" not in nodes


def test_a_branch_starts_at_another_runs_model() -> None:
    m1 = ArtifactRef(stage="sft", key="k", content_digest="sha256:m1")
    nodes = {n.id: n for n in graph(spec(), PINS, {}, branch=m1)}
    assert nodes["1/train"].artifacts == {"model": m1}
    assert "0/sft" not in nodes


def test_another_beta_reuses_everything_before_training() -> None:
    ours, theirs = keys(spec()), keys(spec(training={"dpo": {"beta": 0.3}}))
    same = {n for n in ours if ours[n] == theirs[n]}
    assert same == {n for n in ours if n.startswith("0/")} | {
        "1/prompts", "1/generate", "1/judge", "1/pairs",
    }  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"stages": {"generate": {"resources": {"limits": {"nvidia.com/gpu": 4}}}}},
        {"stages": {"train": {"podTemplate": {"spec": {"nodeSelector": {"gpu": "h100"}}}}}},
        {"generation": {"shards": 2}},
        {"judging": {"shards": 3}},
        {"training": {"nodes": 2, "processesPerNode": 4, "microBatchSize": 2}},
        {"training": {"checkpointEverySteps": 10}},
        {"training": {"attnImplementation": "flash_attention_2", "paddingFree": True}},
        {"training": {"fsdp": {"cpuOffload": True, "reshardAfterForward": False, "dpReplicateSize": 2}}},
        {"training": {"parallelism": "DeepSpeed", "deepspeed": {"zeroStage": 2, "offloadOptimizerDevice": "cpu"}}},
        {"scheduling": {"queueName": "q"}},
        {"failurePolicy": {"maxAttempts": 9}},
        {"gates": {"minPairs": 1}},
        {"storage": {"uri": "s3://other/place", "endpointUrl": "https://minio.example"}},
        {"suspend": True},
    ],
)
def test_how_and_where_it_runs_is_not_in_the_keys(change: dict[str, Any]) -> None:
    assert keys(spec(**change)) == keys(spec())


@pytest.mark.parametrize(
    ("change", "first"),
    [
        ({"seed": 1}, "0/data"),
        ({"seedData": {"uri": "s3://seed/t", "language": "de"}}, "0/data"),
        ({"bootstrap": {"sft": {"epochs": 3}}}, "0/sft-ift"),
        ({"stages": {"judge": {"engine": {"name": "transformers"}}}}, "0/judge-ranked"),
        ({"prompts": {"count": 7}}, "1/prompts"),
        ({"generation": {"candidates": 5}}, "1/generate"),
        ({"preferences": {"minMargin": 1}}, "1/pairs"),
        ({"stages": {"pairs": {"image": "mine:1"}}}, "1/pairs"),
        ({"training": {"saveDtype": "BFloat16"}}, "0/sft-ift"),
        ({"baseModel": {"uri": "hf://owner/model", "chatTemplateKwargs": {"enable_thinking": False}}}, "0/sft-ift"),
        ({"bootstrap": {"lora": {"rank": 8}}}, "0/sft-ift"),
        ({"bootstrap": {"sft": {"packing": True}}}, "0/sft-ift"),
        ({"bootstrap": {"sft": {"optim": "adamw_torch_fused"}}}, "0/sft-ift"),
        ({"training": {"dpo": {"weightDecay": 0.1}}}, "1/train"),
        ({"training": {"dpo": {"adamBeta2": 0.95}}}, "1/train"),
        ({"training": {"dpo": {"maxGradNorm": 0.5}}}, "1/train"),
        ({"training": {"dpo": {"lossType": ["sigmoid", "sft"], "lossWeights": [1, 0.2]}}}, "1/train"),
        ({"training": {"dpo": {"ldAlpha": 0.5}}}, "1/train"),
    ],
)
def test_what_changes_the_result_changes_the_key(change: dict[str, Any], first: str) -> None:
    ours, theirs = keys(spec()), keys(spec(**change))
    assert next(n for n in ours if ours[n] != theirs[n]) == first


def test_a_default_written_out_is_the_default() -> None:
    assert keys(RunSpec.parse(spec().wire())) == keys(spec())


def test_content_identity_does_not_depend_on_the_place() -> None:
    here = PINS.model_copy(update={"base_model": SourceRef(uri="file:///a", revision="sha256:1")})
    there = PINS.model_copy(update={"base_model": SourceRef(uri="s3://b/a", revision="sha256:1")})
    assert keys(spec(), here) == keys(spec(), there)


def test_more_rounds_while_pairs_fall_short() -> None:
    run = spec(iterations=1, preferences={"minYield": {"pairs": 10, "maxRounds": 3}})
    nodes, outcomes = walk(run, n1_pairs={"pairs": 4}, n1_pairs_r2={"pairs": 12})
    by_id = {n.id: n for n in nodes}
    assert by_id["1/train"].inputs["pairs"] == "1/pairs-r2"
    assert by_id["1/pairs-r2"].inputs == {"judgements-1": "1/judge", "judgements-2": "1/judge-r2"}
    assert "1/pairs-r3" not in by_id
    assert outcomes["1/prompts"].key != outcomes["1/prompts-r2"].key


def test_a_round_without_any_pair_is_an_error_only_when_no_other_may_follow() -> None:
    run = spec(iterations=1, preferences={"minYield": {"pairs": 10, "maxRounds": 2}})
    nodes, _ = walk(run, n1_pairs={"pairs": 0})
    rounds = {n.id: n.params.may_be_empty for n in nodes if isinstance(n.params, PairsParams)}
    assert rounds == {"1/pairs": True, "1/pairs-r2": False}
    for usual in (spec(), spec(preferences={"minYield": {"maxRounds": 5}})):
        assert not any(n.params.may_be_empty for n in walk(usual)[0] if isinstance(n.params, PairsParams))


def test_length_penalties_run_by_iteration_and_the_last_repeats() -> None:
    run = spec(iterations=4, preferences={"lengthPenalties": [0, 0.2]})
    rhos = [n.params.length_penalty for n in walk(run)[0] if isinstance(n.params, PairsParams)]
    assert rhos == [0, 0.2, 0.2, 0.2]


def test_positives_train_on_the_seed_too() -> None:
    nodes = {n.id: n for n in walk(spec(preferences={"strategy": "PositiveOnly"}))[0]}
    train = nodes["1/train"]
    assert isinstance(train.params, TrainParams)
    assert train.params.include_seed
    assert train.inputs == {"pairs": "1/pairs", "data": "0/data", "eft": "0/select", "model": "0/sft"}


def test_raising_iterations_changes_no_earlier_key() -> None:
    two, four = keys(spec(iterations=2)), keys(spec(iterations=4))
    assert {n: four[n] for n in two} == two


@given(st.integers(1, 6), st.booleans(), st.booleans(), st.sampled_from(["Current", "Fixed", "Pool"]))
def test_inputs_always_come_first(iterations: int, choose: bool, evaluation: bool, source: str) -> None:
    run = spec(
        iterations=iterations,
        training={"choose": {"enabled": choose}},
        evaluation={"enabled": evaluation},
        prompts={"generator": {"source": source, "uri": "hf://a/b"}},
    )
    seen: set[str] = set()
    for node in graph(run, PINS.model_copy(update={"prompt_source": SourceRef(uri="hf://a/b")}), {}):
        assert set(node.inputs.values()) <= seen
        assert node.id not in seen
        seen.add(node.id)


#: Keys of the run above as they were before `Auto` became the default of `precision` and `dtype`, when a key was made
#: of BF16Mixed and BFloat16 by leaving them out. A run that has them written down keeps them.
FORMER_KEYS = {
    "0/data": "e6a037e1a900010200f3f18e",
    "0/sft-ift": "0b473cb9880d3b75a6a0a943",
    "0/judge-ranked": "cea8eec354780620629ddc7e",
    "0/select": "97d10e5316b45536f6ed066a",
    "0/sft": "c0879a5ab98e42147e340ecb",
    "0/judge-heldout": "f638510c4520f8403b1d1594",
    "0/evaluate": "a50f1cbb3a2f03fd8ea041f4",
    "1/prompts": "b16d65b9ce6136227a394547",
    "1/generate": "7e0ba9f2b57e4ab7bfc57588",
    "1/judge": "e8b87b989f0c8a0dfa741620",
    "1/pairs": "12d39478f6747c15df414ea7",
    "1/train": "b93bbe023772cb81fec5b613",
    "1/judge-heldout": "bdf1252c6c4f36deac7b46eb",
    "1/evaluate": "fffbc6fda59cd2b9b6791523",
    "2/prompts": "f4b4d1603ec9e0647db7fb18",
    "2/generate": "a286ca7df596ac7507aa0247",
    "2/judge": "65482c84178c6f21d9219d35",
    "2/pairs": "f45abfc4c504f80fbd7f8c10",
    "2/train": "1e493b08c2855223c4d56563",
    "2/judge-heldout": "35d5fa6447745119ecd9ac35",
    "2/evaluate": "54e81cd4668ddde083b73641",
}


def test_keys_are_frozen() -> None:
    """A change here makes every user's finished stages run again. Bump a revision instead where results change."""
    engine = {"engine": {"dtype": "BFloat16"}}
    stages = dict.fromkeys(("judge", "prompts", "generate", "choose", "evaluate"), engine)
    assert keys(spec(training={"precision": "BF16Mixed"}, stages=stages)) == FORMER_KEYS


def test_auto_is_part_of_the_key() -> None:
    ours = keys(spec())
    assert {node for node, key in ours.items() if key == FORMER_KEYS[node]} == {"0/data"}
    nodes = {node.id: node.params.wire(defaults=False) for node in walk(spec())[0]}
    assert nodes["0/sft"]["precision"] == "Auto"
    assert nodes["1/generate"]["engine"] == {"dtype": "Auto"}


def test_a_node_id_is_its_string_on_the_wire_and_its_parts_in_code() -> None:
    made = NodeId(1, "judge-heldout")
    assert (made, made.iteration, made.name, made.stage) == ("1/judge-heldout", 1, "judge-heldout", "judge")
    for again in (NodeId.parse("1/judge-heldout"), copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert (again, again.iteration, again.name) == (made, 1, "judge-heldout")
    assert {made: 2}["1/judge-heldout"] == 2
    assert json.dumps({made: made}) == '{"1/judge-heldout": "1/judge-heldout"}'
    with pytest.raises(ValueError, match="invalid literal"):
        NodeId.parse("judge/1")


def test_the_name_of_every_node_tells_its_stage() -> None:
    rounds = {"preferences": {"minYield": {"pairs": 10, "maxRounds": 2}}}
    for nodes in (walk(spec())[0], walk(spec(**rounds), n1_pairs={"pairs": 1})[0]):
        assert [node.id.stage for node in nodes] == [node.stage for node in nodes]
