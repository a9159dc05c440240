"""Prompt pools: the file formats, and what is said about a line that is none of them."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from srlm_stages.errors import BadInput
from srlm_stages.prompts import read_pool


def test_json_lines_strings_and_plain_text_may_be_mixed(tmp_path: Path) -> None:
    pool = tmp_path / "pool.jsonl"
    # U+2028 separates lines for Python, not for JSON Lines.
    pool.write_text('{"prompt": "One\u2028line"}\r\n"Two"\n\nThree, plain\n')
    assert read_pool(pool) == ["One\u2028line", "Two", "Three, plain"]


def test_gzip(tmp_path: Path) -> None:
    pool = tmp_path / "pool.jsonl.gz"
    pool.write_bytes(gzip.compress(b'{"prompt": "One"}\n'))
    assert read_pool(pool) == ["One"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"prompt": "One"}\n{"prompt": \n', "pool:2: not JSON"),
        (b'{"text": "One"}\n', 'pool:1: no "prompt"'),
        (b'{"prompt": 3}\n', 'pool:1: no "prompt"'),
        (gzip.compress(b"One\n")[:-9], "cannot be read"),
        (b"\xff\xfe\n", "cannot be read"),
    ],
)
def test_bad_pools_name_the_line(tmp_path: Path, content: bytes, says: str) -> None:
    pool = tmp_path / "pool"
    pool.write_bytes(content)
    with pytest.raises(BadInput, match=says) as failure:
        read_pool(pool)
    assert failure.value.reason == "InvalidSeedData"


def test_a_folder_is_no_pool(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="must name a prompt file"):
        read_pool(tmp_path)
