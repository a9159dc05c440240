"""`srlm model | chat | push`: what a run has made, out of its store; API server and S3 server are real."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from srlm_cli.models.push import target
from srlm_contract.artifacts.artifacts import ArtifactStore
from srlm_contract.artifacts.commits import Produced
from srlm_contract.artifacts.manifest import Producer
from srlm_contract.artifacts.s3 import S3Store
from srlm_contract.spec.storage import Place
from srlm_contract.tasks import RunIdentity
from srlm_operator.cluster.client import RUNS
from srlm_operator.errors import ConfigurationError
from support.cluster.admin import SECRETS
from support.cluster.harness import SHORT, Harness
from support.person import AT_A_TERMINAL, become, srlm
from support.s3_world import WRITER, Server

pytestmark = [pytest.mark.one_machine("the store is on this machine"), pytest.mark.usefixtures("stranger")]

Fill = Callable[[Path], object]


def weights(text: str) -> Fill:
    """Writes files that pass for a model."""

    def fill(folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_text(text)
        (folder / "README.md").write_text("# A model")

    return fill


async def finish(h: Harness, s3: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *models: Fill) -> Place:
    """A run whose status says that it made these models, M1 first; they lie in its store."""
    await become(h, "fetch", monkeypatch)
    await h.put(SECRETS, "s3", data={k: base64.b64encode(v.encode()).decode() for k, v in WRITER.environ.items()})
    place = Place(uri=f"s3://made/{tmp_path.name}", endpoint_url=s3.url, addressing_style="Path", region="us-east-1")
    store = S3Store.open(place, attempts=1, credentials=WRITER.environ)
    producer = Producer(run=RunIdentity(namespace="team", name="run", uid="1"), pod_uid="pod-1")
    artifacts = ArtifactStore(store, producer=producer, scratch=tmp_path)
    made = []
    for number, fill in enumerate(models, 1):
        folder, key = tmp_path / f"made-{number}", f"{number}" * 24
        folder.mkdir()
        fill(folder)
        committed = artifacts.commit("train", key, Produced(folder, model=True))
        made.append(
            {
                "name": f"M{number}",
                "uri": store.uri(f"artifacts/train/{key}"),
                "stage": "train",
                "key": key,
                "contentDigest": committed.manifest.content_digest,
                "createdAt": "2026-01-01T00:00:00Z",
            }
        )
    run = await h.create(**SHORT, storage={**place.wire(), "credentialsSecretRef": {"name": "s3"}})
    await h.admin.write_status(RUNS, run, {"phase": "Succeeded" if made else "Running", "models": made})
    return place


def files(folder: str) -> dict[str, str]:
    """Content of each file, by name."""
    return {path.name: path.read_text() for path in Path(folder).iterdir()}


def lose(path: str) -> None:
    Path(path).unlink()


def write(path: str, text: str) -> None:
    Path(path).parent.mkdir(exist_ok=True)
    Path(path).write_text(text)


async def test_a_model_comes_out_whole_and_no_file_is_lost(
    h: Harness, s3: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    await finish(h, s3, tmp_path, monkeypatch, weights("one"), weights("two"))
    assert await srlm("model", "run") == 0
    out, err = capfd.readouterr()
    assert out == "run-M2\n"
    assert "M2 is whole: `vllm serve ./run-M2`" in err
    assert WRITER.secret_key not in out + err
    whole = {"config.json": "{}", "model.safetensors": "two", "README.md": "# A model"}
    assert files("run-M2") == whole

    lose("run-M2/model.safetensors")
    write("run-M2/model.safetensors.partial", "tw")
    assert await srlm("model", "run", "m2") == 0
    assert files("run-M2") == whole
    capfd.readouterr()

    assert await srlm("model", "run", "M1", "-o", "run-M2") == 1
    assert "run-M2/model.safetensors is not that of this model" in capfd.readouterr().err
    assert files("run-M2") == whole
    write("own/thesis.txt", "mine")
    assert await srlm("model", "run", "-o", "own") == 1
    assert "own holds thesis.txt, which is no file of this model" in capfd.readouterr().err
    assert files("own") == {"thesis.txt": "mine"}


async def test_what_is_not_there_is_named(
    h: Harness, s3: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    await finish(h, s3, tmp_path, monkeypatch, weights("one"))
    write("a-file", "of somebody's")
    for words, problem in (
        (["model", "run", "M4"], "run team/run has no model M4: there is M1"),
        (["model", "other"], "run other does not exist in namespace team"),
        (["model", "run", "-o", "a-file"], "a-file: "),
        (["push", "run", "--to", "owner/name"], "--to owner/name names no repository of a hub"),
        (["chat", "run", "--serving", "http://127.0.0.1:1/v1", "--model", "M1"], "leave --model and --against out"),
    ):
        assert await srlm(*words) == 1
        assert problem in capfd.readouterr().err
    store = S3Store.open(Place(uri="s3://made", endpoint_url=s3.url, addressing_style="Path"), attempts=1,
                         credentials=WRITER.environ)  # fmt: skip
    store.put(f"{tmp_path.name}/artifacts/train/{'1' * 24}/parts/pod-1/model.safetensors", b"two")
    assert await srlm("model", "run") == 1
    assert "model.safetensors has SHA-256" in capfd.readouterr().err


async def test_a_run_without_a_model(
    h: Harness, s3: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    await finish(h, s3, tmp_path, monkeypatch)
    assert await srlm("model", "run") == 1
    assert "run team/run has no finished model yet (it is Running)" in capfd.readouterr().err


async def test_ctrl_c_ends_it_though_the_store_hangs(
    h: Harness, s3: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await finish(h, s3, tmp_path, monkeypatch, weights("one"))
    asked = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        with suppress(ConnectionError):
            await reader.read()
        writer.close()

    async with await asyncio.start_server(hang, "127.0.0.1", 0) as store:
        url = f"http://127.0.0.1:{store.sockets[0].getsockname()[1]}"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", AT_A_TERMINAL, "model", "run", "--endpoint-url", url, stderr=asyncio.subprocess.PIPE
        )
        try:
            await asyncio.wait_for(asked.wait(), 60)
            process.send_signal(signal.SIGINT)
            _, err = await asyncio.wait_for(process.communicate(), 30)
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()
    assert process.returncode == 130
    assert err.decode().rstrip().endswith("stopped; the same command goes on from here")
    assert "Traceback" not in err.decode()


@pytest.mark.heavy
async def test_two_models_answer_side_by_side(
    h: Harness, s3: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from support.tiny_model import build_tiny_model

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    await finish(h, s3, tmp_path, monkeypatch, build_tiny_model, lambda folder: build_tiny_model(folder, seed=1))
    with (tmp_path / "typed").open("w+") as typed:
        typed.write("What is the capital of France?\n\n/new\nHi\n")
        typed.seek(0)
        monkeypatch.setattr("sys.stdin", typed)
        # The process that talks has the standard input of this one.
        kept = os.dup(0)
        try:
            os.dup2(typed.fileno(), 0)
            assert await srlm("chat", "run", "--against", "M1", "--max-tokens", "16", "--temperature", "0") == 0
        finally:
            os.dup2(kept, 0)
            os.close(kept)
    lines = capfd.readouterr().out.splitlines()
    assert [line.split(" ")[0] for line in lines if line.startswith(("M1 ", "M2 ", "("))] == [
        "M2",
        "M1",
        "(a",
        "M2",
        "M1",
    ]
    assert len(list((tmp_path / "cache/srlm/models").glob("*/complete.json"))) == 2


def test_targets() -> None:
    assert target("hf://owner/name") == ("owner/name", "")
    assert target("hf://owner/name@first") == ("owner/name", "first")
    for uri in ("hf://name", "hf:///name", "s3://owner/name", "hf://a/b/c", "hf://owner/"):
        with pytest.raises(ConfigurationError, match="write hf://OWNER/NAME"):
            target(uri)
