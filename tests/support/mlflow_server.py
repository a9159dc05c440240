"""A tracking server of MLflow on this machine: the routes and handlers of its own package, over a folder of files."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

_SERVER = """
import sys
from werkzeug.serving import make_server
from mlflow.server import app

server = make_server("127.0.0.1", 0, app, threaded=True)
print(server.server_port, flush=True)
server.serve_forever()
"""


@dataclass(frozen=True)
class MlflowServer:
    url: str

    def ask(self, path: str, **body: Any) -> dict[str, Any]:
        answer = httpx.post(f"{self.url}/api/2.0/mlflow/{path}", json=body)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def runs(self) -> list[dict[str, Any]]:
        """Of all experiments, the oldest first."""
        experiments = self.ask("experiments/search", max_results=100)["experiments"]
        ids = [experiment["experiment_id"] for experiment in experiments]
        found: list[dict[str, Any]] = self.ask("runs/search", experiment_ids=ids).get("runs", [])
        return sorted(found, key=lambda run: run["info"]["start_time"])

    def run(self, name: str) -> dict[str, Any]:
        """The only run of that name."""
        (found,) = [run for run in self.runs() if run["info"]["run_name"] == name]
        return found

    def curve(self, name: str, metric: str) -> list[tuple[int, float]]:
        """(step, value) in the order in which they came."""
        query = {"run_id": self.run(name)["info"]["run_id"], "metric_key": metric}
        answer = httpx.get(f"{self.url}/api/2.0/mlflow/metrics/get-history", params=query).json()
        return [(point["step"], float(point["value"])) for point in answer.get("metrics", ())]


@contextmanager
def mlflow_server(folder: Path) -> Iterator[MlflowServer]:
    """The server until the block ends; its runs lie in `folder`."""
    settings = {
        "_MLFLOW_SERVER_FILE_STORE": str(folder),
        "_MLFLOW_SERVER_ARTIFACT_ROOT": str(folder),
        "MLFLOW_ALLOW_FILE_STORE": "true",  # a database takes 10 s to be set up, and answers alike
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    with (folder / "server.log").open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-c", _SERVER], env={**os.environ, **settings}, stdout=subprocess.PIPE, stderr=log
        )
        try:
            assert child.stdout is not None
            port = child.stdout.readline().strip()
            assert port, (folder / "server.log").read_text()
            yield MlflowServer(f"http://127.0.0.1:{int(port)}")
        finally:
            child.kill()
            child.communicate()
