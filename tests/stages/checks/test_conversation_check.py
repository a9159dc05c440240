"""Template and context against what a run asks, tried without weights."""

from __future__ import annotations

from typing import Any

import pytest

from srlm_contract.errors import BadInput
from srlm_contract.spec.run import RunSpec
from srlm_stages.checks.conversation import ANSWER, QUESTION, check_conversations
from srlm_stages.conversation.chat import encode_chat, messages
from srlm_stages.judging.rubric import BUILT_IN_RUBRICS, DEFAULT_RUBRIC, Rubric
from support.tiny_model import build_tokenizer

pytestmark = pytest.mark.heavy
RUBRIC = BUILT_IN_RUBRICS[DEFAULT_RUBRIC]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return build_tokenizer()


def spec(**sections: Any) -> RunSpec:
    return RunSpec.parse({"baseModel": {"uri": "file:///m"}, "seedData": {"uri": "file:///s"}, **sections})


def check(tokenizer: Any, context: int | None, asked: RunSpec, **use: bool) -> list[str]:
    return list(check_conversations(tokenizer, asked, context, RUBRIC, **use))


def refused(tokenizer: Any, context: int, asked: RunSpec, **use: bool) -> str:
    with pytest.raises(BadInput) as found:
        check(tokenizer, context, asked, **use)
    assert found.value.reason == "InputTooLong"
    return str(found.value)


def test_limits_that_fit_say_nothing(tokenizer: Any) -> None:
    assert check(tokenizer, 4096, spec()) == []
    assert check(tokenizer, None, spec(generation={"sampling": {"maxTokens": 131072}})) == []


def test_an_answer_must_fit_beside_the_shortest_prompt(tokenizer: Any) -> None:
    system = "Be brief, and say what you do not know."
    prompt = len(encode_chat(tokenizer, messages(QUESTION, system)))
    asked = spec(generation={"systemPrompt": system, "sampling": {"maxTokens": 5000 - prompt}})
    assert check(tokenizer, 5000, asked, judges=False) == []
    says = refused(tokenizer, 4999, asked)
    assert says == (
        f"generation.sampling.maxTokens {5000 - prompt} does not fit the model's context of 4999 tokens beside a "
        f"prompt of at least {prompt}; lower it to {4999 - prompt} or less"
    )


def test_a_new_prompt_must_fit_where_the_model_writes_them(tokenizer: Any) -> None:
    asked = spec(prompts={"sampling": {"maxTokens": 4096}})
    assert "prompts.sampling.maxTokens 4096 does not fit the model's context of 4096" in refused(tokenizer, 4096, asked)
    assert check(tokenizer, 4096, asked, writes=False) == []


def test_the_judge_needs_room_for_a_verdict(tokenizer: Any) -> None:
    task = len(encode_chat(tokenizer, messages(Rubric.parse(BUILT_IN_RUBRICS[DEFAULT_RUBRIC]).fill(QUESTION, ANSWER))))
    asked = spec(generation={"sampling": {"maxTokens": 16}}, prompts={"sampling": {"maxTokens": 16}})
    says = refused(tokenizer, task + 95, asked)
    assert f"the judge's task takes {task} tokens even for a short answer" in says
    assert f"model's context of {task + 95} tokens" in says
    (warning,) = check(tokenizer, task + 96, asked)
    assert (
        f"an answer of generation.sampling.maxTokens 16 and a verdict of 512 make {task + 16 + 512} tokens" in warning
    )
    assert check(tokenizer, task + 95, asked, judges=False) == []
    scored = spec(generation={"sampling": {"maxTokens": 16}}, prompts={"sampling": {"maxTokens": 16}},
                  judging={"scorer": "ExpectedScore"})  # fmt: skip
    assert check(tokenizer, task + 17, scored) == []


def test_a_system_prompt_without_a_system_role_is_told(tokenizer: Any) -> None:
    other = build_tokenizer()
    other.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        + other.chat_template
    )
    (warning,) = check(other, 4096, spec(generation={"systemPrompt": "Be brief."}))
    assert "goes into the first user turn" in warning
    assert check(tokenizer, 4096, spec(generation={"systemPrompt": "Be brief."})) == []


def test_a_template_that_does_not_go_on_from_its_own_prompt_is_refused(tokenizer: Any) -> None:
    other = build_tokenizer()
    other.chat_template = (
        "{% for m in messages %}{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}?{% endif %}"
    )
    with pytest.raises(BadInput) as found:
        check(other, 4096, spec())
    assert found.value.reason == "TemplateNotUsable"
