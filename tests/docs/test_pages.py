"""The documentation tells what is there: links, make targets, `srlm` commands with their options, rooms."""

from __future__ import annotations

import argparse
import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from pkgutil import resolve_name

import pytest
import yaml

import srlm_cli
from docs.pages import ROOT, anchors, commands, links, pages

PAGES = pages()
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
CLI = next(name for name in ("srlm_cli", "srlm_cli") if (ROOT / "operator" / name.replace(".", "/")).is_dir())


def test_every_part_has_its_page() -> None:
    wanted = ["README.md", *(f"{part}/README.md" for part in ("crds", "images", "operator", "stages", "tests"))]
    wanted += ["charts/self-rewarding-operator/README.md", ".github/CONTRIBUTING.md", ".github/SECURITY.md"]
    assert [name for name in wanted if name not in NAMES] == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if anchor:
            assert anchor in anchors(target), link


def programs(line: str) -> Iterator[list[str]]:
    """The simple commands of a line, without the variables in front."""
    for part in re.split(r"\|\|?|&&|;", line.partition("  #")[0]):
        try:
            words = shlex.split(part)
        except ValueError:  # a quote that another part closes: no command of ours
            continue
        while words and re.match(r"\w+=", words[0]):
            words.pop(0)
        if words:
            yield words


def spoken(program: str) -> list[tuple[str, list[str]]]:
    """(page, arguments) of every time the documentation calls a program."""
    return [
        (name, words[1:])
        for name, page in zip(NAMES, PAGES, strict=True)
        for line in commands(page)
        for words in programs(line)
        if words[0].removeprefix(".venv/bin/") == program
    ]


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    called = [(page, word) for page, words in spoken("make") for word in words if "=" not in word]
    assert len(called) > 20
    assert [call for call in called if call[1] not in targets] == []


class Complaint(Exception):
    """What argparse says of a command line."""


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]  # argparse ends the process
        raise Complaint(message)


def parser() -> argparse.ArgumentParser:
    """All of `srlm` at once."""
    found = Parser(prog="srlm")
    commands = found.add_subparsers(dest="command", required=True)
    for name, (_, where) in srlm_cli.COMMANDS.items():
        resolve_name(f"srlm_cli.{where}")(commands.add_parser(name))
    return found


def complaint(words: list[str]) -> str:
    try:
        parser().parse_args(words)
    except Complaint as problem:
        return str(problem)
    return ""


def test_srlm_commands_and_their_options_exist() -> None:
    calls = [(page, words) for page, words in spoken("srlm") if words]
    assert {words[0] for _, words in calls} - {"COMMAND"} == set(srlm_cli.COMMANDS), "every command is shown somewhere"
    # `srlm status NAME [-w]` names an option that may be left out; `srlm status` alone names the command.
    found = {}
    for page, words in calls:
        words = [word.strip("[]") for word in words]
        said = "" if words[0] == "COMMAND" else complaint(words)
        if said and not (len(words) == 1 and "required" in said):
            found[page, " ".join(words)] = said
    assert found == {}


def test_the_check_of_commands_can_fail() -> None:
    assert "unrecognized arguments" in complaint(["status", "NAME", "--colour"])
    assert "invalid choice" in complaint(["plant", "-f", "run.yaml"])


@pytest.mark.parametrize("name", ["README.md", "operator/README.md", "stages/README.md"])
def test_rooms_exist(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    part = ROOT / name.removesuffix("README.md")
    rooms = re.findall(r"^\| `(srlm_[\w/]+)/` \|", text, re.M) if name != "README.md" else []
    if name == "README.md":
        for package, inside in re.findall(r"^((?:operator|stages)/srlm_\w+)/ +(.*)$", text, re.M):
            rooms += [package, *(f"{package}/{room}" for room in re.findall(r"(?<![\w/])([a-z]+)/", inside))]
    assert len(rooms) > 6
    assert [room for room in rooms if not (part / room / "__init__.py").is_file()] == []


def test_every_room_is_in_a_page() -> None:
    for part in ("operator", "stages"):
        text = (ROOT / part / "README.md").read_text(encoding="utf-8")
        for package in sorted((ROOT / part).glob("srlm_*")):
            for room in sorted(path.parent for path in package.glob("*/__init__.py")):
                assert f"`{room.relative_to(ROOT / part)}/`" in text, room


def test_every_module_says_what_it_is() -> None:
    for part in ("operator", "stages"):
        for path in (ROOT / part).rglob("*.py"):
            assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path


def test_workflows_run_what_there_is() -> None:
    """They cannot run here: their steps have one action or one script, their scripts and make targets exist."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    scripts = []
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        for name, job in yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].items():
            assert {"runs-on", "timeout-minutes", "steps"} <= job.keys(), name
            for step in job["steps"]:
                assert ("run" in step) != ("uses" in step), step
                assert step.keys() <= {"name", "id", "uses", "with", "run", "env", "if", "shell"}, step
                scripts += step.get("run", "").splitlines()
    assert "bash .ci/run" in scripts
    assert (ROOT / ".ci" / "run").is_file()
    called = {word for line in scripts if line.strip().startswith("make ") for word in line.split()[1:]}
    assert {"test-cluster"} <= called <= targets
