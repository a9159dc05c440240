"""The set-up script: settings of pip reach uv, broken environments are repaired, messages say what to do."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

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
    assert any(line.startswith("pytest==0.1 is wanted, but") for line in lines)
    assert "no-such-package==1.0 is not installed" in lines
    assert not any("only-there" in line for line in lines)


def test_the_environment_of_this_very_run_fits_together() -> None:
    script = ROOT / "images" / "check_env.py"
    listed = ROOT / "images" / "requirements" / "operator.txt"
    done = subprocess.run(
        [sys.executable, str(script), str(listed)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
