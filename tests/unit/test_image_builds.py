"""`make images`, with builders that write down what they are asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DIGEST = "sha256:" + "ab" * 32
#: Answers as both builders do: the digest of a base, the size of an image.
BUILDER = f"""#!/bin/sh
echo "$(basename "$0") $*" >> "$ASKED"
case "$*" in
  *RepoDigests*) echo "docker.example.com/base@{DIGEST}" ;;
  *FromImageDigest*) echo "{DIGEST}" ;;
  *"{{{{.Size}}}}"*) case "$0" in *docker) echo 123456789 ;; *) echo "1.5 GB" ;; esac ;;
  *broken*) exit 7 ;;
esac
"""


def build(tmp_path: Path, builders: list[str], *arguments: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """What came of it, and every command that a builder got."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in builders:
        (folder / name).write_text(BUILDER)
        (folder / name).chmod(0o755)
    asked = tmp_path / "asked"
    asked.touch()
    path = os.pathsep.join([str(folder), "/usr/bin", "/bin"]) if builders else str(folder)
    done = subprocess.run(
        [sys.executable, "images/build.py", *arguments],
        cwd=ROOT, env={"PATH": path, "ASKED": str(asked)}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return done, asked.read_text().splitlines()


@pytest.mark.parametrize(("builder", "size"), [("docker", "123 MB"), ("buildah", "1500 MB")])
def test_all_images_with_either_builder(tmp_path: Path, builder: str, size: str) -> None:
    done, asked = build(tmp_path, [builder], "--builder", builder, "--registry", "r.example.com/ml", "--version", "9")
    assert done.returncode == 0, done.stderr
    builds = [line for line in asked if " -f " in line]
    for image in ("cpu", "inference", "light", "operator", "train"):
        (line,) = [line for line in builds if f"/{image}.Dockerfile" in line]
        assert f"-t r.example.com/ml/self-rewarding-operator/{image}:9" in line
        assert ("BASE_DIGEST=" + DIGEST in line) == (image in ("inference", "train")), "only where none is written down"
        assert f"{image}:9 {size}" in done.stdout


def test_some_images_with_arguments_of_the_builder(tmp_path: Path) -> None:
    mirror = "PIP_INDEX_URL=https://mirror.example.com"
    base = "BASE=registry.example.com/vllm:1"
    done, asked = build(
        tmp_path, ["docker"], "--builder", "docker", "inference", "--", "--build-arg", mirror, "--build-arg", base
    )
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in asked if " -f " in line]
    assert f"--build-arg {mirror} --build-arg {base}" in line
    assert "BASE_DIGEST" not in line
    assert not [line for line in asked if " pull " in line], "a base of one's own is not fetched"


def test_what_cannot_be_done_is_said(tmp_path: Path) -> None:
    done, _ = build(tmp_path, [])
    assert done.returncode == 1
    assert done.stderr == "error: neither docker nor buildah is on PATH: install one of them\n"


def test_a_build_that_fails_names_its_image(tmp_path: Path) -> None:
    done, _ = build(tmp_path, ["docker"], "--builder", "docker", "operator", "--", "--label", "broken")
    assert (done.returncode, done.stderr) == (1, "error: operator: `docker build --build-arg ...` ended with 7\n")


def test_a_name_that_no_image_has(tmp_path: Path) -> None:
    done, asked = build(tmp_path, ["docker"], "--builder", "docker", "trainer")
    assert done.returncode == 2
    assert "no image is called trainer: there are cpu, inference, light, operator, train" in done.stderr
    assert not asked
