"""Resume points: written by the trainer, told by a line of its log, uploaded by the entry while training goes on."""

from __future__ import annotations

import queue
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

#: Line of rank 0 when all processes have written a resume point.
MARK = "CHECKPOINT step="
#: Folder of models kept on the way, one a step: beside the finished model, and in resume points.
KEPT = "steps"
#: Pickles with code in them that resuming does not need.
UNWANTED = ("training_args.bin",)


def step_of(line: str) -> int | None:
    """The step a log line announces a resume point of."""
    head, mark, rest = line.rpartition(MARK)
    return int(rest) if mark and not head and rest.isdigit() else None


class Uploader:
    """Uploads resume points one after the other in a thread of its own, then removes the local files."""

    def __init__(self, folder: Path, commit: Callable[[int, Path], object], say: Callable[[str], None]) -> None:
        """folder: has `checkpoint-<step>` folders; commit: (step, folder) uploads one."""
        self._folder, self._commit, self._say = folder, commit, say
        self._steps: queue.Queue[int | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, name="resume-points", daemon=True)
        self._thread.start()

    def on_line(self, line: str) -> None:
        step = step_of(line)
        if step is not None:
            self._steps.put(step)

    def close(self) -> None:
        """Wait until everything announced is uploaded."""
        self._steps.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (step := self._steps.get()) is not None:
            folder = self._folder / f"checkpoint-{step}"
            for name in UNWANTED:
                (folder / name).unlink(missing_ok=True)
            try:
                self._commit(step, folder)
                self._say(f"resume point of step {step} is stored")
            except Exception as error:  # a lost resume point costs time, never the training
                self._say(f"warning: the resume point of step {step} was not stored: {error}")
            shutil.rmtree(folder, ignore_errors=True)
