"""Trackers that are down, or spoken to by somebody else, when the report is made."""

from __future__ import annotations

from pathlib import Path

from support.report_world import make_run, spec
from support.stage_world import World
from support.tracked_world import tracked


def test_a_tracker_that_is_down_is_a_warning_of_the_report(tmp_path: Path) -> None:
    made = make_run(
        World(tmp_path / "world"), spec(tracking={"mlflow": {"uri": "http://127.0.0.1:9"}}), until="1/pairs"
    )
    (warning,) = tracked(made, tmp_path / "work")
    assert warning.startswith("tracking.mlflow has not got everything: http://127.0.0.1:9 does not answer")


def test_while_a_training_runs_weights_and_biases_is_left_to_it(tmp_path: Path) -> None:
    made = make_run(World(tmp_path / "world"), spec(tracking={"wandb": {"apiKeySecretRef": {"name": "wandb"}}}))
    (warning,) = tracked(made, tmp_path / "one")
    assert "tracking.wandb.apiKeySecretRef is missing" in warning
    last = made.status.iterations[-1]
    running = tuple(s.model_copy(update={"state": "Running"}) if s.stage == "train" else s for s in last.stages)
    iterations = (*made.status.iterations[:-1], last.model_copy(update={"stages": running}))
    made.status = made.status.model_copy(update={"iterations": iterations})
    assert tracked(made, tmp_path / "two") == []
