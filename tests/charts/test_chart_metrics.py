"""Alerts and dashboard ask only for metrics and labels that the operator has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from charts import chart_kit as kit
from srlm_contract.status import Condition, RunStatus
from srlm_operator.metrics import PHASES, Metrics

#: Labels that Prometheus adds to what it scrapes, and that of buckets.
FROM_PROMETHEUS = {"namespace", "job", "le"}


def known_metrics() -> dict[str, set[str]]:
    """Names as they are exposed, with the names of their labels."""
    metrics = Metrics()
    stalled = Condition(type="Stalled", status="True", reason="Held", message="", last_transition_time="")
    metrics._statuses["ns", "run"] = RunStatus(conditions=(stalled,))
    found: dict[str, set[str]] = {}
    for family in metrics.registry.collect():
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    for collector in metrics.registry._collector_to_names:
        for name in metrics.registry._collector_to_names[collector]:
            found.setdefault(name, set()).update(getattr(collector, "_labelnames", ()))
    return found


def rules() -> list[dict[str, Any]]:
    (rule,) = kit.of_kind(kit.manifests(kit.values_of("production")), "PrometheusRule")
    return [alert for group in rule["spec"]["groups"] for alert in group["rules"]]


def dashboard() -> dict[str, Any]:
    (config,) = kit.of_kind(kit.manifests(kit.values_of("production")), "ConfigMap")
    found: dict[str, Any] = json.loads(config["data"]["self-rewarding-operator.json"])
    return found


def expressions() -> Iterator[str]:
    yield from (rule["expr"] for rule in rules())
    for panel in dashboard()["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))


def test_only_metrics_that_exist() -> None:
    known = known_metrics()
    used = {name for text in expressions() for name in re.findall(r"srlm_\w+", text)}
    assert used <= known.keys()
    shown = {re.sub(r"_(bucket|total)$", "", name) for name in used}
    assert {family.name for family in Metrics().registry.collect()} == shown, "every metric is worth a look"


def test_only_labels_that_exist() -> None:
    known = known_metrics()
    for text in expressions():
        metrics = re.findall(r"srlm_\w+", text)
        labels = set(re.findall(r"(\w+)=~?\"", text))
        for group in re.findall(r"by \(([^)]*)\)", text):
            labels |= {label.strip() for label in group.split(",")}
        assert labels <= FROM_PROMETHEUS.union(*(known[name] for name in metrics)), text
        assert text.count("(") == text.count(")")
        assert text.count("{") == text.count("}") == len(metrics)


def test_phases_exist() -> None:
    phases = {phase for text in expressions() for phase in re.findall(r"phase=\"(\w+)\"", text)}
    assert phases == {"Running"}
    assert phases <= set(PHASES)


def test_alerts_look_at_this_release_and_say_what_to_do() -> None:
    for rule in rules():
        wanted = 'namespace="srlm-system",job="sro-metrics"'
        assert rule["expr"].count(wanted) == len(re.findall(r"srlm_\w+", rule["expr"]))
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert len(rule["annotations"]["description"]) > 40
        for label in re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]):
            assert f"by ({label})" in rule["expr"] or f" {label})" in rule["expr"] or f"({label}," in rule["expr"]


def test_dashboard_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
