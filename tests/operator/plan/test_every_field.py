"""Every field of the spec, by the schema: changed, it gives new keys to what reads it and to what follows, or none;
changed back, nothing is computed twice. A new field is tried as soon as it is there."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from fnmatch import fnmatch
from itertools import islice
from typing import Any

import pytest
from pydantic import ValidationError

from srlm_contract.graph import Node, Outcome, graph, node_key
from srlm_contract.spec.run import RunSpec
from srlm_contract.tasks import Pins, SourceRef
from srlm_operator.crd.definition import model_schema

Path = tuple[str, ...]
Keys = dict[str, str]
PINS = Pins(
    base_model=SourceRef(uri="hf://owner/model", revision="abc"),
    seed_data=SourceRef(uri="s3://seed/trees.jsonl", revision="sha256:0"),
    prompt_source=SourceRef(uri="hf://owner/prompts", revision="def"),
    judge_source=SourceRef(uri="hf://owner/judge", revision="def"),
)
#: A run in which as many fields as possible count.
BASE: dict[str, Any] = {
    "baseModel": {"uri": "hf://owner/model"},
    "storage": {"uri": "s3://bucket/prefix"},
    "seedData": {"uri": "s3://seed/trees.jsonl"},
    "iterations": 2,
    "training": {"choose": {"enabled": True}},
}


#: What makes a field count that does not by itself.
ALONGSIDE: dict[str, dict[str, Any]] = {
    "judging.external.apiKeySecretRef.key": {"judging": {"external": {"apiKeySecretRef": {"name": "n"}}}},
    "tracking.mlflow.credentialsSecretRef.name": {"tracking": {"mlflow": {"uri": "https://mlflow.example"}}},
    "preferences.positives.includeSeed": {"preferences": {"strategy": "PositiveOnly"}},
}
_PLACE, _PINNED = "where it runs, not what comes out", "its content is pinned by preflight, and the pin is in the keys"
_SPEED = "how fast it runs, and in what memory"
_COURSE = "whether the run goes on, not what comes out"
#: Fields that change no key, with the reason.
NO_KEY = {
    "storage.*": _PLACE, "scheduling.*": _PLACE, "serviceAccountName": _PLACE, "managedBy": _PLACE,
    "podTemplate": _PLACE, "gpuPodTemplate": _PLACE, "stages.*.resources.*": _PLACE, "stages.*.podTemplate": _PLACE,
    "stages.preflight.image": "it commits nothing", "stages.report.image": "it commits nothing",
    "stages.cleanup.image": "it commits nothing",
    "*.tokenSecretRef.*": _PLACE,
    "baseModel.uri": _PINNED, "baseModel.chatTemplateRef.*": _PINNED, "seedData.uri": _PINNED,
    "seedData.file": _PINNED,
    "judging.templateRef.*": _PINNED, "prompts.generator.uri": _PINNED, "evaluation.winRate.judge.uri": _PINNED,
    "branchFrom.*": "the artifact that it names is an input, found by the operator",
    "generation.shards": _SPEED, "judging.shards": _SPEED, "training.nodes": _SPEED,
    "training.processesPerNode": _SPEED,
    "training.parallelism": _SPEED, "training.fsdp.*": _SPEED, "training.deepspeed.*": _SPEED,
    "training.attnImplementation": _SPEED, "training.paddingFree": _SPEED, "training.microBatchSize": _SPEED,
    "training.gradientCheckpointing": _SPEED,
    "preferences.minYield.*": "further rounds have keys of their own, once pairs fall short (test_graph)",
    "tracking.*": "who is told, not what comes out",
    "suspend": _COURSE, "gates.*": _COURSE, "budget.*": _COURSE, "failurePolicy.*": _COURSE,
    "ttlSecondsAfterFinished": _COURSE,
}  # fmt: skip


def leaves(schema: dict[str, Any], path: Path = ()) -> Iterator[tuple[Path, dict[str, Any]]]:
    for name, child in schema.get("properties", {}).items():
        if child.get("properties"):
            yield from leaves(child, (*path, name))
        else:
            yield (*path, name), child


LEAVES = dict(leaves(model_schema(RunSpec)))


TEXTS = ("other", "hf://owner/other", "s3://bucket/other", "M1", "10Gi", "https://a.b/v1")


def values(node: dict[str, Any]) -> list[Any]:
    """Some that the schema may allow."""
    match node.get("type"):
        case "boolean":
            return [True, False]
        case "integer" | "number":
            low, high, usual = node["minimum"], node["maximum"], node.get("default", node["minimum"])
            found = [usual + 1, usual / 2, usual - 1, low, high, (low + high) / 2]
            return [int(value) for value in found] if node["type"] == "integer" else found
        case "string":
            return list(
                node.get("enum", ("other", "hf://owner/other", "s3://bucket/other", "M1", "10Gi", "https://a.b/v1"))
            )
        case "array":
            items = node.get("items", {})
            return [[value] for value in values(items)] if items.get("type") != "object" else []
        case _:
            return [{"a": "b"}, {"spec": {"hostname": "x"}}, {"cpu": "2"}]


def put(path: Path, value: Any) -> dict[str, Any]:
    spec = copy.deepcopy(BASE)
    for section, beside in ALONGSIDE.get(".".join(path), {}).items():
        spec[section] = {**spec.get(section, {}), **copy.deepcopy(beside)}
    holder = spec
    for part in path[:-1]:
        holder = holder.setdefault(part, {})
    holder[path[-1]] = value
    return spec


def walk(run: RunSpec) -> tuple[dict[str, Node], Keys]:
    """Every node committed in order, as if its content were a function of its key."""
    outcomes: dict[str, Outcome] = {}
    while node := next((n for n in graph(run, PINS, outcomes) if n.id not in outcomes), None):
        key = node_key(node, outcomes, run.seed)
        assert key is not None
        outcomes[node.id] = Outcome(key, f"sha256:{key}")
    nodes = {str(n.id): n for n in graph(run, PINS, outcomes)}
    return nodes, {str(name): outcome.key for name, outcome in outcomes.items()}


def allowed(path: Path) -> Iterator[RunSpec]:
    for value in values(LEAVES[path]):
        try:
            yield RunSpec.parse(put(path, value))
        except ValidationError:
            continue


def reason(path: Path) -> str:
    """Why a field changes no key; empty when it has to."""
    name = ".".join(path)
    return next((why for pattern, why in NO_KEY.items() if fnmatch(name, pattern)), "")


def changes(path: Path, before: Keys, run: RunSpec) -> bool:
    """Whether a run has other keys than before; then those of all that follows are others too."""
    nodes, after = walk(run)
    changed = {name for name, key in after.items() if before.get(name) != key}
    for name, node in nodes.items():
        follows = any(str(source) in changed for source in node.inputs.values())
        assert name in changed or not follows, f"{path}: {name} reads what is new, and keeps its key"
    return bool(changed) or after.keys() != before.keys()


@pytest.mark.parametrize("section", sorted({path[0] for path in LEAVES}))
def test_a_field_gives_new_keys_or_is_known_to_give_none(section: str) -> None:
    wrong = []
    plain = walk(RunSpec.parse(BASE))[1]
    for path in (path for path in LEAVES if path[0] == section):
        beside = ALONGSIDE.get(".".join(path))
        before = walk(RunSpec.parse({**BASE, **beside}))[1] if beside else plain
        if why := reason(path):
            if any(changes(path, before, run) for run in islice(allowed(path), 2)):
                wrong.append(f"{'.'.join(path)} gives new keys, and must not: {why}")
        elif not any(changes(path, before, run) for run in allowed(path)):
            wrong.append(f"{'.'.join(path)} gives no new key: what it changes would not be computed again")
    assert wrong == []
    assert walk(RunSpec.parse(BASE))[1] == plain, "changed back, everything is there already"


def test_the_list_of_fields_without_keys_names_fields_that_there_are() -> None:
    names = [".".join(path) for path in LEAVES]
    assert [pattern for pattern in NO_KEY if not any(fnmatch(name, pattern) for name in names)] == []
