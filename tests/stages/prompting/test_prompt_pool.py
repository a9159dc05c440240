"""Prompt pools: the file formats, and what is said about a line that is none of them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from srlm_contract.errors import BadInput
from srlm_stages.prompting.pool import read_pool


def test_json_lines_strings_and_plain_text_may_be_mixed(tmp_path: Path) -> None:
    pool = tmp_path / "pool.jsonl"
    # U+2028 separates lines for Python, not for JSON Lines.
    pool.write_text('{"prompt": "One\u2028line"}\r\n"Two"\n\nThree, plain\n')
    assert read_pool(pool) == ["One\u2028line", "Two", "Three, plain"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
@pytest.mark.parametrize(
    "text",
    ["One\n猫です\n", '"One"\r\n{"prompt": "猫です"}', '["One", "猫です"]', '[{"prompt": "One"},\n "猫です"]'],
)
def test_encodings_and_arrays(tmp_path: Path, encoding: str, text: str) -> None:
    pool = tmp_path / "pool"
    pool.write_bytes(gzip.compress(text.encode(encoding)))
    assert read_pool(pool) == ["One", "猫です"]


def test_parquet_and_rows_of_seed_formats(tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    pq.write_table(pa.table({"prompt": ["One", "Two"], "score": [1.0, None]}), pool)
    assert read_pool(pool) == ["One", "Two"]
    rows = [
        {"prompt": [{"role": "user", "content": [{"type": "text", "text": "One"}]}]},
        {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "Two"}]},
        {"instruction": "Three", "input": "", "output": "x"},
    ]
    pool.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_pool(pool) == ["One", "Two", "Three"]


def test_a_plain_line_may_begin_with_a_bracket(tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    pool.write_text("[Role play] You are a cat.\n[Poem]\n")
    assert read_pool(pool) == ["[Role play] You are a cat.", "[Poem]"]


def test_gzip(tmp_path: Path) -> None:
    pool = tmp_path / "pool.jsonl.gz"
    pool.write_bytes(gzip.compress(b'{"prompt": "One"}\n'))
    assert read_pool(pool) == ["One"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"prompt": "One"}\n{"prompt": \n', "pool:2: not JSON"),
        (b'{"text": "One"}\n', 'pool:1: no "prompt"'),
        (b'{"prompt": 3}\n', 'pool:1: no "prompt".*no text'),
        (b'"One"\n{"prompt": null}\n', 'pool:2: no "prompt".*is empty'),
        (b'{"prompt": "half \\ud83d"}\n', 'pool:1: no "prompt".*half a surrogate pair'),
        (b"One\ncaf\xe9\n", "cannot be read: pool byte 7 is not utf-8 text"),
        (gzip.compress(b"One\n", mtime=0)[:-9], "cannot be read"),
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
