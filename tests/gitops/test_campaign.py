"""The sample campaign: its overlays render, are valid runs, and share what the README says they share."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from srlm_contract.graph import Outcome, graph, node_key
from srlm_contract.keys import sha256
from srlm_contract.spec.run import RunSpec
from srlm_contract.tasks import Pins, SourceRef
from srlm_operator.crd.validate import validate_text

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
CAMPAIGN = Path(__file__).parents[2] / "crds" / "samples" / "campaign"
REFERENCE = "self-rewarding-beta-0.1"


def render(folder: Path) -> dict[str, dict[str, Any]]:
    """Rendered runs by name."""
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return {run["metadata"]["name"]: run for run in yaml.safe_load_all(done.stdout)}


@pytest.fixture(scope="module")
def runs() -> dict[str, dict[str, Any]]:
    return render(CAMPAIGN)


def keys(run: dict[str, Any]) -> dict[str, str]:
    """Key of every node of a run, were everything before it committed with a digest that follows from its key."""
    spec = RunSpec.parse(run["spec"])
    base = SourceRef(uri=spec.base_model.uri, revision=sha256(spec.base_model.uri.encode())[:40])
    pins = Pins(base_model=base, seed_data=SourceRef(uri=spec.seed_data.uri, revision="d" * 40, file="trees.jsonl"))
    outcomes: dict[str, Outcome] = {}
    for node in graph(spec, pins, outcomes):
        key = node_key(node, outcomes, spec.seed)
        assert key is not None, node.id
        outcomes[node.id] = Outcome(key, sha256(key.encode()), {})
    return {name: outcome.key for name, outcome in outcomes.items()}


def test_every_run_is_valid_and_they_share_one_prefix(runs: dict[str, dict[str, Any]]) -> None:
    assert len(runs) == 4
    for run in runs.values():
        assert validate_text(json.dumps(run)).problems == ()
    assert len({run["spec"]["storage"]["uri"] for run in runs.values()}) == 1


def test_a_sweep_over_beta_shares_everything_before_training(runs: dict[str, dict[str, Any]]) -> None:
    reference = keys(runs[REFERENCE])
    before = {"0/data", "0/sft", "1/prompts", "1/generate", "1/judge", "1/pairs"}
    assert before < set(reference)
    for name in ("self-rewarding-beta-0.05", "self-rewarding-beta-0.5"):
        other = keys(runs[name])
        shared = {node for node in reference if reference[node] == other[node]}
        first = {node for node in reference if node.startswith(("0/", "1/")) and node != "1/train"}
        after_training = {node for node in first if node in ("1/evaluate", "1/judge-heldout", "1/choose")}
        assert shared == first - after_training


def test_another_base_model_shares_the_seed_data_only(runs: dict[str, dict[str, Any]]) -> None:
    reference, other = keys(runs[REFERENCE]), keys(runs["self-rewarding-qwen2.5"])
    assert {node for node in reference if reference[node] == other[node]} == {"0/data"}


def test_waves_let_the_reference_go_first(runs: dict[str, dict[str, Any]]) -> None:
    waves = {name: run["metadata"]["annotations"]["argocd.argoproj.io/sync-wave"] for name, run in runs.items()}
    assert {name for name, wave in waves.items() if wave == "0"} == {REFERENCE}
    assert set(waves.values()) == {"0", "1"}
    assert runs[REFERENCE]["metadata"]["annotations"]["selfrewarding.dev/healthy-when"] == "M2"
    assert set(render(CAMPAIGN / "others")) == set(runs) - {REFERENCE}
