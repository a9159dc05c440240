"""What printer columns find in an object."""

from __future__ import annotations

from datetime import UTC, datetime

from srlm_local.http.tables import table
from srlm_local.store.resources import ResourceType
from srlm_operator.crd.definition import custom_resource_definition

NOW = datetime(2026, 5, 1, 12, 0, 0, tzinfo=UTC)


def test_a_run_is_shown_with_its_condition() -> None:
    (version,) = custom_resource_definition()["spec"]["versions"]
    names = ("selfrewarding.dev", "v1alpha1", "SelfRewardingRun", "selfrewardingruns", "selfrewardingrun")
    kind = ResourceType(*names, crd=version)
    conditions = [
        {"type": "Stalled", "status": "True", "reason": "Held", "message": "no"},
        {"type": "Ready", "status": "False", "reason": "Held", "message": "M2: too few pairs"},
    ]
    status = {"phase": "Held", "iteration": 1, "progress": {"text": "41%", "eta": "21m"}, "conditions": conditions}
    run = {"metadata": {"name": "run", "creationTimestamp": "2026-05-01T11:00:00Z"}, "status": status}
    found = table(kind, [run, {"metadata": {"name": "new"}}], NOW, "None")
    columns = [column["name"] for column in found["columnDefinitions"]]
    shown = dict(zip(columns, found["rows"][0]["cells"], strict=True))
    assert (shown["Ready"], shown["Reason"], shown["Message"]) == ("False", "Held", "M2: too few pairs")
    assert (shown["Progress"], shown["ETA"]) == ("41%", "21m")
    assert [column["name"] for column in found["columnDefinitions"] if column["priority"]] == ["ETA", "Message"]
    assert found["rows"][1]["cells"][0] == "new"
