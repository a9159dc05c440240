"""The least that can react: watches Jobs over HTTP, and creates a ready-made Job when one of them completes.

    python bare_watcher.py KUBECONFIG JOB.json

No state, no plan, no status: what it takes is the price of the wire and the API server.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import sys
from pathlib import Path
from typing import Any

import aiohttp

JOBS = "/apis/batch/v1/namespaces/bare/jobs"


def session(kubeconfig: dict[str, Any]) -> aiohttp.ClientSession:
    cluster = kubeconfig["clusters"][0]["cluster"]
    authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
    context = ssl.create_default_context(cadata=authority)
    headers = {"Authorization": f"Bearer {kubeconfig['users'][0]['user']['token']}"}
    connector = aiohttp.TCPConnector(ssl=context)
    return aiohttp.ClientSession(cluster["server"], headers=headers, connector=connector, read_bufsize=2**20)


async def main(kubeconfig: dict[str, Any], job: dict[str, Any]) -> None:
    done: set[str] = set()
    async with session(kubeconfig) as http, http.get(JOBS, params={"watch": "true"}) as watch:
        print("watching", flush=True)
        async for line in watch.content:
            found = json.loads(line)["object"]
            name = found["metadata"]["name"]
            complete = any(c["type"] == "Complete" for c in found.get("status", {}).get("conditions") or ())
            if complete and name not in done:
                done.add(name)
                job["metadata"]["name"] = f"next-{len(done)}"
                async with http.post(JOBS, json=job) as answer:
                    answer.raise_for_status()


if __name__ == "__main__":
    asyncio.run(main(*(json.loads(Path(path).read_text(encoding="utf-8")) for path in sys.argv[1:])))
