"""The life of one pod on this node, from its volumes to its last status."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from srlm_local.podrunner import status as statuses
from srlm_local.podrunner import volumes
from srlm_local.podrunner.containers import Launch, Outcome, RunningContainer, termination_message
from srlm_local.podrunner.environment import (
    ConfigError,
    PathMap,
    argv,
    executable,
    process_environment,
    pull_error,
    variables,
)
from srlm_local.podrunner.logs import log_path
from srlm_local.podrunner.scheduler import memory_limit
from srlm_local.processes import OWNER_VARIABLE
from srlm_local.store.cluster import Cluster
from srlm_local.store.errors import ApiError

Object = dict[str, Any]
DEFAULT_GRACE_SECONDS = 30


class PodWorker:
    """Runs one bound pod. `run` returns when no process of it is left and its last status is written."""

    def __init__(
        self,
        cluster: Cluster,
        pod: Object,
        folder: Path,
        claims: Path,
        owner: str,
        event: Callable[..., None],
        on_blocked: Callable[[], object] = lambda: None,
    ) -> None:
        self.cluster = cluster
        self.pod = pod
        self.uid: str = pod["metadata"]["uid"]
        self.folder = folder
        self.claims = claims
        self.owner = owner
        self._on_blocked = on_blocked
        self._blocked = False
        self._event = event
        self._changed = asyncio.Event()
        self._stopping = asyncio.Event()
        self._grace = float(pod["spec"].get("terminationGracePeriodSeconds", DEFAULT_GRACE_SECONDS))
        self._killer: asyncio.Task[None] | None = None
        self._running: dict[str, RunningContainer] = {}
        self._states: dict[str, Object] = {}
        self._start_time = ""

    # ---- what the runner tells

    def stop(self, grace: float) -> None:
        """Ends the pod: SIGTERM now, SIGKILL after `grace` seconds. A shorter grace later shortens it."""
        self._stopping.set()
        self._changed.set()
        self._grace = grace
        for container in self._running.values():
            container.terminate()
        if self._killer is not None:
            self._killer.cancel()
        self._killer = asyncio.create_task(self._kill_after(grace))

    async def _kill_after(self, grace: float) -> None:
        await asyncio.sleep(grace)
        for container in self._running.values():
            container.kill()

    def changed(self) -> None:
        """Something in the cluster changed: what was missing may be there now."""
        self._changed.set()

    @property
    def idle(self) -> bool:
        """It waits for something outside (a Secret, an image) and runs nothing: it needs no core."""
        return self._blocked and not self._running

    async def _until_changed(self) -> None:
        self._blocked = True
        self._on_blocked()
        try:
            await self._changed.wait()
        finally:
            self._blocked = False

    # ---- the pod's life

    async def run(self) -> None:
        """Runs the pod to its end."""
        self._start_time = (self.pod.get("status") or {}).get("startTime") or self.cluster.timestamp()
        try:
            await self._live()
        finally:
            if self._killer is not None:
                self._killer.cancel()
        self._publish(ended=True)

    async def _live(self) -> None:
        spec = self.pod["spec"]
        every = [*(spec.get("initContainers") or []), *spec["containers"]]
        for container in every:
            first = container is every[0] or not spec.get("initContainers")
            reason = "ContainerCreating" if first else "PodInitializing"
            self._set_state(container, statuses.waiting(reason))
        self._publish()
        folders = await self._volumes()
        if folders is None:
            return
        for container in spec.get("initContainers") or []:
            if await self._run_container(container, folders) != 0:
                return
        await asyncio.gather(*(self._run_container(c, folders) for c in spec["containers"]))

    async def _volumes(self) -> dict[str, Path] | None:
        told = ""
        while not self._stopping.is_set():
            self._changed.clear()
            try:
                return volumes.prepare(self.pod, self.folder, self.claims, self._lookup)
            except volumes.MountError as error:
                if str(error) != told:
                    self._event("Warning", "FailedMount", str(error))
                told = str(error)
            await self._until_changed()
        return None

    def _lookup(self, resource: str, name: str) -> Object | None:
        return self.cluster.find(resource, name, self.pod["metadata"]["namespace"])

    async def _run_container(self, container: Object, folders: dict[str, Path]) -> int:
        """Runs a container once, as Jobs want it; returns its exit code."""
        launch = await self._configured(container, folders)
        if launch is None:
            return 137
        outcome = await self._run_once(container, launch)
        self._set_state(container, {"terminated": self._terminated(container, launch, outcome)})
        if self._running:  # the last one's end is published together with the pod's
            self._publish()
        return outcome.exit_code

    def _set_state(self, container: Object, state: Object) -> None:
        self._states[container["name"]] = statuses.container_status(container, state)

    async def _configured(self, container: Object, folders: dict[str, Path]) -> Launch | None:
        """Waits until everything the container names exists; None when the pod is stopped before."""
        while not self._stopping.is_set():
            self._changed.clear()
            image = container.get("image", "")
            if (why := pull_error(image)) is not None:
                if self._state_of(container) != "ImagePullBackOff":
                    self._event("Warning", "Failed", f'Failed to pull image "{image}": {why}')
                    self._event("Warning", "Failed", "Error: ErrImagePull")
                    message = f'Back-off pulling image "{image}": ErrImagePull: {why}'
                    self._wait_state(container, "ImagePullBackOff", message)
            else:
                try:
                    return self._launch(container, folders)
                except ConfigError as error:
                    if self._wait_state(container, "CreateContainerConfigError", str(error)):
                        self._event("Warning", "Failed", f"Error: {error}")
            await self._until_changed()
        return None

    def _state_of(self, container: Object) -> str:
        return str(self._states[container["name"]]["state"].get("waiting", {}).get("reason", ""))

    def _wait_state(self, container: Object, reason: str, message: str) -> bool:
        """Publishes why the container does not start; False if that is known."""
        before = self._states[container["name"]]
        self._set_state(container, statuses.waiting(reason, message))
        if self._states[container["name"]] == before:
            return False
        self._publish()
        return True

    def _launch(self, container: Object, folders: dict[str, Path]) -> Launch:
        home = self.folder / "containers" / container["name"]
        root = home / "root"
        root.mkdir(parents=True, exist_ok=True)
        message = home / "termination-log"
        message.write_bytes(b"")
        mounts = volumes.mounts(container, folders)
        mounts[container.get("terminationMessagePath", "/dev/termination-log")] = message
        paths = PathMap(mounts)
        own = variables(self.pod, container, self._lookup)
        words = [paths.real(word) for word in argv(container, own)]
        words[0] = executable(words[0])
        environment = process_environment(self.pod, container, own, paths)
        owner = f"{self.owner}/{container['name']}/"
        environment[OWNER_VARIABLE] = owner
        workdir = paths.real(container.get("workingDir") or "/")
        cwd = root if workdir == (container.get("workingDir") or "/") else Path(workdir)
        log = log_path(self.folder, container["name"])
        return Launch(words, environment, cwd, log, log.with_suffix(".json"), owner, memory_limit(container))

    async def _run_once(self, container: Object, launch: Launch) -> Outcome:
        name = container["name"]
        running = await RunningContainer.start(launch)
        self._running[name] = running
        try:
            if running.pid is not None:
                self._set_state(container, {"running": {"startedAt": self.cluster.timestamp()}})
                self._publish()
            if self._stopping.is_set():  # it was told before there was anybody to tell
                running.terminate()
                if self._killer is None or self._killer.done():
                    running.kill()
            return await running.wait()
        finally:
            await self._running.pop(name).close()

    def _terminated(self, container: Object, launch: Launch, outcome: Outcome) -> Object:
        if outcome.error:
            reason = "StartError"
        elif outcome.oom_killed:
            reason = "OOMKilled"
        else:
            reason = "Error" if outcome.exit_code else "Completed"
        path = launch.log.parent / "termination-log"
        policy = container.get("terminationMessagePolicy", "File")
        message = outcome.error or termination_message(path, launch.log, policy, outcome.exit_code != 0)
        running = self._states[container["name"]]["state"].get("running", {})
        now = self.cluster.timestamp()
        return {
            "exitCode": outcome.exit_code,
            **({"signal": outcome.signal} if outcome.signal else {}),
            "reason": reason,
            **({"message": message} if message else {}),
            "startedAt": running.get("startedAt", now),
            "finishedAt": now,
        }

    # ---- status

    def _publish(self, ended: bool = False) -> None:
        """Writes the status if the pod is still there and it differs."""
        metadata = self.pod["metadata"]
        pod = self.cluster.find("pods", metadata["name"], metadata["namespace"])
        if pod is None or pod["metadata"]["uid"] != self.uid:
            return
        init = [self._states[c["name"]] for c in pod["spec"].get("initContainers") or [] if c["name"] in self._states]
        main = [self._states[c["name"]] for c in pod["spec"]["containers"] if c["name"] in self._states]
        status = {
            **(pod.get("status") or {}),
            "phase": statuses.phase(main, ended),
            "conditions": statuses.with_ready(pod, main, ended, self.cluster.timestamp()),
            "hostIP": "127.0.0.1",
            "podIP": "127.0.0.1",
            "podIPs": [{"ip": "127.0.0.1"}],
            "hostIPs": [{"ip": "127.0.0.1"}],
            "startTime": self._start_time,
            "containerStatuses": main,
            **({"initContainerStatuses": init} if init else {}),
        }
        if status != pod.get("status"):
            with contextlib.suppress(ApiError):  # deleted for good by somebody else in this very moment
                self.cluster.update("pods", {**pod, "status": status}, subresource="status")
