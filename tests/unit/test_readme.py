"""The README's tree has one line for every source file, taken from its docstring. UPDATE_README=1 writes it."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("operator/srlm_operator", "operator/srlm_local", "stages/srlm_contract", "stages/srlm_stages")
REST = """\
images/                    Dockerfiles (operator, inference, train, cpu), pinned requirements, setup_env.py for `make`
charts/                    Helm chart of the operator
crds/                      the CustomResourceDefinition, generated from the models; samples/ has run manifests
tests/                     unit, contract, operator, local, stages, charts, e2e, bench: mirrors the source tree
"""
HEADING = "## How it is built\n\n```text\n"
WIDTH = 96


def test_the_tree_is_complete() -> None:
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text().partition(HEADING)
    old, fence, after = rest.partition("```")
    tree = "".join(line for package in PACKAGES for line in package_lines(package)) + REST
    if os.environ.get("UPDATE_README"):
        readme.write_text(before + HEADING + tree + fence + after)
        return
    assert old == tree, "run UPDATE_README=1 pytest tests/unit/test_readme.py"


def package_lines(package: str) -> list[str]:
    """Modules of a package, then its sub-packages with theirs."""
    root = ROOT / package
    lines = [f"{package}/\n"] + [line("  ", path) for path in modules(root)]
    for folder in sorted(path.parent for path in root.glob("*/__init__.py")):
        lines.append(line("  ", folder / "__init__.py"))
        lines += [line("    ", path) for path in modules(folder)]
    return lines


def modules(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.py") if path.name != "__init__.py")


def line(indent: str, path: Path) -> str:
    name = f"{path.parent.name}/" if path.name == "__init__.py" else path.name
    return f"{indent + name:<26} {summary(path)}\n"


def summary(path: Path) -> str:
    """The docstring's first sentence, or as many of its clauses as fit."""
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring, f"{path} has no docstring"
    text = re.split(r"(?<!et al)(?<!\.)\.(?:\s|$)", " ".join(docstring.split("\n\n")[0].split()), maxsplit=1)[0]
    ends = [match.start() for match in re.finditer(r"[,;:] | \(| and | so that |$", text)]
    fitting = [end for end in ends if end <= WIDTH and text[:end].count("(") == text[:end].count(")")]
    assert fitting, f"{path}: the first clause of the docstring is longer than {WIDTH} characters"
    return text[: fitting[-1]]
