"""Reads human seed data of any format: first-turn prompts with their human answers, ranked where people ranked them.

What a file is packed in is `files`, what its rows look like `rows` and `oasst`. A row that is of another
format is an error; a row that is of the format but cannot be used is left out and counted by its cause.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

from srlm_contract.keys import row_id

from ..conversation.thoughts import without_thoughts
from . import oasst
from .files import Located, SeedDataError, read_rows
from .rows import SCHEMAS, WrongFormat, check_wanted, format_of
from .values import Dropped, content_text, rank_of

#: Rows that are looked at to tell the format.
TELLING_ROWS = 50


@dataclass(frozen=True)
class Answer:
    """One human answer; rank 0 is the best, None is unranked."""

    text: str
    rank: int | None


@dataclass(frozen=True)
class SeedPrompt:
    """A first-turn prompt with its answers, best rank first."""

    id: str
    text: str
    answers: tuple[Answer, ...]

    @property
    def ranked(self) -> tuple[Answer, ...]:
        """Answers with a rank, if at least two different ranks are among them; else empty."""
        ranked = tuple(a for a in self.answers if a.rank is not None)
        return ranked if len({a.rank for a in ranked}) > 1 else ()

    @property
    def best(self) -> str | None:
        """The answer of human rank 0."""
        return next((a.text for a in self.answers if a.rank == 0), None)


@dataclass
class SeedData:
    """What a file held: usable prompts in file order, and why others were left out."""

    prompts: list[SeedPrompt] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)
    """Where each cause occurred first."""
    ids: set[str] = field(default_factory=set)
    """Ids of `prompts`."""

    def drop(self, cause: str, where: str) -> None:
        """Count a prompt or an answer that is left out."""
        self.dropped[cause] += 1
        self.first.setdefault(cause, where)

    def causes(self) -> str:
        """What was left out, in words: `3 emptyPrompt (first: line 7), ...`."""
        return ", ".join(f"{n} {cause} (first: {self.first[cause]})" for cause, n in sorted(self.dropped.items()))


Found = tuple[str, Any, Sequence[tuple[str, Any, Any]]]
"""(where, content of the prompt, (where, content, rank) of its answers)."""


def read_seed_data(path: Path, format: str, language: str) -> SeedData:
    """Read `path`. Raises SeedDataError for unreadable files and files without a usable prompt.

    format: as `seedData.format`; Auto tells it from the first row.
    """
    data = SeedData()
    with closing(read_rows(path)) as rows:
        first = list(islice(rows, TELLING_ROWS))
        if not first:
            raise SeedDataError(f"{path.name} is empty: seedData needs at least one {format} row")
        if format == "Auto":
            format = _told_by(first, path)
        try:
            for where, content, answers in _found(chain(first, rows), format, language, data):
                _add(data, where, _prompt(where, content, answers, data))
        except WrongFormat as error:
            like = _looks_like(first)
            hint = f"; its first rows look like {like}" if like not in (None, format) else ""
            raise SeedDataError(f"{path.name} {error}{hint}; check seedData.format") from error
    if not data.prompts:
        raise SeedDataError(
            f"{path.name} has no usable prompt in language {language!r} ({data.causes()}); "
            "check seedData.language, seedData.format and the file"
        )
    return data


def _add(data: SeedData, where: str, prompt: SeedPrompt | None) -> None:
    """A prompt that occurs again is left out: the first one counts."""
    if prompt is None:
        return
    if prompt.id in data.ids:
        data.drop("duplicatePrompt", where)
        return
    data.ids.add(prompt.id)
    data.prompts.append(prompt)


def _looks_like(rows: Sequence[Located]) -> str | None:
    """The format of the first row that tells it: nulls may hide it in others."""
    return next((found for _, row in rows if (found := format_of(row)) is not None), None)


def _told_by(first: Sequence[Located], path: Path) -> str:
    """The format of a file by its first rows."""
    found = _looks_like(first)
    if found is None:
        where, row = first[0]
        names = ", ".join(sorted(map(str, row))[:12]).encode(errors="replace").decode() or "none"
        raise SeedDataError(
            f"{path.name} {where} has the fields {names}, which are of no known format; set seedData.format to one of "
            f"OasstTrees, OasstMessages, {', '.join(SCHEMAS)}, and rename the fields to its own"
        )
    return found


def _found(rows: Iterator[Located], format: str, language: str, data: SeedData) -> Iterator[Found]:
    """Prompts and answers of a file as it gives them; counts what its own marks exclude."""
    if format in ("OasstTrees", "OasstMessages"):
        for where, root, replies in (oasst.trees if format == "OasstTrees" else oasst.messages)(rows):
            cause = oasst.unwanted(root, language)
            if cause is not None:
                data.drop(f"{cause}Prompt", where)
                continue
            answers = []
            for place, reply in replies:
                cause = oasst.unwanted(reply, language)
                if cause is not None:
                    data.drop(f"{cause}Answer", place)
                else:
                    answers.append((place, reply.get("text"), reply.get("rank")))
            yield where, root.get("text"), answers
        return
    read = SCHEMAS[format]
    for where, row in rows:
        try:
            check_wanted(row)
            example = read(row)
        except Dropped as dropped:
            data.drop(dropped.cause, where)
        except WrongFormat as error:
            raise WrongFormat(f"{where} has {error}: not the {format} format") from error
        else:
            yield where, example.prompt, [(where, content, rank) for content, rank in example.answers]


def _prompt(where: str, content: Any, answers: Sequence[tuple[str, Any, Any]], data: SeedData) -> SeedPrompt | None:
    """A prompt with the answers that can be used; None, counted, when the prompt itself cannot."""
    try:
        text = content_text(content)
    except Dropped as dropped:
        data.drop(f"{dropped.cause}Prompt", where)
        return None
    kept: dict[str, Answer] = {}
    for place, answer_content, answer_rank in answers:
        answer = _answer(place, answer_content, answer_rank, data)
        if answer is None:
            continue
        other = kept.setdefault(answer.text, answer)
        if other is not answer:
            data.drop("duplicateAnswer", place)
            kept[answer.text] = min(other, answer, key=_order)
    return SeedPrompt(id=row_id(text), text=text, answers=tuple(sorted(kept.values(), key=_order)))


def _answer(where: str, content: Any, rank: Any, data: SeedData) -> Answer | None:
    """An answer without the thought before it. Without a rank, or with one that is none, it serves no part that needs
    ranks."""
    try:
        text = content_text(content)
    except Dropped as dropped:
        data.drop(f"{dropped.cause}Answer", where)
        return None
    said = without_thoughts(text, ())  # of a reasoning model whose answers were ranked
    text = said.answer.strip() if said.finished else ""
    if not text:
        data.drop("unfinishedThoughtAnswer", where)
        return None
    try:
        found = rank_of(rank)
    except Dropped as dropped:
        data.drop(f"{dropped.cause}Answer", where)
        return Answer(text, None)
    if found is None:
        data.drop("unrankedAnswer", where)
    return Answer(text, found)


def _order(answer: Answer) -> tuple[bool, int, str]:
    """Best rank first, unranked last; the text decides between equal ranks, so that the file's order does not."""
    return answer.rank is None, answer.rank or 0, answer.text
