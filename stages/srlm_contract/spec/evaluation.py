"""`spec.evaluation`: how models are compared."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from srlm_contract.base import Contract, CountOrZero, Uri
from srlm_contract.spec.references import rules, source_rule

#: Who compares models.
WinRateJudge = Literal["Bootstrap", "Current", "Fixed", "External"]


#: Models of no iteration that M1 is measured against.
Baseline = Literal["M0", "SFT"]


class WinRateJudgeSpec(Contract):
    """The one judge of all head-to-head comparisons."""

    model_config = rules(
        (
            ".uri",
            "self.source != 'Fixed' || has(self.uri)",
            "winRate.judge.uri (a model) is needed with source Fixed",
        ),
        source_rule("uri", "winRate.judge.uri", "!has(self.uri) || "),
    )

    source: WinRateJudge = "Bootstrap"
    """M1, the model itself, a fixed model, or judging.external."""
    uri: Uri | None = None
    """The model of source Fixed."""


class WinRateSpec(Contract):
    """Head-to-head comparison of models."""

    opponent: Literal["Previous", "Bootstrap"] = "Previous"
    """Whom a new model is compared with."""
    judge: WinRateJudgeSpec = WinRateJudgeSpec()
    """Who compares."""
    prompts: CountOrZero = 256
    """Prompts compared on; 0 turns it off."""
    people: bool = False
    """Whether every model also meets the answers that people ranked best in the seed data, for its win rate against
    people and for how much it prefers its own answers to theirs."""


class EvaluationSpec(Contract):
    """What is measured after every iteration."""

    enabled: bool = True
    """Whether models are evaluated."""
    win_rate: WinRateSpec = WinRateSpec()
    """Head-to-head comparison."""
    baselines: Annotated[tuple[Baseline, ...], Field(max_length=2)] = ()
    """What M1 is measured against, a Job each: M0, the base model, and SFT, the model trained on answers alone that
    wrote the verdicts M1 learns from (with seedData.eft). They judge the held-out answers, answer the validation
    prompts and meet M1. A run without a bootstrap has none."""
