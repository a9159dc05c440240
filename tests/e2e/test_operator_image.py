"""The operator's image, built for real on a base of Debian packages and run as a cluster runs it: a user without a
name, a root file system that nobody writes to, no capabilities."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.machine import Machine

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ("buildah", "mmdebstrap", "runc")
PACKAGES = "python3,python3-venv,python3-pip,python-is-python3,ca-certificates"
#: Debian's Python lets pip install nothing, and the images' Python does.
HOOK = 'rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED'
BUILDAH = ("buildah", "--storage-driver", "vfs")
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def output(*command: str, timeout: float = 600) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout.strip()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the built image is mounted."""
    for program in PROGRAMS:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    if os.geteuid() != 0:
        pytest.skip("building an image needs root")
    folder = tmp_path_factory.mktemp("image")
    archive, storage = folder / "base.tar", ("--root", str(folder / "storage"), "--runroot", str(folder / "run"))
    output(
        "mmdebstrap", "--variant=minbase", f"--include={PACKAGES}", f"--customize-hook={HOOK}", "bookworm", str(archive)
    )
    buildah = (BUILDAH[0], *storage, *BUILDAH[1:])
    scratch = output(*buildah, "from", "scratch")
    output(*buildah, "add", scratch, str(archive), "/")
    output(*buildah, "config", "--env", "PATH=/usr/local/bin:/usr/bin:/bin", scratch)
    output(*buildah, "commit", "--rm", scratch, "base")
    # The build asks the same package index as this machine.
    settings = [part for path in ("/etc/pip.conf", "/etc/ssl/certs") if Path(path).exists()
                for part in ("-v", f"{path}:{path}:ro")]  # fmt: skip
    output(
        *buildah, "bud", "--isolation", "chroot", "--layers=false", "--pull=never", *settings, "--build-arg",
        "BASE=localhost/base", "-f", "images/operator.Dockerfile", "-t", "operator", str(ROOT),
    )  # fmt: skip
    container = output(*buildah, "from", "--pull=never", "localhost/operator")
    yield Path(output(*buildah, "mount", container))
    output(*buildah, "rm", container)


def bundle(folder: Path, root: Path, arguments: list[str], environment: dict[str, str], *files: Path) -> None:
    """A container of the image: its own mounts and processes, the network of this machine."""
    folder.mkdir()
    output("runc", "spec", "--bundle", str(folder))
    path = folder / "config.json"
    config = json.loads(path.read_text())
    none: list[str] = []
    config["root"] = {"path": str(root), "readonly": True}
    config["process"] |= {
        "terminal": False, "user": {"uid": 65532, "gid": 65532}, "args": ["srlm", *arguments], "cwd": "/",
        "noNewPrivileges": True, "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), none),
        "env": ["PATH=/opt/srlm/bin:/usr/bin:/bin", "HOME=/tmp", *(f"{k}={v}" for k, v in environment.items())],
    }  # fmt: skip
    config["process"].pop("rlimits", None)
    del config["hostname"]
    kept = [mount for mount in config["mounts"] if mount["destination"] in ("/proc", "/dev")]
    tmp = {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"]}
    given = [
        {"destination": f"/tmp/{file.name}", "type": "bind", "source": str(file), "options": ["bind", "ro"]}
        for file in files
    ]
    config["mounts"] = [*kept, tmp, *given]
    config["linux"] = {"namespaces": [{"type": "mount"}, {"type": "pid"}]}
    path.write_text(json.dumps(config))


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Path]:
    """An API server on loopback; the path of its kubeconfig."""
    folder = tmp_path / "cluster"
    folder.mkdir()
    machine = Machine(folder, "--no-operator")
    machine.start()
    kubeconfig = folder / "kubeconfig"
    kubeconfig.chmod(0o644)  # the container's user is nobody of this machine
    yield kubeconfig
    machine.stop()


def test_the_operator_runs_and_ends_when_it_is_told_to(root: Path, cluster: Path, tmp_path: Path) -> None:
    environment = {"KUBECONFIG": f"/tmp/{cluster.name}", "SRLM_HEALTH_PORT": "0"}
    bundle(tmp_path / "c", root, ["operator"], environment, cluster)
    runc = ["runc", "--root", str(tmp_path / "state")]
    process = subprocess.Popen(
        [*runc, "run", "-b", str(tmp_path / "c"), "o"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if "operator is running" in line:
            break
    assert process.poll() is None, "".join(said)
    output(*runc, "kill", "o", "TERM")
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 0, "".join(said) + rest
