"""Termination messages fit, whatever a stage has to say, and lose nothing that is needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from srlm_contract.tasks import (
    MAX_RESULT_BYTES,
    ArtifactRef,
    ChainedResult,
    Committed,
    Pins,
    SourceRef,
    StageError,
    StageResult,
)
from srlm_operator.plan.outcomes import parse_result
from srlm_stages.run import main
from srlm_stages.runtime.termination import encoded, fitted, write_result


def clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


#: Any characters, also halves of pairs, and those that JSON writes as six bytes.
TEXT = st.text(st.characters(codec=None), max_size=20) | st.builds(
    lambda letter, times: letter * times, st.sampled_from(["\x00", "ü", "\ud800", '"', "x"]), st.integers(0, 6000)
)
SHORT = TEXT.map(lambda text: clean(text[:250]))
FIGURES = st.dictionaries(SHORT, st.floats(), max_size=2) | st.integers(0, 400).map(
    lambda n: {f"figure{i}": i / 7 for i in range(n)}
)


def of(model: type[Any], **fields: Any) -> Any:
    """By the names of attributes: hypothesis would take those on the wire."""
    return st.fixed_dictionaries(fields).map(lambda values: model(**values))


SOURCES = of(SourceRef, uri=TEXT.map(lambda text: clean(text[:1000])), revision=SHORT, file=st.none() | SHORT)
PINS = of(Pins, base_model=SOURCES, seed_data=SOURCES, prompt_source=st.none() | SOURCES, rubric=SHORT)
NODES = st.builds("{}/{}".format, st.integers(0, 50), st.sampled_from(["sft", "judge-heldout", "pairs-r2"]))
FOUND = of(Committed, node=NODES, key=SHORT, content_digest=SHORT, statistics=FIGURES)
CHAINED = of(ChainedResult, node=NODES, key=SHORT, content_digest=SHORT, statistics=FIGURES, reused=st.booleans())
ERRORS = of(StageError, reason=TEXT, message=TEXT, artifact=st.none() | st.just(ArtifactRef(
    stage="data", key="k" * 200, content_digest="d" * 200)))  # fmt: skip
RESULTS = of(
    StageResult,
    stage=st.sampled_from(["preflight", "judge", "train"]),
    key=SHORT,
    content_digest=SHORT,
    manifest_uri=TEXT,
    statistics=FIGURES,
    reused=st.booleans(),
    pins=st.none() | PINS,
    committed=st.lists(FOUND, max_size=5).map(tuple),
    more=st.booleans(),
    chained=st.lists(CHAINED, max_size=4).map(tuple),
    warnings=st.lists(TEXT, max_size=5).map(tuple),
    storage_errors=st.integers(),
    error=st.none() | ERRORS,
)


@settings(max_examples=60, deadline=None)
@given(RESULTS)
@example(StageResult(stage="judge", warnings=("w" * 5000,) * 3, statistics={"loss": float("nan")}))
def test_every_result_fits_and_is_understood(result: StageResult) -> None:
    text = encoded(fitted(result))
    assert len(text) <= MAX_RESULT_BYTES
    said = StageResult.model_validate_json(text)
    assert parse_result(text.decode()) is not None, "as the operator reads it"
    assert said.stage == result.stage
    if result.error is None and said.error is not None:
        assert said.error.reason == "InvalidTask"
        assert "shorten" in said.error.message
        return
    if result.error is not None:
        assert said.error is not None
        assert clean(result.error.reason).startswith(said.error.reason)
        return
    assert (said.key, said.content_digest) == (result.key, result.content_digest)
    assert (said.pins is None) == (result.pins is None)
    assert [(c.node, c.key, c.content_digest, c.reused) for c in said.chained] == [
        (c.node, c.key, c.content_digest, c.reused) for c in result.chained
    ]
    assert len(said.committed) == len(result.committed) or said.more
    assert [c.node for c in said.committed] == [c.node for c in result.committed[: len(said.committed)]]


def test_the_least_needed_goes_first_and_is_spoken_of() -> None:
    found = StageResult(
        stage="judge",
        key="key",
        statistics={
            "droppedLong": 1.0,
            "winRateM1": 0.5,
            **{f"figure{i:03}": i / 7 for i in range(200)},
            "scoreSum": 2.0,
        },
        warnings=("w" * 299,) * 20,
    )
    said = fitted(found)
    assert len(said.statistics) > 100
    assert "figure000" in said.statistics
    assert not {"droppedLong", "scoreSum", "winRateM1"} & said.statistics.keys()
    left = 203 - len(said.statistics)
    assert said.warnings == (
        f"left out, as only 4,096 bytes can be said: 20 warnings, {left} figures; see the pod's log",
    )


def test_a_long_chain_keeps_what_is_needed_of_each_stage() -> None:
    """Digits that nobody reads go before figures, and of each stage those that are parts of others."""
    plain = {f"figure{i:02}": 1000 / (i + 7) for i in range(36)}
    figures = {**{f"droppedFor{i:02}": float(i) for i in range(12)}, **plain}
    key, digest = "0123456789abcdef01234567", "sha256:" + "0123456789abcdef" * 4
    chained = tuple(
        ChainedResult(node=node, key=key, content_digest=digest, statistics=figures, seconds=123.456)
        for node in ("1/evaluate", "2/prompts", "2/generate", "2/judge")
    )
    whole = StageResult(stage="judge", key=key, content_digest=digest, statistics=figures, chained=chained)
    said = fitted(whole)
    assert len(encoded(said)) <= MAX_RESULT_BYTES
    assert [(c.node, c.key, c.content_digest, c.seconds) for c in said.chained] == [
        (c.node, c.key, c.content_digest, c.seconds) for c in chained
    ]
    kept = [each.statistics for each in (said, *said.chained)]
    assert kept == [kept[0]] * 5
    assert 20 < len(kept[0]) < 36
    assert kept[0] == {name: pytest.approx(plain[name], rel=1e-6) for name in list(plain)[: len(kept[0])]}
    assert said.warnings == (
        f"left out, as only 4,096 bytes can be said: {5 * (48 - len(kept[0]))} figures; see the pod's log",
    )


def test_what_fits_is_not_touched() -> None:
    found = StageResult(stage="judge", key="key", statistics={"rows": 1.0, "droppedLong": 2.0}, warnings=("a", "b"))
    assert fitted(found) == found


@pytest.mark.parametrize("letter", ["x", "ü", "\x00", '"'])
def test_a_long_message_keeps_its_beginning(letter: str) -> None:
    artifact = ArtifactRef(stage="data", key="k" * 24, content_digest="d" * 64)
    error = StageError(reason="Crashed", message=letter * 9000, artifact=artifact)
    said = fitted(StageResult(stage="judge", error=error, warnings=("before",)))
    assert said.error is not None
    assert (said.error.reason, said.error.artifact) == ("Crashed", artifact)
    assert 500 < len(said.error.message) < 4000
    assert letter * 500 in said.error.message
    assert MAX_RESULT_BYTES - 300 < len(encoded(said)) <= MAX_RESULT_BYTES


def test_preflight_tells_the_rest_when_asked_again() -> None:
    entries = tuple(Committed(node=f"{i}/train", key="k" * 24, content_digest="d" * 71) for i in range(60))
    said = fitted(StageResult(stage="preflight", committed=entries))
    assert said.more
    assert said.committed == entries[: len(said.committed)]
    assert len(said.committed) > 20


def test_a_stage_whose_answer_cannot_be_told_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = SourceRef(uri="hf://" + "ü" * 1000, revision="r" * 1000)
    pins = Pins(base_model=long, seed_data=long)
    monkeypatch.setattr("srlm_stages.run.read_task", lambda stage, environ: None)
    monkeypatch.setattr("srlm_stages.run.run_task", lambda *_: StageResult(stage="preflight", pins=pins))
    log = tmp_path / "log"
    assert main(["preflight"], {"SRLM_TERMINATION_LOG": str(log)}) == 64
    said: Any = json.loads(log.read_bytes())
    assert said["error"]["reason"] == "InvalidTask"
    assert "pins.seedData.uri (1,00" in said["error"]["message"]


def test_without_a_log_nothing_is_written() -> None:
    assert write_result(StageResult(stage="data"), {}) == StageResult(stage="data")
