"""What training says while it runs: progress lines, and the series of figures for the manifest."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..runtime.progress import ProgressReporter
from .checkpoints import KEPT, MARK
from .step_lines import line_of

#: Figures of a step worth keeping, by the trainers' name.
FIGURES = {
    "loss": "loss",
    "grad_norm": "gradientNorm",
    "learning_rate": "learningRate",
    "rewards/margins": "rewardMargin",
    "rewards/accuracies": "rewardAccuracy",
    "rewards/chosen": "rewardChosen",
    "rewards/rejected": "rewardRejected",
    "logps/chosen": "logpsChosen",
    "logps/rejected": "logpsRejected",
    "mean_token_accuracy": "tokenAccuracy",
    "num_tokens": "tokens",
    "aux_loss": "routerLoss",
}


class Reporter(TrainerCallback):  # type: ignore[misc]  # transformers has no types here
    """Prints a progress line a step and keeps the figures; on rank 0 only."""

    def __init__(self, stage: str, *, tracked: bool = False) -> None:
        """tracked: whether the figures of every step are told to the entry, too."""
        self.progress, self._tracked = ProgressReporter(stage), tracked
        self.series: list[dict[str, float]] = []
        self._time, self._tokens, self._earlier = time.monotonic(), 0.0, 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            self.series = earlier_steps(state.log_history)
            self._earlier = self._tokens = max((row.get("tokens", 0.0) for row in self.series), default=0.0)
            self.progress.update(state.global_step, state.max_steps, unit="steps", tokens=int(self._earlier))
            self._tell(self.series)
        self._time = time.monotonic()

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl,
        logs: dict[str, float] | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        if not state.is_world_process_zero or not logs or "loss" not in logs:
            return
        figures = _figures(logs)
        now, tokens = time.monotonic(), self._tokens
        if "tokens" in figures:
            tokens = figures["tokens"] = figures["tokens"] + self._earlier
        seconds = now - self._time
        figures |= {"step": float(state.global_step), "seconds": round(seconds, 3)}
        if tokens > self._tokens and seconds > 0:
            figures["tokensPerSecond"] = round((tokens - self._tokens) / seconds, 1)
        self._time, self._tokens = now, tokens
        self.series.append(figures)
        self.progress.update(state.global_step, state.max_steps, unit="steps", tokens=int(tokens), loss=figures["loss"])
        self._tell([figures])

    def _tell(self, rows: Sequence[Mapping[str, float]]) -> None:
        if self._tracked:
            for row in rows:
                print(line_of(row), flush=True)  # noqa: T201 - read by the entry


def earlier_steps(log_history: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """The series of the attempts before a resume. Every attempt counts its tokens from 0; here they add up."""
    series, earlier, last = [], 0.0, 0.0
    for entry in log_history:
        if "loss" not in entry:
            continue
        row = {**_figures(entry), "step": float(entry["step"])}
        if "tokens" in row:
            earlier += last if row["tokens"] < last else 0.0
            last = row["tokens"]
            row["tokens"] += earlier
        series.append(row)
    return series


def last_steps(series: list[dict[str, float]], name: str) -> float | None:
    """Mean of a figure over the last quarter of the steps, at least one; None when it was never measured."""
    values = [row[name] for row in series if name in row]
    last = values[-max(1, len(values) // 4) :]
    return sum(last) / len(last) if last else None


def _figures(logs: Mapping[str, float]) -> dict[str, float]:
    """Our names, six digits."""
    return {ours: float(f"{float(logs[theirs]):.6g}") for theirs, ours in FIGURES.items() if theirs in logs}


class ResumePoints(TrainerCallback):  # type: ignore[misc]
    """Announces a resume point once every process has written its part."""

    def __init__(self, output: Path) -> None:
        """output: where the finished model goes, with models kept on the way below `steps/`."""
        self._kept = output / KEPT

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
        if state.is_world_process_zero:
            if self._kept.is_dir():  # an attempt that goes on from here has to have them too
                point = Path(args.output_dir) / f"checkpoint-{state.global_step}" / KEPT
                shutil.copytree(self._kept, point, copy_function=os.link)
            print(f"{MARK}{state.global_step}", flush=True)  # noqa: T201 - read by the entry
