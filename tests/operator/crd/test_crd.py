"""The CustomResourceDefinition: current, structural, bounded, described, with the models' defaults."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from srlm_contract.spec.run import RunSpec
from srlm_contract.status import RunStatus
from srlm_operator.crd import definition as crd
from srlm_operator.crd.cel import RULES, cel_type, compile_rule
from srlm_operator.crd.objects import validate
from srlm_operator.crd.schema import apply_defaults, prune
from srlm_operator.crd.yaml12 import load_documents

ROOT = Path(__file__).parents[3]
SCHEMA = crd.run_schema()
MINIMAL_SPEC = {
    "baseModel": {"uri": "hf://owner/model"},
    "storage": {"uri": "s3://bucket/prefix"},
    "seedData": {"uri": "hf://owner/dataset"},
}


def run(name: str = "demo", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": crd.API_VERSION,
        "kind": crd.KIND,
        "metadata": {"name": name, "namespace": "default"},
        "spec": json.loads(json.dumps(MINIMAL_SPEC | spec)),
    }


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every level of a schema with its path."""
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}".lstrip("."))
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from nodes(schema["additionalProperties"], f"{path}[key]")


NODES = dict(nodes(SCHEMA))


def test_the_committed_file_is_current() -> None:
    committed = (ROOT / "crds" / "selfrewarding.dev_selfrewardingruns.yaml").read_text(encoding="utf-8")
    assert committed == crd.render(), "run `make crds`"


def test_the_file_reads_back_as_the_definition() -> None:
    assert load_documents(crd.render()) == [crd.custom_resource_definition()]


def test_names_scope_and_columns() -> None:
    definition = crd.custom_resource_definition()
    assert definition["metadata"]["name"] == "selfrewardingruns.selfrewarding.dev"
    spec = definition["spec"]
    assert spec["scope"] == "Namespaced"
    assert spec["names"]["shortNames"] == ["srr"]
    [version] = spec["versions"]
    assert version["name"] == "v1alpha1"
    assert version["served"]
    assert version["storage"]
    assert version["subresources"] == {"status": {}}
    columns = {column["name"]: column for column in version["additionalPrinterColumns"]}
    narrow = [name for name, column in columns.items() if not column.get("priority")]
    assert narrow == ["Phase", "Ready", "Reason", "Iteration", "Stage", "Progress", "Model", "Age"]
    assert columns.keys() - narrow == {"ETA", "Message"}
    for column in columns.values():
        if column["jsonPath"] == ".metadata.creationTimestamp":
            assert column["type"] == "date"
        else:
            path = column["jsonPath"].lstrip(".").replace('[?(@.type=="Ready")]', "[]")
            assert NODES[path]["type"] == column["type"]


def test_every_rule_compiles() -> None:
    """What else a real API server checks of the schema, `kubectl apply -f crds/` in CI tells."""
    compiled = 0
    waiting = [SCHEMA]
    while waiting:
        node = waiting.pop()
        for rule in node.get(RULES) or ():
            compile_rule(rule["rule"], cel_type(node))
            compiled += 1
        waiting += [v for v in node.values() if isinstance(v, dict)]
    assert compiled > 20


def test_it_fits_the_annotation_of_client_side_apply() -> None:
    assert len(json.dumps(crd.custom_resource_definition())) < 262144


def test_structural() -> None:
    """The rules for structural schemas that are easy to break from pydantic's output."""
    foreign = {"$ref", "$defs", "title", "anyOf", "oneOf", "allOf", "not", "const", "nullable"}
    types = ("object", "array", "string", "integer", "number", "boolean")
    for path, node in NODES.items():
        assert not node.keys() & foreign, path
        assert node.get("x-kubernetes-int-or-string") or node["type"] in types, path
        assert all(isinstance(node.get(side, False), bool) for side in ("exclusiveMinimum", "exclusiveMaximum"))
        assert not ("properties" in node and "additionalProperties" in node), path
        if node.get("type") == "array":
            assert "items" in node, path
            assert node["x-kubernetes-list-type"] == "atomic", path
        required = node.get("required", [])
        assert set(required) <= node.get("properties", {}).keys(), path
        assert not [name for name in required if "default" in node["properties"][name]], path


def bounded(path: str, node: dict[str, Any]) -> bool:
    """CEL cost: the API server takes whatever has no bound for as long as a request may be."""
    match node.get("type"):
        case "string":
            return "enum" in node or node.get("maxLength", 1 << 20) <= 4096
        case "array":
            return node.get("maxItems", 1 << 20) <= 256
        case "object" if "properties" not in node:
            return bool(node.get("x-kubernetes-preserve-unknown-fields")) or node.get("maxProperties", 99) <= 64
        case "integer" | "number" if path.startswith("spec"):
            return "minimum" in node and "maximum" in node
    return True


def test_bounded() -> None:
    assert [path for path, node in NODES.items() if path != "metadata" and not bounded(path, node)] == []


def test_described() -> None:
    for path, node in NODES.items():
        if path == "metadata" or path.endswith(("[]", "[key]")):
            continue
        text = node.get("description", "")
        assert text.endswith((".", "?", ")")), path
        assert "\n" not in text, path
        assert "  " not in text, path


def test_rules_say_what_to_do_and_name_existing_fields() -> None:
    for path, node in NODES.items():
        for rule in node.get("x-kubernetes-validations", []):
            assert len(rule["message"]) >= 20, rule
            if "fieldPath" in rule:
                assert f"{path}{rule['fieldPath']}".lstrip(".") in NODES


def test_rules_read_existing_fields() -> None:
    """The one-machine cluster evaluates rules untyped; a real API server refuses a field it cannot find."""
    for path, node in NODES.items():
        for rule in node.get("x-kubernetes-validations", []):
            read = re.findall(r"\b(?:self|oldSelf)((?:\.\w+)+)(\()?", rule["rule"])
            assert read, rule
            for chain, call in read:
                field = chain.rpartition(".")[0] if call else chain  # without the method at the end
                known = f"{path}{field}".lstrip(".")
                assert known in NODES or known == "metadata.name", rule


def test_every_spec_field_is_camel_case_and_every_enum_value_too() -> None:
    lower = {"vllm", "transformers"}  # names of engines
    for path, node in NODES.items():
        # Spelled as in TRL, transformers and accelerate: people look for these words.
        if not path.startswith("spec.") or path.endswith(("lossType[]", ".optim", ".attnImplementation", "Device")):
            continue
        name = path.rpartition(".")[2]
        # Engines have their own words for their arguments.
        assert ".engine.args." in path or "_" not in name, path
        for value in node.get("enum", []):
            assert value[0].isupper() or value in lower, path


def told(value: Any) -> Any:
    """Without what is empty, at any depth: a server does not write it down."""
    if not isinstance(value, dict):
        return value
    inner = {name: told(item) for name, item in value.items()}
    return {name: item for name, item in inner.items() if item not in ("", {}, [])}


def test_server_side_defaults_equal_the_models_defaults() -> None:
    obj = run()
    apply_defaults(SCHEMA, obj)
    assert told(obj["spec"]) == told(RunSpec.parse(MINIMAL_SPEC).wire())
    assert RunSpec.parse(obj["spec"]) == RunSpec.parse(MINIMAL_SPEC)


def test_a_server_stores_no_empty_sections() -> None:
    obj = run()
    apply_defaults(SCHEMA, obj)
    assert obj["spec"] == told(obj["spec"])


def sections(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            here = (*path, field.alias or name)
            yield here
            yield from sections(annotation, here)


@pytest.mark.parametrize("path", list(sections(RunSpec)), ids=".".join)
def test_an_empty_section_gets_the_same_defaults_as_an_absent_one(path: tuple[str, ...]) -> None:
    """Setting one field of a section must not change the defaults of the others."""
    obj = run()
    node = obj["spec"]
    for part in path:
        node = node.setdefault(part, {})
    written = json.loads(json.dumps(obj["spec"]))
    apply_defaults(SCHEMA, obj)
    assert told(obj["spec"]) == told(RunSpec.parse(MINIMAL_SPEC).wire())
    assert RunSpec.parse(written) == RunSpec.parse(MINIMAL_SPEC)


def test_defaults_are_valid_as_written() -> None:
    """The API server checks defaults, CEL included, without filling in nested ones."""
    for path, node in NODES.items():
        if "default" in node:
            wrapper = {"type": "object", "properties": {"field": node}}
            assert validate(wrapper, {"field": json.loads(json.dumps(node["default"]))}) == [], path


def test_status_has_no_defaults() -> None:
    assert not [path for path in NODES if path.startswith("status") and "default" in NODES[path]]


def test_a_whole_status_survives_the_server() -> None:
    obj = run() | {"status": RunStatus().wire()}
    before = json.loads(json.dumps(obj["status"]))
    assert prune(SCHEMA, obj) == []
    apply_defaults(SCHEMA, obj)
    assert validate(SCHEMA, obj) == []
    assert obj["status"] == before


STARTED = {"iterations": [{"name": "M1", "stages": [{"name": "data", "stage": "data", "state": "Running"}]}]}
#: Preflight does not count: what it complains about must be open to correction.
NOT_STARTED = {
    "phase": "Pending",
    "startedAt": "2026-01-01T00:00:00Z",
    "preflightStage": {"name": "preflight", "stage": "preflight", "state": "Failed"},
    "iterations": [{"name": "M1", "stages": [{"name": "data", "stage": "data", "state": "Pending"}]}],
}


@pytest.mark.parametrize("before", [None, "kueue.x-k8s.io/multikueue"])
@pytest.mark.parametrize("after", [None, "kueue.x-k8s.io/multikueue", "selfrewarding.dev/self-rewarding-operator"])
def test_who_carries_a_run_out_cannot_be_changed(before: str | None, after: str | None) -> None:
    old, new = run(), run()
    for obj, manager in ((old, before), (new, after)):
        obj["spec"] |= {"managedBy": manager} if manager else {}
        apply_defaults(SCHEMA, obj)
    errors = [error.path for error in validate(SCHEMA, new, old)]
    assert errors == ([] if before == after else ["spec.managedBy"])


class TestStartedRun:
    """baseModel.uri, storage.uri and seedData.uri stay as they are once a stage has started."""

    @staticmethod
    def edited(section: str, status: dict[str, Any] | None, uri: str = "s3://other/place") -> list[str]:
        old, new = run(), run()
        new["spec"][section]["uri"] = uri
        for obj in (old, new):
            apply_defaults(SCHEMA, obj)
            if status is not None:
                obj["status"] = status
        return [f"{error.path}: {error.message}" for error in validate(SCHEMA, new, old)]

    @pytest.mark.parametrize("section", ["baseModel", "storage", "seedData"])
    def test_refused_once_started(self, section: str) -> None:
        [error] = self.edited(section, STARTED)
        assert error.startswith(f"spec.{section}.uri: ")
        assert "cannot be changed once the run has started: create another run" in error

    @pytest.mark.parametrize(
        ("before", "pinned", "after", "refused"),
        [
            ("s3://bucket/own", "s3://bucket/own", None, True),
            ("s3://bucket/own", None, None, True),
            (None, "s3://bucket/default", None, False),
            (None, "s3://bucket/default", "s3://bucket/default", False),
            (None, "s3://bucket/default", "s3://bucket/own", True),
            (None, None, "s3://bucket/own", True),
        ],
    )
    def test_storage_left_out(self, before: str | None, pinned: str | None, after: str | None, refused: bool) -> None:
        """Where a started run's artifacts lie may be spelled out, but neither taken back nor changed."""
        old, new = run(), run()
        for obj, uri in ((old, before), (new, after)):
            obj["spec"]["storage"] = {"uri": uri} if uri else {}
            if uri is None and obj is new:
                del obj["spec"]["storage"]  # the whole section
            apply_defaults(SCHEMA, obj)
            obj["status"] = STARTED | ({"storage": {"uri": pinned}} if pinned else {})
        errors = [error.path for error in validate(SCHEMA, new, old)]
        assert errors == (["spec.storage.uri"] if refused else [])

    @pytest.mark.parametrize("section", ["baseModel", "storage", "seedData"])
    @pytest.mark.parametrize("status", [None, {}, NOT_STARTED], ids=["none", "empty", "preflight"])
    def test_allowed_before(self, section: str, status: dict[str, Any] | None) -> None:
        assert self.edited(section, status) == []

    def test_other_fields_may_change(self) -> None:
        old, new = run(), run(iterations=3, training={"dpo": {"beta": 0.2}}, suspend=True)
        for obj in (old, new):
            apply_defaults(SCHEMA, obj)
            obj["status"] = STARTED
        assert validate(SCHEMA, new, old) == []
