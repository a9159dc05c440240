"""Outside sources: base models, seed data, prompt pools. hf:// (Hugging Face Hub), s3:// or file://.

A source is pinned by `preflight`: a hub commit, or `sha256:...` over the files. What is fetched here is checked
against that pin, so that a file that changes under a run is an error and not a silently different experiment.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from srlm_contract.keys import canonical_json, sha256
from srlm_contract.store import Store
from srlm_contract.tasks import SourceRef

from .errors import BadInput, NotPermitted, Temporary

Kind = Literal["model", "dataset"]

#: What belongs to a model: weights as safetensors, configuration, tokenizer, templates. Never pickles.
MODEL_FILES = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")
TOKENIZER_FILES = ("*.json", "*.txt", "*.model", "*.jinja")

OpenStore = Callable[[str], Store]


def fetch_source(source: SourceRef, kind: Kind, into: Path, open_store: OpenStore, files: Sequence[str]) -> Path:
    """Folder or file of `source`; what is not here already is put below `into`.

    files: patterns of the wanted files. Raises BadInput (ModelNotUsable, InvalidSeedData) when it does not exist or
    is not what was pinned, NotPermitted, Temporary.
    """
    scheme, _, rest = source.uri.partition("://")
    if scheme == "hf":
        return _from_hub(source, kind, rest, into, files)
    path = _local_path(source, kind) if scheme == "file" else _from_s3(source, kind, into, open_store, files)
    if source.file and path.is_dir():
        path = path / source.file
        if not path.is_file():
            raise BadInput(reason_of(kind), f"{source.uri} has no file {source.file}")
    if source.revision.startswith("sha256:") and files is not TOKENIZER_FILES:
        found = identity(path, files)
        if found != source.revision:
            raise BadInput(
                reason_of(kind),
                f"{source.uri} has changed since the run pinned it ({source.revision[:19]}, now {found[:19]}); "
                "restore it or start another run",
            )
    return path


def identity(path: Path, files: Sequence[str] = ("*",)) -> str:
    """`sha256:...` of a file, or of the sorted (path, size, SHA-256) of a folder's files that match."""
    if path.is_file():
        return "sha256:" + _file_hash(path)
    entries = [
        [str(p.relative_to(path)), p.stat().st_size, _file_hash(p)] for p in matching(path, files)
    ]
    return sha256(canonical_json(sorted(entries)))


def matching(folder: Path, files: Iterable[str]) -> list[Path]:
    """Files directly in `folder` that match one of the patterns, hidden ones left out, by name."""
    found = {p for pattern in files for p in folder.glob(pattern) if p.is_file() and not p.name.startswith(".")}
    return sorted(found)


def reason_of(kind: Kind) -> str:
    """The reason to give when a source of this kind cannot be used."""
    return "ModelNotUsable" if kind == "model" else "InvalidSeedData"


def _file_hash(path: Path) -> str:
    with path.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def _local_path(source: SourceRef, kind: Kind) -> Path:
    path = Path(unquote(urlsplit(source.uri).path))
    if not path.exists():
        raise BadInput(reason_of(kind), f"{source.uri} does not exist; file:// is read where the stage runs")
    return path


def _from_s3(source: SourceRef, kind: Kind, into: Path, open_store: OpenStore, files: Sequence[str]) -> Path:
    """A single object, or all wanted objects directly below a prefix."""
    parent, _, name = source.uri.rstrip("/").rpartition("/")
    wanted = {name} if kind == "dataset" and not source.file else set()
    if wanted:
        store = open_store(parent)
        if store.head(name) is not None:
            into.mkdir(parents=True, exist_ok=True)
            store.download_file(name, into / name)
            return into / name
    store = open_store(source.uri)
    folder = into / (name or "source")
    folder.mkdir(parents=True, exist_ok=True)
    for info in store.list_objects(""):
        key = Path(info.key)
        if len(key.parts) == 1 and any(key.match(pattern) for pattern in files):
            store.download_file(info.key, folder / key.name)
    if not any(folder.iterdir()):
        raise BadInput(reason_of(kind), f"{source.uri} has no files that can be used ({', '.join(files)})")
    return folder


def _from_hub(source: SourceRef, kind: Kind, rest: str, into: Path, files: Sequence[str]) -> Path:
    repository, _, asked = rest.partition("@")
    from huggingface_hub import hf_hub_download, snapshot_download

    where: dict[str, Any] = {
        "repo_id": repository,
        "repo_type": kind,
        "revision": source.revision or asked or None,
        "local_dir": into,
        "token": os.environ.get("HF_TOKEN") or None,
    }
    return hub_call(
        source.uri,
        kind,
        lambda: Path(hf_hub_download(filename=source.file, **where))
        if source.file
        else Path(snapshot_download(allow_patterns=list(files), **where)),
    )


def hub_call(uri: str, kind: Kind, call: Callable[[], Any]) -> Any:
    """Call the Hugging Face Hub; its errors become ours, with what to do."""
    import requests
    from huggingface_hub import errors

    try:
        return call()
    except errors.GatedRepoError as error:
        raise NotPermitted(
            reason_of(kind), f"{uri} is gated: accept its conditions and set baseModel.tokenSecretRef"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise BadInput(
            reason_of(kind), f"{uri} does not exist, or is private and needs baseModel.tokenSecretRef"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise BadInput(reason_of(kind), f"{uri}: this revision does not exist") from error
    except errors.EntryNotFoundError as error:
        raise BadInput(reason_of(kind), f"{uri}: this file does not exist: {error}") from error
    except errors.HFValidationError as error:
        raise BadInput(reason_of(kind), f"{uri} is no repository name: {error}") from error
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, requests.RequestException, OSError) as error:
        status = getattr(getattr(error, "response", None), "status_code", 0)
        if status in (401, 403):
            raise NotPermitted("NotPermitted", f"{uri}: the hub refuses the token (HTTP {status})") from error
        raise Temporary("Temporary", f"{uri}: the Hugging Face Hub does not answer: {error}") from error
