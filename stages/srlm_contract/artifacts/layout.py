"""Where things lie under `storage.uri`. Paths are fixed: users, lifecycle rules and checks rely on them.

artifacts/<stage>/<key>/manifest.json
artifacts/<stage>/<key>/shards/<i>-of-<n>.json
artifacts/<stage>/<key>/checkpoints/<step>/manifest.json
artifacts/<stage>/<key>/parts/<pod UID>/...
artifacts/<stage>/<key>/uploads/<run UID>/<i>-of-<n>.json
runs/<namespace>/<name>/{refs.json, lineage.json, report.html}
runs/<namespace>/<name>/tensorboard/<training>/events.out.tfevents.0.srlm
probes/<32 hex digits>[-new]: what preflight tries on the store
"""

from __future__ import annotations

import re

from srlm_contract.errors import InvalidArtifact

ARTIFACTS = "artifacts/"
RUNS = "runs/"
PROBES = "probes/"
#: TensorBoard takes a file for its own by `tfevents` in its name.
EVENTS_FILE = "events.out.tfevents.0.srlm"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")
_STAGE = re.compile(r"[a-z][a-z0-9-]{0,62}")
_KEY = re.compile(r"[a-z0-9]{6,64}")
_ARTIFACT = re.compile(rf"artifacts/({_STAGE.pattern})/({_KEY.pattern})/")
_SHARD = re.compile(r"shards/(\d+)-of-(\d+)\.json$")
_CHECKPOINT = re.compile(r"checkpoints/(\d+)/manifest\.json$")
_UPLOAD = re.compile(r"artifacts/[^/]+/[^/]+/uploads/([^/]+)/[^/]+\.json")
_PART = re.compile(r"parts/([^/]+)/")
_PROBE = re.compile(r"probes/[0-9a-f]{32}(-new)?")


def artifact_prefix(stage: str, key: str) -> str:
    """Folder of an artifact, with a slash at the end."""
    if not _STAGE.fullmatch(stage):
        raise InvalidArtifact(f"{stage!r} is no stage name")
    if not _KEY.fullmatch(key):
        raise InvalidArtifact(f"{key!r} is no key of stage {stage}: 6 to 64 lower-case letters and digits")
    return f"{ARTIFACTS}{stage}/{key}/"


def manifest_key(stage: str, key: str) -> str:
    return artifact_prefix(stage, key) + "manifest.json"


def shard_key(stage: str, key: str, shard: int, shards: int) -> str:
    """shard: 0 .. shards - 1."""
    if not 0 <= shard < shards:
        raise InvalidArtifact(f"shard {shard} of {shards} does not exist: shards count from 0")
    return f"{artifact_prefix(stage, key)}shards/{shard}-of-{shards}.json"


def checkpoint_key(stage: str, key: str, step: int) -> str:
    return f"{artifact_prefix(stage, key)}checkpoints/{step}/manifest.json"


def upload_key(stage: str, key: str, run_uid: str, shard: str) -> str:
    """Note of the pod that sends large files; shard: `<i>-of-<n>`."""
    if not (_NAME.fullmatch(run_uid) and _NAME.fullmatch(shard)):
        raise InvalidArtifact(f"{run_uid!r} is no UID of a run")
    return f"{artifact_prefix(stage, key)}uploads/{run_uid}/{shard}.json"


def part_prefix(stage: str, key: str, part: str) -> str:
    """Folder of the data files one pod wrote; `part` is the pod's UID, maybe with a folder below it."""
    if not all(_NAME.fullmatch(name) for name in part.split("/")):
        raise InvalidArtifact(f"{part!r} is no pod UID: set SRLM_POD_UID")
    return f"{artifact_prefix(stage, key)}parts/{part}/"


def refs_key(namespace: str, name: str) -> str:
    return _run_prefix(namespace, name) + "refs.json"


def lineage_key(namespace: str, name: str) -> str:
    return _run_prefix(namespace, name) + "lineage.json"


def report_key(namespace: str, name: str) -> str:
    return _run_prefix(namespace, name) + "report.html"


def events_prefix(namespace: str, name: str) -> str:
    """Folder of TensorBoard's event files, with a slash at the end."""
    return _run_prefix(namespace, name) + "tensorboard/"


def is_events(path: str) -> bool:
    """Whether a path below `events_prefix` is one that a stage writes: nothing else may lead anywhere."""
    *series, name = path.split("/")
    return name == EVENTS_FILE and 0 < len(series) <= 2 and all(_NAME.fullmatch(part) for part in series)


def is_probe(object_key: str) -> bool:
    """Whether preflight has made this object for its tries."""
    return _PROBE.fullmatch(object_key) is not None


def _run_prefix(namespace: str, name: str) -> str:
    for part in (namespace, name):
        if not _NAME.fullmatch(part):
            raise InvalidArtifact(f"{part!r} is no Kubernetes name")
    return f"{RUNS}{namespace}/{name}/"


def artifact_of(object_key: str) -> tuple[str, str] | None:
    """(stage, key) of any object of an artifact, None for other objects."""
    match = _ARTIFACT.match(object_key)
    return (match[1], match[2]) if match else None


def shard_of_key(object_key: str) -> tuple[int, int] | None:
    """(shard, shards) of a shard manifest."""
    match = _SHARD.search(object_key)
    return (int(match[1]), int(match[2])) if match else None


def step_of_key(object_key: str) -> int | None:
    """Step of a checkpoint's manifest."""
    match = _CHECKPOINT.search(object_key)
    return int(match[1]) if match else None


def run_of_upload(object_key: str) -> str | None:
    """UID of the run whose pod sends large files, of its note."""
    match = _UPLOAD.fullmatch(object_key)
    return match[1] if match else None


def part_of_key(object_key: str) -> str | None:
    """Pod UID of a data file."""
    match = _PART.search(object_key)
    return match[1] if match else None


def shard_file(name: str, shard: int, shards: int, suffix: str = ".jsonl") -> str:
    """`candidates-00002-of-00008.jsonl`: sorts in shard order."""
    return f"{name}-{shard:05d}-of-{shards:05d}{suffix}"
