"""Reads a prompt pool: a file of prompts that people have ready, in any of the kinds seed data comes in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from srlm_contract.errors import BadInput

from ..seed.files import PARQUET, SeedDataError, read_rows, read_text
from ..seed.rows import SCHEMAS, WrongFormat, asked, format_of
from ..seed.values import Dropped, content_text

#: What to say of a prompt that cannot be used, by the cause seed data counts it under.
CAUSES = {
    "empty": "the prompt is empty", "notText": "the prompt is no text", "invalidUnicode": "half a surrogate pair",
    "notFirstTurnPrompt": "not one user turn",
}  # fmt: skip


def read_pool(path: Path) -> list[str]:
    """Prompts of a pool file: JSON lines, a JSON array (`{"prompt": ...}`, strings, rows of a seed format), Parquet or
    plain text, one a line; plain, gzip or zstd.

    Raises BadInput InvalidSeedData naming the line that is none of these.
    """
    if path.is_dir():
        raise BadInput("InvalidSeedData", f"{path.name} is a folder; prompts.generator.uri must name a prompt file")
    try:
        return [_prompt(value, where) for where, value in _values(path)]
    except SeedDataError as error:
        raise BadInput("InvalidSeedData", f"the prompt pool {path.name} cannot be read: {error}") from error


def _values(path: Path) -> Iterator[tuple[str, Any]]:
    """(`file:line`, value) of every prompt."""
    with path.open("rb") as file:
        packed = file.read(len(PARQUET)) == PARQUET
    if packed:
        yield from ((f"{path.name}:{where.removeprefix('row ')}", row) for where, row in read_rows(path))
        return
    text = read_text(path)
    array = _array(text)
    if array is not None:
        yield from ((f"{path.name}:{number}", value) for number, value in enumerate(array, 1))
        return
    for number, line in enumerate(text.split("\n"), 1):
        where = f"{path.name}:{number}"
        if not line.strip():
            continue
        if line.lstrip()[0] not in '{"':
            yield where, line
            continue
        try:
            yield where, json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadInput("InvalidSeedData", f"{where}: not JSON: {error}") from error


def _array(text: str) -> list[Any] | None:
    """The elements if the text is one JSON array; a plain line may begin with a bracket too."""
    if not text.lstrip().startswith("["):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, list) else None


def _prompt(value: Any, where: str) -> str:
    try:
        if isinstance(value, dict):
            format = format_of(value)
            if "prompt" in value and not isinstance(value["prompt"], dict):
                value = asked(value["prompt"])
            elif format in SCHEMAS:
                value = SCHEMAS[format](value).prompt
            else:
                raise WrongFormat
        return content_text(value)
    except WrongFormat as error:
        raise BadInput("InvalidSeedData", f'{where}: no "prompt" with a text') from error
    except Dropped as dropped:
        cause = CAUSES.get(dropped.cause, dropped.cause)
        raise BadInput("InvalidSeedData", f'{where}: no "prompt" with a text: {cause}; correct it') from dropped
