"""Every loss that a run may name trains, with reference log-probabilities that dropout does not touch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, get_args

import pytest

from srlm_contract.jsonl import write_rows
from srlm_contract.rows import PreferencePair
from srlm_contract.spec.training import DpoSpec, LoraSpec, LossType
from srlm_contract.tasks import ProcessSettings
from srlm_stages.training.config import WorkerConfig
from support.stage_world import QUESTIONS

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(300), pytest.mark.usefixtures("alone")]
PAIRS = [
    PreferencePair(
        id=f"{i:016x}", prompt=QUESTIONS[i % 6], chosen=f"Yes, here is a good answer {i}.", rejected="No." * (i + 1),
        chosen_id="a", rejected_id="b", chosen_score=4, rejected_score=1,
    )
    for i in range(4)
]  # fmt: skip


def trainer_of(model: Path, folder: Path, lora: LoraSpec | None = None, **dpo: Any) -> Any:
    """The trainer as a worker builds it."""
    import torch

    from srlm_stages.conversation.chat import load_tokenizer
    from srlm_stages.training.callbacks import Reporter
    from srlm_stages.training.worker import build_trainer, encoded_rows

    torch.set_num_threads(1)
    torch.manual_seed(0)
    write_rows(folder / "rows.jsonl", PAIRS)
    recipe = {"learning_rate": 1e-3, "min_learning_rate": 1e-4, "batch_size": 4, "epochs": 3.0, "dropout": 0.0} | dpo
    config = WorkerConfig(
        dpo=DpoSpec(**recipe), model=str(model), rows=str(folder / "rows.jsonl"), output=str(folder / "out"),
        result="", failures="", checkpoints=str(folder / "checkpoints"), stage="train", precision="Float32",
        process=ProcessSettings(parallelism="DDP", gradient_checkpointing=False, micro_batch_size=4),
        lora=lora or LoraSpec(),
    )  # fmt: skip
    tokenizer = load_tokenizer(model)
    rows, _ = encoded_rows(config, tokenizer, 256)
    return build_trainer(config, tokenizer, rows, 1, Reporter("train"))


def log_probabilities(model: Any, trainer: Any) -> tuple[list[float], list[float]]:
    """Of the chosen and the rejected answers, without dropout, straight from the logits."""
    import torch

    model.eval()
    found: tuple[list[float], list[float]] = ([], [])
    for row in trainer.train_dataset:
        for side, into in zip(("chosen_ids", "rejected_ids"), found, strict=True):
            ids = torch.tensor([row["prompt_ids"] + row[side]])
            with torch.no_grad():
                scores = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
            answer = ids[0, len(row["prompt_ids"]) :]
            into.append(float(scores[-len(answer) :].gather(1, answer[:, None]).sum()))
    return found


@pytest.mark.parametrize("loss", get_args(LossType))
def test_every_loss_trains(model: Path, tmp_path: Path, loss: str) -> None:
    smoothing = {"exo_pair": 1e-3, "robust": 0.1}.get(loss, 0.0)
    trainer = trainer_of(model, tmp_path, loss_type=(loss,), label_smoothing=smoothing)
    chosen, rejected = log_probabilities(trainer.model, trainer)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 3
    assert all(map(math.isfinite, losses))
    chosen_after, rejected_after = log_probabilities(trainer.model, trainer)
    if loss == "sft":
        assert sum(chosen_after) > sum(chosen)
    elif loss == "discopop":  # not monotone: where margins are near 0 it pushes them below it
        assert chosen_after != chosen
    else:
        assert sum(chosen_after) - sum(rejected_after) > sum(chosen) - sum(rejected)


@pytest.mark.parametrize("lora", [LoraSpec(), LoraSpec(rank=4)])
def test_reference_log_probabilities_are_those_of_the_model_without_dropout(
    model: Path, tmp_path: Path, lora: LoraSpec
) -> None:
    from transformers import AutoModelForCausalLM

    trainer = trainer_of(model, tmp_path, lora, dropout=0.5)
    chosen, rejected = log_probabilities(AutoModelForCausalLM.from_pretrained(model), trainer)
    trainer.train()
    found = trainer.data_collator.found
    assert [found[row][0] for row in range(len(PAIRS))] == pytest.approx(chosen, abs=1e-3)
    assert [found[row][1] for row in range(len(PAIRS))] == pytest.approx(rejected, abs=1e-3)
    # With dropout in the policy alone the first margins are not 0.
    first = next(entry for entry in trainer.state.log_history if "rewards/margins" in entry)
    assert abs(first["rewards/margins"]) > 1e-4


def test_half_an_epoch_asks_the_reference_for_the_rows_it_trains_on(model: Path, tmp_path: Path) -> None:
    trainer = trainer_of(model, tmp_path, batch_size=2, epochs=0.5)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses == pytest.approx([math.log(2)], abs=1e-4)
    assert len(trainer.data_collator.found) == 2


def test_the_schedule_is_a_cosine_down_to_its_floor(model: Path, tmp_path: Path) -> None:
    recipe = {"learning_rate": 1e-6, "min_learning_rate": 1e-7, "batch_size": 2, "epochs": 4.0}
    trainer = trainer_of(model, tmp_path, **recipe)
    trainer.train()
    rates = [entry["learning_rate"] for entry in trainer.state.log_history if "loss" in entry]
    expected = [1e-7 + 0.5 * (1e-6 - 1e-7) * (1 + math.cos(math.pi * step / 8)) for step in range(8)]
    assert rates == pytest.approx(expected, rel=1e-4)
