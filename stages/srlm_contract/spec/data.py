"""`spec.baseModel` and `spec.seedData`: what a run starts from."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from srlm_contract.base import Contract, Count, CountOrZero, DataKey, ObjectName, Uri
from srlm_contract.spec.references import FREE_FORM, SecretKeyRef, rules, source_rule

#: Variables of a chat template by name.
TemplateArguments = Annotated[dict[str, Any], Field(max_length=16, json_schema_extra=FREE_FORM)]


class TemplateRef(Contract):
    """A template: a built-in one by `name` alone, or a ConfigMap's by `name` and `key`."""

    name: ObjectName
    """Name of the ConfigMap, or of the built-in template when `key` is left out."""
    key: DataKey | None = None
    """Key inside the ConfigMap."""


class BaseModelSpec(Contract):
    """M0: the model everything starts from."""

    model_config = rules(source_rule("uri", "baseModel.uri"))

    uri: Uri
    """`hf://owner/name[@revision]`, `s3://bucket/prefix` or `file:///path` (one-machine cluster only)."""
    token_secret_ref: SecretKeyRef | None = None
    """Secret with the Hugging Face token of a gated model."""
    chat_template_ref: TemplateRef | None = None
    """Chat template for base models that bring none: a ConfigMap key, or the built-in name `chatml`."""
    chat_template_kwargs: TemplateArguments = {}
    """What every rendering of the chat template is given besides the messages, as the model's card names it; such as
    `enable_thinking: false`. At most 16."""


class IftSpec(Contract):
    """Instruction fine-tuning examples: top-ranked first-turn answers."""

    max_examples: Count = 3200
    """At most this many (prompt, answer) examples."""
    max_answer_tokens: Count | None = None
    """Leave out answers longer than this many tokens of the base model's tokenizer."""


class EftSpec(Contract):
    """Evaluation fine-tuning: teaching the model to judge."""

    enabled: bool = True
    """Whether M1 is also trained on verdicts that agree with the human ranking."""
    max_examples: Count = 1630
    """At most this many verdicts are kept for training."""
    held_out_examples: CountOrZero = 541
    """This many human-ranked answers are kept aside to measure the judge."""
    agreement: Literal["AllPairs", "KendallTau"] = "AllPairs"
    """When a verdict sample agrees with the human ranking of its prompt."""
    min_tau: Annotated[float, Field(ge=-1, le=1)] = 0.5
    """Smallest Kendall tau-b with `agreement: KendallTau`."""


SeedFormat = Literal[
    "OasstTrees", "OasstMessages", "Chat", "Preferences", "UltraFeedback", "ShareGpt", "Alpaca", "Auto"
]
"""What the rows of a seed file look like."""


class SeedDataSpec(Contract):
    """Human-written, human-ranked data."""

    model_config = rules(source_rule("uri", "seedData.uri"))

    uri: Uri
    """`hf://owner/dataset[@revision]`, `s3://bucket/key` or `file:///path`; JSON lines, a JSON array or Parquet, plain,
    gzip or zstd."""
    file: Annotated[str, Field(max_length=512)] | None = None
    """File inside a data set repository; omit to pick the ready-trees file, or the only file that fits the format."""
    format: SeedFormat = "OasstTrees"
    """What rows look like: Open Assistant trees or flat messages, Chat (messages, or a prompt with its answers, best
    first), Preferences (TRL's prompt, chosen, rejected), UltraFeedback, ShareGpt, Alpaca; Auto tells it from the first
    row."""
    language: Annotated[str, Field(min_length=2, max_length=16)] = "en"
    """Language tag of the prompts to keep, such as `en` or `pt-BR`; `pt` takes `pt-BR` too, and the other way round."""
    validation_prompts: CountOrZero = 253
    """Prompts kept aside for head-to-head evaluation and the choice of checkpoints."""
    ift: IftSpec = IftSpec()
    """Instruction fine-tuning examples."""
    eft: EftSpec = EftSpec()
    """Evaluation fine-tuning examples."""
