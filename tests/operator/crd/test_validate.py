"""`srlm validate` over a corpus of manifests; every invalid one says in its first lines what is wrong."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from srlm_cli import validate as command
from srlm_contract.spec.run import RunSpec
from srlm_operator.crd.validate import validate_files, validate_run, validate_text
from srlm_operator.crd.yaml12 import load_documents
from support.corpus import MANIFESTS

SAMPLES = Path(__file__).parents[3] / "crds" / "samples"
VALID = sorted((MANIFESTS / "valid").iterdir())
INVALID = sorted((MANIFESTS / "invalid").iterdir())


def srlm(*arguments: str) -> int:
    """The command as `srlm` calls it."""
    parser = argparse.ArgumentParser()
    command.configure(parser)
    args = parser.parse_args(arguments)
    status: int = args.func(args)
    return status


def test_the_corpus_is_large_enough() -> None:
    assert len(VALID) >= 30
    assert len(INVALID) >= 60


@pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)
def test_valid(path: Path) -> None:
    report = validate_files([path])
    assert [str(problem) for problem in report.problems] == []
    assert report.runs >= 1


@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.stem)
def test_invalid(path: Path) -> None:
    expected = re.findall(r"^# expect: (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert expected, "the first lines must say what is to be found"
    found = [str(problem) for problem in validate_files([path]).problems]
    for fragment in expected:
        assert any(fragment in problem for problem in found), found
    for problem in found:
        assert any(fragment in problem for fragment in expected), f"not expected: {problem}"


@pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)
def test_the_models_accept_what_the_schema_accepts(path: Path) -> None:
    for document in load_documents(path.read_text(encoding="utf-8")):
        if document.get("kind") == "SelfRewardingRun":
            RunSpec.parse(_without_nulls(document["spec"]))


def _without_nulls(value: object) -> object:
    """The API server drops nulls (or puts the default in their place), but for free-form objects."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return value


#: Runs; overlays and settings of GitOps tools lie beside them.
RUNS = [p for p in sorted(SAMPLES.rglob("*.yaml")) if "\nkind: SelfRewardingRun\n" in p.read_text(encoding="utf-8")]


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_samples_are_valid(path: Path) -> None:
    assert validate_files([path]).problems == ()


def test_the_document_is_not_changed() -> None:
    text = (MANIFESTS / "valid" / "nulls-mean-defaults.yaml").read_text(encoding="utf-8")
    [document] = load_documents(text)
    [untouched] = load_documents(text)
    validate_run(document)
    assert document == untouched


class TestNotes:
    def test_other_objects_are_skipped(self) -> None:
        report = validate_files([MANIFESTS / "valid" / "beside-other-documents.yaml"])
        assert report.runs == 2
        assert [note.partition(": ")[2] for note in report.notes] == ["Secret s3 skipped: not a SelfRewardingRun"]

    def test_file_uris_work_on_one_machine_only(self) -> None:
        report = validate_files([MANIFESTS / "valid" / "one-machine.yaml"])
        assert len(report.notes) == 2
        assert "spec.baseModel.uri: file:// works on the one-machine cluster only" in report.notes[0]

    def test_status_is_ignored(self) -> None:
        report = validate_files([MANIFESTS / "valid" / "with-status.yaml"])
        assert "status is ignored" in report.notes[0]

    @pytest.mark.parametrize("name", ["storage-left-out", "storage-without-uri", "storage-null"])
    def test_storage_left_out_is_a_note(self, name: str) -> None:
        report = validate_files([MANIFESTS / "valid" / f"{name}.yaml"])
        [note] = report.notes
        assert "the operator's default storage is used" in note


class TestCommand:
    def test_valid_file(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert srlm("-f", str(SAMPLES / "minimal.yaml")) == 0
        assert capsys.readouterr().out == "1 run valid\n"

    def test_every_problem_is_a_line_of_path_and_message(self, capsys: pytest.CaptureFixture[str]) -> None:
        names = ("unknown-field", "missing-seed-data", "top-p-above-one")
        arguments = [part for name in names for part in ("-f", str(MANIFESTS / "invalid" / f"{name}.yaml"))]
        assert srlm(*arguments) == 1
        lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("#")]
        assert [line.partition(": ")[0] for line in lines] == [
            "spec.generaton",
            "spec.seedData",
            "spec.generation.sampling.topP",
        ]

    def test_folder(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert srlm("-f", str(MANIFESTS / "valid")) == 0
        captured = capsys.readouterr()
        assert captured.out.endswith("runs valid\n")
        assert captured.err.count("note: ") >= 3

    def test_standard_input(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        with (MANIFESTS / "invalid" / "zero-iterations.yaml").open(encoding="utf-8") as stream:
            monkeypatch.setattr("sys.stdin", stream)
            assert srlm("-f", "-", "-f", str(SAMPLES / "minimal.yaml")) == 1
        assert "spec.iterations: " in capsys.readouterr().out

    def test_missing_file_is_named(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        assert srlm("-f", str(tmp_path / "absent.yaml")) == 1
        assert "absent.yaml: cannot be read: " in capsys.readouterr().out

    def test_empty_folder_is_no_success(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        assert srlm("-f", str(tmp_path)) == 1
        assert "no SelfRewardingRun found" in capsys.readouterr().out


def test_problem_of_the_second_document_names_its_run() -> None:
    text = (MANIFESTS / "invalid" / "second-document.yaml").read_text(encoding="utf-8")
    [problem] = validate_text(text, "runs.yaml").problems
    assert (problem.file, problem.run, problem.path) == ("runs.yaml", "second", "spec.iterations")
