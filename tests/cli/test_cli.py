"""The `srlm` command."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from ruamel.yaml import YAML

from srlm_cli import main
from srlm_cli.download import has_own_credentials
from srlm_operator.settings import from_environment
from support.cluster.harness import SHORT, harness
from support.early_signal import end_while_importing
from support.unmapped import nameless, unmapped

SAMPLES = Path(__file__).parents[2] / "crds" / "samples"


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert all(command in text for command in ("operator", "plan", "status", "report", "validate", "local", "demo"))


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_no_locale_is_too_small(encoding: str) -> None:
    command = [sys.executable, "-m", "srlm_cli", "plan", "-f", str(SAMPLES / "minimal.yaml")]
    environ = os.environ | {"PYTHONIOENCODING": encoding, "COLUMNS": "160"}
    shown = subprocess.run(command, env=environ, capture_output=True, check=True, cwd=SAMPLES).stdout
    assert b"20 Jobs" in shown
    assert b"?" in shown, "in place of the table's lines"


def test_plan_counts_jobs_pods_and_gpus(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    assert main(["plan", "-f", str(SAMPLES / "minimal.yaml")]) == 0
    text = capsys.readouterr().out
    assert "20 Jobs" in text
    assert "8 at once" in text
    assert "same: in the pods of an earlier stage" in text


def test_plan_of_a_run_with_its_rubric_beside_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    assert main(["plan", "-f", str(SAMPLES / "one-machine-paper.yaml")]) == 0
    text = capsys.readouterr().out
    assert "one-machine-paper:" in text
    assert "choose" in text


def test_plan_says_which_tokens_only_the_data_tell(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["plan", "-f", str(SAMPLES / "minimal.yaml")]) == 0
    rows = _rows(capsys.readouterr().out)
    assert rows["stage"][-2:] == ["tokens, at most", "GPU-hours, at most"]
    assert rows["judge-ranked"][-2:] == ["?", "?"]
    assert rows["generate"][-2] == f"{1000 * 4 * 1024:,}", "prompts by candidates by the longest answer"
    assert rows["train"][-2] == "–"


def test_plan_says_how_long_a_model_of_that_size_takes_and_what_space(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["plan", "-f", str(SAMPLES / "minimal.yaml")]) == 0
    text = capsys.readouterr().out
    rows = _rows(text)
    assert rows["generate"][-1] == rows["train"][-1] == "< 0.1"
    assert rows["data"][-1] == "–", "no GPU"
    assert "6.3 GiB a model, 25 GiB for 4; disk: 57 GiB a train pod" in text
    assert "350 TFLOP/s in training and 60 in answering" in text
    assert main(["plan", "-f", str(SAMPLES / "minimal.yaml"), "--parameters", "70B"]) == 0
    text = capsys.readouterr().out
    rows = _rows(text)
    assert rows["generate"][-1] == f"{2 * 70e9 * 1000 * 4 * 1024 / 60e12 / 3600:.1f}"
    assert rows["train"][-1] == f"{8 * 70e9 * 1000 * 2 * 2048 / 350e12 / 3600:.1f}"
    assert "261 GiB a model" in text


def test_plan_counts_what_a_baseline_judges_answers_and_compares(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["plan", "-f", str(SAMPLES / "demo.yaml")]) == 0
    judged, answered = 16 * 2 * 32, 6 * 96 * 3
    assert _rows(capsys.readouterr().out)["evaluate-m0"][-2] == f"{judged + answered:,}"


def test_plan_of_a_model_whose_name_tells_no_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    file = tmp_path / "run.yaml"
    file.write_text((SAMPLES / "minimal.yaml").read_text().replace("SmolLM2-1.7B", "Unsized"))
    assert main(["plan", "-f", str(file)]) == 0
    text = capsys.readouterr().out
    assert _rows(text)["generate"][-1] == "?"
    assert "tells no size; give it with --parameters 8B" in text
    with pytest.raises(SystemExit):
        main(["plan", "-f", str(file), "--parameters", "large"])
    assert "no size of a model such as 8B" in capsys.readouterr().err


def _rows(text: str) -> dict[str, list[str]]:
    """Cells of a printed table by stage; of stages that come again the last."""
    return {cells[1]: cells for cells in map(_cells, text.replace("┃", "│").splitlines()) if len(cells) > 5}


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_plan_renders_jobs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "-f", str(SAMPLES / "demo.yaml"), "-o", "yaml"]) == 0
    jobs = list(YAML(typ="safe").load_all(capsys.readouterr().out))
    assert len(jobs) == 15, "the stages that ask one model come in one Job"
    assert {job["kind"] for job in jobs} == {"Job"}
    assert jobs[1]["metadata"]["labels"]["selfrewarding.dev/key"] == "unknown"


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        ((), "storage: the operator's default, not known here"),
        (("--default-storage", "s3://shared/{namespace}"), "storage: s3://shared/team"),
    ],
)
def test_plan_of_a_run_without_storage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], answer: str
) -> None:
    run = YAML(typ="safe").load((SAMPLES / "minimal.yaml").read_text())
    del run["spec"]["storage"]
    run["metadata"]["namespace"] = "team"
    file = tmp_path / "run.yaml"
    YAML().dump(run, file)
    assert main(["plan", "-f", str(file), *arguments]) == 0
    assert answer in capsys.readouterr().out
    assert main(["validate", "-f", str(file)]) == 0
    assert "the operator's default storage is used" in capsys.readouterr().err


def test_plan_refuses_a_default_that_the_operator_would_refuse(capsys: pytest.CaptureFixture[str]) -> None:
    file = str(SAMPLES / "minimal.yaml")
    assert main(["plan", "-f", file, "--default-storage", "s3://shared/all"]) == 1
    assert "{namespace}" in capsys.readouterr().err


def test_plan_of_an_invalid_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.yaml"
    text = (SAMPLES / "minimal.yaml").read_text()
    file.write_text(text.replace("storage:", "storrage:"))
    assert main(["plan", "-f", str(file)]) == 1
    assert "storrage" in capsys.readouterr().err
    assert main(["plan", "-f", str(tmp_path / "absent.yaml")]) == 1


def test_settings_from_the_environment() -> None:
    found = from_environment(
        {"SRLM_NAMESPACES": "a, b", "SRLM_LOCAL": "1", "SRLM_WORKERS": "3", "SRLM_STAGE_ENV_HTTPS_PROXY": "http://p"}
    )
    assert (found.namespaces, found.local, found.workers) == (("a", "b"), True, 3)
    assert found.extra_env == {"HTTPS_PROXY": "http://p"}


@pytest.mark.parametrize("name", ["SRLM_WORKERS", "SRLM_LOCAL", "SRLM_RESYNC_SECONDS"])
def test_bad_setting_is_named(name: str) -> None:
    from srlm_operator.errors import ConfigurationError

    with pytest.raises(ConfigurationError, match=name):
        from_environment({name: "many"})


async def test_status_screen_and_its_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with harness(tmp_path) as h:
        monkeypatch.setenv("KUBECONFIG", str(h.kubeconfig))
        await h.start()
        await h.create(**SHORT)
        await h.until(h.reported)
        status, out, _ = await srlm("status", "run", "-n", "team")
        assert status == 0
        assert "team/run" in out
        assert "Succeeded" in out
        assert "✓ train" in out
        assert "report: s3://bucket/prefix/runs/team/run/report.html of 20" in out
        status, _, err = await srlm("status", "absent", "-n", "team")
        assert (status, "absent does not exist" in err) == (1, True)


async def test_operator_process_of_a_user_without_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the image: the user has neither a name nor a home. It serves a run, and ends at SIGTERM."""
    async with harness(tmp_path, clusterwide=True) as h, aiohttp.ClientSession() as session:
        monkeypatch.setenv("KUBECONFIG", str(h.kubeconfig))
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = str(listener.getsockname()[1])
        lease = {
            "SRLM_LEADER_ELECT": "1",
            "SRLM_LEASE_NAMESPACE": "team-system",
            "SRLM_LEASE_NAME": "operator",
            "SRLM_HEALTH_HOST": "127.0.0.1",
        }
        command = unmapped("srlm_cli", "operator", "--local", "--health-port", port)
        process = await asyncio.create_subprocess_exec(
            *command, env=nameless({**environment(), **lease}), stderr=asyncio.subprocess.PIPE
        )
        ended = asyncio.create_task(process.communicate())
        try:
            await h.create(**SHORT)
            ready = asyncio.create_task(h.until(lambda: h.condition("Ready")))
            await asyncio.wait({ready, ended}, return_when=asyncio.FIRST_COMPLETED)
            assert not ended.done(), ended.result()[1].decode()
            await ready
            async with session.get(f"http://127.0.0.1:{port}/readyz") as answer:
                assert (answer.status, await answer.text()) == (200, "ok")
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            _, err = await ended
        assert process.returncode == 0, err.decode()
        assert "Traceback" not in err.decode()


def test_sigterm_during_imports_ends_the_operator(tmp_path: Path) -> None:
    """It must not take the Lease afterwards."""
    assert end_while_importing(tmp_path, "srlm_operator.settings", ["srlm_cli", "operator"]) == (0, "importing\n")


def test_credentials_are_looked_for_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.delenv("HOME", raising=False)

    def getpwuid(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr("pwd.getpwuid", getpwuid)
    assert not has_own_credentials()


def environment() -> dict[str, str]:
    root = Path(__file__).parents[2]
    return {**os.environ, "PYTHONPATH": f"{root / 'operator'}:{root / 'stages'}", "COLUMNS": "200"}


async def srlm(*arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "srlm_cli", *arguments,
        env=environment(), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    code: Any = process.returncode
    return code, out.decode(), err.decode()
