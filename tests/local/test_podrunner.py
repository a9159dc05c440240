"""Pods as process trees: outcome, signals, configuration that is missing, logs, leftovers."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from base64 import b64encode
from pathlib import Path

import psutil
import pytest

from local.cluster_kit import ended, new_cluster, node, pod, terminated, until, waiting
from srlm_local.podrunner.containers import SUPERVISOR
from srlm_local.store.errors import ApiError

ESCAPEE = """
import os, subprocess, sys
code = "import os, time\\nprint(os.getpid(), flush=True)\\ntime.sleep(600)"
child = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stdout=subprocess.PIPE)
print(child.stdout.readline().decode().strip(), flush=True)
"""
"""Starts a child in a session of its own and prints its process id."""


async def test_succeeded_pod_has_the_kubelets_status(tmp_path: Path) -> None:
    cluster = new_cluster()
    async with node(cluster, tmp_path):
        cluster.create("pods", pod(script="print('hello')"), "default")
        found = await until(cluster, lambda: ended(cluster))
        status = found["status"]
        assert status["phase"] == "Succeeded"
        assert terminated(found)["exitCode"] == 0
        assert terminated(found)["reason"] == "Completed"
        conditions = {c["type"]: (c["status"], c.get("reason")) for c in status["conditions"]}
        assert conditions["PodScheduled"] == ("True", None)
        assert conditions["Ready"] == ("False", "PodCompleted")
        assert found["spec"]["nodeName"] == "local"
        assert cluster.log_reader(found, {"container": "main"}) == "hello\n"


async def test_exit_code_and_termination_message(tmp_path: Path) -> None:
    cluster = new_cluster()
    script = "import os, sys; open(os.environ['LOG'], 'w').write('x' * 5000 + 'end'); sys.exit(65)"
    container = {
        "env": [{"name": "LOG", "value": "/var/run/message"}],
        "terminationMessagePath": "/var/run/message",
    }
    async with node(cluster, tmp_path):
        cluster.create("pods", pod(script=script, container=container), "default")
        found = await until(cluster, lambda: ended(cluster))
        assert found["status"]["phase"] == "Failed"
        assert terminated(found)["exitCode"] == 65
        assert terminated(found)["reason"] == "Error"
        assert terminated(found)["message"].endswith("end")
        assert len(terminated(found)["message"]) == 4096


async def test_message_falls_back_to_the_log_only_on_error(tmp_path: Path) -> None:
    cluster = new_cluster()
    policy = {"terminationMessagePolicy": "FallbackToLogsOnError"}
    async with node(cluster, tmp_path):
        cluster.create("pods", pod("bad", "print('last words'); raise SystemExit(3)", container=policy), "default")
        cluster.create("pods", pod("good", "print('last words')", container=policy), "default")
        bad = await until(cluster, lambda: ended(cluster, "bad"))
        good = await until(cluster, lambda: ended(cluster, "good"))
        assert terminated(bad)["message"] == "last words"
        assert "message" not in terminated(good)


async def test_log_with_carriage_returns_and_without_a_last_newline(tmp_path: Path) -> None:
    cluster = new_cluster()
    script = "import sys; sys.stdout.write('1%\\r50%\\r100%\\nlast')"
    async with node(cluster, tmp_path):
        cluster.create("pods", pod(script=script), "default")
        found = await until(cluster, lambda: ended(cluster))
        assert cluster.log_reader(found, {"container": "main"}) == "1%\r50%\r100%\nlast"
        assert cluster.log_reader(found, {"container": "main", "tailLines": "1"}) == "last"


async def test_command_that_does_not_exist(tmp_path: Path) -> None:
    cluster = new_cluster()
    async with node(cluster, tmp_path):
        cluster.create("pods", pod(container={"command": ["no-such-command"]}), "default")
        found = await until(cluster, lambda: ended(cluster))
        assert terminated(found)["reason"] == "StartError"
        assert terminated(found)["exitCode"] == 128
        assert "no-such-command" in terminated(found)["message"]


async def test_children_in_their_own_sessions_end_with_the_pod(tmp_path: Path) -> None:
    cluster = new_cluster()
    async with node(cluster, tmp_path):
        cluster.create("pods", pod(script=ESCAPEE), "default")
        found = await until(cluster, lambda: ended(cluster))
        child = int(cluster.log_reader(found, {"container": "main"}))
        assert not psutil.pid_exists(child)


async def test_deletion_gives_sigterm_then_sigkill(tmp_path: Path) -> None:
    cluster = new_cluster()
    polite = (
        "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(7)); print('up', flush=True); time.sleep(600)"
    )
    deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    async with node(cluster, tmp_path):
        for name, script in (("polite", polite), ("deaf", deaf)):
            made = pod(name, script, terminationGracePeriodSeconds=1 if name == "deaf" else 600)
            made["metadata"]["finalizers"] = ["example.com/keep"]
            cluster.create("pods", made, "default")
        for name in ("polite", "deaf"):
            async for line in follow(cluster, name):
                assert line == b"up\n"
                break
            cluster.delete("pods", name, "default")
        assert terminated(await until(cluster, lambda: ended(cluster, "polite")))["exitCode"] == 7
        dead = await until(cluster, lambda: ended(cluster, "deaf"))
        assert terminated(dead)["exitCode"] == 137
        assert terminated(dead)["signal"] == 9
        for name in ("polite", "deaf"):
            patch = {"metadata": {"finalizers": None}}
            cluster.patch("pods", name, patch, "default")
            await until(cluster, lambda name=name: cluster.find("pods", name, "default") is None)


async def follow(cluster, name):  # type: ignore[no-untyped-def]
    found = await until(
        cluster, lambda: (p := cluster.get("pods", name, "default"))["status"]["phase"] == "Running" and p
    )
    async for piece in cluster.log_reader(found, {"container": "main", "follow": "true"}):
        yield piece


async def test_follow_ends_with_the_container(tmp_path: Path) -> None:
    cluster = new_cluster()
    async with node(cluster, tmp_path):
        script = "import sys, time; print('one', flush=True); print('two', file=sys.stderr); print('three', end='')"
        cluster.create("pods", pod(script=script), "default")
        text = b"".join([piece async for piece in follow_any(cluster)])
        assert sorted(text.decode().replace("three", "three\n").split()) == ["one", "three", "two"]


async def follow_any(cluster):  # type: ignore[no-untyped-def]
    found = await until(
        cluster, lambda: (p := cluster.get("pods", "p", "default"))["status"]["phase"] != "Pending" and p
    )
    stream = cluster.log_reader(found, {"container": "main", "follow": "true"})
    async for piece in stream:
        yield piece


async def test_missing_configuration_waits_until_it_is_there(tmp_path: Path) -> None:
    cluster = new_cluster()
    env = [
        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "token"}}},
        {"name": "LEVEL", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "level", "optional": True}}},
    ]
    script = "import os; print(os.environ['TOKEN'], 'LEVEL' in os.environ)"
    async with node(cluster, tmp_path):
        cluster.create("pods", pod(script=script, container={"env": env}), "default")
        state = await until(cluster, lambda: waiting(cluster).get("message") and waiting(cluster))
        assert state == {"reason": "CreateContainerConfigError", "message": 'secret "s" not found'}
        with pytest.raises(ApiError, match="is waiting to start: CreateContainerConfigError"):
            cluster.log_reader(cluster.get("pods", "p", "default"), {"container": "main"})
        cluster.create("secrets", {"metadata": {"name": "s"}, "data": {}}, "default")
        await until(cluster, lambda: "key token" in waiting(cluster).get("message", ""))
        assert waiting(cluster)["message"] == "couldn't find key token in Secret default/s"
        cluster.patch("secrets", "s", {"data": {"token": b64encode(b"abc").decode()}}, "default")
        found = await until(cluster, lambda: ended(cluster))
        assert cluster.log_reader(found, {"container": "main"}) == "abc False\n"


async def test_missing_volume_is_an_event_and_waits(tmp_path: Path) -> None:
    cluster = new_cluster()
    volumes = [{"name": "v", "configMap": {"name": "c"}}]
    container = {"volumeMounts": [{"name": "v", "mountPath": "/etc/c"}], "args": ["/etc/c/key"]}
    script = "import sys; print(open(sys.argv[1]).read())"
    async with node(cluster, tmp_path):
        cluster.create("pods", pod(script=script, container=container, volumes=volumes), "default")
        events = await until(cluster, lambda: cluster.list("events", "default", fields="reason=FailedMount"))
        assert events[0]["message"] == 'MountVolume.SetUp failed for volume "v" : configmap "c" not found'
        assert waiting(cluster) == {"reason": "ContainerCreating"}
        cluster.create("configmaps", {"metadata": {"name": "c"}, "data": {"key": "value"}}, "default")
        found = await until(cluster, lambda: ended(cluster))
        assert cluster.log_reader(found, {"container": "main"}) == "value\n"


async def test_image_that_cannot_be_pulled(tmp_path: Path) -> None:
    cluster = new_cluster()
    async with node(cluster, tmp_path):
        made = pod(container={"image": "example.com/does-not-exist:1"})
        cluster.create("pods", made, "default")
        state = await until(cluster, lambda: waiting(cluster).get("message") and waiting(cluster))
        assert state["reason"] == "ImagePullBackOff"
        cluster.delete("pods", "p", "default")
        await until(cluster, lambda: cluster.find("pods", "p", "default") is None)


async def test_init_container_runs_first_and_its_failure_is_the_pods(tmp_path: Path) -> None:
    cluster = new_cluster()
    volumes = [{"name": "w", "emptyDir": {}}]
    mount = {"volumeMounts": [{"name": "w", "mountPath": "/w"}], "env": [{"name": "F", "value": "/w/f"}]}
    write = {"command": ["python", "-c", "import os; open(os.environ['F'], 'w').write('made')"], **mount}
    fail = {"command": ["python", "-c", "raise SystemExit(4)"]}
    read = "import os; print(open(os.environ['F']).read())"
    async with node(cluster, tmp_path):
        for name, init in (("good", write), ("bad", fail)):
            first = {"name": "init", "image": "example.com/image:1", **init}
            made = pod(name, read, container=mount, volumes=volumes, initContainers=[first])
            cluster.create("pods", made, "default")
        good = await until(cluster, lambda: ended(cluster, "good"))
        bad = await until(cluster, lambda: ended(cluster, "bad"))
        assert cluster.log_reader(good, {"container": "main"}) == "made\n"
        assert bad["status"]["phase"] == "Failed"
        assert bad["status"]["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 4


async def test_pods_share_the_cores_first_come_first_served(tmp_path: Path) -> None:
    cluster = new_cluster()
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    blocked = f"open({str(gate)!r}).read()"
    wide = {"resources": {"requests": {"cpu": "2"}}}
    async with node(cluster, tmp_path / "node", cores=2):
        cluster.create("pods", pod("a", blocked), "default")
        await until(cluster, lambda: cluster.get("pods", "a", "default")["status"]["phase"] == "Running")
        cluster.create("pods", pod("wide", container=wide), "default")
        cluster.create("pods", pod("late"), "default")
        unbound = [p["metadata"]["name"] for p in cluster.list("pods", "default") if not p["spec"].get("nodeName")]
        assert unbound == ["late", "wide"]
        await asyncio.to_thread(gate.write_text, "go")
        await until(cluster, lambda: ended(cluster, "late"))
        starts = {n: cluster.get("pods", n, "default")["status"]["phase"] for n in ("a", "wide", "late")}
        assert starts == {"a": "Succeeded", "wide": "Succeeded", "late": "Succeeded"}
        order = [e["involvedObject"]["name"] for e in sorted(
            cluster.list("events", "default", fields="reason=Scheduled"),
            key=lambda e: int(e["metadata"]["resourceVersion"]),
        )]  # fmt: skip
        assert order == ["a", "wide", "late"]


async def test_a_pod_that_waits_for_a_secret_keeps_no_core_from_the_others(tmp_path: Path) -> None:
    cluster = new_cluster()
    secret = {"name": "S", "valueFrom": {"secretKeyRef": {"name": "absent", "key": "key"}}}
    async with node(cluster, tmp_path, cores=2):
        cluster.create("pods", pod("waits", container={"env": [secret]}), "default")
        await until(cluster, lambda: waiting(cluster, "waits").get("reason") == "CreateContainerConfigError")
        cluster.create("pods", pod("wide", container={"resources": {"requests": {"cpu": "2"}}}), "default")
        await until(cluster, lambda: ended(cluster, "wide"))


async def test_memory_above_the_limit_is_an_oom_kill(tmp_path: Path) -> None:
    cluster = new_cluster()
    script = "import time; held = bytearray(b'x') * (256 * 1024 * 1024); time.sleep(600)"
    limits = {"resources": {"limits": {"memory": "128Mi"}}}
    async with node(cluster, tmp_path):
        cluster.create("pods", pod(script=script, container=limits), "default")
        found = await until(cluster, lambda: ended(cluster))
        assert terminated(found)["reason"] == "OOMKilled"
        assert terminated(found)["exitCode"] == 137


async def test_ephemeral_volume_is_a_folder_that_goes_with_the_pod(tmp_path: Path) -> None:
    cluster = new_cluster()
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    volumes = [{"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": claim}}}]
    container = {"volumeMounts": [{"name": "v", "mountPath": "/scratch"}], "env": [{"name": "D", "value": "/scratch"}]}
    script = "import os, pathlib; (pathlib.Path(os.environ['D']) / 'row').write_text('x')"
    async with node(cluster, tmp_path):
        cluster.create("pods", pod(script=script, container=container, volumes=volumes), "default")
        found = await until(cluster, lambda: ended(cluster))
        assert found["status"]["phase"] == "Succeeded"
        assert len(rows_below(tmp_path)) == 1
        cluster.delete("pods", found["metadata"]["name"], "default")
        await until(cluster, lambda: not rows_below(tmp_path))


def rows_below(folder: Path) -> list[Path]:
    return list(folder.rglob("row"))


async def test_missing_claim_is_unschedulable_until_it_is_there(tmp_path: Path) -> None:
    cluster = new_cluster()
    volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]
    async with node(cluster, tmp_path):
        cluster.create("pods", pod(volumes=volumes), "default")
        found = await until(cluster, lambda: cluster.list("events", "default", fields="reason=FailedScheduling"))
        assert found[0]["message"] == '0/1 nodes are available: persistentvolumeclaim "c" not found.'
        claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        cluster.create("persistentvolumeclaims", {"metadata": {"name": "c"}, "spec": claim}, "default")
        await until(cluster, lambda: ended(cluster))
        assert cluster.get("persistentvolumeclaims", "c", "default")["status"]["phase"] == "Bound"


async def test_pods_of_a_killed_node_are_lost_and_nothing_of_them_runs(tmp_path: Path) -> None:
    """The first runner lives in a process that is SIGKILLed; the second takes over its folder."""
    child = subprocess.Popen(  # noqa: ASYNC220  (nothing else runs on this loop yet)
        [sys.executable, str(Path(__file__).with_name("killed_node.py")), str(tmp_path)],
        stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert child.stdout is not None
    seen = json.loads(await asyncio.to_thread(child.stdout.readline))
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    cluster = new_cluster()
    lost = cluster.create("pods", pod(), "default")
    cluster.bind("p", "default", "local")
    status = {**cluster.get("pods", "p", "default"), "status": seen["status"]}
    cluster.update("pods", status, subresource="status")
    async with node(cluster, tmp_path):
        found = await until(cluster, lambda: ended(cluster))
        assert lost["metadata"]["uid"] == found["metadata"]["uid"]
        assert found["status"]["reason"] == "NodeLost"
        disruption = next(c for c in found["status"]["conditions"] if c["type"] == "DisruptionTarget")
        assert disruption["status"] == "True"
        assert terminated(found)["exitCode"] == 137
        assert not psutil.pid_exists(seen["escapee"])


async def test_a_killed_supervisor_takes_its_tree_along(tmp_path: Path) -> None:
    cluster = new_cluster()
    async with node(cluster, tmp_path):
        cluster.create("pods", pod(script=ESCAPEE + "\nimport time; time.sleep(600)"), "default")
        async for line in follow(cluster, "p"):
            escapee = int(line)
            break
        supervisor = next(parent for parent in psutil.Process(escapee).parents() if str(SUPERVISOR) in parent.cmdline())
        supervisor.kill()
        found = await until(cluster, lambda: ended(cluster))
        assert terminated(found)["exitCode"] == 137
        assert not psutil.pid_exists(escapee)
