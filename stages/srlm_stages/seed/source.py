"""Which file of a data set repository or folder holds the seed data."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from srlm_contract.errors import BadInput

#: How seed files of any format end, the most usual first.
ANY = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet", ".json", ".json.gz", ".json.zst")
#: What the published Open Assistant files end with, by seed format; others have no names of their own.
SUFFIXES = {
    "OasstTrees": ("ready.trees.jsonl.gz", ".trees.jsonl.gz", ".trees.jsonl", *ANY),
    "OasstMessages": ("ready.messages.jsonl.gz", ".messages.jsonl.gz", ".messages.jsonl", *ANY),
}
#: Files of a repository that describe it.
NO_DATA = frozenset({"dataset_infos.json", "dataset_info.json", "config.json", "state.json"})


def pick_seed_file(names: Iterable[str], format: str, where: str) -> str:
    """The one file of `names` in seed format `format`; the most specific suffix wins, and `train` of several splits.

    Raises BadInput InvalidSeedData when none or several fit: then `seedData.file` has to name one.
    """
    listed = sorted(name for name in names if not any(part.startswith(".") for part in name.split("/")))
    suffixes = SUFFIXES.get(format, ANY)
    for suffix in suffixes:
        found = [name for name in listed if name.endswith(suffix) and name.rpartition("/")[2] not in NO_DATA]
        train = [name for name in found if name.rpartition("/")[2].startswith("train")]
        found = train if len(train) == 1 else found  # beside it are validation and test
        if len(found) == 1:
            return found[0]
        if found:
            raise BadInput(
                "InvalidSeedData",
                f"{where} has {len(found)} files that end with {suffix} ({_some(found)}); name one in seedData.file",
            )
    raise BadInput(
        "InvalidSeedData",
        f"{where} has no file for seedData.format {format} (files that end with "
        f"{' or '.join(suffixes)}); it has: {_some(listed) or 'nothing'}; set seedData.file",
    )


def seed_file(path: Path, format: str) -> Path:
    """`path` itself, or the seed file inside it when it is a folder. Raises BadInput InvalidSeedData."""
    if path.is_dir():
        names = (str(p.relative_to(path)) for p in path.rglob("*") if p.is_file())
        return path / pick_seed_file(names, format, path.name)
    if not path.is_file():
        raise BadInput("InvalidSeedData", f"the seed data file {path} does not exist; check seedData.uri")
    return path


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
