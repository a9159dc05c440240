"""pyproject.toml, the pinned lists and the imports of the code tell the same story."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LISTS = ROOT / "images" / "requirements"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OWN = {"srlm_contract", "srlm_stages", "srlm_operator", "srlm_local", "srlm_cli"}
# Installed by images/setup_env.py or a base image, in the build that fits the machine.
NOT_PINNED_IN = {"dev": {"torch"}, "cpu": {"torch"}, "train": {"torch"}}
FROM_BASE_IMAGE = {
    "inference": {
        "vllm",
        "transformers",
        "numpy",
        "regex",
        "pydantic",
        "certifi",
        "huggingface-hub",
        "httpx",
        "httpx2",
        "urllib3",
        "pyyaml",
        "protobuf",
        "sentencepiece",
        "tiktoken",
    },
}


def requirements_of(extra: str) -> list[Requirement]:
    """The requirements of an extra, those of the extras it names included, and of the project itself."""
    found = [Requirement(text) for text in PROJECT["dependencies"]]
    for text in PROJECT["optional-dependencies"][extra]:
        requirement = Requirement(text)
        if requirement.name == PROJECT["name"]:
            for name in requirement.extras:
                found += requirements_of(name)
        else:
            found.append(requirement)
    return found


def pins(name: str) -> dict[str, str]:
    """Package to pinned version of one list."""
    lines = (LISTS / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    parsed = [Requirement(line.split(" --hash=")[0]) for line in lines if not line.startswith("#")]
    return {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in parsed}


@pytest.mark.parametrize("extra", ["operator", "inference", "train", "cpu", "dev"])
def test_every_requirement_of_an_extra_is_pinned_to_a_version_that_fits(extra: str) -> None:
    pinned = pins(extra)
    elsewhere = NOT_PINNED_IN.get(extra, set()) | FROM_BASE_IMAGE.get(extra, set())
    for requirement in requirements_of(extra):
        name = canonicalize_name(requirement.name)
        if name in elsewhere:
            continue
        assert name in pinned, f"{name} is not in images/requirements/{extra}.txt: run make locks"
        assert requirement.specifier.contains(pinned[name]), f"{requirement} against {pinned[name]}"


@pytest.mark.parametrize("path", sorted(set(LISTS.glob("*.txt")) - {LISTS / "left-out.txt"}), ids=lambda p: p.stem)
def test_every_pin_says_what_its_files_hash_to(path: Path) -> None:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert lines
    for line in lines:
        pin, *hashes = line.split(" --hash=")
        assert hashes, f"{pin}: python images/lock.py"
        assert all(re.fullmatch("sha256:[0-9a-f]{64}", digest) for digest in hashes), pin


def test_the_lists_agree_on_versions() -> None:
    dev = pins("dev")
    for name in ("operator", "inference", "train", "cpu", "build"):
        differing = {k: (v, dev[k]) for k, v in pins(name).items() if k in dev and dev[k] != v}
        assert not differing, name


@pytest.mark.parametrize(
    ("package", "extras"),
    [
        ("operator/srlm_operator", ["cli"]),
        ("operator/srlm_local", ["local"]),
        ("stages/srlm_contract", ["operator", "stages"]),
        ("stages/srlm_stages", ["train", "inference", "cpu"]),
    ],
)
def test_every_import_is_declared(package: str, extras: list[str]) -> None:
    provided = metadata.packages_distributions()
    declared = {canonicalize_name(r.name) for extra in extras for r in requirements_of(extra)}
    undeclared = {}
    for module, file in third_party_imports(ROOT / package):
        distributions = {canonicalize_name(name) for name in provided.get(module, [module])}
        if module == "vllm":
            distributions.add("vllm")
        if not distributions & declared:
            undeclared[module] = file
    assert not undeclared, "declare them in an extra of pyproject.toml and run make locks"


def third_party_imports(package: Path) -> list[tuple[str, str]]:
    """(top-level module, file) of every absolute import that is neither ours nor the standard library's."""
    found = []
    for file in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = [node.module]
            for name in names:
                top = name.split(".")[0]
                if top not in sys.stdlib_module_names and top not in OWN:
                    found.append((top, str(file.relative_to(ROOT))))
    return found


def test_the_wheel_has_code_demo_data_and_definitions_and_nothing_else(tmp_path: Path) -> None:
    quiet = ["--quiet", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-index", "--no-build-isolation"]
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        *quiet,
        *offline,
        "--wheel-dir",
        str(tmp_path),
        str(ROOT),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "srlm_contract/crds/selfrewarding.dev_selfrewardingruns.yaml" in names
    assert any(re.fullmatch(r"srlm_stages/demo/.*\.jsonl", name) for name in names)
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == OWN
    assert not [name for name in names if "__pycache__" in name or name.endswith((".bin", ".pt"))]


def test_python_versions_agree() -> None:
    assert PROJECT["requires-python"] == ">=3.11,<3.14"
    setup = (ROOT / "images" / "setup_env.py").read_text(encoding="utf-8")
    assert "OLDEST, TOO_NEW = (3, 11), (3, 14)" in setup
    assert "(3, 11) <= sys.version_info[:2] < (3, 14)" in (ROOT / "Makefile").read_text(encoding="utf-8")
