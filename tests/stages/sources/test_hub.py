"""Base models and seed data of the Hugging Face Hub, against a hub that answers on this machine."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from srlm_contract.tasks import PreflightParams, RunIdentity, StageResult, StageTask, StorageLocation
from support.s3_world import WRITER, Server, server
from support.tiny_model import build_tiny_model

pytestmark = pytest.mark.heavy
COMMIT = "0123456789abcdef0123456789abcdef01234567"
REVISIONS = ("main", "v1", COMMIT)


class Hub(ThreadingHTTPServer):
    """Repositories as {"models/owner/name": folder}; `refusals` answers with a status and an error code."""

    def __init__(self, repositories: dict[str, Path]) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.repositories = repositories
        self.refusals: dict[str, tuple[int, str]] = {}
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Answer(BaseHTTPRequestHandler):
    """The few requests of the hub's API that matter here."""

    server: Hub

    def log_message(self, *arguments: Any) -> None:
        """No log."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        for name, folder in self.server.repositories.items():
            owner = name.removeprefix("models/")
            if path == f"/api/{name}":
                path += "/revision/main"
            for begin, file_of in ((f"/api/{name}/revision/", None), (f"/{owner}/resolve/", folder)):
                if path.startswith(begin):
                    self.repository(name, folder, path.removeprefix(begin), file_of is not None)
                    return
        self.refuse(404, "RepoNotFound")

    def repository(self, name: str, folder: Path, rest: str, resolve: bool) -> None:
        if name in self.server.refusals:
            self.refuse(*self.server.refusals[name])
        elif rest.partition("/")[0] not in REVISIONS:
            self.refuse(404, "RevisionNotFound")
        elif resolve:
            file = folder / rest.partition("/")[2]
            self.send(file.read_bytes()) if file.is_file() else self.refuse(404, "EntryNotFound")
        else:
            files = [{"rfilename": p.name, "size": p.stat().st_size} for p in sorted(folder.iterdir())]
            self.send(json.dumps({"id": name.partition("/")[2], "sha": COMMIT, "siblings": files}).encode())

    def send(self, data: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{hash(data)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", f"the hub says {code}")
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    folder = tmp_path_factory.mktemp("hub")
    build_tiny_model(folder / "tiny", context=4096)
    (folder / "trees").mkdir()
    rows = [
        {"prompt": {"text": f"Q{i}?", "lang": "en", "replies": [
            {"text": f"a{i}.{rank}", "lang": "en", "rank": rank} for rank in (0, 1)]}}
        for i in range(30)
    ]  # fmt: skip
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    (folder / "trees" / "2023_oasst_ready.trees.jsonl.gz").write_bytes(gzip.compress(text))
    (folder / "trees" / "README.md").write_text("about")
    running = Hub({"models/owner/tiny": folder / "tiny", "datasets/owner/trees": folder / "trees"})
    yield running
    running.shutdown()
    running.server_close()


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server(tmp_path_factory.mktemp("s3")) as made:
        yield made


def preflight(tmp_path: Path, endpoint: str, s3: Server, model: str = "hf://owner/tiny") -> tuple[int, StageResult]:
    """In a process of its own: the hub's library reads its endpoint when it is imported."""
    storage, url = f"s3://made/{tmp_path.name}", s3.url
    spec = {
        "baseModel": {"uri": model}, "seedData": {"uri": "hf://owner/trees"},
        "storage": {"uri": storage, "endpointUrl": url},
    }  # fmt: skip
    run = RunIdentity(namespace="default", name="hub", uid="1")
    params = PreflightParams.parse({"kind": "preflight", "spec": spec})
    task = StageTask(stage="preflight", run=run, params=params, storage=StorageLocation(uri=storage, endpoint_url=url))
    environ = os.environ | WRITER.environ | {
        "SRLM_TASK": task.model_dump_json(by_alias=True), "SRLM_TERMINATION_LOG": str(tmp_path / "log"),
        "SRLM_WORK_DIR": str(tmp_path / "work"), "SRLM_POD_UID": "pod", "HF_ENDPOINT": endpoint,
        "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1", "PYTHONPATH": os.pathsep.join(sys.path),
    }  # fmt: skip
    environ.pop("HF_HUB_OFFLINE", None)
    done = subprocess.run([sys.executable, "-m", "srlm_stages", "preflight"], env=environ, check=False)
    return done.returncode, StageResult.model_validate_json((tmp_path / "log").read_bytes())


def endpoint(hub: Hub) -> str:
    return f"http://127.0.0.1:{hub.server_address[1]}"


@pytest.mark.parametrize("revision", ["", "@v1"])
def test_a_commit_is_the_pin(tmp_path: Path, hub: Hub, s3: Server, revision: str) -> None:
    code, result = preflight(tmp_path, endpoint(hub), s3, f"hf://owner/tiny{revision}")
    assert code == 0, result.error
    assert result.pins is not None
    assert (result.pins.base_model.uri, result.pins.base_model.revision) == ("hf://owner/tiny", COMMIT)
    seed = result.pins.seed_data
    assert (seed.uri, seed.revision, seed.file) == ("hf://owner/trees", COMMIT, "2023_oasst_ready.trees.jsonl.gz")


@pytest.mark.parametrize(
    ("model", "refusal", "code", "reason", "says"),
    [
        ("hf://owner/nothing", None, 65, "ModelNotUsable", "does not exist on the hub, or is private"),
        ("hf://owner/tiny@unknown", None, 65, "ModelNotUsable", "no such revision"),
        ("hf://owner/tiny", (403, "GatedRepo"), 77, "NotPermitted", "accept its licence"),
        ("hf://owner/tiny", (403, ""), 77, "NotPermitted", "check baseModel.tokenSecretRef"),
        ("hf://owner/tiny", (503, ""), 75, "Temporary", "the hub failed for hf://owner/tiny"),
    ],
)
def test_what_the_hub_refuses(
    tmp_path: Path, hub: Hub, s3: Server, model: str, refusal: tuple[int, str] | None, code: int, reason: str,
    says: str,
) -> None:  # fmt: skip
    hub.refusals = {"models/owner/tiny": refusal} if refusal else {}
    try:
        exit_code, result = preflight(tmp_path, endpoint(hub), s3, model)
    finally:
        hub.refusals = {}
    assert result.error is not None
    assert (exit_code, result.error.reason) == (code, reason), result.error.message
    assert says in result.error.message


def test_no_hub_at_all_is_temporary(tmp_path: Path, s3: Server) -> None:
    code, result = preflight(tmp_path, "http://127.0.0.1:9", s3)
    assert result.error is not None
    assert (code, result.error.reason) == (75, "Temporary"), result.error.message
