"""Starts a Python program as a user without a name or a home, as the images do."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

UID = 65532
#: As root the real user changes and the effective one does not: files stay readable wherever the checkout lies.
_PROGRAM = f"""
import os, pwd, runpy, sys

if os.geteuid() == 0:
    os.setreuid({UID}, -1)
else:
    def getpwuid(uid):
        raise KeyError(f"getpwuid(): uid not found: {{uid}}")

    pwd.getpwuid = getpwuid
try:
    pwd.getpwuid(os.getuid())
except KeyError:
    pass
else:
    sys.exit("this user has a name")
del sys.argv[0]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
_NAMES = ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME")


def unmapped(module: str, *arguments: str) -> list[str]:
    """The command line of `python -m module arguments`, as a user that /etc/passwd does not know."""
    return [sys.executable, "-c", _PROGRAM, module, *arguments]


def nameless(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment without what says who and where the user is."""
    return {name: value for name, value in environ.items() if name not in _NAMES}
