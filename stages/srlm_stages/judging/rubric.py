"""The judge's task: an additive five-point rubric, then question and answer.

The structure follows Self-Rewarding Language Models (Yuan et al. 2024, figure 2): one point each for five criteria,
a short justification, then the total. The wording is our own. The rubric comes first and never changes, then the
question, then the answer, so that an engine with a prefix cache reads rubric and question once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from srlm_contract.errors import BadInput

from ..context import StageContext
from ..conversation.templates import RUBRIC_FILE, template
from .score_words import SCORE_LEAD, score_lead

DEFAULT_RUBRIC = "additive-v1"

#: Built-in templates by name. A text never changes under its name: a new wording is a new name.
BUILT_IN_RUBRICS: Mapping[str, str] = {
    DEFAULT_RUBRIC: """\
You grade how well an AI assistant answered a user. Start at 0 points and add one point for each statement that holds:

- Add 1 point if the answer is relevant and gives some information about the question, even if it is incomplete.
- Add 1 point if it deals with a substantial part of the question, though it may not settle it.
- Add 1 point if it covers the basic elements of the question in a useful way.
- Add 1 point if it is clearly written from an AI assistant's point of view, complete, well organised and helpful.
- Add 1 point if it is tailored to this question, shows expert knowledge and contains nothing superfluous.

First justify the points in at most 100 words. Then end with one line that holds nothing but the total:
Score: <total points from 0 to 5>

Question:
{question}

Answer:
{answer}

Justify the points briefly, then give the line "Score: " with the total.""",
}

_PLACEHOLDER = re.compile(r"\{(question|answer)\}")


@dataclass(frozen=True)
class Rubric:
    """A judge template, cut at its placeholders."""

    before: str
    between: str
    after: str
    lead: str = SCORE_LEAD
    """What the score line begins with that the template asks for."""

    @classmethod
    def parse(cls, text: str) -> Rubric:
        """Read a template. Raises BadInput TemplateNotUsable unless it holds `{question}` and `{answer}` once each."""
        found = [match.group(1) for match in _PLACEHOLDER.finditer(text)]
        for name in ("question", "answer"):
            if found.count(name) != 1:
                raise BadInput(
                    "TemplateNotUsable",
                    f"the rubric template has {{{name}}} {found.count(name)} times; it must have it exactly once",
                )
        if found != ["question", "answer"]:
            raise BadInput(
                "TemplateNotUsable",
                "the rubric template must have {question} before {answer} (prefix caching)",
            )
        before, _, between, _, after = _PLACEHOLDER.split(text)
        return cls(before, between, after, score_lead(text))

    def fill(self, question: str, answer: str) -> str:
        """The whole judge task. Braces in question and answer stay what they are."""
        return f"{self.before}{question}{self.between}{answer}{self.after}"


def rubric_of(ctx: StageContext, name: str) -> Rubric:
    """The judge template of that name: a built-in one, or the mounted one. Nothing means the default."""
    return Rubric.parse(template(ctx.environ, name or DEFAULT_RUBRIC, RUBRIC_FILE, BUILT_IN_RUBRICS))
