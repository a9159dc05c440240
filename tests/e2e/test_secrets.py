"""No secret value appears anywhere but in Secrets and in the environment of the containers that need it.

Stages run for real with the store's own key, a judge's API key, a hub's token and a wrong store key; the judge and the
hub repeat what they were sent, as some do. Then everything is searched.
"""

from __future__ import annotations

import base64
import contextlib
import json
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from e2e.machine import Machine, machine
from e2e.runs import manifests, small_run
from srlm_local.ports import free_port
from srlm_operator.cluster.client import bearer
from support.judge_server import JudgeServer, judge_server, said

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

JUDGE_KEY, HUB_TOKEN, WRONG_KEY = "canary-judge-4c1f", "hf_canaryHub7d20", "canary/wrong+key=9e"
#: Not secret: shows that the search sees what is there.
VISIBLE = "canary-visible-0b5e"
#: What the cluster itself must keep: the API server's objects, the store's accounts, its keys for the next start.
OWN_FILES = ("state/", "s3/accounts.json", "settings.json")


class Hub(ThreadingHTTPServer):
    """Refuses everybody, and says what it was sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Refusal)
        self.daemon_threads = True
        self.seen: set[str] = set()


class Refusal(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        sent = self.headers.get("Authorization", "")
        self.server.seen.add(sent)  # type: ignore[attr-defined]
        body = json.dumps({"error": f"token {sent} has no access"}).encode()
        self.send_response(403)
        self.send_header("X-Error-Message", f"token {sent} has no access")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *arguments: Any) -> None:
        """No log."""


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    running = Hub()
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield running
    running.shutdown()
    running.server_close()


@pytest.fixture(scope="module")
def judge() -> Iterator[JudgeServer]:
    def answer(body: dict[str, Any], number: int) -> tuple[int, Any]:
        if body["model"] == "refuses":
            return 401, {"error": f"Incorrect API key provided: {JUDGE_KEY}"}
        return said("Score: 3")

    with judge_server(answer) as server:
        yield server


class Searched:
    """The cluster after its runs, as text by place."""

    def __init__(self, cluster: Machine, port: int) -> None:
        self.cluster = cluster
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            self.metrics = answer.read().decode()
        self.objects = dict(self._objects())
        self.logs = dict(self._logs())

    def _objects(self) -> Iterator[tuple[str, str]]:
        """Every object of every kind that can be listed, but for Secrets."""
        groups = self._get("/apis")["groups"]
        for root in ["/api/v1", *(f"/apis/{group['preferredVersion']['groupVersion']}" for group in groups)]:
            for kind in self._get(root)["resources"]:
                if "list" in kind["verbs"] and kind["name"] != "secrets":
                    yield f"{root}/{kind['name']}", json.dumps(self._get(f"{root}/{kind['name']}"))

    def _get(self, path: str) -> Any:
        configuration = self.cluster.api.configuration
        headers = {"Authorization": bearer(configuration)}
        answer = self.cluster.api.call_api("GET", configuration.host + path, header_params=headers)
        answer.read()
        assert answer.status == 200, path
        return json.loads(answer.data)

    def _logs(self) -> Iterator[tuple[str, str]]:
        for pod in self.cluster.core.list_pod_for_all_namespaces().items:
            name = pod.metadata.name
            with contextlib.suppress(Exception):  # a pod without a container yet has no log
                yield f"log of {name}", self.cluster.core.read_namespaced_pod_log(name, pod.metadata.namespace)

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Logs, termination messages: all that the cluster keeps on disk."""
        for path in sorted(self.cluster.folder.rglob("*")):
            name = str(path.relative_to(self.cluster.folder))
            if path.is_file() and not name.startswith(OWN_FILES):
                yield name, path.read_bytes()

    def stored(self) -> Iterator[tuple[str, bytes]]:
        """Every object of the store, whose own files are compressed."""
        client, bucket = self.cluster.s3(), self.cluster.storage()["uri"].removeprefix("s3://")
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
            for found in page.get("Contents", []):
                yield f"s3://{found['Key']}", client.get_object(Bucket=bucket, Key=found["Key"])["Body"].read()

    def commands(self) -> Iterator[tuple[str, str]]:
        for process in self.cluster.descendants():
            with contextlib.suppress(psutil.Error):
                yield f"command {process.pid}", " ".join(process.cmdline())

    def places(self) -> Iterator[tuple[str, bytes]]:
        yield "metrics", self.metrics.encode()
        for place, text in [*self.objects.items(), *self.logs.items(), *self.commands()]:
            yield place, text.encode()
        yield from self.files()
        yield from self.stored()

    def find(self, text: str) -> list[str]:
        """Places that have it, plainly or in Base64."""
        spellings = (text.encode(), base64.b64encode(text.encode()), text.encode().hex().encode())
        return [place for place, content in self.places() if any(spelling in content for spelling in spellings)]


@pytest.fixture(scope="module")
def searched(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, hub: Hub, judge: JudgeServer
) -> Iterator[Searched]:
    folder, port = tmp_path_factory.mktemp("secrets"), free_port()
    pool = folder / "pool.txt"
    pool.write_text("\n".join(f"Tell me about {VISIBLE} and river number {n} please" for n in range(8)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SRLM_HEALTH_PORT", str(port))
        with machine(folder / "cluster") as cluster:
            plant(cluster)
            run_all(cluster, tiny_model, pool, judge.url, f"http://127.0.0.1:{hub.server_address[1]}")
            yield Searched(cluster, port)


def plant(cluster: Machine) -> None:
    keys = cluster.core.read_namespaced_secret(cluster.storage()["credentialsSecretRef"]["name"], "default").data
    secrets = {
        "judge-key": {"key": JUDGE_KEY},
        "hub-token": {"token": HUB_TOKEN},
        "wrong": {"AWS_ACCESS_KEY_ID": base64.b64decode(keys["AWS_ACCESS_KEY_ID"]).decode(),
                  "AWS_SECRET_ACCESS_KEY": WRONG_KEY, "AWS_SESSION_TOKEN": WRONG_KEY},
    }  # fmt: skip
    for name, data in secrets.items():
        cluster.core.create_namespaced_secret("default", {"metadata": {"name": name}, "stringData": data})


def run_all(cluster: Machine, model: Path, pool: Path, judge: str, hub: str) -> None:
    """Runs that end at the judge, at the hub and at the store: nothing is trained."""

    def run(name: str, judge_model: str = "same") -> dict[str, Any]:
        made = small_run(cluster, name, model, prefix="secrets")
        spec = made["spec"]
        spec["iterations"] = 1
        spec["baseModel"]["tokenSecretRef"] = {"name": "hub-token", "key": "token"}
        spec["bootstrap"] = {"strategy": "None"}
        spec["seedData"]["eft"] = {"enabled": False}
        spec["prompts"] |= {"generator": {"source": "Pool", "uri": pool.as_uri()}}
        spec["generation"]["shards"] = 1
        spec["evaluation"] = {"enabled": False}
        spec["judging"] |= {
            "constrain": "None",
            "unconstrainedSample": 0,
            "external": {"url": judge, "model": judge_model, "apiKeySecretRef": {"name": "judge-key", "key": "key"}},
        }
        spec["failurePolicy"] = {"maxAttempts": 1, "backoffSeconds": 0}
        return made

    def stalled(name: str, reason: str) -> None:
        found = cluster.until(lambda: cluster.condition(name, "Stalled"), 240, f"{name} is not Stalled")
        assert found["reason"] == reason, found

    no_store = run("no-store")
    no_store["spec"]["storage"]["credentialsSecretRef"] = {"name": "wrong"}
    no_hub = run("no-hub")
    no_hub["spec"]["baseModel"]["uri"] = "hf://owner/private"
    variable = {"name": "HF_ENDPOINT", "value": hub}
    no_hub["spec"]["podTemplate"] = {"spec": {"containers": [{"name": "stage", "env": [variable]}]}}
    for made in (no_store, no_hub, run("judged")):
        cluster.apply(made)
    stalled("no-store", "StorageNotPermitted")
    stalled("no-hub", "NotPermitted")
    stalled("judged", "NoPairs")
    cluster.apply(run("no-judge", "refuses"))
    stalled("no-judge", "NotPermitted")
    cluster.until(lambda: told(cluster, "no-judge"), 60, "no event says what the judge's server answered")


def told(cluster: Machine, run: str) -> bool:
    """Whether the event of the refusal is there: the operator writes it after the status."""
    events = cluster.core.list_namespaced_event("default").items
    return any(event.involved_object.name == run and "Incorrect API key" in event.message for event in events)


def test_the_secrets_were_used(searched: Searched, hub: Hub, judge: JudgeServer) -> None:
    assert judge.keys == {f"Bearer {JUDGE_KEY}"}
    assert f"Bearer {HUB_TOKEN}" in hub.seen
    assert {key.split("/")[2] for key in manifests(searched.cluster, "secrets")} >= {"data", "prompts", "judge"}


def test_the_search_sees_every_kind_of_place(searched: Searched) -> None:
    assert any(place.startswith("s3://") for place in searched.find(VISIBLE)), "what stages wrote"
    assert "logs/operator.log" in searched.find("operator is running")
    assert {"/api/v1/pods", "/apis/batch/v1/jobs", "metrics"} <= set(searched.find("no-judge"))
    places = searched.find("Incorrect API key provided: [SRLM_JUDGE_API_KEY]")
    assert any(place.startswith("log of srr-no-judge") for place in places)
    assert any(place.startswith("node/") for place in places), "the pods' own files"
    assert {"/api/v1/pods", "/api/v1/events"} <= set(places), "the termination message and the event"
    assert "/apis/selfrewarding.dev/v1alpha1/selfrewardingruns" in places


@pytest.mark.parametrize("secret", [JUDGE_KEY, HUB_TOKEN, WRONG_KEY])
def test_no_secret_value_is_anywhere(searched: Searched, secret: str) -> None:
    assert searched.find(secret) == []


def test_the_key_of_the_store_is_nowhere(searched: Searched) -> None:
    name = searched.cluster.storage()["credentialsSecretRef"]["name"]
    data = searched.cluster.core.read_namespaced_secret(name, "default").data
    secret = base64.b64decode(data["AWS_SECRET_ACCESS_KEY"]).decode()
    assert len(secret) >= 16
    assert searched.find(secret) == []
