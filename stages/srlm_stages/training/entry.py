"""What sft and train share: model and rows in, torchrun, model files and statistics out. One process a pod."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from srlm_contract.base import Contract
from srlm_contract.errors import BadInput
from srlm_contract.jsonl import write_rows
from srlm_contract.spec.training import DpoSpec, LoraSpec, SftSpec
from srlm_contract.tasks import StageResult, TrainerParams

from ..context import StageContext
from ..conversation.templates import chat_template, say_merged_system_prompt
from ..runtime.statistics import Statistics
from ..tracking.sending import HURRY_SECONDS, Sending
from ..tracking.tracker import Sender, Series
from ..tracking.trackers import trackers
from .checkpoints import KEPT, Uploader, step_of
from .config import TrainingResult, WorkerConfig
from .model_card import write_card
from .step_lines import row_of
from .torchrun import Place, run_workers

#: How long a finished model waits for trackers, beside idle GPUs: the report sends what they have not got.
_PATIENCE_SECONDS = 5.0


def run_training(
    ctx: StageContext,
    params: TrainerParams,
    rows: Iterable[Contract],
    *,
    sft: SftSpec | None = None,
    dpo: DpoSpec | None = None,
    lora: LoraSpec,
    keep_every: int = 0,
) -> Statistics | StageResult:
    """Train on `rows` and leave the model in `ctx.output`: supervised as `sft` says, or on preferences as `dpo` says.

    keep_every: steps between models kept beside the finished one; 0 for none. Only node 0 answers statistics and
    thereby commits; other nodes answer a plain result.
    """
    task, folder = ctx.task, ctx.work / "training"
    folder.mkdir()
    count = write_rows(folder / "rows.jsonl", rows)
    if not count:
        raise BadInput("InputDamaged", "there is no row to train on; make the input artifacts again")
    first = Place.here(task.process, ctx.environ).node_rank == 0
    config = WorkerConfig(
        model=str(ctx.model_path("model")),
        reference=str(ctx.model_path("reference")) if ctx.has("reference") else None,
        rows=str(folder / "rows.jsonl"),
        output=str(ctx.output),
        result=str(folder / "result.json"),
        failures=str(folder / "failures"),
        checkpoints=str(folder / "checkpoints"),
        resume_from=_resume_point(ctx, folder / "resume"),
        stage=task.stage,
        tracked=first and task.tracking.wanted,
        system_prompt=params.system_prompt,
        chat_template=chat_template(ctx, params),
        chat_template_kwargs=dict(params.chat_template_kwargs),
        seed=task.seed,
        precision=params.precision,
        save_dtype=params.save_dtype,
        process=task.process,
        sft=sft,
        dpo=dpo,
        lora=lora,
        keep_every=keep_every,
    )
    ctx.progress.say(
        f"{task.stage}: {count} rows, batch {config.recipe.batch_size}, "
        f"{task.process.nodes} x {task.process.processes_per_node} processes"
    )
    if first:
        ctx.progress.begin(0, "steps", "starting torchrun, loading the model")

    def store(step: int, where: Path) -> None:
        ctx.artifacts.commit_checkpoint(task.stage, task.key, step, where)
        # The one before stays: should this one be damaged, not all is lost.
        ctx.artifacts.delete_checkpoints(task.stage, task.key, keep=2)

    uploader = Uploader(Path(config.checkpoints), store, ctx.progress.say)

    curve = Series.of_training(task.iteration, task.node or task.stage, task.key)
    sender = Sender(task.run, ctx.store, ctx.work, ctx.environ)
    sending = Sending(trackers(task.tracking, sender) if config.tracked else [], ctx.progress.say, ctx.environ)

    def on_line(line: str) -> None:
        if (row := row_of(line)) is not None:
            sending.add(curve, row)
        elif step_of(line) is None:
            ctx.progress.say(line)
        else:
            uploader.on_line(line)

    try:
        run_workers(config, folder, ctx.environ, on_line)
    except BaseException:
        sending.close(HURRY_SECONDS)
        raise
    sending.finish()
    uploader.close()
    for warning in sending.close(_PATIENCE_SECONDS):
        ctx.warn(warning)
    if not first:
        shutil.rmtree(ctx.output)
        return StageResult(stage=task.stage, key=task.key)
    result = TrainingResult.model_validate_json(Path(config.result).read_bytes())
    ctx.details["series"] = list(result.series)
    ctx.versions.update(result.versions)
    if result.statistics.get("systemPromptMerged"):
        say_merged_system_prompt(ctx)
    if result.statistics["rowsDropped"]:
        ctx.warn(f"{result.statistics['rowsDropped']:.0f} of {count} rows are longer than maxLength and were left out")
    write_card(ctx, result.statistics)
    return result.statistics


def _resume_point(ctx: StageContext, folder: Path) -> str | None:
    """Folder of the newest resume point an earlier attempt of this training left, None to begin anew."""
    step = ctx.artifacts.latest_checkpoint(ctx.task.stage, ctx.task.key, folder)
    if step is None:
        return None
    ctx.progress.say(f"resuming after step {step}")
    if (folder / KEPT).is_dir():
        (folder / KEPT).rename(ctx.output / KEPT)
    return str(folder)
