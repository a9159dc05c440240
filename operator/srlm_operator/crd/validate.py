"""Checks manifests of SelfRewardingRun offline, by the same schema and CEL rules as the API server.

The order is that of the API server: unknown fields, defaults, schema, CEL. What differs: unknown fields are
errors (the server only drops or warns about them), and messages say more about what to do.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from . import objects
from . import schema as structural
from .definition import API_VERSION, GROUP, KIND, run_schema
from .hints import Schema, explain, nearest, unknown_field
from .yaml12 import ManifestError, load_documents

_METADATA_FIELDS = (
    "annotations", "creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp", "finalizers",
    "generateName", "generation", "labels", "managedFields", "name", "namespace", "ownerReferences",
    "resourceVersion", "selfLink", "uid",
)  # fmt: skip
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True)
class Problem:
    """One thing to correct. `path` is a field path such as `spec.storage.uri`, or empty for a whole file."""

    file: str
    run: str
    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path or self.file}: {self.message}"


Further = Callable[[Mapping[str, Any]], Iterable[tuple[str, str]]]
"""What else is wrong with a run that the API server would take, as it would keep it: field path and message."""


@dataclass(frozen=True)
class Report:
    """What was found in some files. `notes` need no correction."""

    problems: tuple[Problem, ...]
    notes: tuple[str, ...]
    runs: int


def validate_files(paths: Iterable[str | Path], further: Further | None = None) -> Report:
    """Check all SelfRewardingRuns in files and folders (not nested ones); unreadable files are problems."""
    problems: list[Problem] = []
    notes: list[str] = []
    runs = 0
    for path in _expand(paths):
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            problems.append(Problem(str(path), "", "", f"cannot be read: {error}"))
            continue
        report = validate_text(text, str(path), further)
        problems += report.problems
        notes += report.notes
        runs += report.runs
    if not runs and not problems:
        problems.append(Problem("", "", "", f"no {KIND} found: name a manifest of apiVersion {API_VERSION}"))
    return Report(tuple(problems), tuple(notes), runs)


def validate_text(text: str, file: str = "-", further: Further | None = None) -> Report:
    """Check all SelfRewardingRuns in one YAML or JSON text. further: asked about what the API server would take."""
    try:
        documents = load_documents(text)
    except ManifestError as error:
        return Report((Problem(file, "", "", f"is not a YAML manifest: {error}"),), (), 0)
    problems: list[Problem] = []
    notes: list[str] = []
    runs = 0
    for document in _flatten(documents):
        kind = _kind_problem(document, file)
        if kind is not None:
            problems.append(kind)
        elif document["kind"] != KIND:
            notes.append(f"{file}: {document['kind']} {_name(document)} skipped: not a {KIND}")
        else:
            runs += 1
            problems += validate_run(document, file, further)
            notes += (f"{file}: {_name(document)}: {note}" for note in _run_notes(document))
    return Report(tuple(problems), tuple(notes), runs)


def validate_run(document: Mapping[str, Any], file: str = "-", further: Further | None = None) -> list[Problem]:
    """Check one SelfRewardingRun as it would be created; `document` stays as it is."""
    run = copy.deepcopy(dict(document))
    schema = _schema()
    found = _metadata_problems(run.get("metadata"))
    if not isinstance(run.get("metadata"), dict):
        run["metadata"] = {}
    found += [(path, unknown_field(schema, path)) for path in structural.prune(schema, run)]
    run.pop("status", None)  # the API server drops it on creation
    structural.apply_defaults(schema, run)
    rules = run
    if not isinstance(run["metadata"].get("name"), str):
        rules = {**run, "metadata": {**run["metadata"], "name": "x"}}  # the missing name is reported above
    for error in objects.validate(schema, rules):
        if error == structural.NOT_CHECKED:
            continue  # the other problems say what to correct first
        found.append((error.path, explain(schema, error)))
    if further is not None and not found:
        found += further(run)
    return [Problem(file, _name(document), path, message) for path, message in found]


@cache
def _schema() -> Schema:
    return run_schema()


def _expand(paths: Iterable[str | Path]) -> list[Path]:
    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            files += sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES)
        else:
            files.append(path)
    return files


def _flatten(documents: list[Any]) -> Iterable[Any]:
    for document in documents:
        if isinstance(document, dict) and document.get("kind") in ("List", f"{KIND}List"):
            items = document.get("items")
            yield from items if isinstance(items, list) else []
        else:
            yield document


def _kind_problem(document: Any, file: str) -> Problem | None:
    """Why a document cannot be told to be a run or something else; None for both of these."""
    if not isinstance(document, dict):
        return Problem(file, "", "", f"is not a Kubernetes object: write apiVersion: {API_VERSION}, kind: {KIND}")
    name = _name(document)
    for field, expected in (("apiVersion", API_VERSION), ("kind", KIND)):
        if not isinstance(document.get(field), str):
            return Problem(file, name, field, f"Required value: write {field}: {expected}")
    version, kind = document["apiVersion"], document["kind"]
    if version.partition("/")[0] == GROUP and kind != KIND:
        return Problem(file, name, "kind", f"Unsupported value: {kind!r}: write kind: {KIND}")
    if kind == KIND and version != API_VERSION:
        return Problem(file, name, "apiVersion", f"Unsupported value: {version!r}: write {API_VERSION}")
    return None


def _metadata_problems(metadata: Any) -> list[tuple[str, str]]:
    if not isinstance(metadata, dict):
        return [("metadata.name", "Required value: give the run a name")]
    found: list[tuple[str, str]] = []
    for field in metadata.keys() - set(_METADATA_FIELDS):
        found.append((f"metadata.{field}", "unknown field" + nearest(field, _METADATA_FIELDS)))
    name, prefix, namespace = (metadata.get(field) for field in ("name", "generateName", "namespace"))
    if name is None and not prefix:
        found.append(("metadata.name", "Required value: give the run a name"))
    elif name is not None and not (isinstance(name, str) and _SUBDOMAIN.fullmatch(name) and len(name) <= 253):
        found.append(("metadata.name", f"Invalid value: {name!r}: use lower-case letters, digits, dashes and dots"))
    if namespace is not None and not (
        isinstance(namespace, str) and _LABEL.fullmatch(namespace) and len(namespace) <= 63
    ):
        found.append(("metadata.namespace", f"Invalid value: {namespace!r}: use lower-case letters, digits and dashes"))
    for field in ("labels", "annotations"):
        entries = metadata.get(field)
        if entries is None:
            continue
        if not isinstance(entries, dict):
            found.append((f"metadata.{field}", "Invalid value: write it as a map of strings"))
            continue
        for key, value in entries.items():
            if not isinstance(value, str):
                found.append((f"metadata.{field}[{key}]", f'Invalid value: {value}: put it into quotes: "{value}"'))
    return found


def _run_notes(document: Mapping[str, Any]) -> Iterable[str]:
    if "status" in document:
        yield "status is ignored when a run is created"
    spec = document.get("spec")
    storage = spec.get("storage") if isinstance(spec, dict) else None
    if isinstance(spec, dict) and not (isinstance(storage, dict) and storage.get("uri")):
        yield (
            "spec.storage.uri is left out: the operator's default storage is used; without one (chart value"
            " storage.uri) the run waits with reason StorageNotSet"
        )
    for path in ("baseModel.uri", "seedData.uri", "prompts.generator.uri", "evaluation.winRate.judge.uri"):
        value: Any = spec
        for part in path.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if isinstance(value, str) and value.startswith("file://"):
            yield f"spec.{path}: file:// works on the one-machine cluster only; elsewhere use hf:// or s3://"


def _name(document: Mapping[str, Any]) -> str:
    metadata = document.get("metadata")
    if not isinstance(metadata, dict):
        return ""
    return str(metadata.get("name") or metadata.get("generateName") or "")
