"""Judge efficiency: our stage against bare vLLM on the same prompts, and against one uncached request a verdict.

On CPU with a 135M model and verdicts of a few tokens, forced into the score line. The share of the rubric in a prompt,
which the prefix cache saves, is that of real runs.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from pairs import TABLE, Line, load
from programs import ratios_of, small_model

pytestmark = [
    pytest.mark.bench,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed"),
]


def test_judge(tmp_path: Path) -> None:
    found = ratios_of("inference_sides.py", "judge", small_model(), folder=tmp_path)
    TABLE.add(Line("#2 judge stage, verdicts/s", "bare vLLM with prefix cache", found["cached"], ">=", 0.95, load()))
    TABLE.add(Line("#2 judge stage, verdicts/s", "one uncached request a verdict", found["uncached"], ">=", 2.0))
