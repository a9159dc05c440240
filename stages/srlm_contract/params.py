"""What a stage computes, as the run's spec says it: the parameters that go into its key. Pure."""

from __future__ import annotations

from typing import Any

from srlm_contract.spec.loop import ShadowScorerSpec
from srlm_contract.spec.run import RunSpec

from .scorers import SCORERS
from .tasks import (
    ChooseParams,
    DataParams,
    EvaluateParams,
    GenerateParams,
    JudgedRows,
    JudgeParams,
    PairsParams,
    Pins,
    PromptsParams,
    SftParams,
    TrainParams,
)


def data_params(spec: RunSpec) -> DataParams:
    eft = spec.seed_data.eft
    return DataParams(
        format=spec.seed_data.format,
        language=spec.seed_data.language,
        validation_prompts=spec.seed_data.validation_prompts,
        ift=spec.seed_data.ift,
        held_out_examples=eft.held_out_examples,
        ranked=eft.enabled,
    )


def train_params(spec: RunSpec, pins: Pins) -> TrainParams:
    training = spec.training
    positive = spec.preferences.strategy == "PositiveOnly"
    return TrainParams(
        strategy=spec.preferences.strategy,
        dpo=training.dpo,
        sft=spec.bootstrap.sft if positive else TrainParams().sft,
        include_seed=positive and spec.preferences.positives.include_seed,
        lora=training.lora,
        keep_checkpoints_every=training.checkpoint_every_steps if training.choose.enabled else 0,
        **_trainer(spec, pins),
    )


def choose_params(spec: RunSpec, pins: Pins) -> ChooseParams:
    return ChooseParams(
        prompts=spec.seed_data.validation_prompts,
        system_prompt=spec.generation.system_prompt,
        sampling=spec.generation.sampling,
        chat_template=pins.chat_template,
        chat_template_kwargs=spec.base_model.chat_template_kwargs,
        engine=spec.stages.choose.engine.settings,
    )


def evaluate_params(spec: RunSpec, pins: Pins, model: str, opponents: tuple[str, ...]) -> EvaluateParams:
    """opponents: names of earlier models, oldest first."""
    win = spec.evaluation.win_rate
    return EvaluateParams(
        model=model,
        prompts=win.prompts,
        opponents=opponents,
        headline=(opponents[-1] if win.opponent == "Previous" else opponents[0]) if opponents else "",
        people=win.people and bool(win.prompts),
        judge=win.judge.source,
        external=spec.judging.external if win.judge.source == "External" else EvaluateParams().external,
        samples=spec.judging.samples,
        perfect_score=SCORERS[spec.judging.scorer].perfect_score,
        system_prompt=spec.generation.system_prompt,
        sampling=spec.generation.sampling,
        chat_template=pins.chat_template,
        chat_template_kwargs=spec.base_model.chat_template_kwargs,
        engine=spec.stages.evaluate.engine.settings,
    )


def baseline_params(spec: RunSpec, pins: Pins, model: str) -> EvaluateParams:
    """Of a model that is measured beside M1, all in one Job: its judging of the held-out answers too."""
    opponents = ("M1",) if spec.evaluation.win_rate.prompts else ()
    params = evaluate_params(spec, pins, model, opponents)
    if not spec.seed_data.eft.held_out_examples or spec.judging.external.url:
        return params.model_copy(update={"baseline": True})
    plain = {"shadow_scorer": ShadowScorerSpec(), "unconstrained_sample": 0, "engine": params.engine}
    judging = judge_params(spec, pins, "ranked-heldout").model_copy(update=plain)
    return params.model_copy(update={"baseline": True, "judging": judging})


def sft_params(spec: RunSpec, pins: Pins) -> SftParams:
    return SftParams(sft=spec.bootstrap.sft, lora=spec.bootstrap.lora, **_trainer(spec, pins))


def judge_params(spec: RunSpec, pins: Pins, rows: JudgedRows) -> JudgeParams:
    j = spec.judging
    return JudgeParams(
        rows=rows,
        scorer=j.scorer,
        samples=j.samples,
        min_valid_samples=j.min_valid_samples,
        max_reasks=j.max_reasks,
        constrain=j.constrain,
        unconstrained_sample=j.unconstrained_sample,
        min_digit_mass=j.min_digit_mass,
        external=j.external,
        sampling=j.sampling,
        rubric=pins.rubric,
        shadow_scorer=j.shadow_scorer,
        chat_template=pins.chat_template,
        chat_template_kwargs=spec.base_model.chat_template_kwargs,
        engine=spec.stages.judge.engine.settings,
    )


def prompts_params(spec: RunSpec, pins: Pins) -> PromptsParams:
    p = spec.prompts
    return PromptsParams(
        count=p.count,
        style=p.style,
        source=p.generator.source,
        few_shot=p.few_shot,
        sampling=p.sampling,
        filters=p.filters,
        language=spec.seed_data.language,
        chat_template=pins.chat_template,
        chat_template_kwargs=spec.base_model.chat_template_kwargs,
        engine=spec.stages.prompts.engine.settings,
    )


def generate_params(spec: RunSpec, pins: Pins) -> GenerateParams:
    return GenerateParams(
        candidates=spec.generation.candidates,
        system_prompt=spec.generation.system_prompt,
        sampling=spec.generation.sampling,
        chat_template=pins.chat_template,
        chat_template_kwargs=spec.base_model.chat_template_kwargs,
        engine=spec.stages.generate.engine.settings,
    )


def pairs_params(spec: RunSpec, t: int, r: int) -> PairsParams:
    """Of round r in iteration t: the length penalty has a schedule, and only the last round must give pairs."""
    p = spec.preferences
    penalties = p.length_penalties
    return PairsParams(
        strategy=p.strategy,
        min_margin=p.min_margin,
        length_penalty=penalties[min(t, len(penalties)) - 1],
        truncated=p.truncated,
        min_score=p.positives.min_score,
        may_be_empty=p.min_yield.pairs > 0 and r < p.min_yield.max_rounds,
    )


def _trainer(spec: RunSpec, pins: Pins) -> dict[str, Any]:
    return {
        "system_prompt": spec.generation.system_prompt,
        "chat_template": pins.chat_template,
        "chat_template_kwargs": spec.base_model.chat_template_kwargs,
        "precision": spec.training.precision,
        "save_dtype": spec.training.save_dtype,
    }
