"""`srlm push` to a hub that speaks the protocol of huggingface.co, as far as an upload needs it."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from srlm_cli.models.push import prepare, refusals, upload
from srlm_operator.errors import ConfigurationError

TOKEN = "hf_" + "x" * 30


class Hub:
    """Takes every file as a small one; who has no token may do nothing."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, Any]] = {}
        self.branches: set[str] = {"main"}
        self.commits: list[tuple[str, str, dict[str, bytes]]] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.reply({"error": "Repository not found"}, 404)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                    self.reply({"error": "no write token"}, 403)
                    return
                *_, action, last = self.path.split("/")
                if self.path == "/api/repos/create":
                    wanted = json.loads(body)
                    name = f"{wanted['organization']}/{wanted['name']}"
                    hub.repositories[name] = wanted
                    self.reply({"url": f"{hub.url}/{name}"})
                elif action == "branch":
                    hub.branches.add(last)
                    self.reply({})
                elif last == "validate-yaml":  # of the model card
                    self.reply({"errors": [], "warnings": []})
                elif action == "preupload":
                    files = json.loads(body)["files"]
                    self.reply(
                        {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}
                    )
                else:
                    assert action == "commit", self.path
                    header, *lines = [json.loads(line) for line in body.splitlines()]
                    sent = {f["value"]["path"]: base64.b64decode(f["value"]["content"]) for f in lines}
                    hub.commits.append((last, header["value"]["summary"], sent))
                    answer = {"commitUrl": f"{hub.url}/owner/name/commit/1", "commitOid": "1" * 40}
                    self.reply(answer)

            def reply(self, answer: Any, status: int = 200) -> None:
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"


@pytest.fixture
def hub() -> Iterator[Hub]:
    found = Hub()
    thread = threading.Thread(target=found.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield found
    found.http.shutdown()
    found.http.server_close()
    thread.join()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "M2"
    folder.mkdir()
    for name, text in {"README.md": "# M2", "model.safetensors": "weights"}.items():
        (folder / name).write_text(text)
    return folder


def push(hub: str, model: Path, name: str, branch: str, words: str, *, private: bool, token: str = TOKEN) -> None:
    """As the command does it, around the fetching."""
    with refusals(name):
        prepare(name, branch, private=private, hub=hub, token=token)
    with refusals(name):
        upload(model, name, branch, words, hub=hub, token=token)


def test_a_model_with_its_card(hub: Hub, model: Path) -> None:
    push(hub.url, model, "owner/name", "", "M2 of run team/run", private=True)
    assert hub.repositories["owner/name"]["visibility"] == "private"
    assert hub.commits == [("main", "M2 of run team/run", {"README.md": b"# M2", "model.safetensors": b"weights"})]


def test_a_branch(hub: Hub, model: Path) -> None:
    push(hub.url, model, "owner/name", "second", "M2", private=False)
    assert hub.repositories["owner/name"]["visibility"] == "public"
    assert "second" in hub.branches
    assert [commit[0] for commit in hub.commits] == ["second"]


def test_what_the_hub_refuses_is_said_without_the_token(hub: Hub, model: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"hf://owner/name: the hub refuses \(403\).*set HF_TOKEN") as problem:
        push(hub.url, model, "owner/name", "", "M2", private=True, token="hf_other")
    assert "hf_other" not in str(problem.value)
    assert hub.commits == []


def test_a_name_that_no_repository_can_have(hub: Hub, model: Path) -> None:
    with pytest.raises(ConfigurationError, match="hf://owner/no name: "):
        push(hub.url, model, "owner/no name", "", "M2", private=True)


def test_a_hub_that_is_not_there(model: Path) -> None:
    with pytest.raises(ConfigurationError, match="hf://owner/name: "):
        push("http://127.0.0.1:9", model, "owner/name", "", "M2", private=True)
