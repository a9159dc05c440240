"""README.md beside a model: what it is, what it was made from, how it did, and how to load it.

The card is part of the content digest, so it holds nothing but what follows from the artifact's key and its inputs: no
run name, time, pod, storage place or library version. Those are in the manifest and in lineage.json.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from srlm_contract.errors import ArtifactDamaged
from srlm_contract.graph import model_name, source_identity
from srlm_contract.tasks import ArtifactRef, SftParams, SourceRef, TrainParams

from ..context import StageContext

#: A hub repository: the only kind of base model that a card can link to.
_HUB = re.compile(r"hf://([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@.*)?")
#: Models between this one and the base model that are followed; a run has at most fifty.
MAX_ANCESTORS = 64
#: Figures of the training that are the same whenever it is repeated alike.
FIGURES = {
    "rows": "rows",
    "rowsDropped": "rows longer than maxLength, left out",
    "steps": "optimizer steps",
    "tokens": "tokens seen",
    "loss": "loss, last quarter of the steps",
    "rewardAccuracy": "reward accuracy, last quarter of the steps",
    "rewardMargin": "reward margin, last quarter of the steps",
    "changedWeights": "share of weights that differ from the start model in bfloat16",
    "checkpoints": "checkpoints compared",
    "chosenStep": "step chosen (-1: the last)",
    "winRate": "win rate of the chosen checkpoint against the others",
}


def write_card(ctx: StageContext, statistics: Mapping[str, Any]) -> None:
    """Puts README.md into the stage's output."""
    (ctx.output / "README.md").write_text(card(ctx, statistics), encoding="utf-8")


def card(ctx: StageContext, statistics: Mapping[str, Any]) -> str:
    """The text of the card, with the front matter that model hubs read."""
    task = ctx.task
    base, ancestors = _ancestors(ctx)
    tags, method = _method(ctx)
    hub = _HUB.fullmatch(base.uri) if base is not None else None
    front = [
        "---",
        "library_name: transformers",
        "pipeline_tag: text-generation",
        *([f'base_model: "{hub.group(1)}"'] if hub else []),
        "tags:",
        *(f"- {tag}" for tag in ("self-rewarding", *tags)),
        "---",
    ]
    made = [f"- {_safe(source_identity(base))} (base model)"] if base is not None else []
    made += [f"- {ref.stage} `{ref.content_digest}`" for ref in reversed(ancestors)]
    inputs = [f"| {_safe(n)} | {r.stage} | `{r.content_digest}` |" for n, r in sorted(task.inputs.items())]
    inputs += [f"| {_safe(n)} | outside | {_safe(source_identity(s))} |" for n, s in sorted(task.sources.items())]
    figures = [
        f"| {label} | {_number(statistics[key])} |" for key, label in FIGURES.items() if _known(statistics.get(key))
    ]
    parameters = json.dumps(task.params.wire(defaults=False), indent=2, sort_keys=True)
    return "\n".join(
        [
            *front,
            f"# {model_name(task.iteration)}",
            "",
            method,
            "",
            "The licence of the base model and the terms of the data apply; this card grants nothing beyond them.",
            "",
            "## Load",
            "",
            "```python",
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            'folder = "."  # the files of this artifact',
            "tokenizer = AutoTokenizer.from_pretrained(folder)",
            "model = AutoModelForCausalLM.from_pretrained(folder)",
            "```",
            "",
            "## Made from",
            "",
            "Oldest first:",
            "",
            *made,
            f"- this model: {task.stage}, key `{task.key}`, iteration {task.iteration}, seed {task.seed}",
            "",
            "| input | from | digest |",
            "|---|---|---|",
            *inputs,
            "",
            "## Figures known when it was saved",
            "",
            "| | |",
            "|---|---|",
            *figures,
            "",
            "How it judges and answers is measured afterwards and stands in the run's report.",
            "",
            "## Parameters that differ from the defaults",
            "",
            "```json",
            _safe(parameters, code=True),
            "```",
            "",
        ]
    )


def _method(ctx: StageContext) -> tuple[list[str], str]:
    """(tags, how it was made in a sentence)."""
    params = ctx.task.params
    recipe = "as in Self-Rewarding Language Models (Yuan et al. 2024, arXiv 2401.10020)"
    if isinstance(params, SftParams):
        verdicts = " and judge verdicts that agree with people (EFT)" if "eft" in ctx.task.inputs else ""
        return ["sft"], f"Supervised fine-tuning on human answers (IFT){verdicts}, {recipe}."
    if isinstance(params, TrainParams) and params.strategy == "PositiveOnly":
        return ["sft"], f"Supervised training on the answers that the model before it scored best, {recipe}."
    if isinstance(params, TrainParams):
        loss = "Direct preference optimisation (Rafailov et al. 2023)"
        return ["dpo"], f"{loss} on pairs of answers that the model before it wrote and judged, {recipe}."
    return [], f"The checkpoint of a training that wins most often head to head on validation prompts, {recipe}."


def _ancestors(ctx: StageContext) -> tuple[SourceRef | None, list[ArtifactRef]]:
    """(the base model where everything began, the models on the way to this one, youngest first)."""
    inputs: Mapping[str, ArtifactRef | SourceRef] = {**ctx.task.inputs, **ctx.task.sources}
    found: list[ArtifactRef] = []
    for _ in range(MAX_ANCESTORS):
        start = inputs.get("model") or inputs.get("train")
        if start is None or isinstance(start, SourceRef):
            return start, found
        found.append(start)
        try:
            inputs = ctx.artifacts.read_manifest(start).inputs
        except ArtifactDamaged:
            break  # removed by clean-up since: what is known is told, and a finished training is not lost over it
    return None, found


def _known(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"


def _safe(text: str, code: bool = False) -> str:
    """Text of others inside Markdown: no HTML, no table or code fence broken; JSON stays JSON."""
    if code:
        # json.dumps has escaped control characters and everything beyond ASCII already.
        for character in "<>&`":
            text = text.replace(character, f"\\u{ord(character):04x}")
        return text
    return "".join(c if c.isascii() and (c.isalnum() or c in " :/@.#_-+=,") else f"%{ord(c):02X}" for c in text)
