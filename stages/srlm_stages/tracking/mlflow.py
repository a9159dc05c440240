"""MLflow, by its documented REST API (https://mlflow.org/docs/latest/rest-api.html).

Not by its client: that brings thirty packages, among them a web server and a cloud's SDK, and waits minutes for a
server that is down.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from math import isfinite, isnan
from typing import Any

from srlm_contract.spec.tracking import MlflowSpec

from .http import Absent, Http
from .known import Known
from .tracker import Refused, Row, Sender, Series, State

_API = "api/2.0/mlflow"
_UID_TAG, _KEY_TAG, _CHANGED_TAG = "selfrewarding.dev/run-uid", "selfrewarding.dev/key/", "changed/"
#: Most of each in one request.
_METRICS, _PARAMS = 900, 100
_STATES: Mapping[State, str] = {"Running": "RUNNING", "Succeeded": "FINISHED", "Failed": "FAILED"}


class Mlflow:
    """One MLflow run, with the UID as a tag."""

    name, pause = "tracking.mlflow", 5.0

    def __init__(self, spec: MlflowSpec, sender: Sender) -> None:
        self._spec, self._sender = spec, sender
        token = sender.environ.get("MLFLOW_TRACKING_TOKEN", "").strip()
        user = sender.environ.get("MLFLOW_TRACKING_USERNAME", "").strip()
        password = sender.environ.get("MLFLOW_TRACKING_PASSWORD", "").strip()
        self._has_credentials = bool(token or user)
        self._http = Http(
            spec.uri,
            headers={"Authorization": f"Bearer {token}"} if token else None,
            auth=(user, password) if user and not token else None,
        )
        self._run, self._known = "", Known()
        self._settings: dict[str, str] = {}

    def check(self) -> None:
        if self._spec.credentials_secret_ref is not None and not self._has_credentials:
            raise Refused(
                "the Secret of tracking.mlflow.credentialsSecretRef is missing, or has neither MLFLOW_TRACKING_TOKEN"
                " nor MLFLOW_TRACKING_USERNAME"
            )
        self._experiment()

    def send(self, series: Series, rows: Sequence[Row]) -> None:
        self._open()
        place = self._known.place(series)
        if series.key and place == series.name:
            self._log(tags=[{"key": _KEY_TAG + place, "value": series.key}])
        now, batch = round(time.time() * 1000), list(self._known.new(place, rows))
        while batch:
            part, count = [], 0
            while batch and count + len(batch[0][1]) <= _METRICS:
                part.append(batch.pop(0))
                count += len(part[-1][1])
            self._log(
                metrics=[
                    {"key": name, "value": _number(value), "timestamp": now, "step": step}
                    for step, figures in part
                    for name, value in figures.items()
                ]
            )
            for step, figures in part:
                self._known.note(step, figures)

    def describe(self, settings: Mapping[str, str], state: State) -> None:
        self._open()
        new = [{"key": name, "value": value} for name, value in settings.items() if name not in self._settings]
        for start in range(0, len(new), _PARAMS):
            self._log(params=new[start : start + _PARAMS])
        # Parameters of a run are fixed for ever.
        changed = {name: value for name, value in settings.items() if self._settings.get(name, value) != value}
        if changed:
            self._log(tags=[{"key": _CHANGED_TAG + name, "value": value} for name, value in changed.items()][:_PARAMS])
        ended = {} if state == "Running" else {"end_time": round(time.time() * 1000)}
        self._http.post(f"{_API}/runs/update", {"run_id": self._run, "status": _STATES[state], **ended})
        self._settings = {**settings, **self._settings}

    def close(self) -> None:
        self._http.close()

    def _log(self, **what: list[dict[str, Any]]) -> None:
        self._http.post(f"{_API}/runs/log-batch", {"run_id": self._run, **what})

    def _open(self) -> None:
        """Find the run, or make it. Of two that were made at the same moment the elder counts from then on."""
        if self._run:
            return
        experiment = self._experiment() or self._make_experiment()
        found = self._find(experiment)
        if found is None:
            self._http.post(f"{_API}/runs/create", self._new_run(experiment))
            found = self._find(experiment)
        if found is None:
            raise Refused(f"{self._spec.uri} does not find the run it has just made")
        data = found.get("data", {})
        tags = {tag["key"]: tag["value"] for tag in data.get("tags", ())}
        self._known = Known(
            {m["key"]: (int(m.get("step", 0)), float(m["value"])) for m in data.get("metrics", ())},
            {name.removeprefix(_KEY_TAG): key for name, key in tags.items() if name.startswith(_KEY_TAG)},
        )
        self._settings = {param["key"]: param["value"] for param in data.get("params", ())}
        self._run = found["info"]["run_id"]

    def _experiment(self) -> str:
        """Its id; empty where there is none."""
        try:
            found = self._http.get(f"{_API}/experiments/get-by-name", experiment_name=self._spec.experiment)
        except Absent as absent:
            if "RESOURCE_DOES_NOT_EXIST" in str(absent):
                return ""
            raise Refused(f"this is no tracking server of MLflow: {absent}") from None
        return str(found["experiment"]["experiment_id"])

    def _make_experiment(self) -> str:
        try:
            return str(self._http.post(f"{_API}/experiments/create", {"name": self._spec.experiment})["experiment_id"])
        except Refused:
            if made := self._experiment():  # by another run, at the same moment
                return made
            raise

    def _find(self, experiment: str) -> dict[str, Any] | None:
        uid = self._sender.run.uid
        body = {
            "experiment_ids": [experiment],
            "filter": f"tags.`{_UID_TAG}` = '{uid}'",
            "max_results": 1,
            "order_by": ["attributes.start_time ASC", "attributes.run_id ASC"],
        }
        runs: list[dict[str, Any]] = self._http.post(f"{_API}/runs/search", body).get("runs", [])
        return runs[0] if runs else None

    def _new_run(self, experiment: str) -> dict[str, Any]:
        tags = {
            _UID_TAG: self._sender.run.uid,
            "selfrewarding.dev/namespace": self._sender.run.namespace,
            "selfrewarding.dev/run": self._sender.run.name,
        }
        return {
            "experiment_id": experiment,
            "run_name": self._sender.title,
            "start_time": round(time.time() * 1000),
            "tags": [{"key": name, "value": value} for name, value in tags.items()],
        }


def _number(value: float) -> float | str:
    """As protobuf's JSON has numbers that JSON has no form for."""
    if isfinite(value):
        return value
    return "NaN" if isnan(value) else "Infinity" if value > 0 else "-Infinity"
