"""A one-machine cluster in a process of its own, and the few calls the end-to-end tests make of it.

Everything goes over the wire: the Kubernetes API by its official client, S3 by boto3, the operator by signals.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import psutil
from kubernetes import client, config

GROUP, VERSION, PLURAL = "selfrewarding.dev", "v1alpha1", "selfrewardingruns"


class Machine:
    """`srlm local up` on a folder."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        self.arguments = arguments
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start and wait until the API answers."""
        self.log = (self.folder / "up.log").open("ab")
        command = [sys.executable, "-m", "srlm_cli", "local", "up", "--folder", str(self.folder)]
        self.process = subprocess.Popen([*command, *self.arguments], stdout=self.log, stderr=self.log)
        self.until(self._answers, 60, "the API server does not answer")
        self.api = client.ApiClient(self._configuration())
        self.runs = client.CustomObjectsApi(self.api)
        self.core = client.CoreV1Api(self.api)
        self.batch = client.BatchV1Api(self.api)

    def _configuration(self) -> client.Configuration:
        configuration = client.Configuration()
        config.load_kube_config(str(self.folder / "kubeconfig"), client_configuration=configuration)
        return configuration

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "up.log").read_text()[-4000:]
        with contextlib.suppress(Exception):
            api = client.ApiClient(self._configuration())
            client.ApiextensionsV1Api(api).read_custom_resource_definition(f"{PLURAL}.{GROUP}")
            return True
        return False

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it as a person would (SIGTERM) or as a power cut would (SIGKILL)."""
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(60)
        self.log.close()

    def descendants(self) -> list[psutil.Process]:
        """Every process of the cluster besides itself."""
        assert self.process is not None
        return psutil.Process(self.process.pid).children(recursive=True)

    def operator(self) -> psutil.Process | None:
        """The operator's process."""
        for process in self.descendants():
            with contextlib.suppress(psutil.Error):
                line = process.cmdline()
                if "operator" in line and any("srlm_operator" in part for part in line):
                    return process
        return None

    def until(self, done: Callable[[], Any], seconds: float, what: str) -> Any:
        """Poll until `done` gives something true."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if value := done():
                return value
            time.sleep(0.2)
        raise AssertionError(f"{what} within {seconds} s\n" + self.describe())

    def describe(self) -> str:
        """What a failed test needs: runs, Jobs, and the logs of failed pods."""
        lines = []
        for run in self.runs.list_cluster_custom_object(GROUP, VERSION, PLURAL)["items"]:
            lines.append(json.dumps(run.get("status", {}), indent=1)[:6000])
        for pod in self.core.list_pod_for_all_namespaces().items:
            if pod.status.phase in ("Failed", "Running"):
                with contextlib.suppress(Exception):
                    log = self.core.read_namespaced_pod_log(pod.metadata.name, pod.metadata.namespace, tail_lines=25)
                    lines.append(f"--- {pod.metadata.name} {pod.status.phase}\n{log}")
        return "\n".join(lines) + "\n" + (self.folder / "up.log").read_text()[-3000:]

    # ---- runs

    def apply(self, run: dict[str, Any], namespace: str = "default") -> dict[str, Any]:
        """Create a run."""
        created: dict[str, Any] = self.runs.create_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL, run)
        return created

    def get(self, name: str, namespace: str = "default") -> dict[str, Any]:
        found: dict[str, Any] = self.runs.get_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL, name)
        return found

    def patch(self, name: str, body: dict[str, Any], namespace: str = "default") -> None:
        self.runs.patch_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL, name, body)

    def delete(self, name: str, namespace: str = "default") -> None:
        self.runs.delete_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL, name)

    def jobs(self, **labels: str) -> list[Any]:
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        found: list[Any] = self.batch.list_job_for_all_namespaces(label_selector=selector).items
        return found

    def condition(self, name: str, kind: str) -> dict[str, Any] | None:
        conditions = self.get(name).get("status", {}).get("conditions", [])
        return next((c for c in conditions if c["type"] == kind), None)

    def finished(self, name: str) -> str | None:
        """Phase of a run that has ended."""
        phase = self.get(name).get("status", {}).get("phase")
        return phase if phase in ("Succeeded", "Failed", "Held") else None

    # ---- storage

    def storage(self) -> dict[str, Any]:
        """`spec.storage` of a run, as the cluster tells it, without the prefix of a run."""
        found: dict[str, Any] = json.loads((self.folder / "storage.json").read_text())
        return found

    def s3(self) -> Any:
        storage = self.storage()
        secret = self.core.read_namespaced_secret(storage["credentialsSecretRef"]["name"], "default").data
        decoded = {key: base64.b64decode(value).decode() for key, value in secret.items()}
        return boto3.client(
            "s3",
            endpoint_url=storage["endpointUrl"],
            region_name="us-east-1",
            aws_access_key_id=decoded["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=decoded["AWS_SECRET_ACCESS_KEY"],
        )


@contextlib.contextmanager
def machine(folder: Path, *arguments: str) -> Iterator[Machine]:
    """A running one-machine cluster; at the end no process of it may be left."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Machine(folder, *arguments)
    made.start()
    try:
        yield made
    finally:
        left = [p.pid for p in made.descendants()] if made.process and made.process.poll() is None else []
        if made.process and made.process.poll() is None:
            made.stop()
        alive = [pid for pid in left if psutil.pid_exists(pid)]
        for pid in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert not alive, f"processes outlived the cluster: {alive}"
