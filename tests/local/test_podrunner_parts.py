"""The pure parts of the pod runner: scheduling, quantities, expansion, paths, names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from local.cluster_kit import pod
from srlm_local.podrunner.environment import PathMap, expand, field_value
from srlm_local.podrunner.scheduler import cpu_cores, startable

Object = dict[str, Any]


def numbered(name: str, number: int, cpu: str | None = None, gang: str = "") -> Object:
    """A pending pod, created as the `number`-th."""
    made = pod(name, container={"resources": {"requests": {"cpu": cpu}} if cpu else {}})
    made["metadata"] |= {
        "uid": name,
        "namespace": "ns",
        "resourceVersion": str(number),
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }
    if gang:
        made["metadata"]["ownerReferences"] = [{"uid": gang, "controller": True}]
        made["spec"]["subdomain"] = "svc"
    return made


def names(pods: list[Object]) -> list[str]:
    return [p["metadata"]["name"] for p in pods]


@pytest.mark.parametrize(("cpu", "cores"), [(None, 1), ("100m", 1), ("1500m", 2), ("3", 3), ("64", 4)], ids=str)
def test_cores_of_a_pod(cpu: str | None, cores: int) -> None:
    assert cpu_cores(numbered("p", 1, cpu), 4) == cores


def test_oldest_first_and_a_wide_pod_is_not_overtaken() -> None:
    pending = [numbered("late", 3), numbered("wide", 2, "2"), numbered("first", 1)]
    assert names(startable(pending, {}, 2)) == ["first"]
    assert names(startable(pending, {}, 4)) == ["first", "wide", "late"]
    assert names(startable(pending, {"other": 2}, 2)) == []


def test_pods_that_meet_start_together() -> None:
    pending = [numbered("a", 1, "2", "job"), numbered("other", 2), numbered("b", 3, "2", "job")]
    assert names(startable(pending, {}, 2)) == ["a", "b"]
    assert names(startable(pending[1:], {"a": 2}, 2, ["job/svc"])) == ["b"]


def test_expansion_is_the_kubelets() -> None:
    known = {"A": "1", "B_C": "2"}
    assert expand("$(A)-$(B_C)-$(NONE)-$$(A)-$A", known) == "1-2-$(NONE)-$(A)-$A"


def test_paths_that_begin_with_a_mount_are_real() -> None:
    paths = PathMap({"/work": Path("/real/w"), "/work/cache": Path("/real/c"), "/dev/log": Path("/real/log")})
    assert paths.real("/work") == "/real/w"
    assert paths.real("/work/x") == "/real/w/x"
    assert paths.real("/work/cache/y") == "/real/c/y"
    assert paths.real("/workshop") == "/workshop"
    assert paths.real("--out=/work/x") == "--out=/real/w/x"
    assert paths.real("text /work/x") == "text /work/x"
    assert paths.real("/dev/log") == "/real/log"


def test_downward_fields() -> None:
    made = numbered("p", 1)
    made["metadata"]["labels"] = {"example.com/l": "v"}
    assert field_value(made, "metadata.labels['example.com/l']") == "v"
    assert field_value(made, "metadata.uid") == "p"
