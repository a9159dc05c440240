"""One training process: `torchrun ... -m srlm_stages.training.worker CONFIG.json`.

Configuration → model → rows → TRL trainer → saved model. Failures go to a file, because torchrun hides exit codes.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srlm_contract.errors import BadInput, StageFailure, Temporary

from ..runtime.devices import choice, training_precision
from .config import SupervisedRow, TrainingResult, WorkerConfig, WorkerFailure
from .launch import PARENT_VARIABLE, die_with_parent

if TYPE_CHECKING:
    from .micro_batches import Plan

RANK = int(os.environ.get("RANK", "0"))


def train(config: WorkerConfig) -> None:
    """Train as `config` says; rank 0 writes model and result."""
    started = time.monotonic()
    from transformers import PrinterCallback
    from transformers.utils import logging

    from ..conversation.chat import load_tokenizer, merges_system_prompt
    from .callbacks import Reporter
    from .loading import load_config
    from .saving import KeptModels, changed_weights, save_model

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if RANK == 0:
        line = choice("training.precision", config.precision, training_precision(config.precision))
        print(line, flush=True)  # noqa: T201 - the log of the pod
        if config.process.padding_free and config.sft is None:
            print("training.paddingFree: preference training pads its rows all the same", flush=True)  # noqa: T201
    tokenizer = load_tokenizer(Path(config.model), config.chat_template, config.chat_template_kwargs)
    rows, rows_in = encoded_rows(config, tokenizer, longest(config, load_config(config.model)))
    reporter = Reporter(config.stage, tracked=config.tracked)
    trainer = build_trainer(config, tokenizer, rows, processes, reporter)
    if RANK == 0:
        print(at_once(config, trainer.plan), flush=True)  # noqa: T201
    trainer.remove_callback(PrinterCallback)
    router_loss = router_loss_weight(trainer)
    if RANK == 0 and router_loss is not None:
        print(f"mixture of experts: the router loss counts {router_loss:g} in the loss", flush=True)  # noqa: T201
    if config.keep_every:
        trainer.add_callback(KeptModels(trainer, config))
    same_resume_point(config)
    trainer.train(resume_from_checkpoint=config.resume_from)

    save_model(trainer, Path(config.output), config)
    if RANK == 0:
        statistics = summary(reporter.series) | {
            "rows": float(rows_in),
            "rowsDropped": float(rows_in - len(rows)),
            "steps": float(trainer.state.global_step),
            "seconds": round(time.monotonic() - started, 1),
            "processes": float(processes),
            **({"systemPromptMerged": 1.0} if config.system_prompt and merges_system_prompt(tokenizer) else {}),
        }
        if (changed := changed_weights(Path(config.model), Path(config.output))) is not None:
            statistics["changedWeights"] = changed
        if router_loss is not None:
            statistics["routerLossWeight"] = router_loss
        if trainer.retries:
            statistics["outOfMemoryRetries"] = float(trainer.retries)
        result = TrainingResult(statistics=statistics, series=tuple(reporter.series), versions=versions(config))
        Path(config.result).write_text(result.model_dump_json(by_alias=True))


def router_loss_weight(trainer: Any) -> float | None:
    """Weight of the loss that spreads tokens over experts (`router_aux_loss_coef` of the model's configuration).

    None for models without experts; 0 when their configuration asks for no such loss.
    """
    from .room import has_experts

    if not has_experts(trainer.model):
        return None
    return float(trainer.router_aux_loss_coef) if trainer.aux_loss_enabled else 0.0


def same_resume_point(config: WorkerConfig) -> None:
    """Raises Temporary when nodes found different resume points: each looked for itself, and one came in between.

    Processes that are at different steps would wait for one another until the network gives up.
    """
    from accelerate.utils import gather_object

    state = Path(config.resume_from) / "trainer_state.json" if config.resume_from else None
    step = json.loads(state.read_bytes())["global_step"] if state else 0
    steps = sorted(set(gather_object([step])))
    if len(steps) > 1:
        raise Temporary("Temporary", f"the nodes of this training found different resume points: steps {steps}")


def encoded_rows(config: WorkerConfig, tokenizer: Any, max_length: int) -> tuple[list[dict[str, list[int]]], int]:
    """(rows as token ids, number of rows before long ones were dropped)."""
    from srlm_contract.rows import PreferencePair

    from ..runtime.rows import read_rows
    from .encoding import encode_pairs, encode_rows

    if config.dpo is not None:
        rows, dropped = encode_pairs(
            tokenizer,
            read_rows(Path(config.rows), PreferencePair),
            system_prompt=config.system_prompt,
            max_length=max_length,
        )
    else:
        rows, dropped = encode_rows(tokenizer, read_rows(Path(config.rows), SupervisedRow), max_length=max_length)
    if not rows:
        raise BadInput(
            "InputTooLong",
            f"none of {dropped} rows fits {max_length} tokens (maxLength, or the model's context); raise "
            "maxLength, or shorten prompts and answers (sampling.maxTokens, prompts.filters.maxWords)",
        )
    return rows, len(rows) + dropped


def longest(config: WorkerConfig, own: Any) -> int:
    """Longest row in tokens: maxLength, or the model's context where that is shorter."""
    context = getattr(own.get_text_config(), "max_position_embeddings", None)
    wanted = config.recipe.max_length
    return min(wanted, context) if isinstance(context, int) else wanted


def build_trainer(
    config: WorkerConfig,
    tokenizer: Any,
    rows: list[dict[str, list[int]]],
    processes: int,
    reporter: Any,
) -> Any:
    """TRL's trainer for supervised or preference training, with the start model."""
    import torch
    from datasets import Dataset

    from . import arguments, cpu_head, sharding, trainers
    from .callbacks import ResumePoints
    from .loading import dropout_fields, exact_start, load_config, load_model, lora_config
    from .micro_batches import size_of_row
    from .room import make_plan

    args = (arguments.sft_arguments if config.sft is not None else arguments.dpo_arguments)(config, processes)
    read, attention = RANK == 0 or not sharding.one_reads(args), config.process.attn_implementation
    load = partial(load_model, read=read, attention=attention)
    own, dataset = load_config(config.model), Dataset.from_list(rows)
    model = load(config.model, load_config(config.model, **dropout_fields(own, config.recipe.dropout)))
    model.config.use_cache = False
    if config.sft is not None and config.sft.packing:
        dataset = packed(dataset, longest(config, own))
    sizes = [size_of_row(row) for row in dataset]
    plan = make_plan(config, model, sizes, processes)
    args.gradient_checkpointing = plan.recompute
    common: dict[str, Any] = {
        "args": args,
        "sizes": sizes,
        "plan": plan,
        "model": model,
        "processing_class": tokenizer,
        "callbacks": [reporter, ResumePoints(Path(config.output))],
        "peft_config": lora_config(config.lora) if config.lora.rank is not None else None,
    }
    if not torch.cuda.is_available():
        cpu_head.install()
    if config.sft is not None:
        return _lean(trainers.SupervisedTrainer(**common, train_dataset=dataset))
    other = config.reference
    trainer = trainers.PreferenceTrainer(
        **common,
        train_dataset=dataset.add_column("row", list(range(len(rows)))),
        load_reference=None if other is None else lambda: like(model, load(other, load_config(other))),
        exact_start=other is None and config.recipe.dropout == 0 and exact_start(own),
    )
    return _lean(trainer)


def like(model: Any, reference: Any) -> Any:
    """`reference` with the attention kernels of `model`."""
    reference.set_attn_implementation(model.config._attn_implementation)
    return reference


def packed(dataset: Any, length: int) -> Any:
    """Rows of up to `length` tokens made of several examples each."""
    from trl.data_utils import pack_dataset

    return pack_dataset(dataset, length, "bfd")


def at_once(config: WorkerConfig, plan: Plan) -> str:
    """A line for the log: how much goes through the model at once, and how."""
    much = f"{plan.rows} rows" if plan.rows is not None else f"up to {plan.tokens:,} tokens"
    asked = "" if config.process.micro_batch_size is not None else " (unset)"
    padding = "without padding" if plan.padding_free else "rows of similar length padded together"
    kept = "computed again for the gradients" if plan.recompute else "kept for the gradients"
    return f"training.microBatchSize{asked}: {much} at once, {padding}; activations are {kept}"


def _lean(trainer: Any) -> Any:
    """Let gradients live in DDP's communication buffers: saves a copy of them."""
    if trainer.accelerator.ddp_handler is not None:
        trainer.accelerator.ddp_handler.gradient_as_bucket_view = True
    return trainer


def summary(series: list[dict[str, float]]) -> dict[str, float]:
    """Figures of the last steps, and tokens in all."""
    from .callbacks import last_steps

    names = ("loss", "rewardAccuracy", "rewardMargin", "gradientNorm")
    found = {name: value for name in names if (value := last_steps(series, name)) is not None}
    return found | {"tokens": max((row.get("tokens", 0.0) for row in series), default=0.0)}


def versions(config: WorkerConfig) -> dict[str, str]:
    """Libraries and number type that shape the result."""
    from importlib.metadata import version

    found = {name: version(name) for name in ("torch", "transformers", "trl", "accelerate")}
    return found | {"precision": training_precision(config.precision)}


def main() -> int:
    die_with_parent(int(os.environ[PARENT_VARIABLE]))
    # TRL imports it where it is there: 1.5 s a process, for a tracker that only the entry speaks to.
    sys.modules["wandb"] = None  # type: ignore[assignment]  # what Python takes for "there is none"
    config = WorkerConfig.model_validate_json(Path(sys.argv[1]).read_bytes())
    try:
        train(config)
    except Exception as error:
        traceback.print_exc()
        failure = describe(error, config)
        path = Path(config.failures) / f"rank-{RANK}.json"
        path.write_text(failure.model_dump_json(by_alias=True))
        return failure.exit_code
    return 0


def describe(error: Exception, config: WorkerConfig) -> WorkerFailure:
    """An exception as what the entry can raise again."""
    text, now = f"{type(error).__name__}: {error}", time.time()
    if isinstance(error, StageFailure):
        return WorkerFailure(exit_code=error.exit_code, reason=error.reason, message=str(error), time=now)
    if type(error).__name__ == "OutOfMemoryError":
        advice = "set training.microBatchSize to 1 and gradientCheckpointing to true, lower maxLength, or use more GPUs"
        return WorkerFailure(exit_code=1, reason="OutOfMemory", message=f"{advice}: {text[:1500]}", time=now)
    reason = "DiskFull" if isinstance(error, OSError) and error.errno == 28 else "Crashed"
    return WorkerFailure(exit_code=1, reason=reason, message=text[:2500], time=now)


if __name__ == "__main__":
    sys.exit(main())
