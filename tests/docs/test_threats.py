"""Each threat in operator/README.md names a test that is there, and the guards that no other test shows."""

from __future__ import annotations

import re
from collections.abc import Iterator

from docs.pages import ROOT
from srlm_operator.crd.definition import custom_resource_definition

TEXT = (ROOT / "operator" / "README.md").read_text(encoding="utf-8")


def test_every_threat_has_its_test() -> None:
    section = TEXT.partition("\n## Threats\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (?!a tenant tries|---)(.+) \|$", section, re.M)
    assert len(rows) >= 15
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    there = set(re.findall(r"def (test_\w+)", code))
    for row in rows:
        names = re.findall(r"`(test_\w+)`", row)
        assert names, row
        assert set(names) <= there, row


def test_no_field_names_a_namespace() -> None:
    """But inside `podTemplate`, where the API server has its own rules, a run cannot point out of its namespace."""
    [version] = custom_resource_definition()["spec"]["versions"]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    assert [path for path in _fields(spec) if path.lower().endswith("namespace")] == []
    assert "storage.credentialsSecretRef.name" in set(_fields(spec))


def _fields(schema: object, path: str = "") -> Iterator[str]:
    """Dotted paths of all properties below a schema."""
    if not isinstance(schema, dict):
        return
    for name, child in (schema.get("properties") or {}).items():
        inner = f"{path}.{name}" if path else name
        yield inner
        yield from _fields(child, inner)
    for key in ("items", "additionalProperties"):
        yield from _fields(schema.get(key), path)
