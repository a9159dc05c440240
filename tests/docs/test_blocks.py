"""Blocks of YAML and JSON in the documentation: runs, Kubernetes' kinds and the chart's values fit their schemas."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest
import yaml

from docs.pages import ROOT, blocks, pages
from srlm_cli import main
from srlm_contract.sizing import parameters_in_name
from srlm_operator.crd.validate import validate_text
from support import kube_schemas

SAMPLES = ROOT / "crds" / "samples"
CHART = ROOT / "charts" / "self-rewarding-operator"
BLOCKS = [
    pytest.param(page, body, id=f"{page.relative_to(ROOT)}-{number}")
    for page in pages()
    for number, body in enumerate(blocks(page, "yaml"))
]


def problems(document: Any) -> list[str]:
    """What is wrong with one document of a block."""
    if "stagePods" in document:
        schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
        return [error.message for error in jsonschema.Draft7Validator(schema).iter_errors(document)]
    if document.keys() == {"spec"}:  # a part of a run: the smallest one with it
        whole = yaml.safe_load((SAMPLES / "minimal.yaml").read_text(encoding="utf-8"))
        for section, value in document["spec"].items():
            whole["spec"][section] = {**whole["spec"].get(section, {}), **value} if isinstance(value, dict) else value
        document = whole
    if document["kind"] == "SelfRewardingRun":
        return [f"{found.path}: {found.message}" for found in validate_text(yaml.safe_dump(document), "page").problems]
    if document["apiVersion"].startswith("kueue.x-k8s.io/"):  # its makers publish no schema outside a cluster
        return []
    return kube_schemas.problems(document)


@pytest.mark.parametrize(("page", "body"), BLOCKS)
def test_blocks_of_yaml(page: Any, body: str) -> None:
    assert [problem for document in yaml.safe_load_all(body) for problem in problems(document)] == []


def test_there_are_blocks_of_every_sort() -> None:
    text = "\n".join(param.values[1] for param in BLOCKS)
    assert all(sort in text for sort in ("kind: SelfRewardingRun", "kind: RoleBinding", "stagePods:", "\nspec:"))


@pytest.mark.parametrize(
    "wrong",
    ["spec: {iterations: none}", "stagePods: {colour: red}", "{apiVersion: v1, kind: ServiceAccount, colour: red}"],
)
def test_the_check_of_blocks_can_fail(wrong: str) -> None:
    assert problems(yaml.safe_load(wrong))


def test_the_policy_of_a_bucket_has_the_rights_that_stages_need() -> None:
    """The rights that the chart's README lists, and no other."""
    text = (CHART / "README.md").read_text(encoding="utf-8")
    _, _, needs = text.partition("Credentials\nneed ")
    needed = set(re.findall(r"`(s3:\w+)`", needs.partition(". ")[0]))
    (policy,) = blocks(ROOT / "operator" / "HOWTO.md", "json")
    granted = {action for statement in json.loads(policy)["Statement"] for action in statement["Action"]}
    assert granted == needed != set()


def test_what_the_samples_need(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of samples has what `srlm plan` prints."""
    monkeypatch.setenv("COLUMNS", "200")
    rows = re.findall(
        r"^\| \[`([\w.-]+)`\]\(\.\./crds/samples/\1\) \| ([\d.]+B)[^|]* \| (\d+) \| ([\d.]+) \| ([\d,]+ GiB) \|$",
        (ROOT / "operator" / "HOWTO.md").read_text(encoding="utf-8"),
        re.M,
    )
    assert [row[0] for row in rows] == ["minimal.yaml", "qwen3-8b.yaml", "paper.yaml"]
    for name, size, gpus, hours, disk in rows:
        assert main(["plan", "-f", str(SAMPLES / name)]) == 0
        printed = capsys.readouterr().out
        assert f"{parameters_in_name(size) / 1e9:g} billion parameters" in printed, name
        assert f"disk: {disk} a train pod" in printed, name
        total = next(line for line in printed.splitlines() if line.startswith("│ all"))
        assert re.search(rf" {gpus} at once .* {hours} \+ \?", total), f"{name}: {total}"
