"""Generate efficiency: our stage against bare `LLM.generate` with the same prompts, seeds and token limits.

On CPU with a 135M model and short answers: what our code costs weighs more here than with real answers of hundreds of
tokens. GPU kernels, tensor parallelism and warm starts cannot be seen here.
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


def test_generate(tmp_path: Path) -> None:
    found = ratios_of("inference_sides.py", "generate", small_model(), folder=tmp_path)
    TABLE.add(Line("#1 generate, while generating", "bare LLM.generate", found["engine"], ">=", 0.98, load()))
    TABLE.add(Line("#1 generate, with I/O and commit", "bare LLM.generate", found["stage"], ">=", 0.95))
