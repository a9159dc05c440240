"""Indexes fed in any order."""

from __future__ import annotations

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


def test_listing_finds_what_events_hid() -> None:
    world = World()
    world.feed("jobs", job(5, name="gone"))
    world.feed("jobs", job(6, name="old"))
    world.feed("jobs", job(20, name="young"))
    listed = [job(8, name="old"), job(9, name="new")]
    assert [o["metadata"]["name"] for o in world.missing("jobs", listed)] == ["old", "new"]
    # `young` came after the listing was made: that it is not in there proves nothing.
    assert [o["metadata"]["name"] for o in world.vanished("jobs", listed, 10)] == ["gone"]


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
