"""crds/README.md has every field as the models have it, and every number says what it counts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from srlm_operator.crd.definition import custom_resource_definition, run_schema, shown_default
from srlm_operator.crd.reference import render

ROOT = Path(__file__).parents[2]
#: What numbers of the spec count or measure, or that they have no unit.
UNITS = re.compile(
    r"seconds|tokens|words|points|prompts|answers|verdicts|examples|pairs|positives|rows|rounds|attempts|pods|processes|"
    r"replicas|gpus|steps|epochs|passes|share|probability|temperature|rate|rank\b|scale|weight|decay|gradient|strength|"
    r"relative to|f-measure|tau-b|accuracy|seed of|is sharded|this often",
    re.I,
)


def leaves(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every field with a value of its own, by its path."""
    for name, field in schema.get("properties", {}).items():
        yield from leaves(field, f"{path}.{name}")
    if "properties" not in schema:
        yield path, schema


def test_it_is_what_the_generator_prints() -> None:
    assert (ROOT / "crds" / "README.md").read_text(encoding="utf-8") == render(), "run `make crds`"


def written(text: str) -> dict[str, str]:
    """Full path of a field or section → the line that tells of it."""
    found, section, lines = {}, "", text.splitlines()
    for number, line in enumerate(lines):
        if heading := re.fullmatch(r"###? (\S+)", line):
            section = heading[1]
            found[section] = " ".join(lines[number + 1 : number + 5])
        elif row := re.match(r"\| `([^`]+)` \|", line):
            found[f"{section}.{row[1]}"] = line
    return found


def test_it_has_every_field_of_the_spec_with_its_meaning() -> None:
    lines = written(render())
    for path, field in leaves(run_schema()["properties"]["spec"], "spec"):
        at, rest = path, ""
        while at not in lines:
            at, _, name = at.rpartition(".")
            rest = f".{name}{rest}"
        if rest:  # below a section that stands somewhere else
            same = re.search(r"The fields are those of \[?`([^`]+)`", lines[at])
            assert same, path
            at = same[1] + rest
        assert field["description"].partition(" Default: ")[0].replace("|", r"\|") in lines[at], path


def test_every_default_ends_its_description() -> None:
    """`kubectl explain` shows descriptions, and no defaults."""
    [version] = custom_resource_definition()["spec"]["versions"]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    told = 0
    for path, field in leaves(spec, "spec"):
        if "default" in field:
            assert field["description"].endswith(f" Default: {shown_default(field['default'])}."), path
            told += 1
        assert field["description"].lower().count("default ") + field["description"].count("Default:") <= 1, path
    assert told > 130


def test_every_number_says_what_it_counts() -> None:
    silent = [
        path
        for path, field in leaves(run_schema()["properties"]["spec"], "spec")
        if field.get("type") in ("integer", "number") and not UNITS.search(field["description"])
    ]
    assert silent == []


def test_names_with_a_unit_say_it_too() -> None:
    for path, field in leaves(run_schema()["properties"]["spec"], "spec"):
        for ending in ("Seconds", "Tokens", "Words"):
            if path.endswith(ending):
                assert re.search(ending.lower().rstrip("s"), field["description"], re.I), path


def test_defaults_are_spelled_as_yaml_has_them() -> None:
    values = (True, 5.5e-6, 2.0, 86400, "", {}, [], ["sigmoid"], [0, 0, 0.1], "Auto")
    assert [shown_default(value) for value in values] == [
        "true", "5.5e-6", "2", "86400", "empty", "empty", "empty", "[sigmoid]", "[0, 0, 0.1]", "Auto",
    ]  # fmt: skip
