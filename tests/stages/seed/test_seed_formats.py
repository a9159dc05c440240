"""Seed files as people have them: every container and encoding, every row format, and values that are no plain text."""

from __future__ import annotations

import doctest
import gzip
import json
import math
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srlm_contract.spec.data import SeedFormat
from srlm_stages.seed import languages
from srlm_stages.seed import rows as seed_rows
from srlm_stages.seed import values as seed_values
from srlm_stages.seed.files import SeedDataError, read_rows, whole_rows
from srlm_stages.seed.formats import SeedData, read_seed_data
from srlm_stages.seed.source import pick_seed_file
from srlm_stages.seed.values import Dropped, content_text, flag, identity, rank_of

README = Path(__file__).parents[3] / "stages" / "README.md"
ROWS = [{"prompt": f"Why is {i} odd? Ünïcode, 猫.", "answers": [f"good {i}", f"bad {i}"]} for i in range(5)]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
ARRAY = json.dumps(ROWS, indent=2, ensure_ascii=False)


def read(path: Path, rows: Any, format: str = "Chat", language: str = "en") -> SeedData:
    """What is read of `rows`: bytes, text or objects that become JSON lines."""
    if isinstance(rows, bytes):
        path.write_bytes(rows)
    else:
        text = rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows)
        path.write_text(text, encoding="utf-8")
    return read_seed_data(path, format, language)


def answers(data: SeedData) -> list[tuple[str, list[tuple[str, int | None]]]]:
    return [(p.text, [(a.text, a.rank) for a in p.answers]) for p in data.prompts]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "seed"


def parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink, row_group_size=2)
    return bytes(sink.getvalue())


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as packed:
        packed.write(data)
    return bytes(sink.getvalue())


@pytest.mark.parametrize("text", [LINES, ARRAY, LINES.replace("\n", "\r\n"), json.dumps(ROWS), "\n \n" + ARRAY])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstd])
def test_containers_and_encodings_hold_the_same_rows(file: Path, text: str, encoding: str, pack: Any) -> None:
    file.write_bytes(pack(text.encode(encoding)))
    assert [row for _, row in read_rows(file)] == ROWS


def test_files_put_one_after_another_have_marks_in_the_middle(file: Path) -> None:
    file.write_bytes(LINES.encode("utf-8-sig") * 2)
    assert [row for _, row in read_rows(file)] == ROWS * 2


def test_parquet_holds_the_same_rows_and_names_them(file: Path) -> None:
    file.write_bytes(parquet(ROWS))
    assert list(read_rows(file)) == [(f"row {i + 1}", row) for i, row in enumerate(ROWS)]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"PK\x03\x04....", "is a zip archive.*JSON lines"),
        (b"PAR1 but no more of it", "cannot be read as Parquet"),
        (zstd(LINES.encode())[:-9], "damaged zstd file"),
        (LINES.encode() + "caf\u00e9\n".encode("latin-1"), r"line 6 is not utf-8 text.*save the file as UTF-8"),
        (ARRAY.encode()[:-3], "not a whole JSON array after row 4"),
        (b"[]", "is empty"),
        (b"[{}]", r"row 1 \(line 1\) has neither messages"),
        (b'[{"prompt": "Q?", "answers": []},\n 3]', r"row 2 \(line 2\) is not a JSON object but int"),
        (LINES.encode() + b"[]", "line 6 is not a JSON object but list"),
        (ARRAY.encode() * 2, "not a whole JSON array after row 5 .more after the end"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "is a pointer of Git LFS"),
        (b'{"prompt": "Q?", "messages": "Hi"}', "line 1 has messages that are no list"),
        (b"id,text\n1,hello\n", "line 1 is not JSON.*JSON array of objects, or Parquet"),
        (b'{"a": ' + b"[" * 100_000 + b"\n", "line 1 is not JSON"),
    ],
)
def test_what_cannot_be_read_is_named(file: Path, content: bytes, says: str) -> None:
    with pytest.raises(SeedDataError, match=says) as error:
        read(file, content)
    assert str(error.value).startswith("seed ")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-be"])
@pytest.mark.parametrize("text", [LINES, ARRAY])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_the_beginning_of_a_large_file_gives_whole_rows(file: Path, text: str, encoding: str, pack: Any) -> None:
    packed = pack(text.encode(encoding))
    start = whole_rows(packed[: len(packed) * 3 // 4], "seed")
    assert start is not None
    file.write_bytes(start)
    found = [row for _, row in read_rows(file)]
    assert 0 < len(found) < len(ROWS)
    assert found == ROWS[: len(found)]


def test_beginnings_that_say_nothing() -> None:
    assert whole_rows(parquet(ROWS)[:50], "seed") is None
    for head in (b'{"prompt": "cut', b'[{"prompt": "cut', b"{}"):
        with pytest.raises(SeedDataError, match="no complete row"):
            whole_rows(head, "seed")


def documented() -> dict[str, dict[str, Any]]:
    """Format → example row of the README's table."""
    rows = re.findall(r"^\| `(\w+)` \| `(\{[^`]*\})`", README.read_text(), re.M)
    return {name: json.loads(row) for name, row in rows}


def test_every_format_is_documented_by_an_example_that_is_read(file: Path) -> None:
    examples = documented()
    assert set(examples) == set(get_args(SeedFormat)) - {"Auto"}
    for format, row in examples.items():
        found = answers(read(file, [row], format))
        if format == "OasstMessages":
            assert found == [("Why?", [])]
            continue
        ((prompt, given),) = found
        assert prompt.startswith("Why?")
        assert given[0] == ("Because.", 0)
        assert given[1:] in ([], [("No idea.", 1)]), format
        assert found == answers(read(file, [row], "Auto")), format


@pytest.mark.parametrize("module", [seed_rows, seed_values, languages])
def test_examples_of_docstrings(module: Any) -> None:
    result = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted
    assert not result.failed


USER, GOOD, BAD = ({"role": r, "content": c} for r, c in
                   (("user", "Why?"), ("assistant", "Because."), ("assistant", "No idea.")))  # fmt: skip
SYSTEM = {"role": "system", "content": "Be brief."}
PAIR = [("Why?", [("Because.", 0), ("No idea.", 1)])]
ONE = [("Why?", [("Because.", 0)])]


@pytest.mark.parametrize(
    ("format", "row", "found"),
    [
        ("Preferences", {"prompt": "Why?", "chosen": "Because.", "rejected": "No idea."}, PAIR),
        ("Preferences", {"prompt": [SYSTEM, USER], "chosen": [GOOD], "rejected": [BAD]}, PAIR),
        ("Preferences", {"prompt": "Why?", "chosen": [USER, GOOD], "rejected": [USER, BAD]}, PAIR),
        ("Preferences", {"chosen": [SYSTEM, USER, GOOD], "rejected": [SYSTEM, USER, BAD]}, PAIR),
        ("Preferences", {"prompt": None, "chosen": "Why? Because.", "rejected": "Why? No idea."}, PAIR),
        ("Preferences", {"chosen": "Sky is blue", "rejected": "Sky is black"},
         [("Sky is", [("blue", 0), ("black", 1)])]),
        ("Preferences", {"chosen": "\n\nHuman: Why?\n\nAssistant: Because.\n\nHuman: Really?\n\nAssistant: Yes.",
                         "rejected": "\n\nHuman: Why?\n\nAssistant: No idea."}, PAIR),
        ("Preferences", {"prompt": "\n\nHuman: Why?\n\nAssistant:", "chosen": " Because.",
                         "rejected": "No idea."}, PAIR),
        ("Preferences", {"conversations": [{"from": "human", "value": "Why?"}], "chosen": {"from": "gpt",
                         "value": "Because."}, "rejected": {"from": "gpt", "value": "No idea."}}, PAIR),
        ("UltraFeedback", {"instruction": "Why?", "completions": [
            {"response": "No idea.", "overall_score": "2"}, {"response": "Because.", "overall_score": 8.0}]}, PAIR),
        ("UltraFeedback", {"instruction": "Why?", "completions": [
            {"response": "No idea.", "overall_score": 10.0, "fine-grained_score": 1.5},
            {"response": "Because.", "overall_score": 8.0, "fine-grained_score": 4.75}]}, PAIR),
        ("UltraFeedback", {"instruction": "Why?", "completions": [
            {"response": "No idea.", "annotations": {"helpfulness": {"Rating": "2"}, "honesty": {"Rating": "N/A"}}},
            {"response": "Because.", "annotations": {"helpfulness": {"Rating": "4"}}}]}, PAIR),
        ("UltraFeedback", {"prompt": "Why?", "chosen": [USER, GOOD], "rejected": [USER, BAD],
                           "messages": [USER, GOOD], "score_chosen": 8.0, "score_rejected": 4.5}, PAIR),
        ("UltraFeedback", {"prompt": "Why?", "chosen": [USER, BAD], "rejected": [USER, GOOD],
                           "chosen-rating": 2.5, "rejected-rating": 4.0}, PAIR),
        ("UltraFeedback", {"prompt": "Why?", "chosen": "B", "rejected": "A", "score_chosen": 7, "score_rejected": 7.0},
         [("Why?", [("A", 0), ("B", 0)])]),
        ("UltraFeedback", {"instruction": "Why?", "completions": [
            {"response": r, "overall_score": s} for r, s in (("a", 7), ("b", 9), ("c", 7), ("d", 1))]},
         [("Why?", [("b", 0), ("a", 1), ("c", 1), ("d", 2)])]),
        ("ShareGpt", {"conversations": [{"from": "system", "value": "Be brief."}, {"from": "human", "value": "Why?"},
                                        {"from": "gpt", "value": "Because."}, {"from": "human", "value": "Oh."}]}, ONE),
        ("ShareGpt", {"conversations": [{"role": "user", "content": "Why?"}, {"role": "assistant",
                                                                             "content": "Because."}]}, ONE),
        ("Alpaca", {"instruction": "Why?", "input": "", "output": "Because."}, ONE),
        ("Alpaca", {"instruction": "Why?", "input": math.nan, "output": "Because.", "history": []}, ONE),
        ("Alpaca", {"instruction": "Add.", "input": "1, 2", "output": "3"}, [("Add.\n\n1, 2", [("3", 0)])]),
        ("Alpaca", {"instruction": "Why?", "output": ["Because.", "No idea."]}, PAIR),
        ("Chat", {"prompt": "Why?", "completion": [GOOD]}, ONE),
        ("Chat", {"prompt": [USER], "answers": ["Because.", "No idea."]}, PAIR),
        ("Chat", {"prompt": "Why?", "answers": [{"text": "No idea.", "score": 1}, {"text": "Because.", "score": 5}]},
         PAIR),
        ("Chat", {"prompt": "Why?", "answers": [{"text": "No idea.", "rank": 1.0}, {"text": "Because.", "rank": 0.0}]},
         PAIR),
        ("Chat", {"prompt": "Why?", "answers": [
            {"text": "Maybe.", "rank": None}, {"text": "No idea.", "rank": 1.0}, {"text": "Because.", "rank": 0.0}]},
         [("Why?", [*PAIR[0][1], ("Maybe.", None)])]),
        ("Chat", {"prompt": "Why?", "answers": [{"text": "Maybe."}, {"text": "No idea.", "score": 2},
                                                {"text": "Because.", "score": "3.5"}]},
         [("Why?", [*PAIR[0][1], ("Maybe.", None)])]),
        ("Chat", {"prompt": "\n\nHuman: Why?\n\nAssistant: ", "answers": [
            {"answer": "No idea.", "rank": 2.0}, {"answer": "Because.", "rank": 1.0}]}, PAIR),
        ("Chat", {"prompt": "Why?", "answers": "Because."}, ONE),
        ("Chat", {"prompt": {"text": "Why?"}, "answers": ["Because.", "No idea."]}, PAIR),
        ("Chat", {"prompt": "Why?", "answers": {"text": ["No idea.", "Because."], "rank": [1, 0]}}, PAIR),
        ("Chat", {"messages": json.dumps([SYSTEM, USER, GOOD])}, ONE),
        ("Chat", {"messages": {"role": ["user", "assistant"], "content": ["Why?", "Because."]}}, ONE),
        ("Chat", {"prompt": "Why?", "completion": "Because.", "label": True}, ONE),
        ("Chat", {"messages": [USER, {"role": "assistant", "content": "Let me look.", "tool_calls": [{"id": "1"}]},
                               {"role": "tool", "content": "sunny"}, GOOD]}, [("Why?", [])]),
        ("Chat", {"messages": [USER, {**GOOD, "tool_calls": []}], "images": []}, ONE),
        ("Preferences", {"instruction": "Add.", "input": "1, 2", "chosen": "3", "rejected": "4"},
         [("Add.\n\n1, 2", [("3", 0), ("4", 1)])]),
        ("Preferences", {"prompt": json.dumps([USER]), "chosen": json.dumps([GOOD]), "rejected": json.dumps([BAD])},
         PAIR),
        ("ShareGpt", {"conversations": json.dumps([{"from": "human", "value": "Why?"},
                                                   {"from": "gpt", "value": "Because."}])}, ONE),
        ("Chat", {"messages": [USER, GOOD, USER, BAD], "prompt": None}, ONE),
        ("Chat", {"messages": [USER]}, [("Why?", [])]),
    ],
)  # fmt: skip
def test_row_formats(file: Path, format: str, row: dict[str, Any], found: Any) -> None:
    assert answers(read(file, [row], format)) == found


def test_answers_of_equal_score_are_no_ranking(file: Path) -> None:
    row = {"prompt": "Why?", "chosen": "B", "rejected": "A", "score_chosen": 7, "score_rejected": 7}
    assert read(file, [row], "UltraFeedback").prompts[0].ranked == ()


KEPT = {"prompt": "Kept?", "answers": ["yes"]}
LATER = [USER, GOOD, {"role": "user", "content": "Really?"}]


@pytest.mark.parametrize(
    ("format", "row", "cause"),
    [
        ("Chat", {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, GOOD]},
         "notTextPrompt"),
        ("Chat", {"messages": [GOOD, USER]}, "notFirstTurnPrompt"),
        ("Chat", {"messages": [{"role": "user", "content": None}, GOOD]}, "emptyPrompt"),
        ("Chat", {"messages": []}, "emptyPrompt"),
        ("Chat", {"messages": None}, "emptyPrompt"),
        ("Chat", {"prompt": None, "answers": ["a"]}, "emptyPrompt"),
        ("Chat", {"prompt": math.nan, "answers": ["a"]}, "emptyPrompt"),
        ("Chat", {"prompt": 42, "answers": ["a"]}, "notTextPrompt"),
        ("Chat", {"prompt": {"question": "Why?"}, "answers": ["a"]}, "notTextPrompt"),
        ("Chat", {"prompt": "What is \ud83d this?", "answers": ["a"]}, "invalidUnicodePrompt"),
        ("Chat", {"prompt": "Kept?", "answers": ["again"]}, "duplicatePrompt"),
        ("Preferences", {"prompt": LATER, "chosen": [GOOD], "rejected": [BAD]}, "notFirstTurnPrompt"),
        ("Preferences", {"chosen": [*LATER, GOOD], "rejected": [*LATER, BAD]}, "notFirstTurnPrompt"),
        ("Preferences", {"chosen": "One thing.", "rejected": "Another."}, "emptyPrompt"),
        ("Preferences", {"prompt": "Why?", "chosen": None, "rejected": "No idea."}, "emptyAnswer"),
        ("ShareGpt", {"conversations": [{"from": "gpt", "value": "Hello."}]}, "notFirstTurnPrompt"),
        ("ShareGpt", {"conversations": None}, "emptyPrompt"),
        ("ShareGpt", {"image": "cat.jpg", "conversations": [{"from": "human", "value": "<image>\nWhat is it?"},
                                                            {"from": "gpt", "value": "A cat."}]}, "notTextPrompt"),
        ("Chat", {"images": ["cat.jpg"], "messages": [USER, GOOD]}, "notTextPrompt"),
        ("Chat", {"prompt": "Kept?", "completion": "bad", "label": False}, "rejectedAnswer"),
        ("Chat", {"prompt": "Kept?", "completion": "bad", "label": 0.0}, "rejectedAnswer"),
        ("Chat", {"messages": [USER, BAD], "label": False}, "rejectedAnswer"),
        ("Alpaca", {"instruction": "Why?", "output": "No idea.", "kto_tag": False}, "rejectedAnswer"),
        ("Alpaca", {"instruction": "Why?", "input": 3, "output": "Because."}, "notTextPrompt"),
        ("Alpaca", {"instruction": None, "output": "3"}, "emptyPrompt"),
        ("Alpaca", {"instruction": "And?", "output": "3", "history": [["Why?", "Because."]]}, "notFirstTurnPrompt"),
        ("OasstTrees", {"prompt": None}, "emptyPrompt"),
    ],
)  # fmt: skip
def test_rows_that_cannot_be_used_are_counted_by_cause(file: Path, format: str, row: Any, cause: str) -> None:
    kept: dict[str, dict[str, Any]] = {
        "Preferences": {"prompt": "Kept?", "chosen": "yes", "rejected": "no"}, "Chat": KEPT,
        "ShareGpt": {"conversations": [{"from": "human", "value": "Kept?"}, {"from": "gpt", "value": "yes"}]},
        "Alpaca": {"instruction": "Kept?", "output": "yes"}, "OasstTrees": {"prompt": {"text": "Kept?"}},
    }  # fmt: skip
    data = read(file, [kept[format], row], format)
    assert [p.text for p in data.prompts] == ["Kept?"]
    assert data.dropped == {cause: 1}
    assert data.first == {cause: "line 2"}


def test_answers_that_cannot_be_used_are_counted_and_the_others_keep_their_ranks(file: Path) -> None:
    given = ["best", None, math.nan, "  ", 7, {"type": "image", "image": "x"}, "half \udc00", "worst", "best"]
    data = read(file, [{"prompt": "Why?", "answers": given}])
    assert answers(data) == [("Why?", [("best", 0), ("worst", 7)])]
    assert data.dropped == {"emptyAnswer": 3, "notTextAnswer": 2, "invalidUnicodeAnswer": 1, "duplicateAnswer": 1}


def test_a_file_of_another_format_is_told_by_its_fields(file: Path) -> None:
    says = "line 1 has no chosen and rejected: not the Preferences format; its first rows look like Alpaca; check"
    with pytest.raises(SeedDataError, match=says):
        read(file, [{"instruction": "Why?", "output": "Because."}], "Preferences")
    with pytest.raises(SeedDataError, match="line 1 has the fields a, b, which are of no known format; set"):
        read(file, [{"a": 1, "b": 2}], "Auto")
    with pytest.raises(SeedDataError, match="has the fields b\\?"):
        read(file, [{"b\ud83d": 2}], "Auto")
    with pytest.raises(SeedDataError, match="line 2 has neither messages"):
        read(file, [KEPT, {"other": 1}])


def test_nulls_do_not_hide_the_format(file: Path) -> None:
    rows = [{"messages": None, "id": 1}, {"messages": [USER, GOOD], "id": 2}]
    assert answers(read(file, rows, "Auto")) == ONE


def oasst(**extra: Any) -> list[dict[str, Any]]:
    base = {"lang": "en", "rank": None, "parent_id": None, "deleted": False, "synthetic": None, "review_result": True}
    return [
        {**base, "message_id": 1, "text": "Why?", **({"parent_id": extra["parent"]} if "parent" in extra else {})},
        {**base, "message_id": 2, "parent_id": 1.0, "text": "Because.", "rank": 0.0, **extra.get("first", {})},
        {**base, "message_id": 3, "parent_id": 1.0, "text": "No idea.", "rank": 1.0, **extra.get("second", {})},
    ]


@pytest.mark.parametrize("parent", [None, "", math.nan, "nan", "None", " "])
def test_roots_that_went_through_pandas(file: Path, parent: Any) -> None:
    assert answers(read(file, oasst(parent=parent), "OasstMessages")) == PAIR


def test_messages_in_parquet_with_a_float_rank(file: Path) -> None:
    assert answers(read(file, parquet(oasst()), "OasstMessages")) == PAIR


def test_thoughts_before_answers_are_cut_off(file: Path) -> None:
    given = ["<think>Hm.</think>\n\nBecause.", "[THINK]Hm.[/THINK]No idea.", "<think>I never", "<think></think>"]
    data = read(file, [{"prompt": "Why?", "answers": given}])
    assert answers(data) == PAIR
    assert data.dropped == {"unfinishedThoughtAnswer": 2}


def test_messages_that_are_all_replies_are_no_prompts(file: Path) -> None:
    with pytest.raises(SeedDataError, match="has no message without parent_id"):
        read(file, oasst(parent="root"), "OasstMessages")


def test_values_that_only_tables_have(file: Path) -> None:
    ranked = [{"text": "No idea.", "rank": Decimal(2)}, {"text": "Because.", "rank": Decimal(1)}]
    pq.write_table(pa.table({"prompt": ["Why?"], "answers": [ranked]}), file)
    assert answers(read_seed_data(file, "Auto", "en")) == PAIR
    maps = pa.array([[list(USER.items()), list(GOOD.items())]], pa.list_(pa.map_(pa.string(), pa.string())))
    pq.write_table(pa.table({"messages": maps}), file)
    assert answers(read_seed_data(file, "Auto", "en")) == ONE


@pytest.mark.parametrize(
    ("marks", "cause"),
    [
        ({"review_result": False}, "spamAnswer"), ({"review_result": 0.0}, "spamAnswer"),
        ({"deleted": 1.0}, "deletedAnswer"), ({"deleted": "True"}, "deletedAnswer"),
        ({"synthetic": 1}, "syntheticAnswer"), ({"lang": "de"}, "otherLanguageAnswer"),
        ({"text": None}, "emptyAnswer"), ({"text": {"a": 1}}, "notTextAnswer"),
    ],
)  # fmt: skip
def test_answers_marked_as_not_wanted(file: Path, marks: dict[str, Any], cause: str) -> None:
    data = read(file, oasst(second=marks), "OasstMessages")
    assert answers(data) == ONE
    assert data.dropped == {cause: 1}


@pytest.mark.parametrize(
    "marks", [{"review_result": None}, {"deleted": math.nan}, {"lang": None}, {"synthetic": "nan"}]
)
def test_marks_that_are_absent_speak_for_an_answer(file: Path, marks: dict[str, Any]) -> None:
    assert answers(read(file, oasst(second=marks), "OasstMessages")) == PAIR


def test_the_same_text_under_two_ranks_keeps_the_better(file: Path) -> None:
    given = (("same", 2), ("worse", 3), (" same ", 0), ("same", None), ("mid", 1))
    replies = [{"text": text, "rank": rank} for text, rank in given]
    data = read(file, [{"prompt": {"text": "Why?", "replies": replies}}], "OasstTrees")
    assert answers(data) == [("Why?", [("same", 0), ("mid", 1), ("worse", 3)])]
    assert data.dropped["duplicateAnswer"] == 2


@pytest.mark.parametrize(
    ("spoken", "wanted", "same"),
    [
        ("pt-BR", "pt", True), ("pt", "pt-BR", True), ("pt_br", "pt-BR", True), ("pt-PT", "pt-BR", False),
        ("uk-UA", "uk", True), ("en", "de", False), ("zh-Hans-CN", "zh-CN", True), ("zh-Hant", "zh-Hans", False),
        ("EN", "en", True), ("p", "pt", False), ("es-419", "es", True), ("iw", "he", True),
    ],
)  # fmt: skip
def test_language_tags(file: Path, spoken: str, wanted: str, same: bool) -> None:
    assert languages.same_language(spoken, wanted) == same
    rows = [{"prompt": {"text": "Q?", "lang": wanted}}, {"prompt": {"text": "R?", "lang": spoken}}]
    assert read(file, rows, "OasstTrees", wanted).dropped == ({} if same else {"otherLanguagePrompt": 1})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["text", "type", "content", "x"]), inner),
    max_leaves=6,
)


@given(json_values)
def test_any_value_is_a_text_or_dropped_and_never_the_spelling_of_an_object(value: Any) -> None:
    try:
        text = content_text(value)
    except Dropped:
        return
    assert text == text.strip() != ""
    text.encode()
    strings = "".join(re.findall(r"\S", json.dumps(value, ensure_ascii=False)))
    assert all(json.dumps(piece, ensure_ascii=False)[1:-1] in strings for piece in re.findall(r"\S+", text))


ODD = [None, math.nan, 7, True, "", "\ud800", [], {}, [None], {"type": "image"}, [{"role": "user"}]]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths to everything inside a row."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield (*path, key)
        yield from places(item, (*path, key))


def replaced(value: Any, path: tuple[Any, ...], by: Any) -> Any:
    """A copy with another value at a place."""
    if not path:
        return by
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], by)
    return copy


PAIRED = {"chosen": [USER, GOOD], "rejected": [USER, BAD]}
BINARIZED = {"prompt": "Why?", **PAIRED, "score_chosen": 8.0, "score_rejected": 4.5}


@pytest.mark.parametrize("format", [*sorted(set(get_args(SeedFormat)) - {"Auto"}), "binarized", "messages", "implicit"])
def test_an_odd_value_anywhere_is_read_left_out_or_named(file: Path, format: str) -> None:
    row, name = {
        "binarized": (BINARIZED, "UltraFeedback"),
        "messages": ({"messages": [SYSTEM, USER, GOOD]}, "Chat"),
        "implicit": (PAIRED, "Preferences"),
    }.get(format) or (documented()[format], format)
    for path in places(row):
        for odd in ODD:
            try:
                data = read(file, [row, replaced(row, path, odd)], name)
            except SeedDataError as error:
                message = str(error)
                assert re.match(r"seed (line 2 has|has no usable prompt in)", message), message
                continue
            texts = [text for p in data.prompts for text in (p.text, *(a.text for a in p.answers))]
            assert all(text.strip() and text.encode() and not re.search(r"[{\[]|None|nan", text) for text in texts)


def test_a_text_that_is_nested_without_end_is_no_text() -> None:
    value: Any = "deep"
    for _ in range(100_000):
        value = [value]
    with pytest.raises(Dropped, match="notText"):
        content_text(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "a\nb"),
        ([{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "a"}], "a"),
        ([{"text": "a", "image_url": None, "type": None}], "a"), (["a", "b"], "a\nb"), ({"value": "a"}, "a"),
        ({"type": "text", "text": {"value": "a"}}, "a"), (" null ", "null"),
    ],
)  # fmt: skip
def test_texts_in_parts(value: Any, text: str) -> None:
    assert content_text(value) == text


def test_numbers_ids_and_marks() -> None:
    assert [rank_of(v) for v in (0, 1.0, "2", "3.0", None, math.nan, "")] == [0, 1, 2, 3, None, None, None]
    for bad in (-1, 1.5, True, "first", math.inf, [0]):
        with pytest.raises(Dropped, match="invalidRank"):
            rank_of(bad)
    assert [identity(v) for v in (7, 7.0, "7", math.nan, None, "", "NaN", "a")] == ["7"] * 3 + [None] * 4 + ["a"]
    assert [flag(v) for v in (1.0, "true", 0, "False")] == [True, True, False, False]
    assert [flag(v) for v in (None, math.nan, "")] == [None, None, None]


@pytest.mark.parametrize(
    ("format", "names", "picked"),
    [
        ("Chat", ["README.md", "rows.parquet"], "rows.parquet"),
        ("UltraFeedback", ["data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"],
         "data/train-00000-of-00001.parquet"),
        ("Alpaca", ["dataset_infos.json", "alpaca_data.json"], "alpaca_data.json"),
        ("Chat", [".cache/huggingface/x.json", "chats.json"], "chats.json"),
        ("OasstMessages", ["data/train-1.parquet", "x_ready.messages.jsonl.gz"], "x_ready.messages.jsonl.gz"),
    ],
)  # fmt: skip
def test_the_file_of_a_repository(format: str, names: list[str], picked: str) -> None:
    assert pick_seed_file(names, format, "hf://x/y") == picked
