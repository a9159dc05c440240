"""Persistence: what was written is there after a restart, whatever the crash left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from srlm_local.kinds import bootstrap
from srlm_local.kinds.table import new_cluster
from srlm_local.store import journal
from srlm_local.store.cluster import Cluster
from srlm_local.store.errors import ApiError
from srlm_local.store.journal import Journal, JournalDamaged

CRD: dict[str, Any] = {
    "metadata": {"name": "things.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "things", "kind": "Thing"},
        "versions": [
            {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
        ],
    },
}


def everything(cluster: Cluster) -> dict[str, list[dict[str, Any]]]:
    return {resource: cluster.storage.list(resource) for resource in sorted(cluster.storage.resources())}


def filled(folder: Path) -> Cluster:
    cluster = new_cluster(seed=1)
    Journal.open(folder, cluster)
    bootstrap.prepare(cluster)
    cluster.create("customresourcedefinitions.apiextensions.k8s.io", CRD)
    cluster.create("things.example.com", {"metadata": {"name": "kept"}}, "default")
    cluster.create("configmaps", {"metadata": {"name": "gone"}}, "default")
    cluster.delete("configmaps", "gone", "default")
    return cluster


def test_a_restart_brings_back_every_object(tmp_path: Path) -> None:
    before = filled(tmp_path)
    after = new_cluster(seed=2)
    Journal.open(tmp_path, after)
    assert everything(after) == everything(before)
    assert after.find("configmaps", "gone", "default") is None
    assert after.get("things.example.com", "kept", "default")["metadata"]["name"] == "kept"


def test_versions_go_on_and_older_ones_are_expired(tmp_path: Path) -> None:
    before = filled(tmp_path)
    after = new_cluster()
    Journal.open(tmp_path, after)
    made = after.create("configmaps", {"metadata": {"name": "new"}}, "default")
    assert int(made["metadata"]["resourceVersion"]) > before.version
    with pytest.raises(ApiError) as error:
        after.storage.watcher(before.version)
    assert error.value.code == 410


def test_a_line_cut_short_by_a_crash_is_dropped(tmp_path: Path) -> None:
    cluster = filled(tmp_path)
    before = everything(cluster)
    file = tmp_path / "journal.jsonl"
    whole = file.read_bytes()
    cluster.create("configmaps", {"metadata": {"name": "torn"}}, "default")
    for cut in (1, 20, 80):
        file.write_bytes(whole + file.read_bytes()[len(whole) : len(whole) + cut] if cut == 1 else whole + b"0" * cut)
        (tmp_path / "snapshot.json").unlink(missing_ok=True)
        after = new_cluster()
        Journal.open(tmp_path, after).close()
        assert everything(after) == before
        (tmp_path / "snapshot.json").unlink()
        file.write_bytes(whole)


def test_damage_in_the_middle_is_an_error_that_names_the_line(tmp_path: Path) -> None:
    filled(tmp_path)
    file = tmp_path / "journal.jsonl"
    lines = file.read_bytes().split(b"\n")
    lines[3] = lines[3].replace(b"metadata", b"metadatX", 1)
    file.write_bytes(b"\n".join(lines))
    with pytest.raises(JournalDamaged, match=r"line 4 of .*journal\.jsonl"):
        Journal.open(tmp_path, new_cluster())


def test_compaction_in_the_midst_of_writes_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "COMPACT_AFTER_BYTES", 2000)
    cluster = filled(tmp_path)
    for number in range(40):
        cluster.create("configmaps", {"metadata": {"name": f"c{number}"}}, "default")
    after = new_cluster()
    Journal.open(tmp_path, after)
    assert everything(after) == everything(cluster)


def test_journal_lines_already_in_the_snapshot_are_skipped(tmp_path: Path) -> None:
    """The crash between the rename of a snapshot and the truncation of the journal."""
    cluster = filled(tmp_path)
    lines = (tmp_path / "journal.jsonl").read_bytes()
    again = new_cluster()
    Journal.open(tmp_path, again).close()
    again.delete("things.example.com", "kept", "default")
    (tmp_path / "journal.jsonl").write_bytes(lines)
    after = new_cluster()
    Journal.open(tmp_path, after)
    assert everything(after) == everything(cluster)


def test_the_files_are_for_their_owner_only(tmp_path: Path) -> None:
    filled(tmp_path)
    Journal.open(tmp_path, new_cluster())
    assert {file.stat().st_mode & 0o077 for file in tmp_path.iterdir()} == {0}
