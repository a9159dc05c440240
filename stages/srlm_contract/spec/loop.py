"""The sections of `SelfRewardingRun.spec` about one iteration: prompts, answers, verdicts, pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from srlm_contract.base import Contract, Count, CountOrZero, Fraction, ShortText, Text, Uri
from srlm_contract.scorers import READING, WRITING, Scorer
from srlm_contract.spec.data import TemplateRef
from srlm_contract.spec.marks import PreflightIgnores
from srlm_contract.spec.policy import MAX_ITERATIONS
from srlm_contract.spec.references import SecretKeyRef, rules, source_rule

#: What keeps a verdict readable.
Constraint = Literal["None", "ScoreLine"]
#: Who writes new prompts.
PromptSource = Literal["Current", "Fixed", "Pool"]
#: How new prompts are asked for.
PromptStyle = Literal["Chat", "Completion"]
#: What becomes of the answers that are judged.
PreferenceStrategy = Literal["PreferencePairs", "PositiveOnly"]
#: What becomes of answers cut by the length limit.
Truncated = Literal["Drop", "Keep"]


class SamplingSpec(Contract):
    """Sampling of an engine."""

    temperature: Annotated[float, Field(ge=0, le=5)] = 0.7
    """Softmax temperature; 0 is greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Nucleus sampling: only the likeliest tokens that have this share of the probability together."""
    max_tokens: Annotated[int, Field(ge=1, le=131072)] = 1024
    """Longest answer in tokens."""


class PromptSamplingSpec(SamplingSpec):
    """Sampling of new prompts."""

    temperature: Annotated[float, Field(ge=0, le=5)] = 0.6
    """Softmax temperature; 0 is greedy."""
    max_tokens: Annotated[int, Field(ge=1, le=131072)] = 256
    """Longest prompt in tokens."""


class VerdictSamplingSpec(SamplingSpec):
    """Sampling of verdicts."""

    max_tokens: Annotated[int, Field(ge=1, le=131072)] = 512
    """Longest verdict in tokens."""


class PromptGeneratorSpec(Contract):
    """Who writes new prompts."""

    model_config = rules(
        (
            ".uri",
            "self.source == 'Current' || has(self.uri)",
            "prompts.generator.uri is needed with source Fixed (a model) and Pool (a prompt file)",
        ),
        source_rule("uri", "prompts.generator.uri", "!has(self.uri) || "),
    )

    source: PromptSource = "Current"
    """The model being improved, a fixed model, or a file of prompts."""
    uri: Uri | None = None
    """Model (`Fixed`) or prompt file (`Pool`): plain text with a prompt a line, JSON lines, a JSON array or Parquet."""


class FewShotSpec(Contract):
    """Examples shown when new prompts are written."""

    seed: Annotated[int, Field(ge=1, le=64)] = 6
    """Human prompts shown."""
    generated: Annotated[int, Field(ge=0, le=64)] = 2
    """Prompts of earlier iterations shown."""


class PromptFiltersSpec(Contract):
    """Which new prompts are accepted (Self-Instruct, Wang et al. 2023)."""

    model_config = rules(
        (".minWords", "self.minWords <= self.maxWords", "minWords must not be above maxWords"),
    )

    max_rouge_l: Fraction = 0.7
    """Largest ROUGE-L F-measure, 0 to 1, with any prompt seen before."""
    min_words: Annotated[int, Field(ge=1, le=100000)] = 3
    """Shortest prompt in words; in scripts without blanks between words 1.5 (Chinese, Japanese) or 3 (Thai,
    Lao, Khmer, Burmese) letters count as a word."""
    max_words: Annotated[int, Field(ge=1, le=100000)] = 150
    """Longest prompt in words."""
    banned_keywords: Annotated[tuple[ShortText, ...], Field(max_length=256)] = ("image", "graph", "picture")
    """Prompts with one of these words are refused: a language model cannot fulfil them."""


class PromptsSpec(Contract):
    """New prompts of an iteration."""

    count: Count = 1000
    """Accepted prompts an iteration."""
    style: PromptStyle = "Chat"
    """Ask by an instruction, or let the model continue a numbered list (better for very small models)."""
    generator: PromptGeneratorSpec = PromptGeneratorSpec()
    """Who writes them."""
    few_shot: FewShotSpec = FewShotSpec()
    """Examples shown."""
    sampling: PromptSamplingSpec = PromptSamplingSpec()
    """Sampling of new prompts."""
    filters: PromptFiltersSpec = PromptFiltersSpec()
    """Which ones are accepted."""


class GenerationSpec(Contract):
    """Candidate answers."""

    candidates: Annotated[int, Field(ge=1, le=256)] = 4
    """Answers a prompt."""
    system_prompt: Text = ""
    """System prompt of generation and training."""
    sampling: SamplingSpec = SamplingSpec()
    """Sampling of answers."""
    shards: Annotated[int, Field(ge=1, le=1024), PreflightIgnores()] = 8
    """Pods that share the work."""


class ExternalJudgeSpec(Contract):
    """An OpenAI-compatible judge instead of M_t."""

    model_config = rules(
        ("", "has(self.url) == has(self.model)", "judging.external needs both url and model, or neither"),
        (
            ".url",
            "!has(self.url) || self.url.matches('^https?://[^/@]+(/[^@]*)?$')",
            "judging.external.url must begin with http:// or https:// and name a host, without user or password (a key"
            " belongs in the Secret of apiKeySecretRef)",
        ),
    )

    url: Uri | None = None
    """Base URL of the API, such as `https://judge.example/v1`."""
    model: ShortText | None = None
    """Model name to ask for."""
    api_key_secret_ref: SecretKeyRef | None = None
    """Secret with the API key."""


class ShadowScorerSpec(Contract):
    """A second scorer on a sample of the same rows, to compare."""

    scorer: Literal["None", Scorer] = "None"
    """The second scorer."""
    sample: CountOrZero = 100
    """Rows scored by both."""


def _is(field: str, scorers: Sequence[Scorer]) -> str:
    """The rule that a field names one of some scorers."""
    rule = " || ".join(f"{field} == '{name}'" for name in scorers)
    return f"({rule})" if len(scorers) > 1 else rule


class JudgingSpec(Contract):
    """LLM-as-a-Judge."""

    model_config = rules(
        (
            ".minValidSamples",
            f"{_is('self.scorer', READING)} || self.minValidSamples <= self.samples",
            "minValidSamples must not be above samples: no answer could ever be used",
        ),
        (
            ".external",
            f"!has(self.external) || !has(self.external.url) || ({_is('self.scorer', WRITING)} && "
            + " && ".join(f"self.shadowScorer.scorer != '{name}'" for name in READING)
            + ")",
            f"an external judge gives no logits: use scorer {' or '.join(WRITING)}, and no shadowScorer "
            f"{' or '.join(READING)}",
        ),
        (
            ".shadowScorer.scorer",
            "self.shadowScorer.scorer != self.scorer",
            "shadowScorer must be another scorer than judging.scorer: with itself it always agrees",
        ),
    )

    scorer: Scorer = "Sampled"
    """Mean of sampled verdicts, or expected score from the digit logits (no reasoning first, unlike the
    paper)."""
    samples: Annotated[int, Field(ge=1, le=64)] = 3
    """Verdicts an answer."""
    min_valid_samples: Annotated[int, Field(ge=1, le=64)] = 2
    """An answer with fewer readable verdicts is not used."""
    max_reasks: Annotated[int, Field(ge=0, le=16)] = 1
    """Unreadable verdicts are asked again with a new seed, this often."""
    constrain: Constraint = "None"
    """Grammar that forces the score line, for judges too small to keep the format."""
    unconstrained_sample: CountOrZero = 0
    """With a constraint: this many verdicts are also asked without it, to state the free parse rate."""
    min_digit_mass: Fraction = 0.5
    """ExpectedScore: below this probability of all score digits together the verdict is unusable."""
    external: ExternalJudgeSpec = ExternalJudgeSpec()
    """An external judge."""
    sampling: VerdictSamplingSpec = VerdictSamplingSpec()
    """Sampling of verdicts."""
    template_ref: TemplateRef | None = None
    """Rubric from a ConfigMap; omit for the built-in additive five-point rubric. Its score line may be in any language,
    such as `Puntuación: <0-5>`: the label before the place to fill in is what verdicts are read by."""
    shadow_scorer: ShadowScorerSpec = ShadowScorerSpec()
    """A second scorer to compare with."""
    shards: Annotated[int, Field(ge=1, le=1024), PreflightIgnores()] = 8
    """Pods that share the work."""


class PositivesSpec(Contract):
    """Positive examples only."""

    min_score: Annotated[float, Field(ge=0, le=5)] = 5
    """Smallest mean score of an answer to train on, in points of the rubric."""
    include_seed: bool = True
    """Add the IFT and EFT examples."""


class MinYieldSpec(Contract):
    """More prompts are generated when pairs fall short."""

    pairs: CountOrZero = 0
    """Wanted pairs an iteration; 0 for none."""
    max_rounds: Annotated[int, Field(ge=1, le=10)] = 1
    """At most this many rounds of prompts, generate and judge."""


class PreferencesSpec(Contract):
    """From judgements to training data."""

    strategy: PreferenceStrategy = "PreferencePairs"
    """Best against worst (DPO), or supervised training on the best answers."""
    min_margin: Annotated[float, Field(ge=0, le=5)] = 0
    """Best minus worst score must be more than this many points; 0.25 suits ExpectedScore."""
    length_penalties: Annotated[tuple[Fraction, ...], Field(min_length=1, max_length=MAX_ITERATIONS)] = (
        0,
        0,
        0.1,
    )
    """Length penalty rho by iteration, as a share of the range of a prompt's scores; the last repeats; 0 is off."""
    truncated: Truncated = "Drop"
    """What becomes of answers cut by the length limit."""
    positives: PositivesSpec = PositivesSpec()
    """Settings of PositiveOnly."""
    min_yield: MinYieldSpec = MinYieldSpec()
    """Minimum yield."""
