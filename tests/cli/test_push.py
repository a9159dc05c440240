"""`srlm push` to a hub that speaks the protocol of huggingface.co, as far as an upload needs it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from srlm_cli.models.push import prepare, refusals, upload
from srlm_operator.errors import ConfigurationError
from support.http_server import QuietHandler, serving

TOKEN = "hf_" + "x" * 30


class Hub:
    """Takes every file as a small one; who has no token may do nothing."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, Any]] = {}
        self.branches: set[str] = {"main"}
        self.commits: list[tuple[str, str, dict[str, bytes]]] = []
        self.url = ""
        hub = self

        class Handler(QuietHandler):
            def do_GET(self) -> None:
                self.say({"error": "Repository not found"}, 404)

            def do_POST(self) -> None:
                body = self.body()
                if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                    self.say({"error": "no write token"}, 403)
                    return
                *_, action, last = self.path.split("/")
                if self.path == "/api/repos/create":
                    wanted = json.loads(body)
                    name = f"{wanted['organization']}/{wanted['name']}"
                    hub.repositories[name] = wanted
                    self.say({"url": f"{hub.url}/{name}"})
                elif action == "branch":
                    hub.branches.add(last)
                    self.say({})
                elif last == "validate-yaml":  # of the model card
                    self.say({"errors": [], "warnings": []})
                elif action == "preupload":
                    files = json.loads(body)["files"]
                    self.say(
                        {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}
                    )
                else:
                    assert action == "commit", self.path
                    header, *lines = [json.loads(line) for line in body.splitlines()]
                    sent = {f["value"]["path"]: base64.b64decode(f["value"]["content"]) for f in lines}
                    hub.commits.append((last, header["value"]["summary"], sent))
                    answer = {"commitUrl": f"{hub.url}/owner/name/commit/1", "commitOid": "1" * 40}
                    self.say(answer)

            def say(self, answer: Any, status: int = 200) -> None:
                self.reply(json.dumps(answer).encode(), status=status)

        self.handler = Handler


@pytest.fixture
def hub() -> Iterator[Hub]:
    found = Hub()
    with serving(found.handler) as found.url:
        yield found


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
