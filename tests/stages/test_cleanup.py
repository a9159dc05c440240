"""Clean-up: what retention says goes, what other runs use stays, and what stays is still protected."""

from __future__ import annotations

from pathlib import Path

import pytest

from srlm_contract.artifacts.layout import EVENTS_FILE, events_prefix, lineage_key, report_key
from srlm_contract.artifacts.retention import add_refs, read_refs
from srlm_contract.errors import Unsupported
from srlm_contract.rows import PromptRow
from srlm_contract.tasks import ArtifactRef, CleanupParams, RunIdentity
from support.stage_world import RUN, World

OTHER = RunIdentity(namespace="default", name="other", uid="99999999-2222-3333-4444-555555555555")


def put(world: World, stage: str) -> ArtifactRef:
    ref = world.put(stage, {"rows.jsonl": [PromptRow(id=stage, prompt=stage)]})
    add_refs(world.store, RUN, [ref])
    return ref


def clean(world: World, retention: str) -> dict[str, float]:
    task = world.task(CleanupParams(retention=retention), key="")  # type: ignore[arg-type]
    return world.run(task).statistics


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def exists(world: World, ref: ArtifactRef) -> bool:
    return world.artifacts().lookup(ref.stage, ref.key) is not None


def test_delete_all_leaves_only_what_another_run_uses(world: World) -> None:
    data, pairs = put(world, "data"), put(world, "pairs")
    add_refs(world.store, OTHER, [data])
    assert clean(world, "DeleteAll")["artifacts"] == 1
    assert exists(world, data)
    assert not exists(world, pairs)
    assert read_refs(world.store, RUN.namespace, RUN.name).runs.get(RUN.uid, ()) == ()


def test_delete_intermediate_keeps_results_and_their_references(world: World) -> None:
    pairs, metrics = put(world, "pairs"), put(world, "evaluate")
    clean(world, "DeleteIntermediate")
    assert not exists(world, pairs)
    assert exists(world, metrics)
    assert metrics in read_refs(world.store, RUN.namespace, RUN.name).runs[RUN.uid]


@pytest.mark.parametrize("retention", ["Retain", "DeleteIntermediate", "DeleteAll"])
def test_report_and_lineage_stay_unless_everything_goes(world: World, retention: str) -> None:
    pages = [report_key(RUN.namespace, RUN.name), lineage_key(RUN.namespace, RUN.name)]
    others = report_key(OTHER.namespace, OTHER.name)
    for key in (*pages, others):
        world.store.put(key, b"page")
    clean(world, retention)
    assert [world.store.head(key) is not None for key in pages] == [retention != "DeleteAll"] * 2
    assert world.store.head(others) is not None


def test_what_somebody_else_put_below_artifacts_stays(world: World) -> None:
    foreign = ["artifacts/Notes/x/manifest.json", "artifacts/notes/0123456789abcdef/manifest.json"]
    for key in foreign:
        world.store.put(key, b"mine")
    clean(world, "DeleteAll")
    assert [info.key for info in world.store.list_objects("artifacts/")] == foreign


def test_curves_go_with_everything_and_nothing_else_from_their_folder(world: World) -> None:
    curves = events_prefix(RUN.namespace, RUN.name)
    made = [f"{curves}{series}/{EVENTS_FILE}" for series in ("M2/train", "figures")]
    foreign = [f"{curves}notes.txt", f"{events_prefix(OTHER.namespace, OTHER.name)}figures/{EVENTS_FILE}"]
    for key in (*made, *foreign):
        world.store.put(key, b"figures")
    clean(world, "DeleteIntermediate")
    assert all(world.store.head(key) for key in made)
    clean(world, "DeleteAll")
    assert not any(world.store.head(key) for key in made)
    assert all(world.store.head(key) for key in foreign)


def test_it_may_run_twice(world: World) -> None:
    put(world, "pairs")
    clean(world, "DeleteAll")
    assert clean(world, "DeleteAll")["artifacts"] == 0


def test_a_store_that_cannot_list_uploads_is_cleaned_up_all_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = put(world, "pairs")

    def lacking(prefix: str, older_than: object) -> int:
        raise Unsupported("the store does not list unfinished uploads")

    monkeypatch.setattr(world.store, "abort_uploads", lacking)
    task = world.task(CleanupParams(retention="DeleteAll"), key="")
    assert world.run(task).warnings == ("the store does not list unfinished uploads",)
    assert not exists(world, pairs)
