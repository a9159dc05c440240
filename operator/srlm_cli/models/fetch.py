"""Finished models of a run, fetched from its storage with every byte verified."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from srlm_cli.download import ends_at_once, use
from srlm_cli.runs import cluster_of, read, storage_of
from srlm_contract.artifacts import reader
from srlm_contract.artifacts.cache import ModelCache
from srlm_contract.artifacts.manifest import Manifest
from srlm_contract.artifacts.store import Store
from srlm_contract.status import ModelStatus
from srlm_contract.tasks import ArtifactRef
from srlm_operator.cluster.client import Client
from srlm_operator.errors import ConfigurationError
from srlm_operator.values import Run

#: Seconds between two looks at how much has come.
LOOK_SECONDS = 0.5
_BLOCK, _GIB = 1024**2, 1024**3


def finished(found: Run, name: str | None) -> ModelStatus:
    """The model of this name, or the newest. Raises ConfigurationError that names those that are there."""
    there = {model.name: model for model in found.status.models}
    where = f"run {found.namespace}/{found.name}"
    if not there:
        raise ConfigurationError(f"{where} has no finished model yet (it is {found.status.phase})")
    model = there.get(name.upper()) if name else found.status.models[-1]
    if model is None:
        raise ConfigurationError(f"{where} has no model {name}: there is {', '.join(there)}")
    if not model.key:
        raise ConfigurationError(f"{model.name} of {where} is its base model, which lies at {model.uri}")
    return model


async def fetch_model(
    client: Client, found: Run, model: ModelStatus, folder: Path, endpoint_url: str | None = None
) -> Manifest:
    """All files of a model into `folder`, with progress on standard error; those that are there already stay.

    Raises OperatorError; ConfigurationError when other files are in the folder.
    """
    ref = ArtifactRef.parse({"stage": model.stage, "key": model.key, "contentDigest": model.content_digest})
    begun: list[Manifest] = []

    def fetch(store: Store) -> Manifest:
        manifest = reader.load_manifest(store, ref)
        missing = _missing(manifest, folder)
        begun.append(manifest)
        reader.fetch_files(store, manifest, folder, missing)
        return manifest

    working = asyncio.create_task(use(client, found.namespace, storage_of(found, endpoint_url), fetch))
    stopping = ends_at_once("stopped; the same command goes on from here")
    with stopping, _progress() as progress:  # which gives the terminal its cursor back first
        task = progress.add_task(f"{found.name} {model.name}", total=None)
        while not (await asyncio.wait({working}, timeout=LOOK_SECONDS))[0]:
            if begun:
                progress.update(task, total=_size(begun[-1]), completed=_there(folder))
        if working.exception() is None:
            size = _size(working.result())
            progress.update(task, total=size, completed=size)
    try:
        return await working
    except OSError as problem:
        raise ConfigurationError(f"{problem.filename or folder}: {problem.strerror or problem}") from None


@contextmanager
def cached(args: argparse.Namespace, found: Run, model: ModelStatus) -> Iterator[Path]:
    """The model's folder in the cache, where nobody evicts it meanwhile; fetched when it is not there.

    args: of a command with the arguments of a cluster and a cache. Raises as `fetch_model`.
    """

    async def fetch(folder: Path) -> None:
        async with cluster_of(args) as (client, _):
            await fetch_model(client, found, model, folder, args.endpoint_url)

    cache = ModelCache(cache_folder(), args.cache_gib * _GIB)
    try:
        with cache.get(model.content_digest, lambda folder: asyncio.run(fetch(folder))) as folder:
            yield folder
    except OSError as problem:
        raise ConfigurationError(f"{problem.filename or cache.root}: {problem.strerror or problem}") from None


def add_cache_argument(parser: argparse.ArgumentParser) -> None:
    """How much the cache may hold."""
    parser.add_argument(
        "--cache-gib", type=int, default=100, help="size of $XDG_CACHE_HOME/srlm/models at most (default: %(default)s)"
    )


async def chosen(args: argparse.Namespace, names: Sequence[str | None]) -> tuple[Run, list[ModelStatus]]:
    """The run that the arguments name, and its models of these names; None for the newest."""
    async with cluster_of(args) as (client, namespace):
        found = await read(client, namespace, args.name)
    return found, [finished(found, name) for name in names]


def _missing(manifest: Manifest, folder: Path) -> set[str]:
    """Paths of files that are not there yet. Raises ConfigurationError for files of anybody else: none is lost."""
    wanted = {entry.path: entry for entry in manifest.files}
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    foreign = sorted(name for name in there if name.removesuffix(".partial") not in wanted)
    if foreign:
        raise ConfigurationError(
            f"{folder} holds {foreign[0]}, which is no file of this model: name an empty folder, or one that does not "
            "exist yet"
        )
    for name in sorted(there & set(wanted)):
        file = folder / name
        if file.stat().st_size != wanted[name].size or _sha256(file) != wanted[name].sha256:
            raise ConfigurationError(f"{file} is not that of this model: name another folder, or remove it")
    return set(wanted) - there


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _size(manifest: Manifest) -> int:
    return sum(entry.size for entry in manifest.files)


def _there(folder: Path) -> int:
    """Bytes on the disk; a file that is being fetched may have its length before its content."""
    found = 0
    for path in folder.rglob("*"):
        try:
            found += path.stat().st_blocks * 512 if path.is_file() else 0
        except FileNotFoundError:  # it has just got its name
            continue
    return found


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True))


def cache_folder() -> Path:
    """Where models that are talked to stay: `$XDG_CACHE_HOME/srlm/models`."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "srlm" / "models"
