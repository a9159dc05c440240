"""Manifests are read as YAML 1.2, as the API server's clients read them."""

from __future__ import annotations

import pytest

from srlm_operator.crd.yaml12 import ManifestError, load_documents


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-6", 1e-6),
        ("5.5E-6", 5.5e-6),
        ("+12", 12),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        (".5", 0.5),
        ("1.", 1.0),
        ("on", "on"),
        ("yes", "yes"),
        ("None", "None"),
        ("1_000", "1_000"),
        ("12:30:45", "12:30:45"),
        ("2026-01-01", "2026-01-01"),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("", None),
        ("'4'", "4"),
        ("1e", "1e"),
    ],
)
def test_scalars_of_the_core_schema(text: str, value: object) -> None:
    [document] = load_documents(f"a: {text}\n")
    assert document == {"a": value}
    assert type(document["a"]) is type(value)


def test_documents_and_merge_keys() -> None:
    assert load_documents("---\n---\na: &x {b: 1}\nc: {<<: *x, d: 2}\n---\n# nothing\n") == [
        {"a": {"b": 1}, "c": {"b": 1, "d": 2}}
    ]


def test_json_may_be_indented_by_tabs() -> None:
    assert load_documents('{\n\t"a": [1e-6, null]\n}') == [{"a": [1e-6, None]}]


def test_keys_become_strings() -> None:
    assert load_documents("1: a\ntrue: b\n") == [{"1": "a", "true": "b"}]


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3, column 1: the key 'a' is given twice"),
        ('{"a": 1, "a": 2}', "the key 'a' is given twice"),
        ("a: [1", "line 1"),
        ("a: 1\n b: 2\n", "line 2"),
        ("a:\n\tb: 1\n", "line 2"),
        ("a: {b: [.inf]}", "a.b[0]: inf is not a JSON number"),
        ("a: -.INF", "a: -inf is not a JSON number"),
        ("a: .nan", "a: nan is not a JSON number"),
        ("a: !!binary aGk=", "a: a bytes has no place in a manifest"),
        ("a: !!python/object/apply:os.system [x]", "could not determine a constructor"),
        ("? [a]\n: 1\n", "a key must be a word"),
        ("a: &a [*a]\n", "contains itself"),
        ("a: \x00\n", "special characters are not allowed"),
    ],
)
def test_what_json_cannot_say_is_an_error_with_its_place(text: str, fragment: str) -> None:
    with pytest.raises(ManifestError) as caught:
        load_documents(text)
    assert fragment in str(caught.value)
