"""`srlm report` over HTTP: the API server, its rights, the operator and an S3 server are real, pods are scripted."""

from __future__ import annotations

import asyncio
import base64
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from srlm_cli import main
from srlm_cli import report as command
from srlm_contract.tasks import ReportParams, StageTask
from support.cluster.admin import CONFIG_MAPS, SECRETS
from support.cluster.harness import SHORT, Harness, harness
from support.person import become
from support.s3_world import WRITER, Server
from support.stage_script import Ending, error

KEYS = WRITER.environ
EVENTS = "events.out.tfevents.0.srlm"
STRAYS = (".ssh/authorized_keys", "figures/notes.txt", f"a/b/c/{EVENTS}")


@pytest.fixture(autouse=True)
def impatient(stranger: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "POLL_SECONDS", 0.05)


@pytest.fixture
def wired(tmp_path: Path) -> Callable[[], Any]:
    return lambda: harness(tmp_path)


async def prepare(
    h: Harness, s3: Server, monkeypatch: pytest.MonkeyPatch, role: str = "fetch", **storage: Any
) -> dict[str, Any]:
    """The Secret, reports that are written to S3, and a person with a role's rights. Returns a run's storage."""
    secret = {key: base64.b64encode(value.encode()).decode() for key, value in KEYS.items()}
    await h.put(SECRETS, "s3", data=secret)

    def write(task: StageTask) -> None:
        assert isinstance(task.params, ReportParams)
        prefix = task.storage.uri.removeprefix("s3://made/")
        body = f"report {len(h.pods.stages.reports)} at {task.params.status.get('stage', '')}".encode()
        key = f"{prefix}/runs/{task.run.namespace}/{task.run.name}/report.html"
        s3.client().put_object(Bucket="made", Key=key, Body=body)
        events = key.replace("report.html", f"tensorboard/M2/train/{EVENTS}")
        # Who may write to the store must not write to a reader's disk.
        strays = [key.replace("report.html", f"tensorboard/{stray}") for stray in STRAYS]
        for name in (events, *strays):
            s3.client().put_object(Bucket="made", Key=name, Body=b"events")

    h.pods.stages.on_report = write
    await become(h, role, monkeypatch)
    return {
        "uri": f"s3://made/{h.folder.name}",
        "endpointUrl": s3.url,
        "credentialsSecretRef": {"name": "s3"},
        **storage,
    }


def files(folder: str) -> list[str]:
    return [str(path) for path in Path(folder).rglob("*") if path.is_file()]


def saved(name: str) -> str:
    return Path(name).read_text()


async def srlm_report(*arguments: str) -> int:
    return await asyncio.to_thread(main, ["report", "run", *arguments])


async def test_report_of_a_finished_run(
    wired: Any, s3: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async with wired() as h:
        await h.start()
        await h.create(**SHORT, storage=await prepare(h, s3, monkeypatch))
        await h.until(h.reported)
        assert await srlm_report() == 0
        assert saved("run-report.html") == "report 2 at "
        assert await srlm_report("-n", "team", "-o", "-", "--events", "curves") == 0
        assert saved(f"curves/M2/train/{EVENTS}") == "events"
        assert files("curves") == [f"curves/M2/train/{EVENTS}"]
        out, err = capfd.readouterr()
        assert out == "report 3 at "
        assert "s3://made/" in err
        assert WRITER.secret_key not in out + err
        assert h.status()["phase"] == "Succeeded"


async def test_report_of_an_unfinished_run(wired: Any, s3: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async with wired() as h:
        await h.start()
        h.pods.held.add("train")
        await h.create(**SHORT, storage=await prepare(h, s3, monkeypatch))
        await h.until(lambda: h.status().get("stage") == "train")
        assert await srlm_report("-o", "now.html") == 0
        assert saved("now.html") == "report 1 at train"
        assert h.status()["phase"] == "Running"


async def test_report_of_a_failed_run(wired: Any, s3: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async with wired() as h:
        h.pods.stages.fail("train", error(65, "InputTooLong", "no row fits"))
        await h.start()
        await h.create(**SHORT, storage=await prepare(h, s3, monkeypatch))
        await h.until(h.reported)
        assert h.status()["phase"] == "Failed"
        assert await srlm_report() == 0
        assert len(h.pods.stages.reports) == 2


async def test_own_credentials_come_first_and_the_secret_where_they_are_refused(
    wired: Any, s3: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async with wired() as h:
        await h.start()
        await h.create(**SHORT, storage=await prepare(h, s3, monkeypatch))
        await h.until(h.reported)
        for name, value in KEYS.items():
            monkeypatch.setenv(name, value + "-of-another-account")
        assert await srlm_report() == 0
        await h.admin.delete(SECRETS, h.namespace, "s3")
        capfd.readouterr()
        assert await srlm_report() == 1
        assert "Secret team/s3, which the run names, does not exist" in capfd.readouterr().err
        for name, value in KEYS.items():
            monkeypatch.setenv(name, value)
        assert await srlm_report() == 0


async def test_missing_rights_are_named(
    wired: Any, s3: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async with wired() as h:
        await h.start()
        await h.create(**SHORT, storage=await prepare(h, s3, monkeypatch, "read"))
        await h.until(h.reported)
        assert await srlm_report() == 1
        assert "may not change run team/run" in capfd.readouterr().err
        await become(h, "ask", monkeypatch)
        assert await srlm_report() == 1
        text = capfd.readouterr().err
        assert "Secret team/s3 cannot be read" in text
        assert "AWS_PROFILE" in text
        assert len(h.pods.stages.reports) == 2


async def test_an_absent_run_and_an_absent_operator(
    wired: Any, s3: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async with wired() as h:
        storage = await prepare(h, s3, monkeypatch)
        assert await srlm_report() == 1
        assert "run run does not exist in namespace team" in capfd.readouterr().err
        await h.create(**SHORT, storage=storage)
        assert await srlm_report("--timeout", "0.3") == 1
        assert "the operator has not reacted" in capfd.readouterr().err
        assert await srlm_report("--no-wait") == 0
        assert "/runs/team/run/report.html" in capfd.readouterr().err


async def test_a_report_that_fails_and_one_that_hangs(
    wired: Any, s3: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async with wired() as h:
        await h.start()
        await h.create(**SHORT, storage=await prepare(h, s3, monkeypatch), failurePolicy={"maxAttempts": 1})
        await h.until(h.reported)
        h.pods.stages.fail("report", Ending(1, "no plot for you"))
        assert await srlm_report() == 1
        assert "failed: Crashed" in (text := capfd.readouterr().err)
        assert "no plot for you" in text
        h.pods.held.add("report")
        assert await srlm_report("--timeout", "1") == 1
        assert "there is no report of team/run after 1 s (report: " in capfd.readouterr().err


async def test_a_suspended_run_gives_its_last_report(
    wired: Any, s3: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async with wired() as h:
        await h.start()
        storage = await prepare(h, s3, monkeypatch)
        await h.create(**SHORT, storage=storage, suspend=True)
        await h.until(lambda: h.status().get("phase") == "Suspended")
        assert await srlm_report() == 1
        assert "has no report yet" in capfd.readouterr().err
        await h.edit({"suspend": False})
        await h.until(h.reported)
        await h.edit({"suspend": True})
        assert await srlm_report() == 0
        assert saved("run-report.html") == "report 1 at "
        assert len(h.pods.stages.reports) == 1


async def test_without_boto3_the_place_is_named(
    wired: Any, s3: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async with wired() as h:
        await h.start()
        await h.create(**SHORT, storage=await prepare(h, s3, monkeypatch))
        await h.until(h.reported)
        monkeypatch.delitem(sys.modules, "srlm_contract.artifacts.s3")
        monkeypatch.setitem(sys.modules, "boto3", None)
        assert await srlm_report() == 1
        text = capfd.readouterr().err
        assert "pip install boto3" in text
        assert f"s3://made/{h.folder.name}/runs/team/run/report.html" in text


async def test_an_endpoint_that_is_not_reached_may_be_given(
    wired: Any, s3: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async with wired() as h:
        await h.start()
        storage = await prepare(h, s3, monkeypatch, endpointUrl="http://127.0.0.1:9")
        await h.create(**SHORT, storage=storage)
        await h.until(h.reported)
        assert await srlm_report() == 1
        assert "pass --endpoint-url" in capfd.readouterr().err
        assert await srlm_report("--endpoint-url", s3.url) == 0


async def test_the_authority_of_the_store_comes_from_the_runs_configmap(
    wired: Any, s3: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async with wired() as h:
        await h.start()
        await h.create(
            **SHORT, storage=await prepare(h, s3, monkeypatch, caBundleRef={"name": "corp-ca", "key": "ca.crt"})
        )
        await h.until(h.reported)
        assert await srlm_report() == 1
        assert "ConfigMap team/corp-ca, which the run names, does not exist" in capfd.readouterr().err
        await h.put(CONFIG_MAPS, "corp-ca", data={"other": "x"})
        assert await srlm_report() == 1
        assert "ConfigMap team/corp-ca has no key ca.crt" in capfd.readouterr().err
        await h.put(CONFIG_MAPS, "corp-ca", data={"ca.crt": "-----BEGIN CERTIFICATE-----"})
        assert await srlm_report() == 0
