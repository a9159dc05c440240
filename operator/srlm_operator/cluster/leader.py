"""Leader election by a Lease: two replicas may run, one of them works.

As client-go does it: the holder renews well within the lease's duration; another takes over once the holder has
not renewed for that long by the *other's* clock, so clocks need not agree. A holder that cannot renew gives up
before anybody may take over. On a clean exit the Lease is released at once.

It is renewed from a thread of its own: planning may keep the process's event loop busy for longer than a Lease lasts.
A loop that hangs for good is found by the liveness probe, which it answers itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import threading
import time
from datetime import UTC, datetime
from secrets import token_hex

from srlm_operator.errors import AlreadyExists, ApiError, Conflict, NotFound, OperatorError
from srlm_operator.settings import Settings

from .client import LEASES, Client, Obj

log = logging.getLogger(__name__)


class LeadershipLost(OperatorError):
    """The Lease could not be renewed in time."""


class LeaderElection:
    """One candidate."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._name, self._seconds = settings.lease_name, settings.lease_seconds
        self._namespace = settings.lease_namespace or os.environ.get("POD_NAMESPACE", "default")
        self.identity = f"{os.environ.get('POD_NAME') or socket.gethostname()}-{token_hex(4)}"
        self._seen: tuple[str, float] = ("", 0.0)

    async def acquire(self, stop: asyncio.Event) -> bool:
        """Wait until this process leads. False when `stop` came first."""
        told = ""
        while not stop.is_set():
            try:
                if await self._try(self._client):
                    log.info("leading as %s", self.identity)
                    return True
            except ApiError as problem:
                if str(problem) != told:
                    told = str(problem)
                    log.warning("Lease %s/%s: %s", self._namespace, self._name, told)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._seconds / 5):
                    await stop.wait()
        return False

    async def keep(self) -> None:
        """Renew until cancelled. Raises LeadershipLost."""
        loop, stopping = asyncio.get_running_loop(), threading.Event()
        ended: asyncio.Future[LeadershipLost | None] = loop.create_future()

        def work() -> None:
            lost: LeadershipLost | None = None
            try:
                self._renew(stopping)
            except Exception as problem:  # whatever it is: nobody renews any more
                lost = problem if isinstance(problem, LeadershipLost) else LeadershipLost(repr(problem))
            with contextlib.suppress(RuntimeError):  # the loop may be closed by now
                loop.call_soon_threadsafe(ended.set_result, lost)

        threading.Thread(target=work, name="leader", daemon=True).start()
        try:
            lost = await asyncio.shield(ended)
        finally:
            stopping.set()
            # A renewal on its way must not come after the release.
            await asyncio.wait([ended], timeout=5)
        if lost is not None:
            raise lost

    def _renew(self, stopping: threading.Event) -> None:
        """Renew until `stopping` is set. Blocks; for a thread without an event loop. Raises LeadershipLost."""
        with asyncio.Runner() as runner:
            client = Client(self._client.configuration)
            client.on_write, client.on_error = self._client.on_write, self._client.on_error
            runner.run(client.__aenter__())
            try:
                renewed, limit = time.monotonic(), self._seconds * 2 / 3
                while not stopping.wait(self._seconds / 5):
                    began = time.monotonic()
                    try:
                        # A request that hangs renews nothing, and the others wait no longer for that.
                        ours = runner.run(asyncio.wait_for(self._try(client), renewed + limit - began))
                        renewed = began
                    except (ApiError, TimeoutError) as problem:
                        log.warning("Lease not renewed: %s", str(problem) or "no answer")
                        if time.monotonic() - renewed >= limit:
                            raise LeadershipLost("the Lease could not be renewed in time") from problem
                        continue
                    if not ours:
                        raise LeadershipLost(f"Lease {self._namespace}/{self._name} is held by somebody else")
            finally:
                runner.run(client.__aexit__())

    async def release(self) -> None:
        """Let go, so that the other replica need not wait."""
        with contextlib.suppress(ApiError):
            lease = await self._client.get(LEASES, self._namespace, self._name)
            if lease["spec"].get("holderIdentity") == self.identity:
                lease["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _now()}
                await self._client.replace(LEASES, self._namespace, self._name, lease)

    async def _try(self, client: Client) -> bool:
        """Take or renew the Lease once."""
        try:
            lease = await client.get(LEASES, self._namespace, self._name)
        except NotFound:
            return await self._create(client)
        spec = lease.setdefault("spec", {})
        holder = spec.get("holderIdentity") or ""
        if holder and holder != self.identity and not self._expired(lease):
            return False
        now = _now()
        if holder != self.identity:
            spec["acquireTime"] = now
            spec["leaseTransitions"] = (spec.get("leaseTransitions") or 0) + 1
        spec |= {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": max(1, round(self._seconds)),
            "renewTime": now,
        }
        try:
            await client.replace(LEASES, self._namespace, self._name, lease)
        except Conflict:
            return False
        return True

    async def _create(self, client: Client) -> bool:
        now = _now()
        body = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name, "namespace": self._namespace},
            "spec": {
                "holderIdentity": self.identity,
                "leaseDurationSeconds": max(1, round(self._seconds)),
                "acquireTime": now,
                "renewTime": now,
                "leaseTransitions": 0,
            },
        }
        try:
            await client.create(LEASES, self._namespace, body)
        except AlreadyExists:
            return False
        return True

    def _expired(self, lease: Obj) -> bool:
        version = lease["metadata"]["resourceVersion"]
        if self._seen[0] != version:
            self._seen = (version, time.monotonic())
        duration = lease["spec"].get("leaseDurationSeconds") or self._seconds
        return time.monotonic() - self._seen[1] > duration


def _now() -> str:
    """Lease times need fractions of a second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
