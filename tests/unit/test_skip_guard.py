"""A skip that nobody allowed fails the session, in one process and with xdist."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]


def run(folder: Path, reason: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Runs pytest in ``folder`` on one test that is skipped for ``reason``, with the guard of this suite."""
    shutil.copy(TESTS / "conftest.py", folder)
    (folder / "allowed_skips.txt").write_text("# heading\nno such machine # it is rare\n", encoding="utf-8")
    (folder / "test_it.py").write_text(
        f"import pytest\n\ndef test_fine():\n    pass\n\ndef test_it():\n    pytest.skip({reason!r})\n",
        encoding="utf-8",
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-c",
        "/dev/null",
        *options,
        str(folder),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)


@pytest.mark.parametrize("options", [(), ("-n", "1")])
def test_an_unknown_reason_fails_the_session(tmp_path: Path, options: tuple[str, ...]) -> None:
    done = run(tmp_path, "did not feel like it", *options)
    assert done.returncode == 1, done.stdout
    assert "test_it.py::test_it: did not feel like it" in done.stdout
    assert done.stdout.strip().splitlines()[-1].count("1 passed, 1 skipped") == 1


def test_a_listed_reason_passes(tmp_path: Path) -> None:
    done = run(tmp_path, "no such machine here")
    assert done.returncode == 0, done.stdout


def test_a_module_that_is_skipped_as_a_whole_counts(tmp_path: Path) -> None:
    (tmp_path / "test_module.py").write_text(
        "import pytest\npytest.skip('not today', allow_module_level=True)\n", encoding="utf-8"
    )
    done = run(tmp_path, "no such machine here")
    assert done.returncode == 1, done.stdout
    assert "not today" in done.stdout
