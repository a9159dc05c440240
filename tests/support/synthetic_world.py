"""A world where the truth is known: a scripted model, answers of hidden quality, a judge that sees it with noise.

The stages are the real ones, from seed data to evaluation, walked along the real graph against a store in memory. Only
two things are scripted: the engine (a language model over a few words, instead of a neural one) and the inside of
training (exact gradients of the same losses for that model, on the rows that the real code prepared, instead of
torchrun). A word has a hidden quality; that of an answer is the mean over its words, plus `length_value` for every
word beyond ten. No stage can see it: they see text and token ids.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from srlm_contract.graph import Node, Outcome, graph, node_key
from srlm_contract.keys import sha256
from srlm_contract.rows import PreferencePair
from srlm_contract.spec.run import RunSpec
from srlm_contract.status import IterationMetrics, StageStatus
from srlm_contract.tasks import ArtifactRef, Pins, SourceRef, StageResult, StageTask, StorageLocation
from srlm_operator.plan.gates import iteration_metrics
from srlm_stages.conversation.chat import load_tokenizer
from srlm_stages.engines import Completion, OnProgress, Request
from srlm_stages.prompts import CHAT_INSTRUCTION
from srlm_stages.runtime.rows import read_rows
from srlm_stages.sources.fetch import Kind, pinned_files
from srlm_stages.sources.origins import FileOrigin
from srlm_stages.training.checkpoints import KEPT
from srlm_stages.training.config import SupervisedRow, TrainingResult, WorkerConfig
from srlm_stages.training.encoding import IGNORED, encode_pairs, encode_rows
from support.stage_world import RUN, World
from support.tiny_model import build_tokenizer

Array = np.ndarray[Any, np.dtype[np.float64]]

#: The words of answers, worst first: word i has the hidden quality i / (len - 1).
WORDS = (
    "um", "er", "hm", "bla", "muddle", "vague", "wrong", "odd", "dull", "plain", "okay", "fair", "clear", "useful",
    "precise", "helpful", "expert", "brilliant",
)  # fmt: skip
QUALITY = np.linspace(0.0, 1.0, len(WORDS))
STOP = len(WORDS)
FEWEST, MOST = 5, 60
"""Words an answer has."""
USUAL = 12
DPO_STEPS = 20

RUBRIC = """Grade the answer. Add points up to five, then end with the line "Score: " and the total.
Question:
{question}
Answer:
{answer}
Your verdict:"""
_JUDGE = re.compile(r"Question:\n(.*?)\nAnswer:\n(.*?)\nYour verdict:", re.DOTALL)
_COMPARE = re.compile(r"Question:\n(.*?)\n\nAnswer A:\n(.*?)\n\nAnswer B:\n(.*?)\n\nWhich", re.DOTALL)
_VERDICTS = (
    "It deals with the question.\nScore: {0}", "Some points are missing.\n**Score:** {0}/5", "Score: {0}\nThat is all.",
    "First I thought of Score: 1, but it is better.\n\nTotal score: {0} out of 5", "I give this answer a score of {0}.",
)  # fmt: skip
_UNREADABLE = ("I cannot grade this.", "Score: 7/10", "The answer speaks for itself.")


def hidden_quality(answer: str, length_value: float = 0.0) -> float:
    """The truth about an answer, 0 (or a little below) and up."""
    known = [QUALITY[WORDS.index(word)] for word in answer.split() if word in WORDS]
    return float(np.mean(known)) + length_value * (len(known) - USUAL) if known else 0.0


# The model


@dataclass
class Policy:
    """A language model: logits of the words and of stopping, the same at every place; and how well it judges."""

    logits: Array
    judge_noise: float = 1.5
    """Standard deviation of its verdicts, in points."""

    @classmethod
    def load(cls, folder: Path) -> Policy:
        tensors = load_file(folder / "model.safetensors")
        return cls(tensors["logits"].astype(np.float64), float(tensors["judge_noise"][0]))

    def save(self, folder: Path) -> None:
        tensors = {"logits": self.logits.astype(np.float32), "judge_noise": np.array([self.judge_noise], np.float32)}
        save_file(tensors, folder / "model.safetensors")

    def words(self) -> Array:
        """Probability of each word, given that there is a further one."""
        return _softmax(self.logits[:STOP])

    def quality(self) -> float:
        """Expected hidden quality of an answer, apart from its length."""
        return float(self.words() @ QUALITY)

    def length(self) -> float:
        """Expected number of words, apart from the upper bound."""
        return FEWEST + 1 / float(_softmax(self.logits)[STOP]) - 1

    def answer(self, draw: np.random.Generator, most: int) -> tuple[list[int], bool]:
        """(word numbers, whether it was cut by the limit)."""
        first, rest = np.cumsum(self.words()), np.cumsum(_softmax(self.logits))
        answer: list[int] = []
        for value in draw.random(most + 1):
            table = first if len(answer) < FEWEST else rest
            token = min(int(np.searchsorted(table, value * table[-1])), len(table) - 1)
            if token == STOP:
                return answer, False
            if len(answer) == most:
                return answer, True
            answer.append(token)
        return answer, True

    def log_probability(self, counts: Array) -> float:
        """Of an answer with these token counts."""
        return float(counts @ self.logits) - _log_partition(self.logits, counts)

    def gradient(self, counts: Array) -> Array:
        """Of log_probability in the logits."""
        expected = (counts.sum() - FEWEST) * _softmax(self.logits)
        expected[:STOP] += FEWEST * self.words()
        found: Array = counts - expected
        return found


def _softmax(logits: Array) -> Array:
    powers = np.exp(logits - logits.max())
    found: Array = powers / powers.sum()
    return found


def _log_partition(logits: Array, counts: Array) -> float:
    places = counts.sum() - FEWEST
    return float(FEWEST * np.log(np.exp(logits[:STOP]).sum()) + places * np.log(np.exp(logits).sum()))


def token_counts(answer: str) -> Array:
    """How often an answer has each word, and its end."""
    counts = np.zeros(STOP + 1)
    for word in answer.split():
        counts[WORDS.index(word)] += 1
    counts[STOP] = 1
    return counts


# The engine


@dataclass(frozen=True)
class Judging:
    """How the judges of a world see answers."""

    kind: str = "honest"
    """`honest`; `shuffled`: as honest about another answer; `constant`: 4 for everything; `collapsed`: 4 for nearly
    everything."""
    length_value: float = 0.0
    """What a word beyond USUAL adds to the hidden quality."""
    unreadable: float = 0.1
    """Share of verdicts without a readable score."""


def verdict(task: str, judging: Judging, noise: float, seed: int) -> str:
    """What a judge writes about the answer in a filled rubric, for the judge behind an API."""
    found = _JUDGE.search(task)
    assert found is not None
    draw = np.random.default_rng(seed)
    quality = hidden_quality(found[2], judging.length_value)
    score = round(float(np.clip(2.5 + 8 * (quality - 0.5) + draw.normal(0, noise), 0, 5)))
    return str(draw.choice(_VERDICTS)).format(score)


class ScriptedEngine:
    """Stands in for an inference engine: token ids in, text out."""

    name, versions = "scripted", {"scripted": "1"}

    def __init__(self, model: Path, judging: Judging, seen: list[str]) -> None:
        self._policy, self._judging, self._seen = Policy.load(model), judging, seen
        self._tokenizer = load_tokenizer(model)

    def generate(self, requests: Sequence[Request], on_progress: OnProgress | None = None) -> list[Completion]:
        texts = [self._tokenizer.decode(request.prompt) for request in requests]
        judged = [match[2] for text in texts if (match := _JUDGE.search(text))]
        answers = [self._answer(request, text, judged) for request, text in zip(requests, texts, strict=True)]
        if on_progress is not None:
            on_progress(len(answers), sum(answer.tokens for answer in answers))
        return answers

    def _answer(self, request: Request, text: str, judged: list[str]) -> Completion:
        draw = np.random.default_rng(request.seed)
        task = _JUDGE.search(text)
        if task is not None:
            verdict = self._verdict(task[2], judged, draw)
            return Completion(verdict, len(verdict.split()), truncated=False)
        if CHAT_INSTRUCTION in text:
            prompt = self._prompt(draw)
            return Completion(prompt, len(prompt.split()), truncated=False)
        words, cut = self._policy.answer(draw, min(MOST, request.max_tokens))
        return Completion(" ".join(WORDS[w] for w in words), len(words), truncated=cut)

    def _verdict(self, answer: str, judged: list[str], draw: np.random.Generator) -> str:
        if draw.random() < self._judging.unreadable:
            return str(draw.choice(_UNREADABLE))
        score = round(float(np.clip(self._score(answer, judged, draw), 0, 5)))
        return str(draw.choice(_VERDICTS)).format(score)

    def _score(self, answer: str, judged: list[str], draw: np.random.Generator) -> float:
        kind = self._judging.kind
        if kind == "constant" or (kind == "collapsed" and draw.random() > 0.02):
            return 4.0
        if kind == "shuffled":
            answer = judged[int(draw.integers(len(judged)))]
        quality = hidden_quality(answer, self._judging.length_value)
        return 2.5 + 8 * (quality - 0.5) + float(draw.normal(0, self._policy.judge_noise))

    def _prompt(self, draw: np.random.Generator) -> str:
        if draw.random() < 0.2:  # a model repeats what it has seen: also what must stay unseen
            return str(draw.choice(self._seen))
        return new_question(random.Random(int(draw.integers(2**32))))

    def next_token_probabilities(
        self, prompts: Sequence[tuple[int, ...]], tokens: Sequence[int], on_progress: OnProgress | None = None
    ) -> list[list[float]]:
        return [self._next(self._tokenizer.decode(prompt), len(tokens)) for prompt in prompts]

    def _next(self, text: str, choices: int) -> list[float]:
        draw = np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big"))
        compared = _COMPARE.search(text)
        if compared is not None:
            a, b = (hidden_quality(t, self._judging.length_value) for t in compared.groups()[1:])
            first = 1 / (1 + np.exp(-20 * (a - b) - draw.normal(0, 0.5)))
            return [0.9 * float(first), 0.9 * float(1 - first)]
        task = _JUDGE.search(text)
        assert task is not None
        score = float(np.clip(self._score(task[2], [task[2]], draw), 0, 5))
        return [0.9 * float(p) for p in _softmax(-((np.arange(choices) - score) ** 2))]

    def close(self) -> None:
        pass


# Training


@dataclass
class Trainer:
    """Stands in for torchrun: the same losses, with exact gradients for the model of this world."""

    good_steps: int = DPO_STEPS
    """After these, preference training goes wrong: its steps lead away from the chosen answers."""

    def run_workers(self, config: WorkerConfig, *rest: Any) -> None:
        """As srlm_stages.training.torchrun.run_workers."""
        start, output = Path(config.model), Path(config.output)
        policy, tokenizer = Policy.load(start), load_tokenizer(start)
        step = self._preferences if config.dpo is not None else self._supervised
        statistics = step(config, policy, tokenizer)
        save(policy, start, output)
        Path(config.result).write_text(TrainingResult(statistics=statistics).model_dump_json(by_alias=True))

    def _supervised(self, config: WorkerConfig, policy: Policy, tokenizer: Any) -> dict[str, float]:
        assert config.sft is not None
        rows, dropped = encode_rows(
            tokenizer, read_rows(Path(config.rows), SupervisedRow), max_length=config.sft.max_length
        )
        learned = [
            (tokenizer.decode(row["input_ids"]), tokenizer.decode([i for i in row["labels"] if i != IGNORED]))
            for row in rows
        ]
        answers = [_finished(answer) for text, answer in learned if not _JUDGE.search(text)]
        tasks = [(match[2], answer) for text, answer in learned if (match := _JUDGE.search(text))]
        for _ in range(40):
            policy.logits += 0.02 * np.mean([policy.gradient(token_counts(a)) for a in answers], axis=0)
        if tasks:
            policy.judge_noise *= 1 - 0.6 * max(0.0, _teaching(tasks))
        return {"rows": len(rows) + dropped, "rowsDropped": dropped, "loss": 1.0}

    def _preferences(self, config: WorkerConfig, policy: Policy, tokenizer: Any) -> dict[str, float]:
        assert config.dpo is not None
        rows, dropped = encode_pairs(
            tokenizer, read_rows(Path(config.rows), PreferencePair),
            system_prompt=config.system_prompt, max_length=config.dpo.max_length,
        )  # fmt: skip
        pairs = [
            [token_counts(_finished(tokenizer.decode(row[side]))) for side in ("chosen_ids", "rejected_ids")]
            for row in rows
        ]
        reference = Policy.load(Path(config.reference or config.model))
        for step in range(DPO_STEPS):
            if config.keep_every and step and step % config.keep_every == 0:
                save(policy, Path(config.model), Path(config.output) / KEPT / str(step))
            direction = 1 if step < self.good_steps else -1
            gradients = []
            for chosen, rejected in pairs:
                margin = config.dpo.beta * _advantage(policy, reference, chosen, rejected)
                strength = config.dpo.beta / (1 + np.exp(margin))
                gradients.append(strength * (policy.gradient(chosen) - policy.gradient(rejected)))
            policy.logits += direction * 1.5 * np.mean(gradients, axis=0)
        margins = [config.dpo.beta * _advantage(policy, reference, *pair) for pair in pairs]
        return {
            "rows": len(rows) + dropped, "rowsDropped": dropped, "rewardMargin": float(np.mean(margins)),
            "rewardAccuracy": float(np.mean([m > 0 for m in margins])),
        }  # fmt: skip


def save(policy: Policy, start: Path, folder: Path) -> None:
    """A model folder: what `start` has, with other weights."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in start.iterdir():
        if path.is_file():
            shutil.copyfile(path, folder / path.name)
    policy.save(folder)


def _finished(answer: str) -> str:
    """The text before the end of the turn, which has to be there: it is what teaches a model to stop."""
    text, end, rest = answer.partition("<|im_end|>")
    assert (end, rest) == ("<|im_end|>", ""), answer
    return text


def _advantage(policy: Policy, reference: Policy, chosen: Array, rejected: Array) -> float:
    """How much more than the reference the policy prefers the chosen answer."""
    return (
        policy.log_probability(chosen) - reference.log_probability(chosen)
        - policy.log_probability(rejected) + reference.log_probability(rejected)
    )  # fmt: skip


def _teaching(tasks: Sequence[tuple[str, str]]) -> float:
    """Correlation of score and hidden quality in judge tasks: what there is to learn from them."""
    scores = [float(re.findall(r"\d", verdict.replace("Score: 1,", ""))[0]) for _, verdict in tasks]
    qualities = [hidden_quality(answer) for answer, _ in tasks]
    if len(set(scores)) < 2 or len(set(qualities)) < 2:
        return 0.0
    return float(np.corrcoef(scores, qualities)[0, 1])


# A run


@dataclass
class SyntheticRun:
    """A run of the whole loop in a folder."""

    root: Path
    spec: RunSpec
    judging: Judging
    trainer: Trainer = field(default_factory=Trainer)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    results: dict[str, StageResult] = field(default_factory=dict)
    world: World = field(init=False)
    questions: list[str] = field(init=False)
    pins: Pins = field(init=False)

    def __post_init__(self) -> None:
        self.world = World(self.root / "work")
        self.questions = write_seed_data(self.root / "trees.jsonl", self.spec.seed)
        write_model(self.root / "base")
        (self.root / "rubric.txt").write_text(RUBRIC)
        self.pins = Pins(
            base_model=pinned(self.root / "base", "model"),
            seed_data=pinned(self.root / "trees.jsonl", "dataset"),
            rubric=sha256(RUBRIC.encode()),
        )

    def go(self, monkeypatch: pytest.MonkeyPatch, *, until: Callable[[Node], bool] = lambda node: False) -> None:
        """Runs stages in the order of the graph, up to and without the first that `until` names."""
        monkeypatch.setattr("srlm_stages.engines.transformers_engine.TransformersEngine", self._engine)
        monkeypatch.setattr("srlm_stages.training.entry.run_workers", self.trainer.run_workers)
        while True:
            # The graph may grow with what is found: rounds of minimum yield.
            nodes = graph(self.spec, self.pins, self.outcomes)
            node = next((n for n in nodes if n.id not in self.outcomes), None)
            if node is None or until(node):
                return
            self._run(node)

    def _engine(self, model: Path, *rest: Any) -> ScriptedEngine:
        return ScriptedEngine(model, self.judging, self.questions)

    def _run(self, node: Node) -> None:
        key = node_key(node, self.outcomes, self.spec.seed)
        assert key is not None
        stages = {n.id: n.stage for n in self.nodes.values()}
        task = StageTask(
            stage=node.stage, run=RUN, iteration=node.iteration, node=node.name, round=node.round, key=key,
            seed=self.spec.seed, params=node.params, sources=dict(node.sources), shards=node.shards,
            inputs={name: self.ref(source, stages[source]) for name, source in node.inputs.items()},
            storage=StorageLocation(uri="s3://world/runs"),
        )  # fmt: skip
        result = self.world.run(task, SRLM_RUBRIC_FILE=str(self.root / "rubric.txt"))
        self.nodes[node.id], self.results[node.id] = node, result
        self.outcomes[node.id] = Outcome(key, result.content_digest, result.statistics)

    def ref(self, node_id: str, stage: Any) -> ArtifactRef:
        outcome = self.outcomes[node_id]
        return ArtifactRef(stage=stage, key=outcome.key, content_digest=outcome.content_digest)

    # What came out

    def policies(self) -> list[Policy]:
        """M1, M2, ... as they are committed."""
        first = self.policy("0/sft") if "0/sft" in self.nodes else Policy.load(self.root / "base")
        last = "choose" if self.spec.training.choose.enabled else "train"
        return [first, *(self.policy(f"{t}/{last}") for t in self.iterations())]

    def figures(self, iteration: int) -> IterationMetrics:
        """What the operator shows and gates look at, from the results of the stages."""
        return iteration_metrics(self._records(iteration), self._records(iteration - 1))

    def _records(self, iteration: int) -> list[StageStatus]:
        return [
            StageStatus(name=n.name, stage=n.stage, state="Succeeded", statistics=self.results[n.id].statistics)
            for n in self.nodes.values()
            if n.iteration == iteration
        ]

    def iterations(self) -> range:
        return range(1, self.spec.iterations + 1)

    def policy(self, node_id: str) -> Policy:
        folder = self.root / "fetched" / node_id
        self.world.artifacts().fetch(self.ref(node_id, self.nodes[node_id].stage), folder)
        return Policy.load(folder)

    def rows(self, node_id: str, pattern: str, model: type[Any]) -> list[Any]:
        return self.world.rows(self.results[node_id], pattern, model)

    def inputs(self, node_id: str) -> dict[str, str]:
        """Content digests that the committed manifest names as inputs."""
        manifest = self.world.manifest(self.results[node_id])
        return {name: ref.content_digest for name, ref in manifest.inputs.items() if isinstance(ref, ArtifactRef)}


def pinned(path: Path, kind: Kind) -> SourceRef:
    """A source named by its content, as preflight pins it."""
    source = SourceRef(uri=path.as_uri())
    origin = FileOrigin.open(source.uri)
    return source.model_copy(update={"revision": origin.revision(pinned_files(source, origin, kind))})


def spec(**changes: Any) -> RunSpec:
    """A small run; `changes` replace whole sections."""
    engine = {"engine": {"name": "transformers"}}
    return RunSpec.parse(
        {
            "baseModel": {"uri": "file:///base"},
            "storage": {"uri": "s3://world/runs"},
            "iterations": 3,
            "seedData": {
                "uri": "file:///trees.jsonl", "validationPrompts": 40, "ift": {"maxExamples": 40},
                "eft": {"maxExamples": 120, "heldOutExamples": 100},
            },
            "prompts": {"count": 48},
            "generation": {"shards": 1},
            "judging": {"shards": 2, "samples": 2},
            "gates": {
                "minPairs": 20, "minParseRate": 0.8, "maxTieRate": 0.5, "minJudgeAccuracy": 0.55,
                "maxLengthGrowth": 1.5,
            },
            "training": {"dpo": {"maxLength": 1024}},
            "bootstrap": {"sft": {"maxLength": 1024}},
            "evaluation": {"winRate": {"prompts": 40}},
            "stages": dict.fromkeys(("prompts", "generate", "judge", "choose", "evaluate"), engine),
            **changes,
        }
    )  # fmt: skip


def write_seed_data(path: Path, seed: int, prompts: int = 130) -> list[str]:
    """Open Assistant trees whose human ranks are those of the hidden quality; the questions."""
    draw = random.Random(seed)
    questions = [new_question(draw) for _ in range(prompts)]
    with path.open("w") as file:
        for question in questions:
            texts = {" ".join(draw.choices(WORDS, k=draw.randint(8, 16))) for _ in range(4)}
            best_first = sorted(texts, key=hidden_quality, reverse=True)
            replies = [{"text": text, "rank": rank, "lang": "en"} for rank, text in enumerate(best_first)]
            file.write(json.dumps({"prompt": {"text": question, "lang": "en", "replies": replies}}) + "\n")
    return questions


@cache
def _tokenizer() -> Any:
    """The same for all runs: two trainings of it may number equally frequent pieces differently."""
    return build_tokenizer(context=4096)


def new_question(draw: random.Random) -> str:
    """Unlike any other: only its small words occur in others too."""
    names = ["".join(draw.choice("bdfgklmnprstvz") + draw.choice("aeiou") for _ in range(3)) for _ in range(6)]
    return "What is the {} {} of {} for {} {} and {}?".format(*names)


def write_model(folder: Path) -> None:
    """M0: every word is as likely as any other."""
    _tokenizer().save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "max_position_embeddings": 4096}))
    logits = np.zeros(STOP + 1)
    # After FEWEST words the usual length is reached on average.
    logits[STOP] = np.log(len(WORDS) / (USUAL - FEWEST))
    Policy(logits).save(folder)
