"""Checks the world outside before anything expensive starts, without a GPU, and pins it.

Storage can be read and written; base model, tokenizer, chat template and seed data can be used; other models and
prompt files exist. Answers revisions and digests of all of them, and which artifacts of the run exist already.
"""

from __future__ import annotations

from pathlib import Path

from srlm_contract.artifacts.retention import add_refs
from srlm_contract.errors import BadInput
from srlm_contract.spec.run import RunSpec
from srlm_contract.tasks import Pins, PreflightParams, SourceRef, StageResult

from .checks.committed import find_committed, fit
from .checks.conversation import check_conversations
from .checks.model import CheckedModel, check_model, missing_model, model_files
from .checks.size import check_sizes
from .checks.trackers import unreachable
from .context import StageContext
from .conversation.templates import BUILT_IN_CHAT_TEMPLATES, CHAT_TEMPLATE_FILE, RUBRIC_FILE, pinned
from .judging.rubric import BUILT_IN_RUBRICS, DEFAULT_RUBRIC, Rubric
from .seed.files import SeedDataError, whole_rows
from .seed.formats import read_seed_data
from .seed.source import pick_seed_file
from .seed.split import split_prompts
from .sources.origins import Missing, Origin, open_origin
from .tracking.tracker import Sender
from .tracking.trackers import trackers

#: Seed files up to this size are read whole; of larger ones only the beginning, if their kind allows it.
WHOLE_FILE_BYTES = 64 * 1024 * 1024
BEGINNING_BYTES = 1024 * 1024


def run(ctx: StageContext) -> StageResult:
    """Raises what is missing: storage errors (75, 77), ModelNotUsable, TemplateNotUsable, InputTooLong,
    InvalidSeedData."""
    params = ctx.params(PreflightParams)
    spec = params.spec
    ctx.progress.say("preflight: storage")
    probe = ctx.store.probe()
    for warning in probe.warnings:
        ctx.warn(warning)
    ctx.progress.say("preflight: templates")
    template_name, template = pinned(
        ctx.environ, "baseModel.chatTemplateRef", spec.base_model.chat_template_ref, CHAT_TEMPLATE_FILE,
        BUILT_IN_CHAT_TEMPLATES,
    )  # fmt: skip
    rubric, text = pinned(ctx.environ, "judging.templateRef", spec.judging.template_ref, RUBRIC_FILE, BUILT_IN_RUBRICS)
    text = text or BUILT_IN_RUBRICS[DEFAULT_RUBRIC]
    Rubric.parse(text)
    ctx.progress.say("preflight: base model")
    base, model = pin_model(ctx, spec.base_model.uri, "baseModel.uri", template)
    check_use(ctx, spec, model, text)
    for line in check_sizes(spec, model.architecture):
        ctx.progress.say(f"preflight: {line}")
    ctx.progress.say("preflight: seed data")
    seed = pin_seed_data(ctx, spec)
    generator, judge = spec.prompts.generator, spec.evaluation.win_rate.judge
    prompt_source = None
    if generator.source == "Fixed" and generator.uri:
        prompt_source, _ = pin_model(ctx, generator.uri, "prompts.generator.uri", template)
    elif generator.source == "Pool" and generator.uri:
        prompt_source = pin_file(ctx, generator.uri, "prompts.generator.uri")
    judge_source = None
    if judge.source == "Fixed" and judge.uri:
        judge_source, _ = pin_model(ctx, judge.uri, "evaluation.winRate.judge.uri", template)
    pins = Pins(
        base_model=base,
        seed_data=seed,
        chat_template=template_name,
        rubric=rubric,
        prompt_source=prompt_source,
        judge_source=judge_source,
        conditional_puts=probe.conditional,
        if_match=probe.if_match,
        parameters=model.architecture.parameters,
    )
    ctx.progress.say("preflight: committed artifacts")
    if params.branch is not None:
        ctx.artifacts.read_manifest(params.branch)
    found = find_committed(ctx.artifacts, spec, pins, params.branch)
    for damage in found.damaged:
        ctx.warn(damage)
    refs = [manifest.ref for _, manifest in found.committed]
    if params.branch is not None:
        refs.append(params.branch)
    add_refs(ctx.store, ctx.task.run, refs)
    if spec.tracking.wanted:
        ctx.progress.say("preflight: trackers")
        told = trackers(spec.tracking, Sender(ctx.task.run, ctx.store, ctx.work, ctx.environ))
        for problem in unreachable(told, ctx.environ):
            ctx.warn(problem)
    # The entry adds the warnings; their size counts here.
    result = fit(StageResult(stage="preflight", pins=pins, warnings=tuple(ctx.warnings)), found, params.known)
    return result.model_copy(update={"warnings": ()})


def check_use(ctx: StageContext, spec: RunSpec, model: CheckedModel, rubric: str) -> None:
    """Whether template and context of the base model serve what the run asks of it; warns of what will be left out.

    rubric: its text.
    """
    for warning in check_conversations(
        model.tokenizer,
        spec,
        model.architecture.context,
        rubric,
        judges=not spec.judging.external.url,
        writes=spec.prompts.generator.source == "Current",
    ):
        ctx.warn(warning)


def pin_model(ctx: StageContext, uri: str, field: str, template: str | None) -> tuple[SourceRef, CheckedModel]:
    """Check a causal language model and pin its revision."""
    try:
        origin = open_origin(uri, "model", ctx.open_store)
        folder = ctx.work / "models" / field
        folder.mkdir(parents=True, exist_ok=True)
        model = check_model(origin, folder, template, ctx.params(PreflightParams).spec.base_model.chat_template_kwargs)
        return SourceRef(uri=_without_revision(uri), revision=origin.revision(model_files(origin))), model
    except Missing as error:
        raise missing_model(error, field) from error


def pin_seed_data(ctx: StageContext, spec: RunSpec) -> SourceRef:
    """Find the seed file, read it (its beginning when it is large) and pin it."""
    data = spec.seed_data
    try:
        origin = open_origin(data.uri, "dataset", ctx.open_store)
        path = data.file or (
            next(iter(origin.files))
            if len(origin.files) == 1
            else pick_seed_file(origin.files, data.format, origin.name)
        )
        if path not in origin.files:
            raise BadInput("InvalidSeedData", f"{data.uri} has no file {path}; correct seedData.file")
        _check_seed_data(ctx, spec, origin, path)
        alone = len(origin.files) == 1 and data.file is None and data.uri.rstrip("/").endswith("/" + path)
        return SourceRef(
            uri=_without_revision(data.uri), revision=origin.revision([path]), file=None if alone else path
        )
    except Missing as error:
        raise BadInput("InvalidSeedData", f"seedData.uri: {error}") from error


def pin_file(ctx: StageContext, uri: str, field: str) -> SourceRef:
    """A prompt file."""
    try:
        origin = open_origin(uri, "dataset", ctx.open_store)
        revision = origin.revision(list(origin.files))
    except Missing as error:
        raise BadInput("InvalidSeedData", f"{field}: {error}") from error
    if not sum(origin.files.values()):
        raise BadInput("InvalidSeedData", f"{field}: {uri} is empty")
    return SourceRef(uri=_without_revision(uri), revision=revision)


def _check_seed_data(ctx: StageContext, spec: RunSpec, origin: Origin, path: str) -> None:
    data = spec.seed_data
    folder = ctx.work / "seed"
    folder.mkdir(exist_ok=True)
    try:
        large = origin.files[path] > WHOLE_FILE_BYTES
        rows = whole_rows(origin.head(path, BEGINNING_BYTES), path) if large else None
        if rows is not None:
            start = folder / Path(path).name
            start.write_bytes(rows)
            read_seed_data(start, data.format, data.language)
            return
        seed = read_seed_data(origin.fetch(path, folder), data.format, data.language)
        split_prompts(
            seed.prompts,
            seed=spec.seed,
            ift_examples=data.ift.max_examples,
            heldout_answers=data.eft.held_out_examples,
            validation_prompts=data.validation_prompts,
            train_judge=data.eft.enabled,
        )
    except SeedDataError as error:
        raise BadInput("InvalidSeedData", str(error)) from error


def _without_revision(uri: str) -> str:
    return uri.partition("@")[0] if uri.startswith("hf://") else uri
