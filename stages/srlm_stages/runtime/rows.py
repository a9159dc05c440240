"""Reading the JSON Lines files that stages hand over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from srlm_contract.errors import ArtifactDamaged, BadInput
from srlm_contract.jsonl import RowT, iter_rows


def read_rows(path: Path, model: type[RowT]) -> Iterator[RowT]:
    """Rows of one file, in order. Raises BadInput naming file and line of a row that does not fit."""
    if not path.is_file():
        raise BadInput("InputDamaged", f"{path.name} is missing in {path.parent.name}; make its artifact again")
    try:
        yield from iter_rows(path, model)
    except ArtifactDamaged as error:
        raise BadInput("InputDamaged", str(error)) from error


def read_all(folder: Path, stem: str, model: type[RowT]) -> Iterator[RowT]:
    """Rows of `<stem>.jsonl` and of all its shard files `<stem>-<i>-of-<n>.jsonl` in `folder`, by name."""
    paths = sorted(p for p in folder.glob(f"{stem}*.jsonl") if p.stem == stem or "-of-" in p.stem)
    if not paths:
        raise BadInput("InputDamaged", f"{folder.name} has no {stem}*.jsonl; make its artifact again")
    for path in paths:
        yield from read_rows(path, model)
