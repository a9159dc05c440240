"""Manifests of runs: `srlm validate` and the operator find a value or name what is wrong."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from fuzz.strategies import changed, damaged, documents, examples
from srlm_operator.cluster.views import parse_run
from srlm_operator.crd.validate import validate_text
from srlm_operator.crd.yaml12 import ManifestError, load_documents

SAMPLES = Path(__file__).parents[2] / "crds" / "samples"
TEXTS = [(SAMPLES / name).read_bytes() for name in ("minimal.yaml", "paper.yaml", "demo.yaml")]
RUNS = [document for text in TEXTS for document in yaml.safe_load_all(text) if document["kind"] == "SelfRewardingRun"]


def check(text: str) -> None:
    report = validate_text(text, "run.yaml")
    for problem in report.problems:
        assert problem.file == "run.yaml"
        assert problem.message
        str(problem).encode("utf-8", "surrogatepass")


@examples(100)
@given(document=st.one_of(changed(RUNS), documents), as_yaml=st.booleans())
def test_changed_runs(document: Any, as_yaml: bool) -> None:
    try:
        text = yaml.safe_dump(document, allow_unicode=True) if as_yaml else json.dumps(document)
    except (yaml.YAMLError, UnicodeEncodeError):
        return
    check(text)


@examples(100)
@given(data=damaged(TEXTS))
def test_damaged_files(data: bytes) -> None:
    check(data.decode("utf-8", "replace"))


@examples(150)
@given(text=st.text("abc:- \n[]{}&*!<>|'\"#%?,~01.\t", max_size=60))
@example(text="a: &a [*a]")
@example(text="? [a]\n: b")
@example(text="<<: 1")
@example(text="!!binary x")
@example(text="!!python/object:os.system x")
@example(text="!!timestamp x")
@example(text="!!int x")
@example(text="!!float nan\n...\n!!float x")
@example(text="a: 0x")
@example(text="a: " + "9" * 5000)
@example(text="!!set {a}")
@example(text="&a")
def test_any_yaml(text: str) -> None:
    try:
        load_documents(text)
    except ManifestError as error:
        assert str(error)
    check(text)


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [" + ",".join("x" * 9) + "]\n" + "".join(
            f"{chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(12)
        ),
        "a: &a {x: 1}\n" + "".join(
            f"{chr(98 + n)}: &{chr(98 + n)} {{" + ", ".join(f"k{i}: *{chr(97 + n)}" for i in range(9)) + "}\n"
            for n in range(12)
        ),
        "a: &a {x: 1}\n" + "".join(
            f"{chr(98 + n)}: &{chr(98 + n)} {{<<: [{','.join([f'*{chr(97 + n)}'] * 9)}]}}\n" for n in range(12)
        ),
        "[" * 20_000,
        "- " * 20_000,
        "a:\n" + "".join(" " * n + "a:\n" for n in range(1, 1500)),
        "{" * 10_000 + "}" * 10_000,
    ],
    ids=["laughs", "laughing-maps", "laughing-merges", "brackets", "dashes", "steps", "braces"],
)  # fmt: skip
def test_small_files_that_would_become_huge(text: str) -> None:
    began = time.process_time()
    with pytest.raises(ManifestError):
        load_documents(text)
    check(text)
    assert time.process_time() - began < 20


@examples(100)
@given(spec=st.one_of(changed([run["spec"] for run in RUNS]), documents), status=documents)
def test_runs_as_the_operator_reads_them(spec: Any, status: Any) -> None:
    meta = {"namespace": "n", "name": "r", "uid": "u", "generation": 1, "resourceVersion": "1"}
    run = parse_run({"metadata": meta, "spec": spec, "status": status})
    assert (run.spec is None) == bool(run.spec_error)
