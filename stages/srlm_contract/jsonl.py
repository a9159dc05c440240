"""Rows on disk: JSON Lines, one canonical spelling per row, so that equal rows are equal bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from .base import Contract
from .errors import ArtifactDamaged
from .keys import canonical_json

RowT = TypeVar("RowT", bound=Contract)


def write_rows(path: Path, rows: Iterable[Contract]) -> int:
    """Writes rows in the order given; returns their number."""
    count = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as out:
        for row in rows:
            out.write(canonical_json(row.wire()) + b"\n")
            count += 1
    return count


def iter_rows(path: Path, model: type[RowT]) -> Iterator[RowT]:
    """Rows one at a time, blank lines left out. Raises ArtifactDamaged naming the line."""
    with path.open("rb") as source:
        for number, line in enumerate(source, 1):
            if not line.strip():
                continue
            try:
                yield model.model_validate_json(line)
            except ValidationError as error:
                detail = error.errors()[0]
                where = ".".join(map(str, detail["loc"])) or "row"
                raise ArtifactDamaged(
                    f"{path.name} line {number}: {where}: {detail['msg']}; "
                    f"the file is not made of {model.__name__} rows"
                ) from error
