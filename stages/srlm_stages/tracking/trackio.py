"""A Trackio server of one's own, by the HTTP API that its client speaks.

Not by its client: that keeps what it cannot send in a folder that ends with the pod, and says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from srlm_contract.keys import canonical_json, sha256
from srlm_contract.spec.tracking import TrackioSpec

from .http import Http
from .tracker import Refused, Row, Sender, Series, State

_ENTRIES = 500


class Trackio:
    """One Trackio run, with the UID as its id. The server drops entries whose `log_id` it has."""

    name, pause = "tracking.trackio", 5.0

    def __init__(self, spec: TrackioSpec, sender: Sender) -> None:
        self._spec, self._sender = spec, sender
        self._http: Http | None = None

    def check(self) -> None:
        self._log([])

    def send(self, series: Series, rows: Sequence[Row]) -> None:
        entries = [self._entry(series, row) for row in rows]
        for start in range(0, len(entries), _ENTRIES):
            self._log(entries[start : start + _ENTRIES])

    def describe(self, settings: Mapping[str, str], state: State) -> None:
        """Settings come with the first entry of a run, and there is none before a training."""

    def close(self) -> None:
        if self._http is not None:
            self._http.close()

    def _entry(self, series: Series, row: Row) -> dict[str, Any]:
        run = self._sender.run
        # A repeated step of a training stays what it was; a figure that changed is a new one.
        same = series.key or sha256(canonical_json(dict(row)))
        return {
            "project": self._spec.project,
            "run": self._sender.title,
            "run_id": run.uid,
            "step": int(row["step"]),
            # JSON has no form for others, and the server refuses the whole request.
            "metrics": {f"{series.name}/{name}": v for name, v in row.items() if name != "step" and isfinite(v)},
            "log_id": sha256(f"{run.uid} {series.name} {same} {row['step']:.0f}".encode())[7:39],
        }

    def _log(self, entries: list[dict[str, Any]]) -> None:
        if self._http is None:
            token = self._sender.secret("TRACKIO_WRITE_TOKEN", "tracking.trackio.writeTokenSecretRef")
            self._http = Http(self._spec.server_url, headers={"X-Trackio-Write-Token": token})
        body = {"args": [], "kwargs": {"logs": entries, "hf_token": None}}
        answer = self._http.post("api/bulk_log", body)
        if isinstance(answer, dict) and answer.get("error"):
            raise Refused(str(answer["error"]))
