"""The alerts fire when they should and only then: judged by Prometheus itself, over scripted series."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from charts import chart_kit as kit
from srlm_operator.metrics.operator import Metrics

JOB = 'namespace="srlm-system",job="sro-metrics",pod="sro-0"'
RUN = f'{JOB},run_namespace="team",run="base"'
TEAM = {"namespace": "team", "run_namespace": "team", "run": "base", "severity": "warning"}
OURS = {"namespace": "srlm-system", "severity": "warning"}
Fires = dict[str, str] | None


def promtool(folder: Path, *arguments: str) -> None:
    """Fails with what Prometheus says. Skips where Debian's prometheus, or another, is missing."""
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed")
    done = subprocess.run(["promtool", *arguments], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def rules(folder: Path, *, annotations: bool) -> None:
    """Writes rules.yaml as the chart renders it, with or without what it says to people."""
    (rule,) = kit.of_kind(kit.manifests(kit.values_of("production")), "PrometheusRule")
    for group in rule["spec"]["groups"]:
        for alert in group["rules"]:
            if not annotations:
                del alert["annotations"]
    (folder / "rules.yaml").write_text(yaml.safe_dump(rule["spec"]), encoding="utf-8")


def expect(folder: Path, alert: str, series: dict[str, str], moments: dict[str, Fires]) -> None:
    """series: metric with labels → its values, one a minute, in Prometheus' notation.
    moments: time → labels of the alert that fires then, None for none."""
    rules(folder, annotations=False)
    cases = [
        {"eval_time": at, "alertname": alert, "exp_alerts": [{"exp_labels": labels}] if labels else []}
        for at, labels in moments.items()
    ]
    given = [{"series": name, "values": values} for name, values in series.items()]
    test = {"interval": "1m", "input_series": given, "alert_rule_test": cases}
    body = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [test]}
    (folder / "test.yaml").write_text(json.dumps(body), encoding="utf-8")
    promtool(folder, "test", "rules", "test.yaml")


def test_prometheus_takes_the_rules(tmp_path: Path) -> None:
    rules(tmp_path, annotations=True)
    promtool(tmp_path, "check", "rules", "rules.yaml")


def test_a_stalled_run(tmp_path: Path) -> None:
    expect(
        tmp_path, "SelfRewardingRunStalled", {f'srlm_run_stalled{{{RUN},reason="Held"}}': "0x9 1x30 _x30"},
        {"20m": None, "26m": TEAM | {"reason": "Held"}, "60m": None},
    )  # fmt: skip


def test_a_run_that_does_not_begin(tmp_path: Path) -> None:
    expect(
        tmp_path, "SelfRewardingRunPending", {f'srlm_run_phase{{{RUN},phase="Pending"}}': "1x90 _x30"},
        {"59m": None, "61m": TEAM, "100m": None},
    )  # fmt: skip


def test_a_run_in_which_nothing_moves(tmp_path: Path) -> None:
    series = {
        f'srlm_run_phase{{{RUN},phase="Running"}}': "1x400",
        f"srlm_run_last_progress_timestamp_seconds{{{RUN}}}": "0+60x60 3600x200 9000x100",
    }
    expect(tmp_path, "SelfRewardingRunNoProgress", series, {"170m": None, "195m": TEAM, "300m": None})


def test_a_budget_nearly_spent(tmp_path: Path) -> None:
    series = {
        f'srlm_run_phase{{{RUN},phase="Running"}}': "1x20",
        f"srlm_run_gpu_seconds{{{RUN}}}": "0+10x20",
        f"srlm_run_gpu_seconds_limit{{{RUN}}}": "100x20",
    }
    expect(
        tmp_path, "SelfRewardingBudgetNearlySpent", series, {"9m": None, "10m": TEAM | {"severity": "info"}}
    )  # fmt: skip


FAILURES = f'srlm_attempt_failures_total{{{JOB},stage="train",reason="OutOfMemory"}}'


@pytest.mark.parametrize(
    ("values", "moments"),
    [
        pytest.param("0x4 1 2 3 4 4 4 5x20", {"9m": None, "11m": "fires"}, id="the-fifth-within-an-hour"),
        pytest.param("0x4 1x30 2x30 3x30 4x30 5x30", {"59m": None, "150m": None}, id="five-in-two-hours"),
        pytest.param("0x4 1 2 3 3 0 1 2x20", {"8m": None, "11m": "fires"}, id="a-restart-between-them"),
    ],
)
def test_attempts_that_fail(tmp_path: Path, values: str, moments: dict[str, str | None]) -> None:
    fires = OURS | {"stage": "train", "reason": "OutOfMemory"}
    expected = {at: fires if there else None for at, there in moments.items()}
    expect(tmp_path, "SelfRewardingAttemptsFail", {FAILURES: values}, expected)


def test_the_first_failure_is_seen_as_one() -> None:
    """Prometheus does not count the first value of a series: every cause shows 0 before it happens."""
    body, _ = Metrics().render()
    assert 'srlm_attempt_failures_total{reason="OutOfMemory",stage="train"} 0.0' in body.decode()
    assert 'srlm_attempt_failures_total{reason="Other",stage="judge"} 0.0' in body.decode()


def test_a_store_that_fails(tmp_path: Path) -> None:
    series = {f'srlm_storage_request_errors_total{{{JOB},stage="data"}}': "0x4 20 40 60x20"}
    expect(tmp_path, "SelfRewardingStorageErrors", series, {"6m": None, "8m": OURS | {"stage": "data"}})


def test_reconciles_that_fail(tmp_path: Path) -> None:
    series = {
        f'srlm_reconcile_errors_total{{{JOB},reason="Refused"}}': "0+8x60",
        f"srlm_reconcile_duration_seconds_count{{{JOB}}}": "0+10x60",
    }
    expect(tmp_path, "SelfRewardingReconcileErrors", series, {"10m": None, "40m": OURS})


def test_a_silent_watch(tmp_path: Path) -> None:
    series = {f"srlm_watch_silent{{{JOB}}}": "0x9 1 0x30"}
    expect(
        tmp_path, "SelfRewardingOperatorWatchSilent", series, {"9m": None, "12m": OURS | {"pod": "sro-0"}, "30m": None}
    )


def test_an_operator_that_ends_again_and_again(tmp_path: Path) -> None:
    series = {f"process_start_time_seconds{{{JOB}}}": "0x9 100x9 200x9 300x9 400x90"}
    expect(
        tmp_path, "SelfRewardingOperatorRestarts", series, {"30m": None, "45m": OURS | {"pod": "sro-0"}, "105m": None}
    )


def test_nobody_leads(tmp_path: Path) -> None:
    critical = OURS | {"severity": "critical"}
    expect(tmp_path, "SelfRewardingOperatorDown", {f"srlm_leader{{{JOB}}}": "1x9 0x20"}, {"12m": None, "16m": critical})
