"""What a run's models answered, with scores and verdicts, read from its store while the loop runs."""

from __future__ import annotations

import fnmatch
import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from srlm_contract.artifacts import layout, reader
from srlm_contract.artifacts.manifest import Described, Manifest, ShardManifest
from srlm_contract.artifacts.store import Store
from srlm_contract.graph import model_name
from srlm_contract.jsonl import RowT, iter_rows
from srlm_contract.rows import Candidate, Judgement, Positive, PreferencePair, ValidationAnswer, Verdict
from srlm_contract.stages import BASELINES
from srlm_contract.status import RunStatus, StageStatus

Row = Judgement | Candidate | ValidationAnswer
#: Stages whose rows hold answers of a model: their files and what is in them.
_FILES: dict[str, tuple[str, type[Row]]] = {
    "judge": ("judgements*.jsonl", Judgement),
    "generate": ("candidates*.jsonl", Candidate),
    "evaluate": ("answers*.jsonl", ValidationAnswer),
}
#: Their rows hold answers of people, and of models of no iteration.
_OF_OTHERS = ("judge-heldout", "judge-ranked", *BASELINES)


@dataclass(frozen=True)
class Answer:
    """One answer to a prompt."""

    id: str
    text: str
    score: float | None = None
    """0 to 5; None before it is judged, and where no verdict could be read."""
    tokens: int | None = None
    truncated: bool = False
    """Cut by the length limit."""
    role: str = ""
    """chosen, rejected or positive, once the preference data are there."""
    verdicts: tuple[Verdict, ...] = ()

    def wire(self) -> dict[str, Any]:
        """For programs."""
        return {
            "id": self.id,
            "answer": self.text,
            "score": self.score,
            "role": self.role or None,
            "tokens": self.tokens,
            "truncated": self.truncated,
            "verdicts": [{"score": verdict.score, "text": verdict.text} for verdict in self.verdicts],
        }


@dataclass(frozen=True)
class Prompt:
    """A prompt with its answers, the best one first."""

    id: str
    text: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Samples:
    """Some prompts of one artifact."""

    model: str
    """Which wrote the answers."""
    stage: str
    """Node whose artifact was read: `judge`, `generate` or `evaluate`, some with a suffix."""
    complete: bool
    """Whether all of the artifact is there, not some shards only."""
    prompts: tuple[Prompt, ...]

    def wire(self) -> dict[str, Any]:
        """For programs; see operator/README.md."""
        return {
            "model": self.model,
            "stage": self.stage,
            "complete": self.complete,
            "prompts": [
                {"id": one.id, "prompt": one.text, "answers": [answer.wire() for answer in one.answers]}
                for one in self.prompts
            ],
        }


@dataclass(frozen=True)
class Source:
    """A stage that has answers of a model, or will have them."""

    model: str
    record: StageStatus
    pairs: StageStatus | None = None
    """The stage that made preference data of them."""


def sources(status: RunStatus, model: str | None = None) -> Iterator[Source]:
    """Where answers may lie: what is newest and says most first; answers to validation prompts, which nobody scores,
    last. model: of this one only, such as `M2`."""
    authors = [number for number in range(len(status.iterations), 0, -1) if model in (None, model_name(number - 1))]
    for number in authors:
        if number < len(status.iterations):
            stages = status.iterations[number].stages
            pairs = next((s for s in reversed(stages) if s.stage == "pairs" and s.state == "Succeeded"), None)
            yield from (Source(model_name(number - 1), record, pairs) for record in _begun(stages, "judge"))
            yield from (Source(model_name(number - 1), record) for record in _begun(stages, "generate"))
    for number in authors:
        stages = status.iterations[number - 1].stages
        yield from (Source(model_name(number - 1), record) for record in _begun(stages, "evaluate"))


def _begun(stages: Sequence[StageStatus], stage: str) -> Iterator[StageStatus]:
    """Those of that kind that answers of a model go into, the last round first."""
    return (
        record for record in reversed(stages) if record.stage == stage and record.name not in _OF_OTHERS and record.key
    )


def read_samples(store: Store, found: Iterable[Source], most: int) -> Samples | None:
    """Prompts of the first source that has any; None where none has. Raises StageFailure.

    The same ones each time, by the hash of their ids, out of as few files as hold that many.
    """
    for source in found:
        stage = source.record
        manifests, complete = committed(store, stage)
        pattern, kind = _FILES[stage.stage]
        rows: dict[str, list[Row]] = {}
        with tempfile.TemporaryDirectory() as folder:
            for row in _rows(store, manifests, pattern, kind, Path(folder), lambda rows=rows: len(rows) >= most):
                rows.setdefault(row.id if isinstance(row, ValidationAnswer) else row.prompt_id, []).append(row)
            if rows:
                kept = sorted(rows, key=_rank)[:most]
                roles = _roles(store, source.pairs, Path(folder), kept) if source.pairs is not None else {}
                prompts = tuple(_prompt(name, rows[name], roles) for name in kept)
                return Samples(source.model, stage.name, complete, prompts)
    return None


def committed(store: Store, record: StageStatus) -> tuple[Sequence[Described], bool]:
    """What is committed of a stage's artifact, and whether that is all of it. Raises StageFailure."""
    key = layout.manifest_key(record.stage, record.key)
    whole = reader.find_manifest(store, key, Manifest, record.stage, record.key)
    if whole is not None:
        return [whole], True
    prefix = f"{layout.artifact_prefix(record.stage, record.key)}shards/"
    names = sorted(info.key for info in store.list_objects(prefix) if layout.shard_of_key(info.key))
    ours = [name for name in names if (place := layout.shard_of_key(name)) and place[1] == record.shards]
    parts = (reader.find_manifest(store, name, ShardManifest, record.stage, record.key) for name in ours)
    return [part for part in parts if part is not None], False


def _rows(
    store: Store, manifests: Iterable[Described], pattern: str, model: type[RowT], folder: Path, enough: Any
) -> Iterator[RowT]:
    """Rows of the files that match, one file after the other until there are enough."""
    for manifest in manifests:
        for path in sorted(e.path for e in manifest.files if fnmatch.fnmatchcase(e.path, pattern)):
            if enough():
                return
            reader.fetch_files(store, manifest, folder, [path])
            yield from iter_rows(folder / path, model)
            (folder / path).unlink()


def _roles(store: Store, pairs: StageStatus, folder: Path, prompts: Sequence[str]) -> dict[str, str]:
    """What the preference data made of the answers to these prompts, by candidate id; positives by prompt and text."""
    manifests, _ = committed(store, pairs)
    found: dict[str, str] = {}
    for pair in _rows(store, manifests, "pairs*.jsonl", PreferencePair, folder, lambda: False):
        if pair.id in prompts:
            found |= {pair.chosen_id: "chosen", pair.rejected_id: "rejected"}
    for row in _rows(store, manifests, "positives*.jsonl", Positive, folder, lambda: False):
        if row.id in prompts:
            found[f"{row.id}\n{row.answer}"] = "positive"
    return found


def _prompt(name: str, rows: Sequence[Row], roles: dict[str, str]) -> Prompt:
    answers = [replace(_answer(row), role=roles.get(row.id) or roles.get(f"{name}\n{row.answer}", "")) for row in rows]
    answers.sort(key=lambda answer: (-1 if answer.score is None else answer.score, answer.id), reverse=True)
    return Prompt(name, rows[0].prompt, tuple(answers))


def _answer(row: Row) -> Answer:
    judged = (row.score, row.verdicts) if isinstance(row, Judgement) else (None, ())
    return Answer(row.id, row.answer, judged[0], row.tokens, row.truncated, verdicts=judged[1])


def _rank(prompt: str) -> bytes:
    return hashlib.sha256(prompt.encode()).digest()
