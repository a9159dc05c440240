"""A stage as a pod runs it: a process, S3 over HTTP, exit code and termination message."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from srlm_contract.tasks import PromptsParams, SourceRef, StageResult, StageTask, StorageLocation
from support.s3_world import CREDENTIALS
from support.stage_world import World


def pool_task(world: World, endpoint: str, tmp_path: Path, **storage: Any) -> StageTask:
    """A stage that needs no model."""
    pool = tmp_path / "pool.txt"
    pool.write_text("\n".join(f"Tell me about the river number {i} please" for i in range(3)))
    task = world.task(
        PromptsParams(count=1, source="Pool"),
        inputs={"data": world.seed_data()},
        sources={"pool": SourceRef(uri=pool.as_uri())},
    )
    location = {"uri": f"s3://world/{tmp_path.name}", "endpoint_url": endpoint, **storage}
    return task.model_copy(update={"storage": StorageLocation(**location)})


class Pod:
    """What came of a process."""

    def __init__(
        self,
        stage: str,
        task: StageTask | str | None,
        tmp_path: Path,
        command: Sequence[str] | None = None,
        **environ: str,
    ) -> None:
        self.log = tmp_path / "termination-log"
        self.log.write_text("")
        text = task.model_dump_json(by_alias=True) if isinstance(task, StageTask) else task
        self.process = subprocess.Popen(
            command or [sys.executable, "-m", "srlm_stages", stage],
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
                "SRLM_WORK_DIR": str(tmp_path / "work"),
                "SRLM_TERMINATION_LOG": str(self.log),
                "SRLM_POD_UID": "pod-1",
                **CREDENTIALS,
                **({"SRLM_TASK": text} if text is not None else {}),
                **environ,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self) -> tuple[int, StageResult]:
        self.out, self.err = self.process.communicate(timeout=60)
        return self.process.returncode, StageResult.model_validate_json(self.log.read_text())
