"""What a folder holds, and which of its links lead out of it: what lies elsewhere is no part of the folder."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Contents(NamedTuple):
    """Of a folder and its sub-folders; paths are relative, with `/`, and sorted."""

    files: dict[str, Path]
    astray: dict[str, str]
    """Links that do not end in the folder, with what is wrong: "a link to /etc/passwd, out of the folder"."""


def contents(folder: Path) -> Contents:
    """Links to files of the folder count as files; links to its sub-folders are left out, as their files are listed
    where they lie. A snapshot in the cache of the Hugging Face Hub may link to the blobs of its repository."""
    homes = [folder.resolve(), *_blobs(folder), *_blobs(folder.resolve())]
    found = Contents({}, {})
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() and (wrong := _wrong(path, homes)):
            found.astray[name] = wrong
        elif path.is_file():
            found.files[name] = path
    return found


def leads_out(folder: Path, path: str) -> bool:
    """Whether a file written to `path` below `folder` would land elsewhere, through a link that is there already."""
    return not (folder / path).parent.resolve().is_relative_to(folder.resolve())


def _wrong(link: Path, homes: list[Path]) -> str:
    """Why a link is no part of the folders `homes`; empty when it is."""
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError):  # RuntimeError: a circle of links, before Python 3.13
        return f"a link to {link.readlink()}, which does not exist here"
    return "" if any(target.is_relative_to(home) for home in homes) else f"a link to {target}, out of the folder"


def _blobs(folder: Path) -> list[Path]:
    """`models--org--name/blobs` of a folder at or below `models--org--name/snapshots/<commit>`."""
    return [above.parent.joinpath("blobs").resolve() for above in folder.parents if above.name == "snapshots"]
