"""Indexes fed in any order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from srlm_operator.cluster.index import World


def job(version: int, uid: str = "u", name: str = "j") -> dict[str, Any]:
    labels = {"selfrewarding.dev/run": "run", "selfrewarding.dev/run-uid": "run-uid"}
    meta = {"name": name, "namespace": "ns", "uid": uid, "resourceVersion": str(version), "labels": labels}
    return {"metadata": meta}


def versions(world: World) -> list[str]:
    return [obj["metadata"]["resourceVersion"] for obj in world.owned("jobs", "ns", "run-uid")]


def test_the_newest_version_wins() -> None:
    world = World()
    assert world.feed("jobs", job(5)) == ("ns", "run")
    world.feed("jobs", job(3))
    assert versions(world) == ["5"]
    world.feed("jobs", job(7))
    assert versions(world) == ["7"]


def test_the_end_of_an_older_object_is_no_news() -> None:
    world = World()
    world.feed("jobs", job(9, uid="new"))
    world.feed("jobs", job(4, uid="old"), deleted=True)
    assert versions(world) == ["9"]
    world.feed("jobs", job(10, uid="new"), deleted=True)
    assert versions(world) == []


def names(found: list[Mapping[str, Any]]) -> list[str]:
    return [obj["metadata"]["name"] for obj in found]


def test_listing_finds_what_events_hid() -> None:
    world = World()
    world.feed("jobs", job(5, name="gone"))
    world.feed("jobs", job(6, name="old"))
    before = world.versions("jobs")
    world.feed("jobs", job(20, name="young"))
    listed = [job(8, name="old"), job(9, name="new")]
    assert names(world.missing("jobs", listed, before)) == ["old", "new"]
    # `young` came while the listing was made: that it is not in there proves nothing.
    assert names(world.vanished("jobs", listed, before)) == ["gone"]


def test_a_listing_replaces_what_was_known_before_it_whatever_its_version() -> None:
    world = World()
    for name in ("restored", "changed", "gone"):
        world.feed("jobs", job(50, name=name))
    before = world.versions("jobs", "ns")
    world.feed("jobs", job(60, name="changed"))
    listed = [job(7, name="restored"), job(8, name="changed")]
    # What changed while the listing was made is newer than it.
    assert names(world.missing("jobs", listed, before)) == ["restored"]
    assert names(world.vanished("jobs", listed, before)) == ["gone"]
    world.feed("jobs", listed[0], instead_of="50")
    world.feed("jobs", job(6, name="restored"))
    assert versions(world) == ["60", "50", "7"]
    world.feed("jobs", job(9, name="restored"))
    world.feed("jobs", listed[0], instead_of="50")
    assert versions(world) == ["60", "50", "9"]


def test_only_what_is_read_is_kept() -> None:
    world = World()
    template = {"spec": {"containers": [{"name": "stage", "env": [{"name": "SRLM_TASK", "value": "x" * 10_000}]}]}}
    made = job(5)
    made["metadata"]["managedFields"] = [{"manager": "operator"}]
    world.feed("jobs", made | {"spec": {"completions": 2, "template": template}})
    [kept] = world.owned("jobs", "ns", "run-uid")
    assert kept["spec"] == {"completions": 2}
    assert "managedFields" not in kept["metadata"]
    limits = {"limits": {"nvidia.com/gpu": "1"}}
    container = template["spec"]["containers"][0] | {"resources": limits}
    world.feed("pods", job(6, name="p") | {"spec": {"nodeName": "n", "containers": [container], "volumes": []}})
    [pod] = world.owned("pods", "ns", "run-uid")
    assert pod["spec"] == {"containers": [{"name": "stage", "resources": limits}], "nodeName": "n"}


def test_a_label_in_another_namespace_claims_nothing() -> None:
    world = World()
    world.feed("jobs", job(5))
    forged = job(6, uid="forged", name="other")
    forged["metadata"]["namespace"] = "elsewhere"
    world.feed("jobs", forged)
    assert versions(world) == ["5"]


def test_a_label_that_was_changed_leaves_nothing_behind() -> None:
    world = World()
    world.feed("jobs", job(5))
    moved = job(6)
    moved["metadata"]["labels"] = {"selfrewarding.dev/run": "run", "selfrewarding.dev/run-uid": "another"}
    world.feed("jobs", moved)
    assert versions(world) == []
    assert len(world.owned("jobs", "ns", "another")) == 1
    world.feed("jobs", moved, deleted=True)
    assert versions(world) == [] == world.owned("jobs", "ns", "another")
