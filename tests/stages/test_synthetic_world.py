"""Does the loop do what the method says? Whole runs in a world where the quality of every answer is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from srlm_contract.errors import BadInput
from srlm_contract.rows import Candidate, Judgement, PreferencePair, PromptRow, RankedAnswer, ValidationAnswer
from srlm_operator.plan import gates
from support.judge_server import judge_server, said
from support.synthetic_world import DPO_STEPS, Judging, SyntheticRun, Trainer, hidden_quality, spec, verdict

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(300)]
SEEDS = (0, 1, 2)
HONEST = Judging()
Go = Callable[..., SyntheticRun]


@pytest.fixture(scope="module")
def go(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Go]:
    """Makes a run; the same run is made once for all tests of this file."""
    made: dict[str, SyntheticRun] = {}

    def make(judges: Judging = HONEST, trainer: Trainer | None = None, **changes: Any) -> SyntheticRun:
        name = repr((judges, trainer, sorted(changes.items())))
        if name not in made:
            run = SyntheticRun(tmp_path_factory.mktemp("world"), spec(**changes), judges, trainer or Trainer())
            run.go(patch)
            made[name] = run
        return made[name]

    with pytest.MonkeyPatch.context() as patch:
        yield make


def qualities(run: SyntheticRun) -> list[float]:
    """Expected hidden quality of the answers of M1, M2, ..."""
    return [policy.quality() for policy in run.policies()]


def answered(run: SyntheticRun, iteration: int) -> float:
    """Mean hidden quality of the answers a model really gave to the validation prompts."""
    rows = run.rows(f"{iteration}/evaluate", "answers.jsonl", ValidationAnswer)
    return sum(hidden_quality(row.answer) for row in rows) / len(rows)


def missed(run: SyntheticRun, *iterations: int) -> list[str]:
    """Gates on new models that these iterations missed."""
    return [text for t in iterations for text in gates.before_next(run.spec.gates, run.figures(t))]


# (a) and (b): the loop raises quality, and it is the scores that do it


@pytest.mark.parametrize("seed", SEEDS)
def test_hidden_quality_rises_with_every_iteration(go: Go, seed: int) -> None:
    run = go(seed=seed)
    found = qualities(run)
    assert found == sorted(found)
    assert all(after - before > 0.03 for before, after in pairwise(found)), found
    assert answered(run, 3) > answered(run, 0) + 0.15
    for t in run.iterations():
        assert run.figures(t).win_rate > 0.5  # type: ignore[operator]
    assert run.results["3/evaluate"].statistics["winRateM1"] > 0.8


def test_shuffled_scores_raise_nothing(go: Go) -> None:
    honest = [qualities(go(seed=seed)) for seed in SEEDS]
    shuffled = [qualities(go(Judging("shuffled"), seed=seed)) for seed in SEEDS]
    gained = sum(q[-1] - q[0] for q in honest) / len(SEEDS)
    drifted = sum(q[-1] - q[0] for q in shuffled) / len(SEEDS)
    assert gained > 0.25
    assert abs(drifted) < 0.25 * gained
    for seed in SEEDS:
        # What a person sees without knowing the truth: such a judge does not agree with human ranks.
        assert go(Judging("shuffled"), seed=seed).figures(3).judge_accuracy < 0.55  # type: ignore[operator]
        assert go(seed=seed).figures(3).judge_accuracy > 0.6  # type: ignore[operator]


def test_equal_runs_give_equal_models_and_another_seed_others(go: Go, tmp_path: Path) -> None:
    first = go(seed=0)
    again = SyntheticRun(tmp_path, first.spec, first.judging)
    with pytest.MonkeyPatch.context() as patch:
        again.go(patch, until=lambda node: node.iteration == 2)
    same = {n: again.results[n].content_digest for n in again.nodes if n != "0/data"}
    # Sources outside are named by place here, so keys differ; what was computed does not.
    assert same == {n: first.results[n].content_digest for n in same}
    assert go(seed=1).results["1/train"].content_digest != first.results["1/train"].content_digest


def test_verdicts_that_agree_with_people_teach_judging(go: Go) -> None:
    """EFT: the model that learned from the selected verdicts judges better than the one that wrote them."""
    for seed in SEEDS:
        run = go(seed=seed)
        writer, learner = run.policy("0/sft-ift"), run.policy("0/sft")
        assert learner.judge_noise < 0.8 * writer.judge_noise
        statistics = run.results["0/select"].statistics
        assert statistics["samplesDisagreeing"] > 0
        assert 0 < statistics["eft"] < statistics["verdictsAgreeing"]


# What the stages hand over


def test_pairs_follow_the_scores_and_the_scores_follow_the_truth(go: Go) -> None:
    run = go(seed=0)
    for t in run.iterations():
        judged = {row.id: row for row in run.rows(f"{t}/judge", "judgements*.jsonl", Judgement)}
        pairs = run.rows(f"{t}/pairs", "pairs.jsonl", PreferencePair)
        for pair in pairs:
            usable = (row for row in judged.values() if row.prompt_id == pair.id and not row.truncated)
            scores = [row.score for row in usable if row.score is not None]
            assert (pair.chosen_score, pair.rejected_score) == (max(scores), min(scores))
        better = sum(hidden_quality(p.chosen) > hidden_quality(p.rejected) for p in pairs)
        assert better > 0.7 * len(pairs), "noisy, yet mostly right"
        read = run.results[f"{t}/judge"].statistics
        assert 0.8 < read["parseRate"] < 1, "some verdicts have no score"
        assert all(row.score is None for row in judged.values() if sum(v.score is not None for v in row.verdicts) < 2)


def test_what_is_kept_aside_is_never_trained_on(go: Go) -> None:
    """The scripted model repeats seed questions every fifth time, validation and held-out ones among them."""
    for seed in SEEDS:
        run = go(seed=seed)
        aside = {row.prompt for row in run.rows("0/data", "validation.jsonl", PromptRow)}
        aside |= {row.prompt for row in run.rows("0/data", "ranked-heldout.jsonl", RankedAnswer)}
        assert len(aside) > 40
        for t in run.iterations():
            statistics = run.results[f"{t}/prompts"].statistics
            assert statistics["droppedDuplicate"] > 0, "it did repeat some"
            dropped = sum(n for name, n in statistics.items() if name.startswith("dropped"))
            assert statistics["asked"] == statistics["prompts"] + dropped + statistics["surplus"]
            pairs = run.rows(f"{t}/pairs", "pairs.jsonl", PreferencePair)
            assert not {pair.prompt for pair in pairs} & aside
        prompts = [p.prompt for t in run.iterations() for p in run.rows(f"{t}/prompts", "prompts.jsonl", PromptRow)]
        assert len(set(prompts)) == len(prompts), "nor is a prompt written twice"


def test_a_second_scorer_agrees_as_far_as_both_see_the_truth(go: Go) -> None:
    shadow = {"shadowScorer": {"scorer": "ExpectedScore", "sample": 100}, "samples": 2, "shards": 2}
    honest = go(seed=0, iterations=1, judging=shadow)
    first = honest.results["1/judge"].statistics
    assert first["shadowRows"] > 80
    assert first["shadowCorrelation"] > 0.3
    # The shadow changes no score: the pairs, and so M2, are those of a run without one.
    assert honest.results["1/pairs"].content_digest == go(seed=0).results["1/pairs"].content_digest
    assert honest.results["1/train"].content_digest == go(seed=0).results["1/train"].content_digest
    shuffled = go(Judging("shuffled"), seed=0, iterations=1, judging=shadow)
    assert shuffled.results["1/judge"].statistics["shadowCorrelation"] < 0.5 * first["shadowCorrelation"]


def test_what_is_watched_shows_a_collapse_and_a_love_of_length(go: Go) -> None:
    honest = go(seed=0).results["1/judge"].statistics
    assert honest["scoreEntropy"] > 1
    assert go(Judging("collapsed"), iterations=1).results["1/judge"].statistics["scoreEntropy"] < 0.3
    world: dict[str, Any] = {"seed": 0, "iterations": 2, "generation": {"shards": 1, "candidates": 8}}
    free = go(Judging(length_value=0.004), preferences={"lengthPenalties": [0]}, **world)
    assert free.results["1/judge"].statistics["lengthCorrelation"] > 0.15
    assert abs(honest["lengthCorrelation"]) < 0.15


# (c): gates

NO_LENGTHS = {"length_growth": None, "candidate_length_growth": None}


def test_an_honest_judge_passes_the_gates(go: Go) -> None:
    run = go(seed=0)
    for t in run.iterations():
        assert gates.before_training(run.spec.gates, run.figures(t).model_copy(update=NO_LENGTHS)) == ()
    for t in (0, *run.iterations()):
        figures = run.figures(t).model_copy(update=NO_LENGTHS)  # (d) is about lengths
        assert gates.before_next(run.spec.gates, figures) == ()


def test_a_judge_that_collapses_trips_the_gates(go: Go) -> None:
    run = go(Judging("collapsed"), iterations=1)
    figures = run.figures(1)
    found = gates.before_training(run.spec.gates, figures)
    assert "pairs, gates.minPairs is 20" in found[0]
    assert found[1].startswith("tie rate")
    assert any(text.startswith("judge accuracy") for text in missed(run, 0))
    assert figures.parse_rate > run.spec.gates.min_parse_rate, "its verdicts read perfectly well"  # type: ignore[operator]


def test_a_constant_judge_gives_no_pair_at_all(tmp_path: Path) -> None:
    run = SyntheticRun(tmp_path, spec(), Judging("constant"))
    tied = "48 prompts whose best and worst score are equal"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(BadInput, match=tied) as error:
        run.go(patch)
    assert error.value.reason == "NoPairs"
    assert run.figures(0).judge_accuracy == 0, "every tie is wrong"
    assert any("judge accuracy 0.00" in text for text in missed(run, 0))
    assert run.results["0/select"].statistics["eft"] == 0, "ties alone are no agreement"


def test_verdicts_that_cannot_be_read_trip_the_gate_on_the_parse_rate(go: Go) -> None:
    run = go(Judging(unreadable=0.5), iterations=1)
    found = gates.before_training(run.spec.gates, run.figures(1))
    assert any(text.startswith("parse rate 0.") for text in found), found


# (d): length


@pytest.mark.parametrize("seed", SEEDS[:2])
def test_the_length_penalty_holds_length_where_longer_is_better(go: Go, seed: int) -> None:
    world: dict[str, Any] = {"seed": seed, "iterations": 2, "generation": {"shards": 1, "candidates": 8}}
    longer = Judging(length_value=0.004)
    free = go(longer, preferences={"lengthPenalties": [0]}, **world)
    held = go(longer, preferences={"lengthPenalties": [0.2]}, **world)
    lengths = [policy.length() for policy in free.policies()]
    assert lengths[2] > 2.5 * lengths[0], "without control answers grow"
    assert any("mean length grew" in text for text in missed(free, 1, 2))
    controlled = [policy.length() for policy in held.policies()]
    assert 0.5 < controlled[2] / controlled[0] < 1.5
    assert controlled[2] < 0.5 * lengths[2]
    assert not any("length" in text for text in missed(held, 1, 2))
    assert qualities(held)[2] > qualities(held)[0] + 0.15, "and what is said still gets better"


def test_the_schedule_of_penalties_begins_when_it_says(go: Go) -> None:
    world: dict[str, Any] = {"iterations": 2, "generation": {"shards": 1, "candidates": 8}}
    longer = Judging(length_value=0.004)
    free = go(longer, seed=0, preferences={"lengthPenalties": [0]}, **world)
    late = go(longer, seed=0, preferences={"lengthPenalties": [0, 0.2]}, **world)
    assert late.results["1/train"].content_digest == free.results["1/train"].content_digest
    assert late.policies()[2].length() < 0.8 * free.policies()[2].length()


# (e): where a training starts


def test_m3_starts_from_m2_or_from_m1_on_the_data_of_m2(go: Go) -> None:
    previous, bootstrap = go(seed=0), go(seed=0, training={"startFrom": "Bootstrap", "dpo": {"maxLength": 1024}})
    for run in (previous, bootstrap):
        m1, m2 = run.results["0/sft"].content_digest, run.results["1/train"].content_digest
        assert run.inputs("1/train")["model"] == m1
        assert run.inputs("2/train")["model"] == (m2 if run is previous else m1)
        assert run.inputs("2/generate")["model"] == m2, "the candidates are those of M2 either way"
        assert run.inputs("2/judge")["model"] == m2
        assert run.inputs("2/train")["pairs"] == run.results["2/pairs"].content_digest
        assert "reference" not in run.inputs("2/train")
    # Up to M3 both are the same run.
    for node in ("1/train", "2/prompts", "2/generate", "2/judge", "2/pairs"):
        assert previous.results[node].content_digest == bootstrap.results[node].content_digest
    assert previous.results["2/train"].content_digest != bootstrap.results["2/train"].content_digest
    # One step from M1 leads less far than two.
    m1, _, m3, _ = qualities(previous)
    assert m1 < qualities(bootstrap)[2] < m3


def test_the_reference_may_stay_m1(go: Go) -> None:
    start = go(seed=0)
    tied = go(seed=0, iterations=2, training={"reference": "Bootstrap", "dpo": {"maxLength": 1024}})
    assert tied.inputs("2/train")["reference"] == tied.results["0/sft"].content_digest
    assert tied.inputs("2/train")["model"] == tied.results["1/train"].content_digest
    assert start.results["1/train"].content_digest == tied.results["1/train"].content_digest
    assert start.results["2/train"].content_digest != tied.results["2/train"].content_digest


# Variants of the recipe


def test_without_eft_m1_judges_as_it_did(go: Go) -> None:
    seed_data = {
        "uri": "file:///trees.jsonl", "validationPrompts": 40, "ift": {"maxExamples": 40},
        "eft": {"enabled": False, "heldOutExamples": 100},
    }  # fmt: skip
    run = go(seed=0, iterations=1, seedData=seed_data)
    assert [n for n in run.nodes if n.startswith("0/")] == ["0/data", "0/sft", "0/judge-heldout", "0/evaluate"]
    assert run.policies()[0].judge_noise == go(seed=0).policy("0/sft-ift").judge_noise
    found = qualities(run)
    assert found[1] > found[0] + 0.03


def test_without_bootstrap_the_base_model_is_m1(go: Go) -> None:
    run = go(seed=0, iterations=1, bootstrap={"strategy": "None"})
    assert not {"0/sft", "0/sft-ift", "0/select"} & set(run.nodes)
    first, second = qualities(run)
    assert first == pytest.approx(0.5)
    assert second > first, "M0 judges badly here, and rises less than a model that has learned to judge"
    assert second - first < qualities(go(seed=0))[1] - qualities(go(seed=0))[0]
    assert run.figures(0).judge_accuracy is not None


def test_an_external_judge_scores_compares_and_is_the_one_that_is_measured(tmp_path: Path) -> None:
    """The model's own verdicts are noise here: only the judge behind the API can raise quality."""

    def answer(body: dict[str, Any], number: int) -> tuple[int, Any]:
        text = body["messages"][-1]["content"]
        if "Answer A:" in text:
            both = text.split("Answer A:\n")[1].split("\n\nWhich")[0]
            a, b = (hidden_quality(part) for part in both.split("Answer B:"))
            return said("The better answer is Answer " + ("A" if a > b else "B"))
        return said(verdict(text, Judging(), 0.5, body["seed"]))

    with judge_server(answer) as server, pytest.MonkeyPatch.context() as patch:
        external = {"url": server.url, "model": "big"}
        run = SyntheticRun(
            tmp_path,
            spec(
                iterations=1, prompts={"count": 24}, judging={"shards": 1, "external": external},
                evaluation={"winRate": {"prompts": 20, "judge": {"source": "External"}}},
            ),
            Judging("shuffled"),
        )  # fmt: skip
        run.go(patch)
    assert "model" not in run.inputs("1/judge")
    assert run.inputs("0/judge-ranked")["model"] == run.results["0/sft-ift"].content_digest
    assert run.figures(0).judge_accuracy > 0.7  # type: ignore[operator]
    first, second = qualities(run)
    assert second > first + 0.03
    assert run.figures(1).win_rate > 0.6  # type: ignore[operator]


def test_positives_only_raises_quality_too(go: Go) -> None:
    preferences = {"strategy": "PositiveOnly", "positives": {"minScore": 4}}
    run = go(seed=0, iterations=2, preferences=preferences, gates={"minPairs": 5})
    found = qualities(run)
    assert found[0] < found[1] < found[2]
    assert run.inputs("1/train")["eft"] == run.results["0/select"].content_digest


def test_more_rounds_when_pairs_fall_short(go: Go) -> None:
    yields = {"minYield": {"pairs": 60, "maxRounds": 3}}
    run = go(seed=0, iterations=1, preferences=yields)
    assert {"1/pairs", "1/pairs-r2"} <= set(run.nodes)
    assert "1/pairs-r3" not in run.nodes
    first, second = (int(run.results[f"1/pairs{r}"].statistics["pairs"]) for r in ("", "-r2"))
    assert first < 60 <= second
    assert run.inputs("1/train")["pairs"] == run.results["1/pairs-r2"].content_digest
    prompts = [p.prompt for r in ("", "-r2") for p in run.rows(f"1/prompts{r}", "prompts.jsonl", PromptRow)]
    assert len(set(prompts)) == len(prompts) == 96
    seeds = [c.seed for r in ("", "-r2") for c in run.rows(f"1/generate{r}", "candidates*.jsonl", Candidate)]
    assert len(set(seeds)) == len(seeds)
    assert run.figures(1).prompts == 96
    assert run.figures(1).pairs == second


def test_rounds_end_at_their_bound(go: Go) -> None:
    yields = {"minYield": {"pairs": 96, "maxRounds": 2}}
    run = go(Judging("collapsed"), seed=0, iterations=1, preferences=yields)
    assert "1/pairs-r2" in run.nodes
    assert run.figures(1).pairs < 96  # type: ignore[operator]


def test_the_best_checkpoint_is_chosen_when_training_goes_wrong(go: Go) -> None:
    """The second half of this training undoes the first: the model at its end is no better than at its start."""
    training = {"checkpointEverySteps": 5, "choose": {"enabled": True}, "dpo": {"maxLength": 1024}}
    run = go(trainer=Trainer(good_steps=DPO_STEPS // 2), seed=0, iterations=2, training=training)
    for t in run.iterations():
        chosen = run.results[f"{t}/choose"].statistics
        assert (chosen["checkpoints"], chosen["chosenStep"]) == (4, 10)
        assert run.inputs(f"{t}/choose")["train"] == run.results[f"{t}/train"].content_digest
    assert run.inputs("2/generate")["model"] == run.results["1/choose"].content_digest
    last = run.policy("2/train").quality()
    found = qualities(run)
    assert found[0] + 0.03 < found[1] < found[2] - 0.03
    assert last < found[2] - 0.03
