"""One side of the training benchmark, in a process of its own: ours replaces parts of TRL in its process.

    python training_sides.py ours|bare|defaults FOLDER < commands

A line `build` makes the model and the pairs in FOLDER; `even` and `mixed` train on pairs of that kind and answer the
seconds from trainer to last step (loading the model is left out). `bare` is TRL's DPOTrainer with our settings,
`defaults` is TRL's DPOConfig with nothing but the recipe.
"""

from __future__ import annotations

import json
import os
import random
import socket
import sys
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
from transformers.utils import logging
from trl import DPOConfig, DPOTrainer

from srlm_contract.rows import PreferencePair
from srlm_contract.spec.training import DpoSpec
from srlm_contract.tasks import ProcessSettings
from srlm_stages.training import arguments
from srlm_stages.training.callbacks import Reporter
from srlm_stages.training.config import WorkerConfig
from srlm_stages.training.worker import build_trainer, encoded_rows
from support.tiny_model import VOCABULARY, build_tokenizer

ROWS, BATCH = 16, 8
WORDS = ("the", "cat", "sat", "on", "a", "mat", "and", "looked", "at", "the", "sun", "before", "it", "went", "home")
LENGTHS = {"even": [40], "mixed": [5, 5, 8, 10, 10, 15, 20, 100]}
"""Words of an answer: most real answers are short, a few are very long."""


def build(folder: Path) -> None:
    """A random Llama of 1 million weights, and pairs in both kinds."""
    tokenizer = build_tokenizer(context=2048)
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=128, intermediate_size=384, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=2048, pad_token_id=tokenizer.pad_token_id, **ends,
    )  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    for kind, lengths in LENGTHS.items():
        chance = random.Random(kind)
        rows = []
        for number in range(ROWS):
            chosen, rejected = (" ".join(chance.choices(WORDS, k=lengths[number % len(lengths)])) for _ in range(2))
            rows.append({"prompt": f"Question {number}?", "chosen": chosen, "rejected": rejected})
        (folder / f"{kind}.json").write_text(json.dumps(rows), encoding="utf-8")


def worker_config(folder: Path, kind: str) -> WorkerConfig:
    recipe = DpoSpec(batch_size=BATCH, epochs=1, max_length=1024, dropout=0.0)
    names = ("model", "output", "result", "failures", "checkpoints")
    paths = {name: str(folder / name) for name in names} | {"rows": str(folder / f"{kind}-{os.getpid()}.jsonl")}
    return WorkerConfig(
        dpo=recipe, stage="train", precision="Float32", **paths,
        process=ProcessSettings(parallelism="DDP", gradient_checkpointing=False),
    )  # fmt: skip


def ours(config: WorkerConfig, rows: list[dict[str, str]], tokenizer: Any) -> Any:
    pairs = [
        PreferencePair(
            id=str(n), chosen_score=5, rejected_score=1, chosen_id="c", rejected_id="r", **row
        ).model_dump_json(by_alias=True)
        for n, row in enumerate(rows)
    ]
    Path(config.rows).write_text("\n".join(pairs) + "\n", encoding="utf-8")
    encoded, _ = encoded_rows(config, tokenizer, 1024)
    return build_trainer(config, tokenizer, encoded, 1, Reporter("train"))


def bare(settings: Any, rows: list[dict[str, str]], model: Any, tokenizer: Any) -> Any:
    def said(role: str, text: str) -> list[dict[str, str]]:
        return [{"role": role, "content": text}]

    data = [
        {
            "prompt": said("user", row["prompt"]),
            "chosen": said("assistant", row["chosen"]),
            "rejected": said("assistant", row["rejected"]),
        }
        for row in rows
    ]
    return DPOTrainer(model=model, args=settings, train_dataset=Dataset.from_list(data), processing_class=tokenizer)


def settings(side: str, config: WorkerConfig) -> DPOConfig:
    if side == "bare":
        return arguments.dpo_arguments(config, 1)
    recipe = config.recipe
    return DPOConfig(
        output_dir=config.checkpoints, use_cpu=True, bf16=False, report_to="none", save_strategy="no",
        disable_tqdm=True, per_device_train_batch_size=BATCH, num_train_epochs=recipe.epochs,
        learning_rate=recipe.learning_rate, max_length=recipe.max_length, seed=0,
    )  # fmt: skip


def train(side: str, folder: Path, kind: str) -> float:
    config = worker_config(folder, kind)
    rows = json.loads((folder / f"{kind}.json").read_text(encoding="utf-8"))
    tokenizer = AutoTokenizer.from_pretrained(config.model)
    began = time.perf_counter()
    if side == "ours":
        trainer = ours(config, rows, tokenizer)
    else:
        model = AutoModelForCausalLM.from_pretrained(config.model, dtype=torch.float32)
        trainer = bare(settings(side, config), rows, model, tokenizer)
    trainer.train()
    assert trainer.state.global_step == ROWS // BATCH
    return time.perf_counter() - began


def _as_under_torchrun() -> None:
    """A group of one process: our settings name a backend, as a stage always runs under torchrun."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    group = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "LOCAL_WORLD_SIZE": 1, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in group.items()} | {"MASTER_ADDR": "127.0.0.1"}


def main() -> None:
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    side, folder = sys.argv[1], Path(sys.argv[2])
    if side != "defaults":
        _as_under_torchrun()
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        kind = line.strip()
        if kind == "build":
            build(folder)
            print(0.0, file=answers, flush=True)
        else:
            print(train(side, folder, kind), file=answers, flush=True)


if __name__ == "__main__":
    main()
