"""Health as Argo CD, Flux and kstatus see it, for every state that a run can be in."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
import yaml

from srlm_operator.plan.conditions import conditions, phase
from srlm_operator.plan.decisions import Note
from support.gitops_checks import GITOPS, LUA, argocd_health, flux_checks, flux_health
from support.kstatus import kstatus

NOW = datetime(2026, 5, 1, tzinfo=UTC)
HEALTH = "resource.customizations.health.selfrewarding.dev_SelfRewardingRun"
IGNORE = "resource.customizations.ignoreResourceUpdates.selfrewarding.dev_SelfRewardingRun"


def run(
    stall: str = "", *, ready: bool = False, suspended: bool = False, models: int = 0, started: bool = True, **meta: Any
) -> dict[str, Any]:
    """A run with the conditions that the operator itself makes."""
    stalls = (Note(stall, f"{stall}: look at it"),) if stall else ()
    waits = (Note("Progressing", "train runs"),)
    made = conditions(
        waits=waits,
        stalls=stalls,
        ready=ready,
        suspended=suspended,
        generation=2,
        previous=(),
        now=NOW,
    )
    status = {
        "observedGeneration": 2,
        "phase": phase(waits=waits, stalls=stalls, ready=ready, suspended=suspended, started=started, active=False),
        "progress": {"percent": 40, "message": "M2: train 3/8"},
        "models": [{"name": f"M{number + 1}"} for number in range(models)],
        "conditions": [condition.wire() for condition in made],
    }
    return {"metadata": {"name": "run", "generation": 2, **meta}, "spec": {}, "status": status}


def when(value: str) -> dict[str, Any]:
    return {"annotations": {"selfrewarding.dev/healthy-when": value}}


NEW = {"metadata": {"name": "run", "generation": 1}, "spec": {}}
STATES: list[tuple[str, dict[str, Any], str, str, str]] = [
    # state, object, Argo CD, part of its message, kstatus
    ("new", NEW, "Progressing", "Waiting for the operator", "Current"),
    ("empty status", {**NEW, "status": {}}, "Progressing", "Waiting for the operator", "Current"),
    ("pending", run(started=False), "Progressing", "M2: train 3/8", "InProgress"),
    ("running", run(), "Progressing", "M2: train 3/8", "InProgress"),
    ("stalled", run("ImagePullFailed"), "Degraded", "ImagePullFailed: ImagePullFailed: look at it", "Failed"),
    ("held", run("Held"), "Suspended", "Held: look at it", "Failed"),
    ("suspended", run(suspended=True), "Suspended", "spec.suspend is set", "InProgress"),
    ("done", run(ready=True, models=3), "Healthy", "All iterations are done", "Current"),
    ("edited", {**run(ready=True), "metadata": {"generation": 3}}, "Progressing", "newest spec", "InProgress"),
    ("deleted", run(deletionTimestamp="2026-05-01T00:00:00Z"), "Progressing", "Being deleted", "Terminating"),
    ("done, deleted", run(ready=True, deletionTimestamp="x"), "Progressing", "Being deleted", "Terminating"),
    ("passes when running", run(**when("Running")), "Healthy", "M2: train 3/8", "InProgress"),
    ("not yet running", run(started=False, **when("Running")), "Progressing", "M2: train 3/8", "InProgress"),
    ("passes with M2", run(models=2, **when("M2")), "Healthy", "M2: train 3/8", "InProgress"),
    ("no M2 yet", run(models=1, **when("M2")), "Progressing", "M2: train 3/8", "InProgress"),
    ("stalled in spite of M2", run("NotEnoughPairs", models=2, **when("M2")), "Degraded", "NotEnoughPairs", "Failed"),
]


@pytest.mark.parametrize(("obj", "argocd", "message", "status"), [s[1:] for s in STATES], ids=[s[0] for s in STATES])
def test_every_state(obj: dict[str, Any], argocd: str, message: str, status: str) -> None:
    health, text = argocd_health(obj)
    assert (health, message in text, kstatus(obj)) == (argocd, True, status)


def test_the_config_map_holds_the_tested_script() -> None:
    config = yaml.safe_load((GITOPS / "argocd-cm.yaml").read_text(encoding="utf-8"))["data"]
    assert config[HEALTH] == LUA


def test_progress_alone_is_no_update_and_a_new_state_is() -> None:
    config = yaml.safe_load((GITOPS / "argocd-cm.yaml").read_text(encoding="utf-8"))["data"]
    pointers = yaml.safe_load(config[IGNORE])["jsonPointers"]
    before, after = run(), run()
    after["status"]["progress"] = {"percent": 41, "message": "M2: train 4/8"}
    after["status"] |= {"gpuSeconds": 70.0, "tokens": 9}
    assert seen(before, pointers) == seen(after, pointers)
    assert seen(before, pointers) != seen(run("Held"), pointers)


def seen(obj: dict[str, Any], pointers: list[str]) -> dict[str, Any]:
    """The object without what is ignored."""
    for pointer in pointers:
        *parents, last = pointer.strip("/").split("/")
        place = obj
        for name in parents:
            place = place.get(name, {})
        place.pop(last, None)
    return obj


@pytest.mark.parametrize(
    ("name", "obj", "status"),
    [
        ("campaign-reference", run(models=1), "InProgress"),
        ("campaign-reference", run(models=2), "Current"),
        ("campaign-reference", run(ready=True, models=3), "Current"),
        ("campaign-reference", run("Held", models=1), "Failed"),
        ("campaign-reference", {**run(models=3), "metadata": {"generation": 3}}, "InProgress"),
        ("campaign", run(started=False), "InProgress"),
        ("campaign", run(), "Current"),
        ("campaign", run("Held"), "Current"),
        ("campaign", run("SecretNotFound"), "Failed"),
        ("campaign", run(ready=True), "Current"),
    ],
)
def test_flux(name: str, obj: dict[str, Any], status: str) -> None:
    assert flux_health(flux_checks(name), obj) == status


@pytest.mark.parametrize("name", ["campaign-reference", "campaign"])
def test_flux_waits_for_a_run_that_the_operator_has_not_seen(name: str) -> None:
    with pytest.raises(ValueError, match="status"):
        flux_health(flux_checks(name), NEW)
