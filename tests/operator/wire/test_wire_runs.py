"""Whole runs over the wire: operator, API server, RBAC and Job controller are real, pods are scripted."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.wire import wire


async def test_a_run_reaches_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with wire(tmp_path, monkeypatch) as w:
        await w.start_operator()
        w.apply(iterations=1)
        await w.until(lambda: w.condition("Ready"))
        status = w.status()
        assert status["phase"] == "Succeeded"
        assert [m["name"] for m in status["models"]] == ["M1", "M2"]
        assert w.pods.stages.ran.count("1/generate") == 2  # two shards
        assert len(w.nodes()) == len(set(w.nodes())) == 16
