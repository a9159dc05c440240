"""Outside sources looked at without downloading them: what files there are, at which revision.

Three kinds of origin behind one shape: a folder or file (`file://`), objects (`s3://`), a repository (`hf://`).
Used by `preflight`, which pins what every later stage reads.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol
from urllib.parse import unquote, urlsplit

from srlm_contract.artifacts.folders import contents
from srlm_contract.artifacts.manifest import is_safe_path
from srlm_contract.artifacts.store import Store
from srlm_contract.errors import BadInput, NotPermitted, Temporary
from srlm_contract.keys import canonical_json, sha256


class Missing(Exception):
    """The origin does not exist; the message says what was looked for."""


OpenStore = Callable[[str], Store]
"""Opens `s3://bucket` with the endpoint and the credentials of the run's storage."""
Kind = Literal["model", "dataset"]
"""What a repository of the hub is."""


class Origin(Protocol):
    """A place that holds files. `name`: how messages call it."""

    name: str
    files: Mapping[str, int]
    """Size in bytes by path; the file itself under its own name when the origin is one file."""

    def revision(self, paths: list[str]) -> str:
        """What pins the content of `paths`: a commit, or `sha256:...`."""

    def fetch(self, path: str, folder: Path) -> Path:
        """Download one file to `folder/<path>`. Raises Missing when it would land elsewhere."""

    def head(self, path: str, length: int) -> bytes:
        """The first `length` bytes of a file."""


@dataclass
class FileOrigin:
    """A folder or a file of this machine."""

    name: str
    root: Path
    files: Mapping[str, int]
    astray: Mapping[str, str] = field(default_factory=dict)
    """Those of `files` that are links out of the folder, with what is wrong."""

    @classmethod
    def open(cls, uri: str) -> FileOrigin:
        try:
            path = Path(unquote(urlsplit(uri).path))
            if path.is_file():
                return cls(uri, path.parent, {path.name: path.stat().st_size})
            found = contents(path) if path.is_dir() else None
            sizes = {name: file.stat().st_size for name, file in found.files.items()} if found else {}
        except (ValueError, OSError) as error:  # too long a name, no right to look there, half an address
            raise Missing(f"{uri} cannot be read: {_first(error)}") from error
        if found is None:
            raise Missing(f"{uri} does not exist (file:// works only where the pods see this path)")
        return cls(uri, path, sizes | dict.fromkeys(found.astray, 0), found.astray)

    def place(self, path: str) -> Path:
        """Where a file lies. Raises Missing for a link out of the folder."""
        if path in self.astray:
            raise Missing(f"{self.name} has no file {path}: it is {self.astray[path]}; put the file itself there")
        return self.root / path

    def revision(self, paths: list[str]) -> str:
        """Digest over (path, size, SHA-256) of the files."""
        entries = []
        for path in sorted(paths):
            with self.place(path).open("rb") as file:
                entries.append([path, self.files[path], hashlib.file_digest(file, "sha256").hexdigest()])
        return sha256(canonical_json(entries))

    def fetch(self, path: str, folder: Path) -> Path:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(self.place(path).read_bytes())
        return target

    def head(self, path: str, length: int) -> bytes:
        with self.place(path).open("rb") as file:
            return file.read(length)


@dataclass
class S3Origin:
    """Objects below a prefix, or one object."""

    name: str
    store: Store
    """The bucket."""
    prefix: str
    files: Mapping[str, int]
    etags: Mapping[str, str]

    @classmethod
    def open(cls, uri: str, store: Store, key: str) -> S3Origin:
        """store: opened at the bucket; key: object or prefix inside it."""
        one = store.head(key) if key and not key.endswith("/") else None
        if one is not None:
            name = key.rpartition("/")[2]
            return cls(uri, store, key.removesuffix(name), {name: one.size}, {name: one.etag})
        prefix = key.rstrip("/") + "/"
        found = {i.key.removeprefix(prefix): i for i in store.list_objects(prefix) if not i.key.endswith("/")}
        if not found:
            raise Missing(f"{uri} does not exist: no object of that name and none below it")
        sizes = {name: info.size for name, info in found.items()}
        return cls(uri, store, prefix, sizes, {name: info.etag for name, info in found.items()})

    def revision(self, paths: list[str]) -> str:
        """Digest over (path, size, ETag): content is not read for it."""
        return sha256(canonical_json([[p, self.files[p], self.etags[p].strip('"')] for p in sorted(paths)]))

    def fetch(self, path: str, folder: Path) -> Path:
        target = folder / _inside(path, self.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        self.store.download_file(self.prefix + path, target)
        return target

    def head(self, path: str, length: int) -> bytes:
        return self.store.get_range(self.prefix + path, 0, length)


@dataclass
class HubOrigin:
    """A model or data set repository of the Hugging Face Hub, at a commit."""

    name: str
    repository: str
    kind: Kind
    commit: str
    files: Mapping[str, int]

    @classmethod
    def open(cls, uri: str, kind: Kind) -> HubOrigin:
        from huggingface_hub import HfApi

        repository, _, revision = uri.removeprefix("hf://").partition("@")
        with hub_errors(uri):
            info = HfApi().repo_info(
                repository, repo_type=kind, revision=revision or None, files_metadata=True, timeout=30
            )
        files = {s.rfilename: s.size or 0 for s in info.siblings or []}
        return cls(uri, repository, kind, info.sha or "", files)

    def revision(self, paths: list[str]) -> str:
        """The commit."""
        return self.commit

    def fetch(self, path: str, folder: Path) -> Path:
        from huggingface_hub import hf_hub_download

        with hub_errors(self.name):
            name = _inside(path, self.name)
            return Path(
                hf_hub_download(self.repository, name, repo_type=self.kind, revision=self.commit, local_dir=folder)
            )

    def head(self, path: str, length: int) -> bytes:
        from huggingface_hub import get_session, hf_hub_url
        from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

        url = hf_hub_url(self.repository, path, repo_type=self.kind, revision=self.commit)
        headers = {**build_hf_headers(), "Range": f"bytes=0-{length - 1}"}
        content = b""
        with (
            hub_errors(self.name),
            get_session().stream("GET", url, headers=headers, follow_redirects=True) as answer,
        ):
            hf_raise_for_status(answer)
            for part in answer.iter_bytes():  # a server that knows no ranges would send gigabytes
                content += part
                if len(content) >= length:
                    break
        return content[:length]


@contextmanager
def hub_errors(uri: str) -> Iterator[None]:
    """Errors of the hub as ours: Missing, NotPermitted, Temporary."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise NotPermitted(
            "NotPermitted",
            f"{uri} is gated: accept its licence and name a token in baseModel.tokenSecretRef ({_first(error)})",
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise Missing(
            f"{uri} does not exist on the hub, or is private and baseModel.tokenSecretRef has no right to it"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise Missing(f"{uri}: the repository has no such revision") from error
    except errors.EntryNotFoundError as error:
        raise Missing(f"{uri}: {_first(error)}") from error
    except errors.HFValidationError as error:
        raise Missing(f"{uri} is no repository name of the hub: {_first(error)}") from error
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        if status in (401, 403):
            raise NotPermitted(
                "NotPermitted", f"the hub refuses {uri} (HTTP {status}); check baseModel.tokenSecretRef"
            ) from error
        raise Temporary("Temporary", f"the hub failed for {uri}: {_first(error)}") from error
    except (OSError, errors.HTTPError) as error:
        raise Temporary("Temporary", f"the hub cannot be reached for {uri}: {_first(error)}") from error


def open_origin(uri: str, kind: Kind, open_store: OpenStore) -> Origin:
    """Open `uri`. Raises Missing, NotPermitted, Temporary, BadInput."""
    if uri.startswith("file://"):
        return FileOrigin.open(uri)
    if uri.startswith("s3://"):
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        return S3Origin.open(uri, open_store(f"s3://{bucket}"), key)
    if uri.startswith("hf://"):
        return HubOrigin.open(uri, kind)
    raise BadInput("InvalidTask", f"{uri} is neither hf://, s3:// nor file://")


def _inside(path: str, origin: str) -> str:
    """`path`. Raises Missing when it would be a file outside the folder that it is put into."""
    if not is_safe_path(path):
        raise Missing(f"{origin} has a file {path!r}, whose name is no path inside a folder; rename it")
    return path


def _first(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
