"""Fetches outside sources: base models, seed data, prompt pools, from wherever `origins` can read.

A source is pinned by `preflight`: a hub commit, or `sha256:...` over the files. What is fetched here is checked
against that pin, so that a file that changes under a run is an error and not a silently different experiment.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatch
from pathlib import Path

from srlm_contract.errors import BadInput
from srlm_contract.tasks import SourceRef

from .origins import FileOrigin, HubOrigin, Kind, Missing, OpenStore, Origin, open_origin
from .weights import weight_files

#: What belongs to a model: weights as safetensors, configuration, tokenizer, templates. Never pickles.
MODEL_FILES = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")
TOKENIZER_FILES = ("*.json", "*.txt", "*.model", "*.jinja")


def fetch_source(source: SourceRef, kind: Kind, into: Path, open_store: OpenStore, files: Sequence[str]) -> Path:
    """Folder or file of `source`; what is not on this machine already is put below `into`.

    files: patterns of the wanted files. Raises BadInput (ModelNotUsable, InvalidSeedData) when it does not exist or
    is not what was pinned, NotPermitted, Temporary.
    """
    hub = source.uri.startswith("hf://") and source.revision
    uri = f"{source.uri}@{source.revision}" if hub else source.uri
    try:
        origin = open_origin(uri, kind, open_store)
        if source.file and source.file not in origin.files:
            raise Missing(f"{source.uri} has no file {source.file}")
        _check_pin(source, origin, pinned_files(source, origin, kind), reason_of(kind))
        wanted = [source.file] if source.file else matching(origin.files, files)
        if not wanted:
            raise Missing(f"{source.uri} has no files that can be used ({', '.join(files)})")
        if isinstance(origin, FileOrigin):
            for path in wanted:
                origin.place(path)
        into.mkdir(parents=True, exist_ok=True)
        spare = _spare_weights(origin, wanted, into) if kind == "model" else frozenset[str]()
        folder = origin.root if isinstance(origin, FileOrigin) and not spare else into
        for path in wanted if folder is into else ():
            if path not in spare:
                _bring(origin, path, into)
    except Missing as error:
        raise BadInput(reason_of(kind), str(error)) from error
    alone = kind == "dataset" and len(wanted) == 1
    return folder / wanted[0] if alone else folder


def _spare_weights(origin: Origin, wanted: Sequence[str], into: Path) -> frozenset[str]:
    """Weights that lie beside those of the model (`consolidated.safetensors`, `model.fp16.safetensors`): they would be
    downloaded for nothing, and vLLM reads every file it finds."""
    weights = {path for path in wanted if path.endswith(".safetensors")}
    return frozenset(weights.difference(weight_files(origin, into))) if weights else frozenset()


def _bring(origin: Origin, path: str, into: Path) -> None:
    """One file into a folder of our own; of files of this machine a link."""
    if not isinstance(origin, FileOrigin):
        origin.fetch(path, into)
    elif not (into / path).exists():  # the index was read from there
        (into / path).symlink_to(origin.place(path))


def pinned_files(source: SourceRef, origin: Origin, kind: Kind) -> list[str]:
    """The files whose content a pin speaks of: a model's files, the named file, or all."""
    if kind == "model":
        return matching(origin.files, MODEL_FILES)
    return [source.file] if source.file else list(origin.files)


def _check_pin(source: SourceRef, origin: Origin, paths: list[str], reason: str) -> None:
    if not source.revision or isinstance(origin, HubOrigin):  # a commit is its own check
        return
    found = origin.revision(paths)
    if found != source.revision:
        raise BadInput(
            reason,
            f"{source.uri} has changed since the run pinned it ({source.revision[:19]}, now {found[:19]}); "
            "restore it or start another run",
        )


def matching(files: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """Paths that match one of the patterns, hidden ones left out; sub-folders count for `*` alone."""
    patterns = tuple(patterns)
    if patterns == ("*",):
        return sorted(files)
    return sorted(
        path
        for path in files
        if "/" not in path and not path.startswith(".") and any(fnmatch(path, pattern) for pattern in patterns)
    )


def reason_of(kind: Kind) -> str:
    """The reason to give when a source of this kind cannot be used."""
    return "ModelNotUsable" if kind == "model" else "InvalidSeedData"
