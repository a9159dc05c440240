"""A node in a process of its own, to be killed: runs a pod whose child escapes, prints both, waits."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from local.cluster_kit import new_cluster, node, pod, until

SCRIPT = """
import subprocess, sys, time
code = "import os, time\\nprint(os.getpid(), flush=True)\\ntime.sleep(600)"
child = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stdout=subprocess.PIPE)
print(child.stdout.readline().decode().strip(), flush=True)
time.sleep(600)
"""


async def main(folder: Path) -> None:
    cluster = new_cluster()
    async with node(cluster, folder):
        cluster.create("pods", pod(script=SCRIPT), "default")
        found = await until(
            cluster, lambda: (p := cluster.get("pods", "p", "default"))["status"]["phase"] == "Running" and p
        )
        async for line in cluster.log_reader(found, {"container": "main", "follow": "true"}):
            print(json.dumps({"status": found["status"], "escapee": int(line)}), flush=True)
            break
        await asyncio.Event().wait()


asyncio.run(main(Path(sys.argv[1])))
