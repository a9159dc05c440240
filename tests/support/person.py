"""Somebody at a terminal: an account with a role's rights in the test's namespace."""

from __future__ import annotations

import asyncio

import pytest

from srlm_cli import main
from support.cluster.admin import ACCOUNTS, RIGHTS
from support.cluster.harness import Harness

#: A shell without job control has what it starts in the background ignore Ctrl-C, these tests too.
AT_A_TERMINAL = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from srlm_cli import main
sys.exit(main(sys.argv[1:]))
"""
_RUNS = ("selfrewarding.dev", "selfrewardingruns")
RULES = {
    "look": [(*_RUNS, ["get", "list"])],
    "read": [(*_RUNS, ["get", "list"]), ("", "pods", ["get", "list"]), ("", "pods/log", ["get"])],
    "ask": [(*_RUNS, ["get", "patch"])],
    "fetch": [(*_RUNS, ["get", "patch"]), ("", "secrets", ["get"]), ("", "configmaps", ["get"])],
}


async def become(h: Harness, role: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on KUBECONFIG is that of an account with these rights in the harness's namespace."""
    await h.put(ACCOUNTS, role)
    rules = [{"apiGroups": [g], "resources": [r], "verbs": verbs} for g, r, verbs in RULES[role]]
    await h.put(RIGHTS["Role"], role, rules=rules)
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role}
    subjects = [{"kind": "ServiceAccount", "name": role, "namespace": h.namespace}]
    await h.put(RIGHTS["RoleBinding"], role, roleRef=reference, subjects=subjects)
    assert h.machine is not None
    h.machine.server.write_kubeconfig(h.folder / "person", await h.admin.token(h.namespace, role), h.namespace)
    monkeypatch.setenv("KUBECONFIG", str(h.folder / "person"))


async def srlm(*arguments: str) -> int:
    """The exit status of the command, in a thread beside the cluster."""
    return await asyncio.to_thread(main, arguments)
