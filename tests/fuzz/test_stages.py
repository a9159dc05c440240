"""Seed data, verdicts, rubrics, chat templates, weights and addresses that others wrote."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from time import process_time
from typing import get_args

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fuzz.strategies import bytes_like, changed, damaged, documents, examples, noise, texts
from srlm_contract.artifacts.s3 import split_uri
from srlm_contract.errors import BadInput, InvalidTask, StageFailure
from srlm_contract.spec.data import SeedFormat
from srlm_contract.spec.loop import ExternalJudgeSpec, SamplingSpec
from srlm_stages.checks.model import check_config
from srlm_stages.judging.external import ExternalJudge
from srlm_stages.judging.rubric import Rubric
from srlm_stages.judging.verdict import parse_score
from srlm_stages.seed.files import SeedDataError, whole_rows
from srlm_stages.seed.formats import read_seed_data
from srlm_stages.sources.origins import FileOrigin, Missing, open_origin
from srlm_stages.sources.weights import INDEX, Damaged, parse_header, weight_files
from support.memory_store import MemoryStore

TREE = {
    "message_tree_id": "a", "prompt": {
        "message_id": "a", "text": "Why?", "role": "prompter", "lang": "en", "review_result": True, "deleted": False,
        "replies": [{"message_id": "b", "text": "So.", "role": "assistant", "lang": "en", "rank": 0, "replies": []}],
    },
}  # fmt: skip
MESSAGE = {
    "message_id": "a", "parent_id": None, "message_tree_id": "a", "text": "Why?", "role": "prompter", "lang": "en",
    "review_result": True, "deleted": False, "rank": None, "tree_state": "ready_for_export",
}  # fmt: skip
ROWS = [
    TREE, MESSAGE, {**MESSAGE, "message_id": "b", "parent_id": "a", "role": "assistant", "rank": 0.0},
    {"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "Why?"}]}]},
    {"prompt": "Why?", "answers": ["So.", {"text": "No.", "rank": 1}]}, {"prompt": "Why?", "completion": "So."},
    {"prompt": "Why?", "chosen": "So.", "rejected": "No.", "score_chosen": 1, "score_rejected": 0},
    {"chosen": "\n\nHuman: Why?\n\nAssistant: So.", "rejected": "\n\nHuman: Why?\n\nAssistant: No."},
    {"instruction": "Why?", "input": "", "output": "So."},
    {"instruction": "Why?", "completions": [{"response": "So.", "overall_score": 5}]},
    {"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]},
]  # fmt: skip
FORMATS = st.sampled_from(get_args(SeedFormat.__value__ if hasattr(SeedFormat, "__value__") else SeedFormat))


@st.composite
def seed_files(draw: st.DrawFn) -> bytes:
    """Lines or an array of rows, some of them changed, maybe packed, in another encoding or damaged."""
    rows = draw(st.lists(st.one_of(st.sampled_from(ROWS), changed(ROWS), documents), max_size=4))
    lines = [json.dumps(row) for row in rows]
    text = draw(st.sampled_from(("\n".join(lines), f"[{','.join(lines)}]", ",".join(lines))))
    data = text.encode(draw(st.sampled_from(("utf-8", "utf-8-sig", "utf-16", "utf-32"))))
    if draw(st.booleans()):
        data = gzip.compress(data, mtime=0)
    return draw(st.one_of(st.just(data), damaged([data]), noise))


def test_seed_data(tmp_path: Path) -> None:
    file = tmp_path / "seed.jsonl"

    @examples(200)
    @given(data=seed_files(), format=FORMATS)
    @example(data=b"[" * 20_000, format="Chat")
    @example(data=b"[" + b"[" * 20_000, format="Chat")
    @example(data=b'{"a":' * 20_000, format="Auto")
    @example(data=b"PAR1", format="Auto")
    @example(data=b"\x28\xb5\x2f\xfd", format="Auto")
    @example(data=b"\x1f\x8b", format="Auto")
    @example(data=b'{"prompt": "a", "answers": [{"text": "b", "rank": 1' + b"0" * 400 + b"}]}", format="Auto")
    def check(data: bytes, format: str) -> None:
        file.write_bytes(data)
        for act in (lambda: read_seed_data(file, format, "en"), lambda: whole_rows(data, file.name)):
            try:
                act()
            except SeedDataError as error:
                assert "seed.jsonl" in str(error)
                str(error).encode()

    check()


SCORE_LINES = st.from_regex(
    r"(Score|score|\*\*Score\*\*|Total|得分|分)[ :=：]{0,3}[-+]?[0-9²٣.,/ ]{0,9}( out of | of |/)?[0-9.]{0,6}"
)
SCORE_PIECES = ("Score", ":", " ", "4", "/", "5", "10", "\n", "**", "(", "1 + ", "=", "-", "\\boxed{")


@examples(200)
@given(
    text=st.one_of(texts, SCORE_LINES, st.lists(st.sampled_from(SCORE_PIECES), max_size=30).map("".join)),
    label=st.one_of(st.just(""), texts),
)
def test_verdicts(text: str, label: str) -> None:
    score = parse_score(text, label)
    assert score is None or 0 <= score <= 5


@pytest.mark.parametrize(
    "piece", ["Score", "Score: ", "1 + ", "* ", "score of ", "(", "5 out of ", "_", "total ", "\n", "9", " "]
)
def test_long_verdicts_take_no_time(piece: str) -> None:
    for text in (piece * (20_000 // len(piece)), "Score:" + piece * (20_000 // len(piece)), piece * 5_000 + "Score: 4"):
        began = process_time()
        parse_score(text)
        assert process_time() - began < 5, piece


@examples(200)
@given(
    text=st.one_of(
        texts, st.lists(st.sampled_from(("{question}", "{answer}", "Score: ", "\n", "{", "}")), max_size=8).map("".join)
    )
)
def test_rubrics(text: str) -> None:
    try:
        assert Rubric.parse(text).fill("q", "a")
    except BadInput as error:
        assert (error.exit_code, "{question}" in str(error) or "{answer}" in str(error)) == (65, True)


JUDGE = ExternalJudge(ExternalJudgeSpec(url="http://judge/v1", model="m"), SamplingSpec(), "key")
ANSWERS = [{"choices": [{"message": {"content": "Score: 4"}, "finish_reason": "stop"}], "usage": {"total_tokens": 9}}]


@examples(150)
@given(data=bytes_like(ANSWERS))
def test_answers_of_a_judge_elsewhere(data: bytes) -> None:
    try:
        JUDGE._completion(httpx.Response(200, content=data))
    except BadInput as error:
        assert (error.reason, error.exit_code) == ("JudgeNotUsable", 65)
        assert len(str(error)) < 2000


HEADER = {"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, "__metadata__": {"format": "pt"}}


@examples(200)
@given(data=bytes_like([HEADER]), size=st.integers(0, 100))
@example(data=b'{"a": {"dtype": "F32", "shape": [1e999], "data_offsets": [0, 24]}}', size=24)
@example(data=b'{"a": {"dtype": [], "shape": [1], "data_offsets": [0, 24]}}', size=24)
def test_headers_of_weights(data: bytes, size: int) -> None:
    try:
        parse_header(data, size)
    except Damaged as error:
        assert str(error)


CONFIG = {"architectures": ["LlamaForCausalLM"], "text_config": {"a": 1}, "quantization_config": None}
MAP = {"metadata": {}, "weight_map": {"a": "model.safetensors", "b": "model.safetensors"}}


def test_configurations_and_indexes_of_models(tmp_path: Path) -> None:
    (tmp_path / "into").mkdir()

    @examples(150)
    @given(config=bytes_like([CONFIG]), index=bytes_like([MAP]))
    def check(config: bytes, index: bytes) -> None:
        for name, data in (("config.json", config), (INDEX, index), ("model.safetensors", b"")):
            (tmp_path / name).write_bytes(data)
        origin = FileOrigin.open(tmp_path.as_uri())
        for act in (check_config, weight_files):
            try:
                act(origin, tmp_path / "into")
            except BadInput as error:
                assert (error.reason, error.exit_code) == ("ModelNotUsable", 65)
                assert tmp_path.name in str(error)

    check()


S3_ADDRESSES = st.tuples(st.sampled_from(("s3://", "hf:/", "S3://", "")), texts, st.sampled_from(("", "/", "/a", "//")))


def opens(uri: str) -> None:
    for act in (lambda: open_origin(uri, "model", lambda _: MemoryStore()), lambda: split_uri(uri)):
        try:
            act()
        except Missing as error:
            assert str(error)
        except StageFailure as error:
            assert isinstance(error, BadInput | InvalidTask)
            assert error.exit_code in (64, 65)


@examples(200)
@given(uri=st.one_of(texts, S3_ADDRESSES.map("".join)))
@example(uri="s3://bucket/" + "\ud800")
def test_addresses(uri: str) -> None:
    opens(uri)


def test_addresses_on_this_machine(tmp_path: Path) -> None:
    @examples(100)
    @given(rest=texts)
    @example(rest="%00")
    @example(rest="a" * 300)
    def check(rest: str) -> None:
        opens(f"{tmp_path.as_uri()}/empty/{rest.replace('..', '')}")

    check()
    opens("file://[")
