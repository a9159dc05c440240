"""Manifests: what an artifact consists of, and what makes its content digest.

Timings and producer are in the manifest only, so the same rows have the same content digest.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from srlm_contract.base import Contract, Sha256
from srlm_contract.errors import InvalidTask
from srlm_contract.keys import canonical_json, sha256
from srlm_contract.tasks import ArtifactRef, RunIdentity, SourceRef

Statistics = dict[str, Any]
"""Plain JSON: counts, sums, histograms, nested by name. Never part of the content digest.

`sft` and `train` leave the figures of their training here: `rows` and `rowsDropped` (too long for maxLength), `steps`,
`tokens`, `seconds`, `processes`, `changedWeights`, `routerLossWeight` (mixtures of experts); `loss`, `gradientNorm`,
`rewardMargin` and `rewardAccuracy` as means of the last quarter of the steps; and `series`, a list with one map of
numbers for each optimizer step, in order:

| name | meaning |
|---|---|
| `step` | optimizer step, from 1 |
| `loss`, `gradientNorm`, `learningRate` | of this step; the norm before clipping |
| `tokens` | tokens through the model from the beginning of training, padding left out, also across resumes |
| `seconds`, `tokensPerSecond` | wall time since the step before; absent for steps of an attempt that was cut off |
| `tokenAccuracy` | `sft` and PositiveOnly: share of answer tokens that were the most probable |
| `rewardMargin`, `rewardAccuracy`, `rewardChosen`, `rewardRejected` | DPO: implicit rewards of the step's pairs |
| `logpsChosen`, `logpsRejected` | DPO: mean log-probability of whole answers |
| `routerLoss` | mixtures of experts: the loss that spreads tokens over them, before its weight |

A figure that a trainer does not give is left out of the map. A reader of any other stage finds no `series`.
"""


#: Bytes of one part of a path: file systems take 255, and a file that is being written has a longer name.
LONGEST_NAME = 247


def is_safe_path(path: str) -> bool:
    """Relative, normalised, inside its folder, of names that every file system takes."""
    pure = PurePosixPath(path)
    return (
        bool(path)
        and "\\" not in path
        and "\0" not in path
        and not pure.is_absolute()
        and ".." not in pure.parts
        and str(pure) == path != "."
        and all(len(part.encode(errors="surrogatepass")) <= LONGEST_NAME for part in pure.parts)
    )


def file_and_folder(paths: Iterable[str]) -> str:
    """The first path that is a file and the folder of another, as `a` beside `a/b`; empty when there is none."""
    given = set(paths)
    folders = {str(folder) for path in given for folder in PurePosixPath(path).parents}
    return min(given & folders, default="")


class FileEntry(Contract):
    """One file of an artifact."""

    path: str
    """Name inside the artifact."""
    size: Annotated[int, Field(ge=0)]
    """Bytes."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    part: str
    """UID of the pod that wrote it, for resume points with a folder: the object is `parts/<part>/<path>`."""

    @field_validator("path", "part")
    @classmethod
    def _inside(cls, path: str) -> str:
        if not is_safe_path(path):
            raise ValueError(f"{path!r} is not a path inside the artifact")
        return path


class Producer(Contract):
    """Who wrote it. Never part of a digest."""

    run: RunIdentity
    job: str = ""
    pod: str = ""
    pod_uid: str
    image: str = ""

    @classmethod
    def from_environment(cls, run: RunIdentity, environ: Mapping[str, str] = os.environ) -> Self:
        """From SRLM_JOB_NAME, SRLM_POD_NAME, SRLM_POD_UID and SRLM_IMAGE. Raises InvalidTask."""
        uid = environ.get("SRLM_POD_UID", "")
        if not uid:
            raise InvalidTask(
                "InvalidTask", "SRLM_POD_UID is not set; the operator sets it from the pod's metadata.uid"
            )
        return cls(
            run=run,
            job=environ.get("SRLM_JOB_NAME", ""),
            pod=environ.get("SRLM_POD_NAME", ""),
            pod_uid=uid,
            image=environ.get("SRLM_IMAGE", ""),
        )


class Timings(Contract):
    started_at: datetime
    finished_at: datetime
    seconds: Annotated[float, Field(ge=0)]
    """Work: the sum over shards, not the time that passed."""


class Described(Contract):
    """What top, shard and checkpoint manifests have in common."""

    schema_version: Literal[1] = 1
    stage: str
    key: str
    content_digest: Sha256
    files: tuple[FileEntry, ...]
    producer: Producer
    timings: Timings

    @model_validator(mode="after")
    def _digest_fits(self) -> Self:
        paths = [entry.path for entry in self.files]
        if len(set(paths)) != len(paths):
            raise ValueError("two files have the same path")
        if both := file_and_folder(paths):
            raise ValueError(f"{both!r} is a file and a folder")
        if content_digest(self.files) != self.content_digest:
            raise ValueError("contentDigest does not fit the files: the manifest was changed")
        return self

    def to_bytes(self) -> bytes:
        """As it lies in the store: with `checksum` over all the rest, since statistics decide over gates."""
        body = self.wire()
        return canonical_json({**body, "checksum": sha256(canonical_json(body))})

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Raises ValueError when a byte of it was changed."""
        try:
            body = json.loads(data)
        except RecursionError as error:
            raise ValueError("it is nested too deeply") from error
        if not isinstance(body, dict) or body.pop("checksum", None) != sha256(canonical_json(body)):
            raise ValueError("its checksum does not fit: it was changed")
        return cls.parse(body)

    def file(self, path: str) -> FileEntry:
        """The entry of `path`. Raises KeyError."""
        for entry in self.files:
            if entry.path == path:
                return entry
        raise KeyError(path)


class Result(Described):
    """What top and shard manifests have on top of that."""

    inputs: dict[str, ArtifactRef | SourceRef] = Field(default={})
    """By input name: artifacts, or sources outside."""
    parameters: dict[str, Any] = Field(default={})
    """Those that went into the key."""
    rows: int | None = None
    statistics: Statistics = Field(default={})
    versions: dict[str, str] = Field(default={})
    """Libraries that shaped the result, such as the inference engine."""


class Manifest(Result):
    """`artifacts/<stage>/<key>/manifest.json`: the artifact exists once this does."""

    shards: int = 1

    @property
    def ref(self) -> ArtifactRef:
        """For tasks and inputs. Raises pydantic.ValidationError for a stage that tasks do not know."""
        return ArtifactRef.parse({"stage": self.stage, "key": self.key, "contentDigest": self.content_digest})


class ShardManifest(Result):
    """`artifacts/<stage>/<key>/shards/<i>-of-<n>.json`."""

    shard: int
    shards: int


class CheckpointManifest(Described):
    """`artifacts/<stage>/<key>/checkpoints/<step>/manifest.json`: a resume point of training."""

    step: int


def content_digest(files: Iterable[FileEntry]) -> str:
    """`sha256:...` of the sorted (path, size, SHA-256) of an artifact's files."""
    return sha256(canonical_json(sorted([f.path, f.size, f.sha256] for f in files)))


def sum_statistics(parts: Iterable[Statistics]) -> Statistics:
    """Sum numbers name by name, also in nested maps; other values must agree in all parts.

    Raises ValueError when a name holds a number here and text there.
    """
    total: Statistics = {}
    for part in parts:
        for name, value in part.items():
            total[name] = _add(name, total[name], value) if name in total else value
    return total


def _add(name: str, left: Any, right: Any) -> Any:
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return sum_statistics([dict(left), dict(right)])
    numbers = int | float
    if (
        isinstance(left, numbers)
        and isinstance(right, numbers)
        and not isinstance(left, bool)
        and not isinstance(right, bool)
    ):
        return left + right
    if left == right:
        return left
    raise ValueError(f"statistic {name!r} cannot be summed: {left!r} and {right!r}")
