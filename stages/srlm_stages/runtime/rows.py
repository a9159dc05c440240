"""Reading and writing the JSON Lines files that stages hand over."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from srlm_contract.base import Contract
from srlm_contract.errors import BadInput
from srlm_contract.jsonl import write_rows as _write_rows

RowT = TypeVar("RowT", bound=Contract)


def read_rows(path: Path, model: type[RowT]) -> Iterator[RowT]:
    """Rows of one file, in order. Raises BadInput naming file and line of a row that does not fit."""
    if not path.is_file():
        raise BadInput("InputDamaged", f"{path.name} is missing in {path.parent.name}; make its artifact again")
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield model.model_validate_json(line)
            except ValidationError as error:
                problem = error.errors(include_url=False)[0]
                where = ".".join(str(part) for part in problem["loc"])
                raise BadInput(
                    "InputDamaged", f"{path.name}:{number}: not a {model.__name__}: {where}: {problem['msg']}"
                ) from error


def read_all(folder: Path, stem: str, model: type[RowT]) -> Iterator[RowT]:
    """Rows of `<stem>.jsonl` and of all its shard files `<stem>-<i>-of-<n>.jsonl` in `folder`, by name."""
    paths = sorted(p for p in folder.glob(f"{stem}*.jsonl") if p.stem == stem or "-of-" in p.stem)
    if not paths:
        raise BadInput("InputDamaged", f"{folder.name} has no {stem}*.jsonl; make its artifact again")
    for path in paths:
        yield from read_rows(path, model)


def write_rows(path: Path, rows: Iterable[Contract]) -> int:
    """Write rows as canonical JSON lines (the same rows give the same bytes); returns how many."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return _write_rows(path, rows)
