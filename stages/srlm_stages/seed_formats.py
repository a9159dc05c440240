"""Reads human seed data: Open Assistant trees, Open Assistant flat messages, and chat JSON lines.

All give the same thing: first-turn prompts with their human answers, ranked where people ranked them.
Plain and gzip files are told apart by their first bytes, not by their names.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from srlm_contract.keys import row_id

GZIP_MAGIC = b"\x1f\x8b"


class SeedDataError(ValueError):
    """The seed data cannot be used; the message names file, line and what to do."""


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


def read_seed_data(path: Path, format: str, language: str) -> SeedData:
    """Read `path`. Raises SeedDataError for unreadable files and files without a usable prompt."""
    data = SeedData()
    lines = read_json_lines(path)
    if format == "OasstTrees":
        raw = _trees(lines, path, language, data.dropped)
    elif format == "OasstMessages":
        raw = _messages(lines, path, language, data.dropped)
    else:
        raw = _chats(lines, path)
    seen: set[str] = set()
    rows = 0
    for text, answers in raw:
        rows += 1
        prompt = _prompt(text, answers, data.dropped)
        if prompt is None:
            continue
        if prompt.id in seen:
            data.dropped["duplicatePrompt"] += 1
            continue
        seen.add(prompt.id)
        data.prompts.append(prompt)
    if not data.prompts:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(data.dropped.items()))
        if not rows and not reasons:
            raise SeedDataError(f"{path.name} is empty: seedData needs at least one {format} row")
        raise SeedDataError(
            f"{path.name} has no usable prompt in language {language!r} ({reasons}); "
            "check seedData.language, seedData.format and the file"
        )
    return data


def read_json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of each non-blank line of a plain or gzip JSON lines file."""
    number = 0
    try:
        with path.open("rb") as head:
            zipped = head.read(2) == GZIP_MAGIC
        with gzip.open(path, "rb") if zipped else path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    value = json.loads(line)
                except (ValueError, UnicodeDecodeError) as error:
                    raise SeedDataError(
                        f"{path.name} line {number} is not JSON ({error}); seedData must be JSON lines, "
                        "one object a line"
                    ) from error
                if not isinstance(value, dict):
                    raise SeedDataError(f"{path.name} line {number} is not a JSON object but {type(value).__name__}")
                yield number, value
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise SeedDataError(
            f"{path.name} is a damaged gzip file after line {number} ({error}); fetch it again"
        ) from error


def _prompt(text: str, answers: list[Answer], dropped: Counter[str]) -> SeedPrompt | None:
    text = text.strip()
    unique = {a.text: a for a in reversed(answers) if a.text.strip()}
    kept = sorted(unique.values(), key=lambda a: (a.rank is None, a.rank or 0, a.text))
    if not text:
        dropped["emptyPrompt"] += 1
        return None
    return SeedPrompt(id=row_id(text), text=text, answers=tuple(kept))


def _usable(message: dict[str, Any], language: str, dropped: Counter[str], what: str) -> bool:
    """Whether a message is a person's, still there, and in the wanted language; counts the others by cause."""
    if message.get("deleted"):
        dropped[f"deleted{what}"] += 1
    elif message.get("lang", language) != language:
        dropped[f"otherLanguage{what}"] += 1
    elif message.get("synthetic"):
        dropped[f"synthetic{what}"] += 1
    else:
        return True
    return False


def _answer(message: dict[str, Any], language: str, dropped: Counter[str]) -> Answer | None:
    """A reply as an answer. `rank` may be missing or null: the answer then serves no part that needs ranks."""
    if not _usable(message, language, dropped, "Answer"):
        return None
    rank = message.get("rank")
    if rank is None:
        dropped["unrankedAnswer"] += 1
    elif not isinstance(rank, int) or isinstance(rank, bool) or rank < 0:
        dropped["invalidRankAnswer"] += 1
        rank = None
    return Answer(str(message.get("text") or "").strip(), rank)


def _trees(
    lines: Iterator[tuple[int, dict[str, Any]]], path: Path, language: str, dropped: Counter[str]
) -> Iterator[tuple[str, list[Answer]]]:
    for number, tree in lines:
        root = tree.get("prompt")
        if not isinstance(root, dict) or not isinstance(root.get("text"), str):
            raise SeedDataError(
                f"{path.name} line {number} has no prompt.text: not an Open Assistant tree; check seedData.format"
            )
        if not _usable(root, language, dropped, "Prompt"):
            continue
        answers = [_answer(reply, language, dropped) for reply in root.get("replies") or []]
        yield root["text"], [a for a in answers if a is not None]


def _messages(
    lines: Iterator[tuple[int, dict[str, Any]]], path: Path, language: str, dropped: Counter[str]
) -> Iterator[tuple[str, list[Answer]]]:
    roots: dict[str, dict[str, Any]] = {}
    replies: dict[str, list[dict[str, Any]]] = {}
    for number, message in lines:
        if "message_id" not in message or not isinstance(message.get("text"), str):
            raise SeedDataError(
                f"{path.name} line {number} has no message_id and text: not an Open Assistant message; "
                "check seedData.format"
            )
        if message.get("parent_id") is None:
            roots[message["message_id"]] = message
        else:
            replies.setdefault(message["parent_id"], []).append(message)
    for message_id, root in roots.items():
        if _usable(root, language, dropped, "Prompt"):
            answers = [_answer(reply, language, dropped) for reply in replies.get(message_id, [])]
            yield root["text"], [a for a in answers if a is not None]


def _chats(lines: Iterator[tuple[int, dict[str, Any]]], path: Path) -> Iterator[tuple[str, list[Answer]]]:
    """`{"messages": [{"role": "user", ...}, {"role": "assistant", ...}]}`, or `{"prompt", "answers": [...]}` with
    the best answer first. Messages: the first user turn and the answer that follows; it has rank 0."""
    for number, row in lines:
        if isinstance(row.get("prompt"), str) and isinstance(row.get("answers"), list):
            yield row["prompt"], [Answer(str(text).strip(), rank) for rank, text in enumerate(row["answers"])]
            continue
        turns = [m for m in row.get("messages") or [] if isinstance(m, dict) and m.get("role") != "system"]
        if len(turns) < 2 or turns[0].get("role") != "user" or turns[1].get("role") != "assistant":
            raise SeedDataError(
                f"{path.name} line {number} has neither messages (user, assistant, ...) nor prompt and answers: "
                "not the Chat format; check seedData.format"
            )
        yield str(turns[0].get("content", "")), [Answer(str(turns[1].get("content", "")).strip(), 0)]
