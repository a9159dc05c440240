"""`srlm validate` refuses what the operator would refuse, not only what the API server would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from srlm_cli import main
from support.builders import manifest_spec


def manifest(tmp_path: Path, **changes: Any) -> str:
    body = {
        "apiVersion": "selfrewarding.dev/v1alpha1",
        "kind": "SelfRewardingRun",
        "metadata": {"name": "run"},
        "spec": manifest_spec(**changes),
    }
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(body), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"podTemplate": {"spec": {"hostNetwork": True}}}, "spec: podTemplate: spec.hostNetwork must stay unset"),
        ({"gpuPodTemplate": {"spec": {"restartPolicy": "Always"}}}, "spec.restartPolicy must stay as it is"),
        (
            {"stages": {"report": {"podTemplate": {"spec": {"containers": [{"name": "stage", "command": ["sh"]}]}}}}},
            "container 'stage': command must stay as it is",
        ),
    ],
)
def test_pods_that_the_operator_would_refuse(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], said: str
) -> None:
    assert main(["validate", "-f", manifest(tmp_path, **changes)]) == 1
    assert said in capsys.readouterr().out


def test_the_level_of_the_operator_can_be_named(tmp_path: Path) -> None:
    path = manifest(tmp_path, podTemplate={"spec": {"hostNetwork": True}})
    assert main(["validate", "--pod-security", "Baseline", "-f", path]) == 1
    assert main(["validate", "--pod-security", "Privileged", "-f", path]) == 0
