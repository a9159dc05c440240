"""`srlm report` over HTTP: the API server, its rights, the operator and an S3 server are real, pods are scripted."""

from __future__ import annotations

import asyncio
import base64
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from srlm_cli import download, main
from srlm_cli import report as command
from srlm_contract.tasks import ReportParams, StageTask
from support.s3_world import WRITER, Server, server
from support.stage_script import Ending, error
from support.wire import SHORT, Wire, wire

KEYS = WRITER.environ
RULES = {"read": [("selfrewarding.dev", "selfrewardingruns", ["get"])]}
RULES["ask"] = [("selfrewarding.dev", "selfrewardingruns", ["get", "patch"])]
RULES["fetch"] = [*RULES["ask"], ("", "secrets", ["get"]), ("", "configmaps", ["get"])]


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server(tmp_path_factory.mktemp("s3")) as made:
        yield made


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (*KEYS, *download._AMBIENT, "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "absent"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr(command, "POLL_SECONDS", 0.05)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def wired(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    return lambda: wire(tmp_path, monkeypatch)


def prepare(
    w: Wire, s3: Server, monkeypatch: pytest.MonkeyPatch, role: str = "fetch", **storage: Any
) -> dict[str, Any]:
    """The Secret, reports that are written to S3, and a person with a role's rights. Returns a run's storage."""
    secret = {key: base64.b64encode(value.encode()).decode() for key, value in KEYS.items()}
    w.cluster.create("secrets", {"metadata": {"name": "s3"}, "data": secret}, "default")

    def write(task: StageTask) -> None:
        assert isinstance(task.params, ReportParams)
        prefix = task.storage.uri.removeprefix("s3://made/")
        body = f"report {len(w.pods.stages.reports)} at {task.params.status.get('stage', '')}".encode()
        key = f"{prefix}/runs/{task.run.namespace}/{task.run.name}/report.html"
        s3.client().put_object(Bucket="made", Key=key, Body=body)

    w.pods.stages.on_report = write
    become(w, role, monkeypatch)
    return {
        "uri": f"s3://made/{w.folder.name}",
        "endpointUrl": s3.url,
        "credentialsSecretRef": {"name": "s3"},
        **storage,
    }


def become(w: Wire, role: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on KUBECONFIG is that of an account with these rights in namespace default."""
    account = w.cluster.create("serviceaccounts", {"metadata": {"name": role}}, "default")
    rules = [{"apiGroups": [g], "resources": [r], "verbs": verbs} for g, r, verbs in RULES[role]]
    rbac = "rbac.authorization.k8s.io"
    w.cluster.create(f"roles.{rbac}", {"metadata": {"name": role}, "rules": rules}, "default")
    binding = {
        "metadata": {"name": role},
        "roleRef": {"apiGroup": rbac, "kind": "Role", "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": role, "namespace": "default"}],
    }
    w.cluster.create(f"rolebindings.{rbac}", binding, "default")
    token, _ = w.server.tokens.issue(account, 3600)
    w.server.write_kubeconfig(w.folder / "person", token)
    monkeypatch.setenv("KUBECONFIG", str(w.folder / "person"))


def saved(name: str) -> str:
    return Path(name).read_text()


async def srlm_report(*arguments: str) -> int:
    return await asyncio.to_thread(main, ["report", "run", *arguments])


async def test_report_of_a_finished_run(
    wired: Any, s3: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async with wired() as w:
        await w.start_operator()
        w.apply(**SHORT, storage=prepare(w, s3, monkeypatch))
        await w.until(w.reported)
        assert await srlm_report() == 0
        assert saved("run-report.html") == "report 2 at "
        assert await srlm_report("-n", "default", "-o", "-") == 0
        out, err = capfd.readouterr()
        assert out == "report 3 at "
        assert "s3://made/" in err
        assert WRITER.secret_key not in out + err
        assert w.status()["phase"] == "Succeeded"


async def test_report_of_an_unfinished_run(wired: Any, s3: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async with wired() as w:
        await w.start_operator()
        w.pods.held.add("train")
        w.apply(**SHORT, storage=prepare(w, s3, monkeypatch))
        await w.until(lambda: w.status().get("stage") == "train")
        assert await srlm_report("-o", "now.html") == 0
        assert saved("now.html") == "report 1 at train"
        assert w.status()["phase"] == "Running"


async def test_report_of_a_failed_run(wired: Any, s3: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async with wired() as w:
        w.pods.stages.fail("train", error(65, "InputTooLong", "no row fits"))
        await w.start_operator()
        w.apply(**SHORT, storage=prepare(w, s3, monkeypatch))
        await w.until(w.reported)
        assert w.status()["phase"] == "Failed"
        assert await srlm_report() == 0
        assert len(w.pods.stages.reports) == 2


async def test_own_credentials_come_first_and_the_secret_where_they_are_refused(
    wired: Any, s3: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async with wired() as w:
        await w.start_operator()
        w.apply(**SHORT, storage=prepare(w, s3, monkeypatch))
        await w.until(w.reported)
        for name, value in KEYS.items():
            monkeypatch.setenv(name, value + "-of-another-account")
        assert await srlm_report() == 0
        w.cluster.delete("secrets", "s3", "default")
        capfd.readouterr()
        assert await srlm_report() == 1
        assert "Secret default/s3, which the run names, does not exist" in capfd.readouterr().err
        for name, value in KEYS.items():
            monkeypatch.setenv(name, value)
        assert await srlm_report() == 0


async def test_missing_rights_are_named(
    wired: Any, s3: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async with wired() as w:
        await w.start_operator()
        w.apply(**SHORT, storage=prepare(w, s3, monkeypatch, "read"))
        await w.until(w.reported)
        assert await srlm_report() == 1
        assert "may not annotate run default/run" in capfd.readouterr().err
        become(w, "ask", monkeypatch)
        assert await srlm_report() == 1
        text = capfd.readouterr().err
        assert "Secret default/s3 cannot be read" in text
        assert "AWS_PROFILE" in text
        assert len(w.pods.stages.reports) == 2


async def test_an_absent_run_and_an_absent_operator(
    wired: Any, s3: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async with wired() as w:
        storage = prepare(w, s3, monkeypatch)
        assert await srlm_report() == 1
        assert "run run does not exist in namespace default" in capfd.readouterr().err
        w.apply(**SHORT, storage=storage)
        assert await srlm_report("--timeout", "0.3") == 1
        assert "the operator has not reacted" in capfd.readouterr().err
        assert await srlm_report("--no-wait") == 0
        assert "/runs/default/run/report.html" in capfd.readouterr().err


async def test_a_report_that_fails_and_one_that_hangs(
    wired: Any, s3: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async with wired() as w:
        await w.start_operator()
        w.apply(**SHORT, storage=prepare(w, s3, monkeypatch), failurePolicy={"maxAttempts": 1})
        await w.until(w.reported)
        w.pods.stages.fail("report", Ending(1, "no plot for you"))
        assert await srlm_report() == 1
        assert "failed: Crashed" in (text := capfd.readouterr().err)
        assert "no plot for you" in text
        w.pods.held.add("report")
        assert await srlm_report("--timeout", "1") == 1
        assert "there is no report of default/run after 1 s (report: " in capfd.readouterr().err


async def test_a_suspended_run_gives_its_last_report(
    wired: Any, s3: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async with wired() as w:
        await w.start_operator()
        storage = prepare(w, s3, monkeypatch)
        w.apply(**SHORT, storage=storage, suspend=True)
        await w.until(lambda: w.status().get("phase") == "Suspended")
        assert await srlm_report() == 1
        assert "has no report yet" in capfd.readouterr().err
        w.edit({"suspend": False})
        await w.until(w.reported)
        w.edit({"suspend": True})
        assert await srlm_report() == 0
        assert saved("run-report.html") == "report 1 at "
        assert len(w.pods.stages.reports) == 1


async def test_without_boto3_the_place_is_named(
    wired: Any, s3: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async with wired() as w:
        await w.start_operator()
        w.apply(**SHORT, storage=prepare(w, s3, monkeypatch))
        await w.until(w.reported)
        monkeypatch.delitem(sys.modules, "srlm_contract.artifacts.s3")
        monkeypatch.setitem(sys.modules, "boto3", None)
        assert await srlm_report() == 1
        text = capfd.readouterr().err
        assert "pip install boto3" in text
        assert f"s3://made/{w.folder.name}/runs/default/run/report.html" in text


async def test_an_endpoint_that_is_not_reached_may_be_given(
    wired: Any, s3: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async with wired() as w:
        await w.start_operator()
        storage = prepare(w, s3, monkeypatch, endpointUrl="http://127.0.0.1:9")
        w.apply(**SHORT, storage=storage)
        await w.until(w.reported)
        assert await srlm_report() == 1
        assert "pass --endpoint-url" in capfd.readouterr().err
        assert await srlm_report("--endpoint-url", s3.url) == 0


async def test_the_authority_of_the_store_comes_from_the_runs_configmap(
    wired: Any, s3: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async with wired() as w:
        await w.start_operator()
        w.apply(**SHORT, storage=prepare(w, s3, monkeypatch, caBundleRef={"name": "corp-ca", "key": "ca.crt"}))
        await w.until(w.reported)
        assert await srlm_report() == 1
        assert "ConfigMap default/corp-ca, which the run names, does not exist" in capfd.readouterr().err
        w.cluster.create("configmaps", {"metadata": {"name": "corp-ca"}, "data": {"other": "x"}}, "default")
        assert await srlm_report() == 1
        assert "ConfigMap default/corp-ca has no key ca.crt" in capfd.readouterr().err
        w.cluster.patch("configmaps", "corp-ca", {"data": {"ca.crt": "-----BEGIN CERTIFICATE-----"}}, "default")
        assert await srlm_report() == 0
