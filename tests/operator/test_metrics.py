"""Metrics of a whole run: right figures, bounded labels."""

from __future__ import annotations

import re

from fake_cluster import FakeCluster
from stage_script import Ending

from srlm_operator.metrics import Metrics
from srlm_operator.plan import plan


def test_a_run_is_counted() -> None:
    metrics = Metrics()
    world = FakeCluster()
    world.stages.fail("train", Ending(1))
    for _ in range(200):
        found = plan(world.run(), world.observed(), world.now, world.settings)
        metrics.observe_plan(world.run(), found)
        world.reconcile()
        for name in world.active()[:1]:
            world.start_pods(name)
            world.finish(name)
        world.advance(15)
    text = metrics.render().decode()
    assert world.status.phase == "Succeeded"
    assert 'srlm_runs{phase="Succeeded"} 1.0' in text
    assert 'srlm_jobs_created_total{stage="train"} 3.0' in text
    assert 'srlm_attempt_failures_total{reason="Crashed",stage="train"} 1.0' in text
    assert "srlm_preference_pairs_total 1200.0" in text
    assert 'srlm_tokens_total{stage="generate"} 18000.0' in text
    assert 'srlm_shards_done_total{stage="generate"} 4.0' in text
    assert "srlm_judge_accuracy_count 3.0" in text
    names = set(re.findall(r"(\w+)=\"", text))
    assert names <= {"stage", "reason", "phase", "le", "verb", "resource"}


def test_a_deleted_run_is_forgotten() -> None:
    metrics = Metrics()
    world = FakeCluster()
    metrics.observe_plan(world.run(), plan(world.run(), world.observed(), world.now, world.settings))
    assert 'srlm_runs{phase="Pending"} 0.0' in metrics.render().decode()
    assert 'srlm_runs{phase="Running"} 1.0' in metrics.render().decode()
    metrics.forget(("team", "run"))
    assert 'srlm_runs{phase="Running"} 0.0' in metrics.render().decode()
