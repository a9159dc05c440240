"""Strategic merge: lists by their keys, and the directives that kubectl sends."""

from __future__ import annotations

import pytest

from srlm_operator.jobs.strategic import PatchFailed, strategic_merge


def test_strategic_merge_by_keys() -> None:
    pod = {"spec": {"containers": [{"name": "a", "image": "1", "args": ["x"]}, {"name": "b", "image": "2"}]}}
    patch = {"spec": {"containers": [{"name": "b", "image": "3"}, {"name": "a", "$patch": "delete"}]}}
    assert strategic_merge(pod, patch) == {"spec": {"containers": [{"name": "b", "image": "3"}]}}
    patch = {"spec": {"containers": [{"name": "a", "args": ["y"]}]}}
    assert strategic_merge(pod, patch)["spec"]["containers"][0] == {"name": "a", "image": "1", "args": ["y"]}


def test_strategic_merge_directives() -> None:
    target = {"metadata": {"finalizers": ["a", "b"]}, "spec": {"x": 1, "y": 2}}
    assert strategic_merge(target, {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}})["metadata"] == {
        "finalizers": ["b"]
    }
    assert strategic_merge(target, {"spec": {"$patch": "replace", "z": 3}})["spec"] == {"z": 3}
    assert strategic_merge(target, {"spec": {"$retainKeys": ["x"], "x": 5}})["spec"] == {"x": 5}


def test_a_volume_keeps_what_the_patch_of_its_source_does_not_name() -> None:
    target = {"volumes": [{"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}}]}
    patch = {"volumes": [{"name": "v", "$retainKeys": ["name", "emptyDir"], "emptyDir": {"sizeLimit": "2Gi"}}]}
    assert strategic_merge(target, patch)["volumes"][0]["emptyDir"] == {"medium": "Memory", "sizeLimit": "2Gi"}


@pytest.mark.parametrize("patch", [{"spec": []}, {"spec": {"containers": ["a"]}}, {"spec": {"containers": [{}]}}])
def test_what_does_not_fit_is_refused(patch: object) -> None:
    with pytest.raises(PatchFailed, match="spec"):
        strategic_merge({"spec": {"containers": [{"name": "a"}]}}, patch)
