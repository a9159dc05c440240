"""A whole run made by hand: artifacts of every stage committed under their real keys, and the status beside them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from srlm_contract.artifacts.commits import Produced
from srlm_contract.artifacts.manifest import Manifest
from srlm_contract.base import Contract
from srlm_contract.graph import Node, Outcome, graph, model_name, node_key
from srlm_contract.jsonl import write_rows
from srlm_contract.keys import row_id
from srlm_contract.rows import (
    Candidate,
    Choice,
    Comparison,
    EftExample,
    Judgement,
    PromptRow,
    RankedAnswer,
    SeedExample,
    ValidationAnswer,
    Verdict,
)
from srlm_contract.spec.run import RunSpec
from srlm_contract.status import Condition, IterationStatus, ModelStatus, PreflightStatus, RunStatus, StageStatus
from srlm_contract.tasks import (
    ArtifactRef,
    Pins,
    ReportParams,
    RunIdentity,
    SourceRef,
    StageResult,
    StageTask,
    StorageLocation,
)
from srlm_operator.plan.gates import iteration_metrics
from srlm_stages.judging.head_to_head import head_to_head, outcome
from srlm_stages.judging.metrics import group_by_prompt, judge_metrics
from srlm_stages.judging.preference import positives, preference_pairs
from srlm_stages.runtime.statistics import figures, with_ratios
from support.stage_world import QUESTIONS, World

START = datetime(2026, 11, 20, 9, 0, tzinfo=UTC)
PINS = Pins(
    base_model=SourceRef(uri="hf://example/small-model", revision="0123456789abcdef"),
    seed_data=SourceRef(uri="s3://seed/oasst", revision="sha256:" + "5" * 64, file="trees.jsonl.gz"),
)
ANSWERS = (
    "It depends on what you need, but most people start with the simplest thing that works and change it later.",
    "No.",
    "First look at what is there. Then decide. A good rule is to measure before and after, and to keep what helps.",
    "Yes, certainly! Here is a long answer that says the same thing over and over again without adding anything new.",
)


def spec(iterations: int = 2, **sections: Any) -> RunSpec:
    """A run of a few prompts."""
    return RunSpec.parse(
        {
            "baseModel": {"uri": "hf://example/small-model"},
            "iterations": iterations,
            "storage": {"uri": "s3://world/runs"},
            "seedData": {"uri": "s3://seed/oasst"},
            "prompts": {"count": 4},
            "gates": {"onFailure": "Continue"},
            **sections,
        }
    )


EVIL = (
    "</p></script></style><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    "<svg onload=alert(1)>{{ 7*7 }}{% raw %}<a href='javascript:alert(1)'>x</a> "
    "\u202egnp.exe\u2066 \x1b[31m \x00 ]]> -->"
)


@dataclass
class MadeRun:
    """What `make_run` left in the store, and the status an operator would have."""

    world: World
    spec: RunSpec
    status: RunStatus
    manifests: dict[str, Manifest] = field(default_factory=dict)
    pins: Pins | None = PINS

    def report(self, name: str = "world", **overrides: Any) -> StageResult:
        """Run the report stage; `name` is that of the run it is written for."""
        params = {"spec": self.spec, "status": self.status.wire(defaults=False), "pins": self.pins, **overrides}
        return self.world.run(report_task(ReportParams(**params), name))

    def page(self, name: str = "world") -> str:
        return self.world.store.get(f"runs/default/{name}/report.html").data.decode()

    def lineage(self, name: str = "world") -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.world.store.get(f"runs/default/{name}/lineage.json").data)
        return found


def report_task(params: ReportParams, name: str = "world") -> StageTask:
    return StageTask(
        stage="report",
        run=RunIdentity(namespace="default", name=name, uid="11111111-2222-3333-4444-555555555555"),
        params=params,
        storage=StorageLocation(uri="s3://world/runs"),
    )


def make_run(
    world: World,
    run_spec: RunSpec,
    *,
    until: str = "",
    texts: Mapping[str, str] | None = None,
    phase: str = "Succeeded",
    branch: ArtifactRef | None = None,
) -> MadeRun:
    """Commit every node of the graph up to `until` (a node id), which stays undone.

    texts: replaces texts of prompts, answers and verdicts (`prompt`, `answer`, `verdict`).
    """
    maker = _Maker(world, run_spec, dict(texts or {}))
    records: dict[int, list[StageStatus]] = {}
    for number, node in enumerate(graph(run_spec, PINS, {}, branch)):
        if node.id == until:
            break
        manifest = maker.commit(node)
        begin = START + timedelta(minutes=3 * number)
        records.setdefault(node.iteration, []).append(
            StageStatus(
                name=node.name,
                stage=node.stage,
                state="Succeeded",
                key=manifest.key,
                attempt=1,
                content_digest=manifest.content_digest,
                statistics=figures(manifest.statistics),
                started_at=_time(begin),
                finished_at=_time(begin + timedelta(seconds=40 + 17 * (number % 5))),
                gpu_seconds=30.0 if node.stage in ("judge", "train", "sft", "generate") else 0.0,
            )
        )
    iterations, previous = [], ()
    for iteration, stages in sorted(records.items()):
        metrics = iteration_metrics(stages, previous)
        iterations.append(IterationStatus(name=model_name(iteration), stages=tuple(stages), metrics=metrics))
        previous = tuple(stages)
    models = tuple(
        ModelStatus(name=model_name(t), uri=f"s3://world/{t}", stage=s.stage, key=s.key, created_at=_time(START))
        for t, stages in sorted(records.items())
        for s in stages
        if s.name in ("sft", "train", "choose")
    )
    status = RunStatus(
        phase=phase,  # type: ignore[arg-type]  # one of its values
        current_model=models[-1].name if models else "",
        started_at=_time(START),
        finished_at=_time(START + timedelta(hours=2)) if phase == "Succeeded" else None,
        preflight=PreflightStatus(done=True, pins=PINS),
        iterations=tuple(iterations),
        models=models,
        gpu_seconds=sum(s.gpu_seconds for i in iterations for s in i.stages),
        tokens=sum(i.metrics.tokens or 0 for i in iterations),
    )
    return MadeRun(world, run_spec, status, maker.manifests)


class _Maker:
    def __init__(self, world: World, run_spec: RunSpec, texts: dict[str, str]) -> None:
        self.world, self.spec, self.texts = world, run_spec, texts
        self.outcomes: dict[str, Outcome] = {}
        self.manifests: dict[str, Manifest] = {}
        self.judged: dict[int, list[Judgement]] = {}
        self.heldout: dict[int, list[Judgement]] = {}
        self.answers: dict[str, list[ValidationAnswer]] = {}

    def commit(self, node: Node) -> Manifest:
        self.world.root.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=self.world.root)) / node.id
        folder.mkdir(parents=True)
        statistics = getattr(self, f"make_{node.stage}")(node, folder)
        key = node_key(node, self.outcomes, self.spec.seed)
        assert key is not None
        inputs = {n: self.manifests[i].ref for n, i in node.inputs.items()}
        produced = Produced(
            folder,
            inputs={**inputs, **node.artifacts, **node.sources},
            parameters=node.params.wire(defaults=False),
            statistics=with_ratios(statistics),
            rows=int(statistics["rows"]) if "rows" in statistics else None,
            versions={"vllm": "0.32.0"} if node.stage in ("judge", "generate") else {},
            model=node.stage in ("sft", "train", "choose"),
        )
        manifest = self.world.artifacts().commit(node.stage, key, produced).manifest
        self.manifests[node.id] = manifest
        self.outcomes[node.id] = Outcome(key, manifest.content_digest, figures(manifest.statistics))
        return manifest

    def prompt(self, i: int) -> str:
        return self.texts.get("prompt") or QUESTIONS[i % len(QUESTIONS)]

    def answer(self, i: int, t: int = 0) -> str:
        return self.texts.get("answer") or ANSWERS[i % len(ANSWERS)] + " More." * (3 * t)

    def make_data(self, node: Node, folder: Path) -> dict[str, Any]:
        rows: dict[str, Iterable[Contract]] = {
            "ift.jsonl": [SeedExample(id=row_id("seed"), prompt="Seed?", answer="Seed.")],
            "validation.jsonl": [PromptRow(id=row_id(q), prompt=q, source="seed") for q in QUESTIONS],
            "ranked-train.jsonl": [],
            "ranked-heldout.jsonl": [
                RankedAnswer(id=row_id(q, str(r)), prompt_id=row_id(q), prompt=q, answer=ANSWERS[r], rank=r)
                for q in QUESTIONS[4:]
                for r in range(3)
            ],
        }
        for name, some in rows.items():
            write_rows(folder / name, some)
        return {"prompts": 14, "ift": 1, "validation": 6}

    def model(self, node: Node, folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(f"weights of {node.id}".encode())
        (folder / "config.json").write_text('{"model_type": "llama"}')

    def make_sft(self, node: Node, folder: Path) -> dict[str, Any]:
        self.model(node, folder)
        series = [
            {"step": float(s), "loss": 3 - 0.3 * s, "gradientNorm": 2.0, "tokensPerSecond": 900.0} for s in range(1, 6)
        ]
        return {"rows": 40, "rowsDropped": 0, "loss": 1.5, "tokens": 5000, "changedWeights": 0.2, "series": series}

    def make_train(self, node: Node, folder: Path) -> dict[str, Any]:
        self.model(node, folder)
        series = [
            {
                "step": float(s),
                "loss": 0.69 / s,
                "rewardMargin": 0.2 * s,
                "rewardAccuracy": min(1.0, 0.5 + 0.1 * s),
                "gradientNorm": 4.0 / s,
                "tokensPerSecond": 700.0 + s,
                "learningRate": 1e-6 / s,
            }
            for s in range(1, 9)
        ]
        return {
            "rows": 3,
            "rowsDropped": 0,
            "loss": 0.25,
            "rewardAccuracy": 0.9,
            "rewardMargin": 1.5,
            "tokens": 9000,
            "changedWeights": 0.21,
            "series": series,
        }

    def verdicts(self, score: float) -> tuple[Verdict, ...]:
        text = self.texts.get("verdict") or f"The answer is relevant.\nScore: {score:g}"
        return (Verdict(text=text, score=score), Verdict(text=text, score=score))

    def make_judge(self, node: Node, folder: Path) -> dict[str, Any]:
        rows = []
        kind = node.params.rows  # type: ignore[union-attr]  # a judge node
        if kind == "candidates":
            for i in range(4):
                for s in range(4):
                    prompt, answer = self.prompt(i), self.answer(s, node.iteration)
                    score = 4.0 if (i + s) % 4 else 2.0
                    rows.append(
                        Judgement(
                            id=row_id(prompt, answer, str(s), str(i)),
                            prompt_id=row_id(prompt, str(i)),
                            prompt=prompt,
                            answer=answer,
                            verdicts=self.verdicts(score),
                            score=score,
                            variance=0.0,
                            tokens=len(answer) // 4,
                        )
                    )
            self.judged[node.iteration] = rows
        else:
            for q in QUESTIONS[4:]:
                for r in range(3):
                    score = float((r + node.iteration) % 3 + 2)
                    rows.append(
                        Judgement(
                            id=row_id(q, str(r)),
                            prompt_id=row_id(q),
                            prompt=q,
                            answer=ANSWERS[r],
                            verdicts=self.verdicts(score),
                            score=score,
                            variance=0.25,
                            rank=r,
                        )
                    )
            self.heldout[node.iteration] = rows
        # Two shards, as generation has them.
        write_rows(folder / "judgements-00000-of-00002.jsonl", rows[: len(rows) // 2])
        write_rows(folder / "judgements-00001-of-00002.jsonl", rows[len(rows) // 2 :])
        scores = [r.score for r in rows if r.score is not None]
        return {
            "rows": len(rows),
            "judged": len(rows),
            "verdicts": 2 * len(rows),
            "parsed": 2 * len(rows),
            "scoreSum": sum(scores),
            "tokens": 640,
            "freeVerdicts": 0,
            "freeParsed": 0,
            "scores": {f"{s:g}": 2 * scores.count(s) for s in sorted(set(scores))},
        }

    def make_select(self, node: Node, folder: Path) -> dict[str, Any]:
        write_rows(folder / "eft.jsonl", [EftExample(id="0" * 16, prompt="Judge.", answer="Score: 4", score=4)])
        return {"eft": 1, "verdictsAgreeing": 1}

    def make_prompts(self, node: Node, folder: Path) -> dict[str, Any]:
        write_rows(
            folder / "prompts.jsonl",
            [PromptRow(id=row_id(self.prompt(i), str(i)), prompt=self.prompt(i)) for i in range(4)],
        )
        return {"rows": 4, "prompts": 4, "asked": 9, "tokens": 100, "droppedSimilar": 3, "droppedKeyword": 2}

    def make_generate(self, node: Node, folder: Path) -> dict[str, Any]:
        rows = [
            Candidate(
                id=row_id(self.prompt(i), self.answer(s, node.iteration), str(s), str(i)),
                prompt_id=row_id(self.prompt(i), str(i)),
                prompt=self.prompt(i),
                answer=self.answer(s, node.iteration),
                sample=s,
                tokens=20,
            )
            for i in range(4)
            for s in range(4)
        ]
        write_rows(folder / "candidates.jsonl", rows)
        return {
            "rows": 16,
            "candidates": 16,
            "prompts": 4,
            "truncated": 1,
            "empty": 0,
            "tokens": 320,
            "answers": 16,
            "characters": sum(len(r.answer) for r in rows),
            "answerTokens": 320,
        }

    def make_pairs(self, node: Node, folder: Path) -> dict[str, Any]:
        if self.spec.preferences.strategy == "PositiveOnly":
            best, counts = positives(self.judged[node.iteration], min_score=4, truncated="Drop")
            write_rows(folder / "positives.jsonl", best)
            return {"rows": 16, "prompts": 4, "pairs": len(best), "droppedScore": counts["droppedScore"]}
        pairs, counts = preference_pairs(self.judged[node.iteration], min_margin=0, length_penalty=0, truncated="Drop")
        write_rows(folder / "pairs.jsonl", pairs)
        ties = {"ties": counts["ties"], "comparable": 4, "tieRate": counts["ties"] / 4}
        return {"rows": 16, "prompts": 4, "pairs": len(pairs), **ties}

    def make_choose(self, node: Node, folder: Path) -> dict[str, Any]:
        self.model(node, folder)
        return {"checkpoints": 3, "chosenStep": 4, "winRate": 0.6, "comparisons": 18, "tokens": 50}

    def make_evaluate(self, node: Node, folder: Path) -> dict[str, Any]:
        params: Any = node.params
        answers = [
            ValidationAnswer(id=row_id(q), prompt=q, answer=self.answer(i, node.iteration), tokens=12)
            for i, q in enumerate(QUESTIONS)
        ]
        self.answers[params.model] = answers
        write_rows(folder / "answers.jsonl", answers)
        comparisons = []
        for opponent in params.opponents:
            for i, answer in enumerate(answers):
                choices: tuple[tuple[Choice, Choice], ...] = (("A", "B"), ("A", "A"), ("B", "A"))
                first, second = choices[(i + node.iteration) % 3]
                comparisons.append(
                    Comparison(
                        id=answer.id,
                        prompt=answer.prompt,
                        model=params.model,
                        opponent=opponent,
                        first=first,
                        second=second,
                        outcome=outcome(first, second),
                        own="win",
                        characters=len(answer.answer),
                        opponent_characters=len(self.answers[opponent][i].answer),
                    )
                )
        write_rows(folder / "comparisons.jsonl", comparisons)
        groups, unscored = group_by_prompt(self.heldout[node.iteration])
        judge = judge_metrics(groups, 5)
        length = judge_metrics([g.by_length() for g in groups], float("inf"))
        met = {o: head_to_head(c for c in comparisons if c.opponent == o) for o in params.opponents}
        metrics = {
            "model": params.model,
            "judge": {
                "answers": 6,
                "unscored": unscored,
                "prompts": len(groups),
                "perfectScore": 5,
                "scorer": {n: asdict(e) for n, e in judge.items()},
                "lengthOnly": {n: asdict(e) for n, e in length.items()},
            },
            "headToHead": {
                "judge": "Bootstrap",
                "opponents": {o: {**asdict(r), "winRate": r.win_rate} for o, r in met.items()},
            },
        }
        (folder / "metrics.json").write_text(json.dumps(metrics))
        statistics: dict[str, Any] = {f"winRate{o}": r.win_rate for o, r in met.items()}
        if met:
            statistics["winRate"] = met[params.headline].win_rate
        return statistics | {
            "answers": len(answers),
            "characters": sum(len(a.answer) for a in answers),
            "answerTokens": 72,
            "tokens": 500,
            "judgeAccuracy": judge["pairwise"].value,
            "judgeAccuracyPairs": judge["pairwise"].n,
            "lengthOnlyAccuracy": length["pairwise"].value,
        }


def evil_run(world: World) -> MadeRun:
    """EVIL wherever others can write: prompts, answers, verdicts, URIs, conditions, messages, spec."""
    harmful = spec(1, generation={"systemPrompt": EVIL}, baseModel={"uri": f"hf://x/{EVIL}"})
    made = make_run(world, harmful, texts={"prompt": EVIL, "answer": EVIL + "?", "verdict": EVIL + "\nScore: 3"})
    status = made.status.model_copy(
        update={
            "conditions": tuple(
                Condition(
                    type=kind,
                    status="True",
                    reason="Evil",
                    message=EVIL,
                    last_transition_time="2026-11-20T10:00:00Z",
                )
                for kind in ("Stalled", "Ready", "Reconciling")
            ),
            "phase": "Failed",
            "current_model": EVIL[:100],
            "stage": EVIL[:100],
            "preflight": made.status.preflight.model_copy(update={"warnings": (EVIL,)}),
            "iterations": tuple(i.model_copy(update={"gates": (EVIL,)}) for i in made.status.iterations),
        }
    )
    made.status = status
    return made


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
