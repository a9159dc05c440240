"""Builders for planner tests: `run()`, `spec()`, `settings()`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from srlm_contract.spec.run import RunSpec
from srlm_contract.status import RunStatus
from srlm_operator.settings import Settings
from srlm_operator.values import Run

START = datetime(2026, 5, 1, 12, 0, 0, tzinfo=UTC)
UID = "11111111-2222-3333-4444-555555555555"


def manifest_spec(**changes: Any) -> dict[str, Any]:
    """Spec of a small run as plain JSON; `changes` replace whole sections."""
    base: dict[str, Any] = {
        "baseModel": {"uri": "hf://org/base"},
        "storage": {"uri": "s3://bucket/prefix", "credentialsSecretRef": {"name": "s3"}},
        "seedData": {"uri": "hf://org/data"},
        "iterations": 2,
        "generation": {"shards": 2},
        "judging": {"shards": 1},
    }
    return base | changes


def spec(**changes: Any) -> RunSpec:
    return RunSpec.parse(manifest_spec(**changes))


def run(status: RunStatus | None = None, *, generation: int = 1, spec_: RunSpec | None = None, **kw: Any) -> Run:
    """A run as the planner sees it."""
    status = status or RunStatus()
    values: dict[str, Any] = {
        "namespace": "team",
        "name": "run",
        "uid": UID,
        "generation": generation,
        "resource_version": "1",
        "spec": spec_ or spec(),
        "spec_error": "",
        "status": status,
        "stored_status": status.wire(defaults=False),
    }
    return Run(**(values | kw))


def settings(**changes: Any) -> Settings:
    return Settings(**changes)
