"""What the configuration of a model says of its context."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from srlm_stages.engines import long_context


@pytest.mark.parametrize(
    ("config", "border"),
    [
        ({"rope_scaling": {"type": "longrope"}, "original_max_position_embeddings": 4096}, 4096),
        ({"rope_parameters": {"rope_type": "longrope", "original_max_position_embeddings": 8192}}, 8192),
        ({"rope_parameters": {"rope_type": "yarn", "original_max_position_embeddings": 8192}}, 0),
        ({"rope_scaling": None, "max_position_embeddings": 8192}, 0),
    ],
)
def test_where_other_positions_begin(tmp_path: Path, config: dict[str, Any], border: int) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert long_context(tmp_path) == border
