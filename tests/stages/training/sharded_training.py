"""Trains a tiny model in every way of a list, replicated and sharded, by two processes on CPUs.

    python sharded_training.py FOLDER

accelerate shards on accelerators only. It is told here that a CPU is one; everything else is what runs on GPUs. Rank 0
leaves `FOLDER/<way>-<DDP|FSDP>/` with the model and `result.json`; `WAYS` says what the ways are. The libraries take
most of the time: they are imported once, then the processes are forked.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Any

#: What differs from a full training in fp32 without dropout against the start model. With dropout, sharded trainings
#: recompute activations: they must draw the same dropout again.
WAYS: dict[str, dict[str, Any]] = {
    "full": {"checkpoint_every_steps": 1},
    "resumed": {"resume_from": "full"},  # after its first step, with new processes' objects
    "dropout": {"dropout": 0.1},
    "lora": {"lora": {"rank": 4, "alpha": 64}},
    "lora-dropout": {"lora": {"rank": 4, "alpha": 64, "dropout": 0.1}, "dropout": 0.1},
    "bf16": {"precision": "BF16Mixed"},
    "reference": {"reference": True},
}
PLACES = ("DDP", "FSDP")


def shard_on_cpus() -> None:
    """Let accelerate take the way of accelerators."""
    import accelerate.state as states
    from accelerate.utils import DistributedType

    from srlm_stages.training import sharding

    make = states.AcceleratorState.__init__

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        plugin = kwargs.get("fsdp_plugin")
        if plugin is not None:
            if self._mixed_precision != "no":
                plugin.set_mixed_precision(self._mixed_precision)
            self.fsdp_plugin, self.distributed_type = plugin, DistributedType.FSDP
            states.PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    states.AcceleratorState.__init__ = init
    sharding.sharded = lambda config, processes: config.process.parallelism == "FSDP"


def config(folder: Path, way: str, place: str) -> Any:
    from srlm_contract.spec.training import DpoSpec, LoraSpec
    from srlm_contract.tasks import ProcessSettings
    from srlm_stages.training.config import WorkerConfig

    options = dict(WAYS[way])
    here = folder / f"{way}-{place}"
    if begun := options.pop("resume_from", None):
        options["resume_from"] = str(folder / f"{begun}-{place}" / "checkpoints" / "checkpoint-1")
    dpo = DpoSpec(
        learning_rate=1e-4, min_learning_rate=0, batch_size=4, max_length=256, dropout=options.pop("dropout", 0)
    )
    process = ProcessSettings(
        parallelism=place, gradient_checkpointing=place == "FSDP" and dpo.dropout > 0,
        checkpoint_every_steps=options.pop("checkpoint_every_steps", 0),
    )  # fmt: skip
    return WorkerConfig(
        dpo=dpo, model=str(folder / "model"), rows=str(folder / "rows.jsonl"), output=str(here), stage="train",
        result=str(here / "result.json"), failures=str(here), checkpoints=str(here / "checkpoints"),
        reference=str(folder / "other") if options.pop("reference", False) else None, process=process,
        lora=LoraSpec(**options.pop("lora", {})), seed=3, **({"precision": "Float32"} | options),
    )  # fmt: skip


def train_all(rank: int, port: int, folder: Path) -> None:
    """One of the two processes."""
    from accelerate.state import AcceleratorState, GradientState

    from srlm_stages.training import worker

    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()})
    worker.RANK = rank
    for way in WAYS:
        for parallelism in PLACES:
            AcceleratorState._reset_state(reset_partial_state=True)
            GradientState._reset_state()
            for name in [name for name in os.environ if name.startswith(("ACCELERATE_", "FSDP_"))]:
                del os.environ[name]  # what the training before left for this one
            this = config(folder, way, parallelism)
            Path(this.output).mkdir(exist_ok=True)
            worker.train(this)


def main() -> None:
    import multiprocessing

    import torch

    from support.tiny_model import build_tiny_model

    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    build_tiny_model(folder / "model")
    build_tiny_model(folder / "other", seed=1)
    shard_on_cpus()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    ranks = [fork.Process(target=train_all, args=(rank, port, folder)) for rank in (0, 1)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    sys.exit(max(abs(process.exitcode or 0) for process in ranks))


if __name__ == "__main__":
    main()
