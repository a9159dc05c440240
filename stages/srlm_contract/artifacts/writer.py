"""Writing artifacts: data files first under the pod's own UID, the manifest last and conditionally."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from srlm_contract.errors import InvalidArtifact, NotFound, PreconditionFailed, StoreUnavailable

from . import layout
from .folders import contents
from .manifest import FileEntry, file_and_folder, is_safe_path
from .reader import SMALL_FILE_BYTES, SMALL_FILE_WORKERS
from .store import Blob, Store

#: What a model may consist of: weights without code, configuration, tokenizer, words.
MODEL_SUFFIXES = frozenset({".safetensors", ".json", ".txt", ".model", ".jinja", ".md", ".tiktoken"})
#: Formats that run code when they are loaded.
PICKLE_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib"})

Files = Path | Mapping[str, Path]
"""A folder, or files by their path inside the artifact."""


def collect(files: Files) -> dict[str, Path]:
    """Files by their path inside the artifact, sorted. Raises InvalidArtifact."""
    if isinstance(files, Path):
        files, astray = contents(files)
        for path, wrong in astray.items():
            raise InvalidArtifact(f"{path!r} cannot be a file of an artifact: it is {wrong}; write the file itself")
    for path in files:
        if not is_safe_path(path):
            raise InvalidArtifact(f"{path!r} is not a path inside an artifact")
    if both := file_and_folder(files):
        raise InvalidArtifact(f"{both!r} is a file and a folder of the artifact")
    return dict(sorted(files.items()))


def model_files(files: Files) -> dict[str, Path]:
    """What of a trainer's output is the model; the rest (pickles, optimizer states) is left behind.

    Raises InvalidArtifact when there are no weights as safetensors.
    """
    kept = {
        path: file
        for path, file in collect(files).items()
        if file.suffix in MODEL_SUFFIXES and not path.startswith(("checkpoint-", "runs/"))
    }
    check_model_paths(kept)
    return kept


def check_model_paths(paths: Collection[str]) -> None:
    """Raises InvalidArtifact unless the files are a model of safetensors without any pickle."""
    unsafe = sorted(path for path in paths if Path(path).suffix in PICKLE_SUFFIXES)
    if unsafe:
        raise InvalidArtifact(f"a model must not contain {', '.join(unsafe)}: save it as safetensors")
    if not any(path.endswith(".safetensors") for path in paths):
        raise InvalidArtifact("a model must contain its weights as *.safetensors")


def upload(store: Store, stage: str, key: str, part: str, files: Mapping[str, Path]) -> tuple[FileEntry, ...]:
    """Writes data files below `parts/<part>/` and returns their manifest entries."""
    prefix = layout.part_prefix(stage, key, part)

    def send(path: str) -> FileEntry:
        sent = store.upload_file(files[path], prefix + path)
        return FileEntry(path=path, size=sent.size, sha256=sent.sha256, part=part)

    small = [path for path, file in files.items() if file.stat().st_size <= SMALL_FILE_BYTES]
    entries = [send(path) for path in files if path not in set(small)]
    if small:
        with ThreadPoolExecutor(min(SMALL_FILE_WORKERS, len(small))) as pool:
            entries += pool.map(send, small)
    return tuple(sorted(entries, key=lambda entry: entry.path))


def publish(store: Store, object_key: str, data: bytes, replaces: str | None = None) -> tuple[Blob, bool]:
    """Puts a manifest unless somebody else did: (the manifest that stands, whether it is ours).

    replaces: ETag of the damaged manifest that ours takes the place of; None when there is none.
    """
    for _ in range(3):
        try:
            info = store.put(object_key, data, if_none_match=replaces is None, if_match=replaces)
            return Blob(data, info), True
        except (PreconditionFailed, NotFound):
            try:
                winner = store.get(object_key)
            except NotFound:
                # Deleted since: there is nothing left to lose against.
                replaces = None
                continue
            # A put whose answer got lost is sent again and then loses against itself.
            return winner, winner.data == data
    raise StoreUnavailable(f"cannot write {store.uri(object_key)}: it is written and deleted again and again")
