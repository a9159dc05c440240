"""Replays recordings of a real Kubernetes API server over HTTP and tells every difference.

    differences = await replay("05-finalizers")

The recordings lie in `recordings/`, compressed; ../shared/data/kubernetes-1.36 beside the checkout has the originals,
whose README explains the format. Placeholders (`<uid-3>`, `<rv-7>`, `<rand-1>`, ...) are bound
where they first appear in an answer and put into later requests. What is not compared, and why, is in
replay_exceptions.py.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import aiohttp

from local.replay_exceptions import LOOSE, NOT_SENT
from local.replay_match import Bindings, compare, expand, fits
from srlm_local.http.server import ApiServer
from srlm_local.jobcontroller.controller import JobController
from srlm_local.kinds import bootstrap
from srlm_local.kinds.table import new_cluster
from srlm_local.store.clock import Clock
from srlm_local.store.cluster import Cluster
from support.virtual_clock import VirtualClock

Object = dict[str, Any]
ROOT = Path(__file__).parents[2]
ORIGINALS = ROOT.parent / "shared" / "data" / "kubernetes-1.36"
RECORDINGS = Path(__file__).parent / "recordings"
TRIES = 600
LIMIT_SECONDS = 60


def load(name: str) -> Object:
    """A recording by the stem of its file."""
    found: Object = json.loads(gzip.decompress((RECORDINGS / f"{name}.json.gz").read_bytes()))
    return found


def renew(originals: Path) -> None:
    """Replaces the compressed copies by those of another folder."""
    for file in sorted(originals.glob("*.json")):
        text = json.dumps(json.loads(file.read_bytes()), separators=(",", ":"), ensure_ascii=False)
        (RECORDINGS / f"{file.name}.gz").write_bytes(gzip.compress(text.encode(), 9, mtime=0))


def default_controllers(cluster: Cluster) -> list[Coroutine[Any, Any, None]]:
    return [JobController(cluster).run()]


async def replay(
    name: str,
    *,
    clock: Clock | None = None,
    more: Callable[[Cluster], list[Coroutine[Any, Any, None]]] = default_controllers,
) -> list[str]:
    """All differences between the recording and a fresh cluster, one line each.

    `more` gives the controllers that run beside the API server's own; with a VirtualClock (the default) time
    moves only while a step waits for something.
    """
    recording = load(name)
    cluster = new_cluster(clock=clock or VirtualClock(), seed=7)
    bootstrap.prepare(cluster)
    server = await ApiServer(cluster, tls=False).start()
    tasks = [*bootstrap.start(cluster), *(asyncio.create_task(run) for run in more(cluster))]
    try:
        if recording["scenario"] != "02-crd":
            crd = load("02-crd")["steps"][0]["request"]["body"]
            cluster.create("customresourcedefinitions.apiextensions.k8s.io", crd)
        cluster.create("namespaces", {"metadata": {"name": f"rec-{recording['scenario']}"}})
        await settle()
        async with aiohttp.ClientSession(server.url, skip_auto_headers=["User-Agent"]) as session:
            player = Player(name, cluster, server, session)
            for number, step in enumerate(recording["steps"]):
                await player.step(number, step)
            return player.finish()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.stop()


async def settle() -> None:
    """Lets everything run that can run now."""
    for _ in range(50):
        await asyncio.sleep(0)


class Player:
    """Sends the steps of one recording and collects differences."""

    def __init__(self, name: str, cluster: Cluster, server: ApiServer, session: aiohttp.ClientSession) -> None:
        self._name = name
        self._cluster = cluster
        self._server = server
        self._session = session
        self._bindings = Bindings()
        self._differences: list[str] = []

    def finish(self) -> list[str]:
        if ("*", "ranks") not in LOOSE.get(self._name, {}):
            self._differences += self._bindings.disorder()
        return self._differences

    async def step(self, number: int, step: Object) -> None:
        if number in NOT_SENT.get(self._name, {}) or not_here(step.get("request") or step["watch"]):
            return
        try:
            async with asyncio.timeout(LIMIT_SECONDS):
                found = await (self._watch(step) if "watch" in step else self._request(step))
        except KeyError as unbound:
            found = [f"not sent, as {unbound} was never seen in an answer"]
        except TimeoutError:
            found = [f"no such answer within {LIMIT_SECONDS} s; until {step.get('until')}"]
        loose = LOOSE.get(self._name, {})
        allowed = {what for key, what in loose if key in (number, "*")}
        kept = [line for line in found if not any(line.startswith(what) for what in allowed)]
        sent = step.get("request") or step["watch"]
        self._differences += [f"step {number} {sent.get('method', 'WATCH')} {sent['path']}: {line}" for line in kept]

    def _headers(self, sent: Object) -> dict[str, str]:
        headers = {"Accept": sent.get("accept") or "application/json", "User-Agent": "python-httpx/1"}
        user = sent.get("user")
        token = self._server.tokens.admin
        if user == "bad token":
            token = "nobody"
        elif user not in (None, "anonymous"):
            token = str(self._bindings.value("<token-1>"))
        if user != "anonymous":
            headers["Authorization"] = f"Bearer {token}"
        if sent.get("content_type"):
            headers["Content-Type"] = sent["content_type"]
        return headers

    def _body(self, sent: Object) -> bytes | None:
        body = sent.get("body")
        if body is None:
            return None
        filled = self._bindings.fill(expand(body), self._cluster.timestamp())
        if isinstance(filled, str):
            return filled.encode()
        return json.dumps(filled).encode()

    async def _request(self, step: Object) -> list[str]:
        sent, wanted, until = step["request"], step["response"], step.get("until")
        path = self._bindings.fill(expand(sent["path"]), "")
        if path.endswith("/eviction"):
            if wanted["status"] == 201:
                self._evict(*path.split("/")[4::2][:2])
            return []
        query = self._bindings.fill(sent.get("query") or {}, "")
        for _ in range(TRIES):
            async with self._session.request(
                sent["method"], path, params=query, data=_stream(self._body(sent)), headers=self._headers(sent)
            ) as response:
                text = await response.text()
                got = _parse(text, response.content_type)
                if until is None or fits(until, got):
                    return self._compare(wanted, got, response)
            await self._pass_time()
        return [f"never matched {until}; the last answer was {text[:600]}"]

    def _evict(self, namespace: str, name: str) -> None:
        """Evictions are not served here, but Jobs must take them as the real controller does."""
        pod = self._cluster.get("pods", name, namespace)
        if "deletionTimestamp" in pod["metadata"]:
            return
        if pod["spec"].get("nodeName") and pod["status"]["phase"] not in ("Succeeded", "Failed"):
            now = self._cluster.timestamp()
            target = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
            conditions = [*pod["status"].get("conditions", []), {**target, "lastTransitionTime": now}]
            status = {**pod["status"], "conditions": conditions}
            self._cluster.update("pods", {**pod, "status": status}, subresource="status")
        self._cluster.delete("pods", name, namespace)

    async def _pass_time(self) -> None:
        await settle()
        clock = self._cluster.clock
        if isinstance(clock, VirtualClock):
            await clock.advance(1)
            await settle()

    def _compare(self, wanted: Object, got: Any, response: aiohttp.ClientResponse) -> list[str]:
        if response.status != wanted["status"]:
            return [f"status {response.status}, not {wanted['status']}: {json.dumps(got)[:600]}"]
        body = expand(wanted.get("body"))
        if isinstance(body, dict) and body.get("kind") == "Status" and body.get("status") == "Failure":
            # The words are free; the reason is what clients go by.
            reasons = (body.get("reason"), got.get("reason") if isinstance(got, dict) else None)
            return [] if reasons[0] == reasons[1] else [f"reason {reasons[1]}, not {reasons[0]}"]
        return compare(body, got, self._bindings)

    async def _watch(self, step: Object) -> list[str]:
        watch = step["watch"]
        path = self._bindings.fill(watch["path"], "")
        query = self._bindings.fill(watch.get("query") or {}, "")
        events: list[Any] = []
        async with self._session.get(path, params=query, headers=self._headers(watch)) as response:
            if response.status != 200:
                return [f"status {response.status}: {await response.text()}"]
            while line := await response.content.readline():
                event = json.loads(line)
                events.append(event)
                enough = len(events) >= len(watch["events"])
                if watch["ended_by"] == "client" and (fits(step["until"], event) or enough):
                    break
        return compare(expand(watch["events"]), events, self._bindings, "events")


def not_here(sent: Object) -> bool:
    """What the one-machine cluster does not have, and the operator does not use."""
    return (
        "apply-patch" in (sent.get("content_type") or "")
        or "as=" in (sent.get("accept") or "")
        or "yaml" in (sent.get("content_type") or "")
        or "protobuf" in (sent.get("accept") or "")
        or bool({"limit", "continue", "sendInitialEvents"} & (sent.get("query") or {}).keys())
        or "orphanDependents" in (sent.get("body") or ())
        or any(part in sent["path"] for part in ("reviews", "ephemeralcontainers", "events.k8s.io"))
    )


def _stream(body: bytes | None) -> io.BytesIO | None:
    return None if body is None else io.BytesIO(body)


def _parse(text: str, content_type: str) -> Any:
    if content_type == "application/json":
        return json.loads(text)
    return text


if __name__ == "__main__":
    renew(Path(sys.argv[1]))
