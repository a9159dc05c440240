"""Progress lines: what is written is read back; foreign log text is never taken for one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from srlm_contract.progress import Progress, format_progress, parse_progress


def test_a_line_reads_well_and_comes_back() -> None:
    progress = Progress(
        stage="judge", done=4120, total=12000, unit="verdicts", tokens_per_second=3900.0, eta_seconds=1260
    )
    line = format_progress(progress)
    assert line == "PROGRESS judge rows=4120/12000 unit=verdicts tok/s=3900 eta=1260"
    assert parse_progress(["noise", f"2026-01-01 INFO {line}", "more noise"]) == progress


def test_what_is_done_before_the_first_row_comes_back() -> None:
    progress = Progress(stage="judge", done=0, total=96, unit="verdicts", activity="starting vllm, loading the model")
    assert parse_progress([format_progress(progress)]) == progress


def test_the_last_whole_line_counts() -> None:
    lines = [
        format_progress(Progress(stage="train", done=1, total=9, unit="steps", loss=0.7)),
        format_progress(Progress(stage="train", done=2, total=9, unit="steps", loss=0.6)),
        "PROGRESS train rows=3/",
    ]
    found = parse_progress(lines)
    assert found is not None
    assert (found.done, found.loss) == (2, 0.6)


@given(st.lists(st.text(max_size=60)))
def test_any_text_is_survived(lines: list[str]) -> None:
    parse_progress(lines)
    parse_progress(["PROGRESS " + line for line in lines])
