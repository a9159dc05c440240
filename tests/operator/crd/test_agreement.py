"""`srlm validate` and an API server judge the same manifests alike (over HTTP, strict field validation)."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from srlm_local.http.server import ApiServer
from srlm_local.kinds import bootstrap
from srlm_local.kinds.table import new_cluster
from srlm_operator.crd import definition as crd
from srlm_operator.crd.validate import validate_text
from support.corpus import MANIFESTS, NOT_SENT, runs


async def refusal(session: aiohttp.ClientSession, base: str, document: dict[str, Any]) -> str:
    """The API server's message, empty if it takes the object."""
    namespace = (document.get("metadata") or {}).get("namespace") or "default"
    url = f"{base}/apis/{crd.API_VERSION}/namespaces/{namespace}/{crd.PLURAL}"
    query = {"dryRun": "All", "fieldValidation": "Strict"}
    async with session.post(url, params=query, json=document) as response:
        body = await response.json()
        return "" if response.status == 201 else f"{response.status}: {body.get('message')}"


async def judge() -> list[str]:
    """Disagreements over the whole corpus."""
    cluster = new_cluster()
    server = ApiServer(cluster, tls=False)
    await server.start(port=0)
    tasks = bootstrap.start(cluster)
    found: list[str] = []
    try:
        headers = {"Authorization": f"Bearer {server.tokens.admin}"}
        async with aiohttp.ClientSession(headers=headers) as session:
            await _prepare(session, server.url)
            for path in sorted(MANIFESTS.glob("*/*")):
                documents = [] if path.stem in NOT_SENT else runs(path)
                for document in documents or []:
                    offline = [str(problem) for problem in validate_text(json.dumps(document)).problems]
                    online = await refusal(session, server.url, document)
                    if bool(offline) != bool(online):
                        found.append(f"{path.stem}: validate says {offline}, the API server {online or 'ok'}")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.stop()
    return found


async def _prepare(session: aiohttp.ClientSession, base: str) -> None:
    definitions = f"{base}/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    async with session.post(definitions, json=crd.custom_resource_definition()) as response:
        assert response.status == 201, await response.text()
    for name in ("default", "training"):
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        async with session.post(f"{base}/api/v1/namespaces", json=namespace) as response:
            assert response.status in (201, 409), await response.text()
    for _ in range(100):
        async with session.get(f"{definitions}/{crd.CRD_NAME}") as response:
            conditions = (await response.json()).get("status", {}).get("conditions") or []
        if any(item["type"] == "Established" and item["status"] == "True" for item in conditions):
            return
        await asyncio.sleep(0.02)
    pytest.fail("the CustomResourceDefinition was not established")


def test_over_the_whole_corpus() -> None:
    assert asyncio.run(judge()) == []
