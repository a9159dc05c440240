"""Builds the project's images with docker or buildah, whichever is there.

    python images/build.py [--registry REGISTRY] [--version VERSION] [IMAGE ...]

Prints one line an image with its name and size, and stops at the first that cannot be built. Images with a base whose
digest is not written down (inference, train) ask the builder for it. What comes after `--` goes to every build as it
stands: `-- --build-arg PIP_INDEX_URL=... --isolation chroot`.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAMES = tuple(sorted(path.name.removesuffix(".Dockerfile") for path in Path(__file__).parent.glob("*.Dockerfile")))
BUILDERS = ("docker", "buildah")
REPOSITORY = "self-rewarding-operator"


def main(arguments: Sequence[str]) -> int:
    """Build what the arguments name; returns the exit status."""
    ours, theirs = _split(arguments)
    parser = argparse.ArgumentParser(prog="images/build.py", description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("images", nargs="*", metavar="IMAGE", help=f"of {', '.join(NAMES)}; default: all")
    parser.add_argument("--registry", default="localhost", help="what the names begin with (default: %(default)s)")
    parser.add_argument("--version", default=_version(), help="their tag (default: %(default)s)")
    parser.add_argument("--builder", choices=BUILDERS, default=next(filter(shutil.which, BUILDERS), None))
    args = parser.parse_args(ours)
    if unknown := set(args.images) - set(NAMES):
        parser.error(f"no image is called {', '.join(sorted(unknown))}: there are {', '.join(NAMES)}")
    if args.builder is None:
        print("error: neither docker nor buildah is on PATH: install one of them", file=sys.stderr)
        return 1
    for image in args.images or NAMES:
        name = f"{args.registry}/{REPOSITORY}/{image}:{args.version}"
        print(f"images: building {name} with {args.builder}", flush=True)
        try:
            _build(args.builder, image, name, args.version, theirs)
        except subprocess.CalledProcessError as failed:
            print(f"error: {image}: `{' '.join(failed.cmd[:3])} ...` ended with {failed.returncode}", file=sys.stderr)
            return 1
        print(f"images: {name} {_megabytes(args.builder, name)} MB", flush=True)
    return 0


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    given = list(arguments)
    at = given.index("--") if "--" in given else len(given)
    return given[:at], given[at + 1 :]


def _version() -> str:
    version: str = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    return version


def _build(builder: str, image: str, name: str, version: str, theirs: Sequence[str]) -> None:
    """Raises CalledProcessError."""
    file = ROOT / "images" / f"{image}.Dockerfile"
    pinned = ["--build-arg", f"VERSION={version}"]
    base = re.search(r"^ARG BASE=(\S+)@\$\{BASE_DIGEST\}$", file.read_text(encoding="utf-8"), re.MULTILINE)
    if base and not any(argument.startswith(("BASE=", "BASE_DIGEST=")) for argument in theirs):
        pinned += ["--build-arg", f"BASE_DIGEST={_digest(builder, base[1])}"]
    verb = ["docker", "build"] if builder == "docker" else ["buildah", "bud", "--format", "oci", "--layers=false"]
    subprocess.run([*verb, *pinned, *theirs, "-f", str(file), "-t", name, str(ROOT)], check=True)


def _digest(builder: str, base: str) -> str:
    """sha256:... of a base image as its registry has it."""
    subprocess.run([builder, "pull", "-q", base], check=True, stdout=subprocess.DEVNULL)
    if builder == "docker":
        told = _output("docker", "image", "inspect", "--format", "{{index .RepoDigests 0}}", base)
    else:
        told = _output("buildah", "inspect", "--type", "image", "--format", "{{.FromImageDigest}}", base)
    return told.rpartition("@")[2]


def _megabytes(builder: str, name: str) -> int:
    """Unpacked size."""
    if builder == "docker":
        return int(_output("docker", "image", "inspect", "--format", "{{.Size}}", name)) // 10**6
    value, unit = _output("buildah", "images", "--format", "{{.Size}}", name).split()
    return round(float(value) * {"KB": 1e-3, "MB": 1, "GB": 1e3}[unit.upper()])


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
