"""Persistence: what was written is there after a restart, whatever the crash left behind."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from srlm_local.kinds import bootstrap
from srlm_local.kinds.table import new_cluster
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
    return {rt.name: cluster.storage.list(rt.name) for rt in cluster.registry.all()}


def filled(folder: Path) -> Cluster:
    """A cluster whose journal is closed."""
    cluster = new_cluster(seed=1)
    journal = Journal.open(folder, cluster)
    bootstrap.prepare(cluster)
    cluster.create("customresourcedefinitions.apiextensions.k8s.io", CRD)
    cluster.create("things.example.com", {"metadata": {"name": "kept"}}, "default")
    cluster.create("configmaps", {"metadata": {"name": "gone"}}, "default")
    cluster.delete("configmaps", "gone", "default")
    journal.close()
    return cluster


@contextmanager
def restarted(folder: Path) -> Iterator[Cluster]:
    cluster = new_cluster(seed=2)
    journal = Journal.open(folder, cluster)
    yield cluster
    journal.close()


def test_a_restart_brings_back_every_object(tmp_path: Path) -> None:
    before = filled(tmp_path)
    with restarted(tmp_path) as after:
        assert everything(after) == everything(before)
        assert after.find("configmaps", "gone", "default") is None
        assert after.get("things.example.com", "kept", "default")["metadata"]["name"] == "kept"


def test_versions_go_on_and_older_ones_are_expired(tmp_path: Path) -> None:
    before = filled(tmp_path)
    with restarted(tmp_path) as after:
        made = after.create("configmaps", {"metadata": {"name": "new"}}, "default")
        assert int(made["metadata"]["resourceVersion"]) > before.version
        with pytest.raises(ApiError) as error:
            after.storage.watcher(before.version)
        assert error.value.code == 410


def test_what_was_acknowledged_is_there_though_nobody_closed_anything(tmp_path: Path) -> None:
    """The files as a killed process leaves them."""
    cluster = filled(tmp_path / "state")
    with restarted(tmp_path / "state") as again:
        again.create("configmaps", {"metadata": {"name": "last"}}, "default")
        shutil.copytree(tmp_path / "state", tmp_path / "killed")
    with restarted(tmp_path / "killed") as after:
        assert after.find("configmaps", "last", "default") is not None
        assert len(everything(after)["things.example.com"]) == len(everything(cluster)["things.example.com"]) == 1


def test_a_damaged_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    filled(tmp_path)
    (tmp_path / "objects.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(JournalDamaged, match=r"objects\.sqlite"):
        Journal.open(tmp_path, new_cluster())


def test_the_files_are_for_their_owner_only(tmp_path: Path) -> None:
    filled(tmp_path)
    with restarted(tmp_path):
        assert {file.stat().st_mode & 0o077 for file in tmp_path.iterdir()} == {0}
