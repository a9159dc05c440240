"""Log-probabilities of the reference model: computed once, before the first update, by all processes together.

The rows go through the reference in the very batches of the first epoch and, when the reference is the start model,
through the very model that is trained. Rounding is then the same on both sides of DPO's ratio, which is exactly 1
before the first update, and there is no second model in memory.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from accelerate.utils import gather_object

from srlm_contract.errors import BadInput

#: The largest reward margin of the start model against itself that is no error; a step is worth about 1e-3.
START_MARGIN = 1e-4


class RowCollator:
    """A collator of preference rows that adds what the reference says of them once that is known.

    Rows have their number as `row`. Until `found` is set, batches have `rows`: the numbers of their rows.
    """

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.found: dict[int, tuple[float, float]] | None = None
        """(log-probability of the chosen answer, of the rejected one) by row."""

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        if self.found is None:
            return {**self._inner(rows), "rows": [row["row"] for row in rows]}
        # Loaders fetch ahead: the last batch may have rows that no step will see.
        logps = [self.found.get(row["row"], (math.nan, math.nan)) for row in rows]
        named = [{"ref_chosen_logps": chosen, "ref_rejected_logps": rejected} for chosen, rejected in logps]
        return dict(self._inner([row | known for row, known in zip(rows, named, strict=True)]))


def compute(trainer: Any, model: Any, collator: RowCollator, epochs: float) -> None:
    """Fill `collator.found` for every row that training will see.

    trainer: a DPO trainer whose batches come from `collator`; model: the reference, which may be the trainer's own.
    """
    loader = trainer.get_train_dataloader()
    found: dict[int, tuple[float, float]] = {}
    training = model.training
    model.eval()
    with torch.random.fork_rng(devices=[]):  # loaders draw seeds, which must not change training's dropout
        for step in islice(loader, math.ceil(epochs * len(loader))):
            for batch in step:
                inputs = trainer._prepare_inputs(collator(batch))
                rows = inputs.pop("rows")
                chosen, rejected = trainer.compute_ref_log_probs(_as_in_training(trainer, model), inputs)
                found |= dict(zip(rows, zip(chosen.tolist(), rejected.tolist(), strict=True), strict=True))
    model.train(training)
    collator.found = {row: logps for part in gather_object([found]) for row, logps in part.items()}


def _as_in_training(trainer: Any, model: Any) -> Any:
    """`model` called as training calls it: sharded weights set the type of products themselves, without autocast."""
    if not trainer.is_fsdp_enabled:
        return model

    def call(**inputs: Any) -> Any:
        with torch.autocast(trainer.accelerator.device.type, enabled=False):
            return model(**inputs)

    return call


def check_start(margin: float) -> None:
    """Raises BadInput when a start model that is its own reference has a reward margin before the first update.

    Only for trainings without dropout. `margin` is in the unit of rewards: beta times nats.
    """
    if not abs(margin) <= START_MARGIN:  # also when it is no number
        raise BadInput(
            "ModelNotUsable",
            f"the reward margin is {margin:.3g} before the first update, where the model is its own reference: it must "
            f"be 0 within {START_MARGIN:g}. The model answers the same rows differently each time, or not at all "
            "(NaN): try training.precision Float32, training.attnImplementation eager, or another base model",
        )


@contextlib.contextmanager
def no_copy_of_the_start_model() -> Iterator[None]:
    """While TRL's DPO trainer is made: it reads a second copy of the start model under FSDP, and hashes all weights
    to name a cache file. Neither is used here."""
    from trl.trainer import dpo_trainer

    load, digest = dpo_trainer.create_model_from_path, dpo_trainer.hash_module
    dpo_trainer.create_model_from_path = lambda *args, **kwargs: None
    dpo_trainer.hash_module = lambda module: ""
    try:
        yield
    finally:
        dpo_trainer.create_model_from_path, dpo_trainer.hash_module = load, digest
