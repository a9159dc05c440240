"""Trains on one GPU in every way of a list, replicated and sharded, in one process.

    python gpu_training.py FOLDER

FSDP over one process takes the same way as over many: the same policy of types, the same hooks. Leaves
`FOLDER/figures.json`: by way and place the series of steps, peak memory in MiB and seconds, or the `error` of a
training that failed: the others go on, as time on such machines is dear.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from stages.training.sharded_training import PLACES, WAYS, config  # the same ways as on CPUs, in tests/stages

#: A model large enough to keep a GPU busy: about 190 M weights.
LARGE = {
    "vocab_size": 32000, "hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 12,
    "num_attention_heads": 16, "num_key_value_heads": 8, "max_position_embeddings": 2048,
}  # fmt: skip
BUSY = {"bf16-large": {"precision": "BF16Mixed"}, "fp32-large": {}}


def build(folder: Path) -> None:
    """The models and rows of all trainings."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from srlm_contract.jsonl import write_rows
    from srlm_contract.rows import PreferencePair
    from support.tiny_model import build_tiny_model, build_tokenizer

    build_tiny_model(folder / "model")
    build_tiny_model(folder / "other", seed=1)
    tokenizer = build_tokenizer(context=2048)
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    LlamaForCausalLM(LlamaConfig(**LARGE, **ids)).save_pretrained(folder / "large")
    tokenizer.save_pretrained(folder / "large")

    def pair(number: int, sentences: int) -> PreferencePair:
        text = "The answer is relevant and useful. " * (sentences + number % 3)
        return PreferencePair(
            id=f"{number:016x}", prompt=f"Why is the sky blue? {number}", chosen=text, rejected="No. " + text,
            chosen_id="a", rejected_id="b", chosen_score=4, rejected_score=1,
        )  # fmt: skip

    write_rows(folder / "rows.jsonl", [pair(i, 4) for i in range(8)])
    write_rows(folder / "long.jsonl", [pair(i, 60) for i in range(32)])


def setting(folder: Path, way: str, place: str) -> Any:
    """What to train: as on CPUs, and the large model on long rows."""
    if way in WAYS:
        return config(folder, way, place)
    base = config(folder, "full", place)
    here = folder / f"{way}-{place}"
    recipe = base.dpo.model_copy(update={"max_length": 2048, "batch_size": 8, "learning_rate": 1e-6})
    process = base.process.model_copy(update={"micro_batch_size": 4, "gradient_checkpointing": True})
    return base.model_copy(
        update={
            "dpo": recipe, "model": str(folder / "large"), "rows": str(folder / "long.jsonl"), "output": str(here),
            "result": str(here / "result.json"), "process": process, **BUSY[way],
        }
    )  # fmt: skip


def main() -> None:
    import torch
    from accelerate.state import AcceleratorState, GradientState

    from srlm_stages.training import sharding, worker

    folder = Path(sys.argv[1])
    build(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "LOCAL_WORLD_SIZE": 1, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()} | {"MASTER_ADDR": "127.0.0.1"})
    sharding.sharded = lambda config, processes: config.process.parallelism == "FSDP"
    figures: dict[str, Any] = {}
    for way in (*WAYS, *BUSY):
        for parallelism in PLACES:
            AcceleratorState._reset_state(reset_partial_state=True)
            GradientState._reset_state()
            for name in [name for name in os.environ if name.startswith(("ACCELERATE_", "FSDP_"))]:
                del os.environ[name]  # what the training before left for this one
            torch.cuda.reset_peak_memory_stats()
            this, began = setting(folder, way, parallelism), time.monotonic()
            Path(this.output).mkdir()
            try:
                worker.train(this)
            except Exception:
                figures[f"{way}-{parallelism}"] = {"error": traceback.format_exc()}
                continue
            figures[f"{way}-{parallelism}"] = {
                "series": json.loads(Path(this.result).read_text())["series"],
                "peakMiB": torch.cuda.max_memory_allocated() / 2**20,
                "seconds": time.monotonic() - began,
            }
            torch.cuda.empty_cache()
    (folder / "figures.json").write_text(json.dumps(figures))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
