"""How a step is put together changes its speed and its memory, and nothing that is computed."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srlm_contract.jsonl import write_rows
from srlm_contract.rows import PreferencePair
from srlm_contract.sizing import GIB
from srlm_contract.spec.training import DpoSpec, LoraSpec, SftSpec
from srlm_contract.tasks import ProcessSettings
from srlm_stages.training.config import SupervisedRow, WorkerConfig
from srlm_stages.training.micro_batches import Plan, Size, Steps
from support.stage_world import QUESTIONS

pytestmark = pytest.mark.usefixtures("alone")

SIZES = st.lists(st.integers(1, 500).map(lambda n: Size(2 * n, 2 * n - n // 3)), min_size=1, max_size=60)


@given(SIZES, st.integers(1, 4), st.integers(1, 4), st.integers(1, 2000), st.booleans(), st.integers(0, 3))
@settings(deadline=None)
def test_processes_share_steps_evenly(
    sizes: list[Size], share: int, processes: int, tokens: int, padding_free: bool, epoch: int
) -> None:
    plan = Plan(rows=None, tokens=tokens, padding_free=padding_free)
    hands = [list(made(sizes, share, processes, plan, process, epoch)) for process in range(processes)]
    assert all(len(hand) == len(made(sizes, share, processes, plan)) for hand in hands)
    seen = []
    for step in zip(*hands, strict=True):
        assert len({tuple(len(batch) for batch in hand) for hand in step}) == 1, "as many rows in every micro-batch"
        for hand in step:
            assert all(len(batch) == 1 or plan.cost([sizes[row] for row in batch]) <= tokens for batch in hand)
        seen += [row for hand in step for batch in hand for row in batch]
    assert set(seen) == set(range(len(sizes)))
    assert len(seen) - len(sizes) < processes, "some rows are taken twice where the last step would be uneven"


def made(sizes: list[Size], share: int, processes: int, plan: Plan, process: int = 0, epoch: int = 0) -> Steps:
    steps = Steps(sizes, share * processes, 7, plan, process, processes)
    steps.set_epoch(epoch)
    return steps


@given(SIZES, st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))
@settings(deadline=None)
def test_rows_are_dealt_as_accelerate_deals_batches(
    sizes: list[Size], micro: int, accumulate: int, processes: int
) -> None:
    """Rows at once that the spec names: the micro-batches of accelerate, of the same rows, in the same processes."""
    from accelerate.data_loader import BatchSamplerShard
    from torch.utils.data import BatchSampler

    plan = Plan(rows=micro)
    order = made(sizes, micro * accumulate, processes, plan).order()[: len(sizes)]
    for process in range(processes):
        batches: Any = BatchSampler(order, micro, drop_last=False)
        if processes > 1:
            batches = BatchSamplerShard(batches, processes, process)
        ours = [list(batch) for step in made(sizes, micro * accumulate, processes, plan, process) for batch in step]
        assert ours == [list(batch) for batch in batches]


def test_every_epoch_has_another_order() -> None:
    steps = made([Size(1, 1)] * 40, 4, 1, Plan(rows=1))
    first = steps.order()
    steps.set_epoch(1)
    assert sorted(first) == sorted(steps.order()) == list(range(40))
    assert first != steps.order()


# What is computed


@pytest.fixture(autouse=True)
def memory(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Free memory of the device in bytes, to be changed."""
    from srlm_stages.training import room

    free = {"bytes": 8 * GIB}
    monkeypatch.setattr(room, "free_bytes", lambda local_processes: free["bytes"])
    return free


def words(chance: random.Random) -> str:
    return " ".join(chance.choices(("yes", "no", "the", "sky", "is", "blue"), k=chance.choice((1, 2, 3, 5, 8, 60))))


def trainer_of(kind: str, model: Path, folder: Path, **process: Any) -> Any:
    """The trainer as a worker builds it: 11 rows of mixed lengths, 4 a step, the last one of 3."""
    import torch

    from srlm_stages.conversation.chat import load_tokenizer
    from srlm_stages.training.callbacks import Reporter
    from srlm_stages.training.worker import build_trainer, encoded_rows

    torch.set_num_threads(1)
    torch.manual_seed(0)
    folder.mkdir()
    chance = random.Random(0)
    pairs = [
        PreferencePair(
            id=f"{i:016x}", prompt=QUESTIONS[i % 6], chosen=words(chance), rejected=words(chance), chosen_id="a",
            rejected_id="b", chosen_score=4, rejected_score=1,
        )
        for i in range(11)
    ]  # fmt: skip
    rows: list[Any] = pairs
    if kind == "sft":
        rows = [SupervisedRow(prompt=pair.prompt, answer=pair.chosen) for pair in pairs]
    write_rows(folder / "rows.jsonl", rows)
    recipe = {"learning_rate": 1e-3, "min_learning_rate": 1e-4, "batch_size": 4, "epochs": 1.0, "dropout": 0.0}
    config = WorkerConfig(
        sft=SftSpec.model_validate(recipe) if kind == "sft" else None,
        dpo=DpoSpec.model_validate(recipe) if kind != "sft" else None,
        model=str(model), rows=str(folder / "rows.jsonl"), output=str(folder / "out"), result="", failures="",
        checkpoints=str(folder / "checkpoints"), stage="train", precision="Float32",
        lora=LoraSpec(rank=4) if kind == "lora" else LoraSpec(),
        process=ProcessSettings(parallelism="DDP", **process),
    )  # fmt: skip
    tokenizer = load_tokenizer(model)
    encoded, _ = encoded_rows(config, tokenizer, 256)
    return build_trainer(config, tokenizer, encoded, 1, Reporter("train"))


def trained(trainer: Any) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """(figures of the steps, weights afterwards)."""
    trainer.train()
    steps = [entry for entry in trainer.state.log_history if "loss" in entry]
    names = ("loss", "grad_norm", "rewards/margins", "rewards/accuracies", "logps/chosen", "num_tokens")
    return {name: [step[name] for step in steps if name in step] for name in names}, trainer.model.state_dict()


def by_hand(trainer: Any) -> Any:
    """The same trainer as the library would run it: padded, one row at a time."""
    trainer.plan.padding_free = False
    return trainer


@pytest.mark.heavy
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["dpo", "sft", "lora"])
def test_as_many_rows_as_memory_allows_compute_what_one_at_a_time_does(kind: str, model: Path, tmp_path: Path) -> None:
    one = by_hand(trainer_of(kind, model, tmp_path / "one", micro_batch_size=1, gradient_checkpointing=True))
    figures, weights = trained(one)
    assert len(figures["loss"]) == 3
    many = trainer_of(kind, model, tmp_path / "many")
    assert (many.plan.rows, many.plan.padding_free, many.plan.recompute) == (None, True, False)
    steps: list[list[int]] = []
    inner = many.training_step
    many.training_step = lambda model, step, n: (steps.append([len(batch) for batch in step]), inner(model, step, n))[1]
    found, changed = trained(many)
    assert max(map(max, steps)) == 4, "all rows of a step at once"
    for name, values in figures.items():
        assert found[name] == pytest.approx(values, rel=2e-3, abs=1e-4), name
    difference = max(float((weights[name] - changed[name]).abs().max()) for name in weights)
    assert difference < 2e-4


@pytest.mark.heavy
def test_without_memory_rows_go_one_by_one_and_are_computed_again(
    model: Path, tmp_path: Path, memory: dict[str, int]
) -> None:
    memory["bytes"] = GIB
    plan = trainer_of("dpo", model, tmp_path / "little").plan
    assert plan.recompute
    assert plan.split([Size(40, 30)] * 4) == [1, 1, 1, 1]
    asked = trainer_of("dpo", model, tmp_path / "asked", micro_batch_size=2, gradient_checkpointing=False).plan
    assert (asked.rows, asked.recompute) == (2, False)


@pytest.mark.heavy
@pytest.mark.timeout(300)
def test_a_step_that_runs_out_of_memory_is_repeated_with_less(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from srlm_stages.training import padding_free

    figures, weights = trained(trainer_of("dpo", model, tmp_path / "whole"))
    trainer = trainer_of("dpo", model, tmp_path / "short")
    limit = max(size.real for size in trainer._sizes)
    call = padding_free.PaddingFree.__call__

    def short(self: Any, *, attention_mask: Any, **kwargs: Any) -> Any:
        if torch.is_grad_enabled() and int(attention_mask.sum()) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return call(self, attention_mask=attention_mask, **kwargs)

    monkeypatch.setattr(padding_free.PaddingFree, "__call__", short)
    found, changed = trained(trainer)
    assert trainer.retries >= 1
    assert "warning: out of memory; the step is repeated with at most" in capsys.readouterr().out
    assert found["num_tokens"] == figures["num_tokens"], "no row is counted twice"
    assert found["loss"] == pytest.approx(figures["loss"], rel=2e-3)
    assert max(float((weights[name] - changed[name]).abs().max()) for name in weights) < 2e-4
