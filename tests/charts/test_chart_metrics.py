"""Alerts and dashboard are PromQL that parses, and ask only for metrics and labels that the operator has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import promql_parser as promql
import pytest
from prometheus_client import CollectorRegistry

from charts import chart_kit as kit
from srlm_contract.spec.run import RunSpec
from srlm_contract.status import Condition, IterationMetrics, IterationStatus, ProgressStatus, RunStatus
from srlm_operator.metrics.operator import Metrics
from srlm_operator.metrics.runs import PHASES
from srlm_operator.values import Run

#: Labels that Prometheus and the ServiceMonitor add to what is scraped.
FROM_PROMETHEUS = frozenset({"namespace", "job", "pod", "instance", "service", "endpoint", "container"})


def a_registry() -> CollectorRegistry:
    """That of an operator at work."""
    metrics = Metrics()
    metrics.watch_machinery(queued=lambda: 0, active=lambda: 0, problem=lambda: "", watches=lambda: {"pods": 1.0})
    metrics.runs.note(*full_run())
    return metrics.registry


def known_metrics() -> dict[str, set[str]]:
    """Names as they are exposed, with the names of their labels."""
    registry = a_registry()
    found: dict[str, set[str]] = {}
    for collector, names in registry._collector_to_names.items():
        for name in names:
            found.setdefault(name, set()).update(getattr(collector, "_labelnames", ()))
            if name.endswith("_bucket"):
                found[name].add("le")
    for family in registry.collect():
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def full_run() -> tuple[Run, RunStatus]:
    """A run that has every figure there is."""
    stalled = Condition(type="Stalled", status="True", reason="Held", last_transition_time="2026-01-01T00:00:00Z")
    figures = IterationMetrics(
        pairs=1, tie_rate=0.1, parse_rate=1, judge_accuracy=0.5, length_growth=1, win_rate=0.5,
        candidate_length_growth=1,
    )  # fmt: skip
    status = RunStatus(
        phase="Running",
        conditions=(stalled,),
        progress=ProgressStatus(shards_total=2),
        iterations=(IterationStatus(name="M1", metrics=figures),),
    )
    body = {
        "baseModel": {"uri": "hf://a/b"},
        "seedData": {"uri": "hf://a/c"},
        "storage": {"uri": "s3://bucket/x"},
        "budget": {"gpuSeconds": 1, "tokens": 1},
    }
    run = Run("ns", "run", "uid", 1, "1", RunSpec.parse(body), "", status, {})
    moved = status.model_copy(update={"progress": ProgressStatus(shards_total=2, shards_done=1)})
    return run, moved


KNOWN = known_metrics()
#: Known after a second look at a run only.
KNOWN["srlm_run_last_progress_timestamp_seconds"] = {"run_namespace", "run"}


def rules(name: str = "production") -> list[dict[str, Any]]:
    (rule,) = kit.of_kind(kit.manifests(kit.values_of(name)), "PrometheusRule")
    return [alert for group in rule["spec"]["groups"] for alert in group["rules"]]


def dashboard() -> dict[str, Any]:
    (config,) = kit.of_kind(kit.manifests(kit.values_of("production")), "ConfigMap")
    found: dict[str, Any] = json.loads(config["data"]["self-rewarding-operator.json"])
    return found


def targets() -> Iterator[tuple[str, dict[str, Any]]]:
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target


def without_variables(text: str) -> str:
    """Grafana puts values in before Prometheus sees the expression."""
    return re.sub(r"\$__\w+", "5m", text.replace('"$namespace"', '".+"').replace('"$job"', '".+"'))


def parsed(text: str) -> promql.Expr:
    return promql.parse(without_variables(text))


def selectors(expression: promql.Expr) -> list[promql.VectorSelector]:
    found: list[promql.VectorSelector] = []

    def visit(node: promql.Expr) -> None:
        if isinstance(node, promql.VectorSelector):
            found.append(node)
        elif isinstance(node, promql.MatrixSelector):
            found.append(node.vector_selector)

    promql.walk(expression, pre_visit=visit)
    return found


def labels(node: promql.Expr) -> frozenset[str]:
    """Labels that the result may have. Fails where an expression groups or matches by one that is not there."""
    match node:
        case promql.VectorSelector():
            return frozenset(KNOWN[node.name]) | FROM_PROMETHEUS
        case promql.MatrixSelector():
            return labels(node.vector_selector)
        case promql.ParenExpr() | promql.UnaryExpr():
            return labels(node.expr)
        case promql.AggregateExpr():
            inside = labels(node.expr)
            by = frozenset(node.modifier.labels) if node.modifier else frozenset()
            assert by <= inside, f"{node.prettify()}: no label {by - inside}"
            return by
        case promql.BinaryExpr():
            sides = labels(node.lhs), labels(node.rhs)
            matching = node.modifier.matching if node.modifier else None
            if matching is not None:
                on = frozenset(matching.labels)
                assert on <= sides[0] & sides[1], f"{node.prettify()}: no label {on}"
            return sides[0] or sides[1]
        case promql.Call():
            found = [labels(argument) for argument in node.args]
            if node.func.name == "histogram_quantile":
                assert "le" in found[-1], node.prettify()
                return found[-1] - {"le"}
            return frozenset().union(*found)
        case _:
            return frozenset()


def test_only_metrics_that_exist_and_every_one_is_shown() -> None:
    expressions = [rule["expr"] for rule in rules()] + [target["expr"] for _, target in targets()]
    used = {selector.name for text in expressions for selector in selectors(parsed(text))}
    assert used <= KNOWN.keys()
    shown = {re.sub(r"_(bucket|total|count|sum)$", "", name) for name in used}
    ours = {family.name for family in a_registry().collect() if family.name.startswith("srlm_")}
    assert ours - shown == set(), "every metric is worth a look"


def test_matchers_ask_for_labels_and_phases_that_exist() -> None:
    for text in [rule["expr"] for rule in rules()] + [target["expr"] for _, target in targets()]:
        for selector in selectors(parsed(text)):
            for matcher in selector.matchers.matchers:
                assert matcher.name in KNOWN[selector.name] | FROM_PROMETHEUS, text
                if matcher.name == "phase":
                    assert set(matcher.value.split("|")) <= set(PHASES)


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_alerts(rule: dict[str, Any]) -> None:
    expression = parsed(rule["expr"])
    there = labels(expression)
    for selector in selectors(expression):
        found = {matcher.name: matcher.value for matcher in selector.matchers.matchers}
        assert found.items() >= {"namespace": "srlm-system", "job": "sro-metrics"}.items(), "those of this release"
    assert rule["labels"]["severity"] in ("info", "warning", "critical")
    notes = rule["annotations"]
    assert notes.keys() == {"summary", "description", "runbook"}
    for text in notes.values():
        assert len(text) > 15
        assert text == " ".join(text.split()), "one line"
        assert "%!" not in text, "a format string went wrong"
        assert set(re.findall(r"\$labels\.(\w+)", text)) <= there
    assert len(notes["runbook"]) > 60, "it says what to look at"
    assert not rule.get("for") or promql.parse_duration(rule["for"])


@pytest.mark.parametrize("target", [pytest.param(target, id=title) for title, target in targets()])
def test_panels(target: dict[str, Any]) -> None:
    there = labels(parsed(target["expr"]))
    assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= there
    for selector in selectors(parsed(target["expr"])):
        assert {matcher.name for matcher in selector.matchers.matchers} >= {"namespace", "job"}


def test_the_checks_see_what_is_wrong() -> None:
    with pytest.raises(AssertionError, match="no label"):
        labels(parsed("sum by (colour) (srlm_runs)"))
    with pytest.raises(AssertionError, match="no label"):
        labels(parsed("srlm_runs and on (run) srlm_run_phase"))
    with pytest.raises(KeyError):
        labels(parsed("rate(srlm_nothing_total[5m])"))
    with pytest.raises(ValueError, match="expected type matrix"):
        parsed("rate(srlm_runs)")


def test_readme_lists_every_metric() -> None:
    """`name`, labels and help as they are exposed."""
    text = (kit.CHART / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(srlm_\w+)` \| (.*) \| (.+) \|$", text, re.MULTILINE)
    assert rows == list(metric_rows())


def metric_rows() -> Iterator[tuple[str, str, str]]:
    for family in sorted(a_registry().collect(), key=lambda family: family.name):
        if family.name.startswith("srlm_"):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            found = KNOWN[name] | KNOWN.get(f"{family.name}_bucket", set())
            yield name, ", ".join(sorted(found - {"le"})), family.documentation


def test_values_reach_the_alerts() -> None:
    values = {
        "metrics": {
            "prometheusRule": {
                "enabled": True, "stalledFor": "7m", "noProgressFor": "90m", "failedAttempts": 11,
                "storageErrors": 77, "budgetShare": 0.75,
            }
        }
    }  # fmt: skip
    (rule,) = kit.of_kind(kit.manifests(values), "PrometheusRule")
    alerts = {alert["alert"]: alert for group in rule["spec"]["groups"] for alert in group["rules"]}
    assert alerts["SelfRewardingRunStalled"]["for"] == "7m"
    assert "offset 90m" in alerts["SelfRewardingRunNoProgress"]["expr"]
    assert alerts["SelfRewardingAttemptsFail"]["expr"].endswith(">= 11")
    assert alerts["SelfRewardingStorageErrors"]["expr"].endswith(">= 77")
    assert alerts["SelfRewardingBudgetNearlySpent"]["expr"].count("> 0.75") == 2


def test_variables_of_the_dashboard() -> None:
    for variable in dashboard()["templating"]["list"]:
        for name in re.findall(r"srlm_\w+", json.dumps(variable)):
            assert name in KNOWN


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
