"""What vLLM says it gave up is no answer of the model."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from srlm_contract.errors import StageFailure
from srlm_stages.engines.vllm_engine import answered


@pytest.mark.parametrize("reason", ["abort", "error"])
def test_a_request_that_was_given_up_fails_the_stage(reason: str) -> None:
    output = SimpleNamespace(request_id="7", outputs=[SimpleNamespace(finish_reason=reason, text="", token_ids=[])])
    with pytest.raises(StageFailure, match=f"gave up request 7 .finish reason {reason}"):
        answered(output)


@pytest.mark.parametrize("reason", ["stop", "length", "repetition"])
def test_an_answer_stays_as_it_is(reason: str) -> None:
    output = SimpleNamespace(request_id="7", outputs=[SimpleNamespace(finish_reason=reason, text="a", token_ids=[1])])
    assert answered(output) is output
