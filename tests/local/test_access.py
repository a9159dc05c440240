"""Who may do what over HTTP: tokens, roles, and what is open to all."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from srlm_local.http.server import ApiServer
from srlm_local.kinds import bootstrap
from srlm_local.kinds.table import new_cluster
from srlm_local.store.cluster import Cluster
from support.virtual_clock import VirtualClock

PODS = "/api/v1/namespaces/default/pods"
RBAC = "rbac.authorization.k8s.io"


class Kit:
    def __init__(self, cluster: Cluster, server: ApiServer, session: aiohttp.ClientSession) -> None:
        self.cluster, self.server, self.session = cluster, server, session
        self.clock: VirtualClock = cluster.clock  # type: ignore[assignment]

    async def token(self, seconds: int = 600) -> str:
        path = "/api/v1/namespaces/default/serviceaccounts/robot/token"
        body = {"spec": {"expirationSeconds": seconds}}
        async with self.session.post(path, json=body, headers=bearer(self.server.tokens.admin)) as response:
            return str((await response.json())["status"]["token"])

    async def status(self, path: str, token: str = "", method: str = "GET", **more: Any) -> int:
        async with self.session.request(method, path, headers=bearer(token) if token else {}, **more) as response:
            return response.status

    def grant(self, verbs: list[str], resources: list[str], groups: list[str] | None = None, **more: Any) -> None:
        rule = {"verbs": verbs, "resources": resources, "apiGroups": groups or [""], **more}
        self.cluster.create(f"roles.{RBAC}", {"metadata": {"name": "r"}, "rules": [rule]}, "default")
        subject = {"kind": "ServiceAccount", "name": "robot", "namespace": "default"}
        reference = {"kind": "Role", "name": "r", "apiGroup": RBAC}
        binding = {"metadata": {"name": "b"}, "roleRef": reference, "subjects": [subject]}
        self.cluster.create(f"rolebindings.{RBAC}", binding, "default")


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
async def kit() -> AsyncIterator[Kit]:
    cluster = new_cluster(clock=VirtualClock(), seed=1)
    bootstrap.prepare(cluster)
    cluster.create("serviceaccounts", {"metadata": {"name": "robot"}}, "default")
    server = await ApiServer(cluster, tls=False).start()
    async with aiohttp.ClientSession(server.url) as session:
        yield Kit(cluster, server, session)
    await server.stop()


async def test_the_kubeconfig_is_for_its_owner_only(kit: Kit, tmp_path: Any) -> None:
    path = tmp_path / "deep" / "kubeconfig"
    kit.server.write_kubeconfig(path)
    assert path.stat().st_mode & 0o077 == 0


async def test_without_roles_an_account_sees_discovery_and_nothing_else(kit: Kit) -> None:
    token = await kit.token()
    assert await kit.status("/api", token) == 200
    assert await kit.status(PODS, token) == 403
    assert await kit.status("/api/v1/namespaces/default/secrets", token) == 403


async def test_a_role_gives_its_verbs_in_its_namespace(kit: Kit) -> None:
    kit.grant(["get", "list"], ["pods"])
    token = await kit.token()
    assert await kit.status(PODS, token) == 200
    assert await kit.status(f"{PODS}/none", token) == 404
    assert await kit.status(f"{PODS}?watch=true&timeoutSeconds=1", token) == 403
    assert await kit.status("/api/v1/pods", token) == 403
    assert await kit.status("/api/v1/namespaces/kube-system/pods", token) == 403
    assert await kit.status(f"{PODS}/none/log", token) == 403


async def test_subresources_and_names_are_granted_apart(kit: Kit) -> None:
    kit.grant(["get"], ["pods/log", "configmaps"], resourceNames=["p", "c"])
    token = await kit.token()
    assert await kit.status(f"{PODS}/p/log", token) == 404
    assert await kit.status(f"{PODS}/p", token) == 403
    configmaps = "/api/v1/namespaces/default/configmaps"
    assert await kit.status(f"{configmaps}/c", token) == 404
    assert await kit.status(f"{configmaps}/d", token) == 403


async def test_a_token_ends_with_its_time_and_its_account(kit: Kit) -> None:
    token = await kit.token(600)
    assert await kit.status("/api", token) == 200
    await kit.clock.advance(601)
    assert await kit.status("/api", token) == 401
    token = await kit.token(600)
    kit.cluster.delete("serviceaccounts", "robot", "default")
    assert await kit.status("/api", token) == 401


@pytest.mark.parametrize("spoil", [lambda t: t[:-2], lambda t: "x" + t, lambda t: "nonsense"])
async def test_a_token_that_was_tampered_with_is_refused(kit: Kit, spoil: Any) -> None:
    assert await kit.status("/api", spoil(await kit.token())) == 401


async def test_anonymous_requests_reach_health_and_version_only(kit: Kit) -> None:
    assert [await kit.status(path) for path in ("/healthz", "/version", "/api", PODS)] == [200, 200, 403, 403]


async def test_a_role_takes_effect_and_ends_at_once(kit: Kit) -> None:
    token = await kit.token()
    kit.grant(["list"], ["pods"])
    assert await kit.status(PODS, token) == 200
    kit.cluster.delete(f"rolebindings.{RBAC}", "b", "default")
    assert await kit.status(PODS, token) == 403
