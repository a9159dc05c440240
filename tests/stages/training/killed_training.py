"""Trainings that are killed and go on from the newest resume point they announced, one after the other.

    python killed_training.py FOLDER

Leaves `FOLDER/figures.json`: by case the step it went on from. The model is in `FOLDER/<case>/model`; that of `whole`
was not interrupted. The libraries take most of the time: they are imported once, then every life of a training is
forked. No process is asked to die nicely: SIGKILL.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

STEPS, EVERY = 6, 2
#: Whatever memory is free: the order of sums, and so the last bits, follow from what goes through the model at once.
FIXED: dict[str, Any] = {"micro_batch_size": 2, "gradient_checkpointing": False}
#: Steps in which a training is killed.
KILLED_IN = sorted(random.Random(11).sample(range(1, STEPS + 1), 2))


def config(folder: Path, case: str, resume_from: Path | None) -> Any:
    from srlm_contract.spec.training import DpoSpec
    from srlm_contract.tasks import ProcessSettings
    from srlm_stages.training.config import WorkerConfig

    here = folder / case
    return WorkerConfig(
        dpo=DpoSpec(learning_rate=1e-4, min_learning_rate=0, batch_size=2, max_length=256, dropout=0.1), seed=3,
        model=str(folder / "model"), rows=str(folder / "rows.jsonl"), output=str(here / "model"), stage="train",
        result=str(here / "result.json"), failures=str(here), checkpoints=str(here / "checkpoints"),
        process=ProcessSettings(parallelism="DDP", checkpoint_every_steps=EVERY, **FIXED), precision="Float32",
        resume_from=None if resume_from is None else str(resume_from),
    )  # fmt: skip


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_in_step(wanted: int) -> None:
    """Amid a step, when its gradients are there and its update is not."""
    from srlm_stages.training import trainers

    accumulate, calls = trainers._BySteps._accumulate, iter(range(1, STEPS + 1))

    def last(self: Any, *args: Any) -> Any:
        found = accumulate(self, *args)
        if next(calls) == wanted:
            die()
        return found

    trainers._BySteps._accumulate = last  # type: ignore[method-assign]


def kill_in_write(wanted: int) -> None:
    """Amid the file of the optimiser of a resume point."""
    import torch

    save, calls = torch.save, iter(range(1, STEPS + 1))

    def torn(thing: Any, where: Any, *args: Any, **kwargs: Any) -> None:
        save(thing, where, *args, **kwargs)
        if Path(str(where)).name == "optimizer.pt" and next(calls) == wanted:
            os.truncate(where, Path(where).stat().st_size // 2)
            die()

    torch.save = torn


#: How a training is killed; None for one that is not.
CASES: dict[str, Callable[[], None] | None] = {
    "whole": None,
    **{f"step-{step}": partial(kill_in_step, step) for step in KILLED_IN},
    "write": partial(kill_in_write, 2),
}
#: Steps that were done when it was.
DONE = {**{f"step-{step}": step - 1 for step in KILLED_IN}, "write": 2 * EVERY}


def live(folder: Path, case: str, resume_from: Path | None, prepare: Callable[[], None] | None) -> None:
    """One life of a training, its log in `FOLDER/<case>/log`."""
    from srlm_stages.training import worker

    here = folder / case
    (here / "model").mkdir(parents=True, exist_ok=True)
    log = os.open(here / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        os.environ["MASTER_PORT"] = str(free.getsockname()[1])
    if prepare is not None:
        prepare()
    worker.train(config(folder, case, resume_from))


def announced(folder: Path, case: str) -> int:
    """The newest resume point that the log tells of, which the entry would have stored; 0 for none."""
    from srlm_stages.training.checkpoints import step_of

    return max((step_of(line) or 0 for line in (folder / case / "log").read_text().splitlines()), default=0)


def main() -> None:
    import multiprocessing

    import torch
    import trl.trainer.dpo_trainer  # noqa: F401 - once, for all forks

    from support.tiny_model import build_tiny_model

    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    build_tiny_model(folder / "model")
    fork = multiprocessing.get_context("fork")
    figures: dict[str, int] = {}

    def run(case: str, resume_from: Path | None, prepare: Callable[[], None] | None) -> int:
        process = fork.Process(target=live, args=(folder, case, resume_from, prepare))
        process.start()
        process.join()
        return process.exitcode or 0

    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    for case, prepare in CASES.items():
        code = run(case, None, prepare)
        log = (folder / case / "log").read_text()
        if prepare is None:
            assert code == 0, log
            continue
        assert code == -signal.SIGKILL, log
        step = figures[case] = announced(folder, case)
        point = folder / case / "checkpoints" / f"checkpoint-{step}" if step else None
        assert run(case, point, None) == 0, (folder / case / "log").read_text()
    (folder / "figures.json").write_text(json.dumps(figures))


if __name__ == "__main__":
    main()
