"""The order of causes when pods of one Job end differently, and what a pod can say."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from srlm_contract.status import MAX_STATISTICS
from srlm_operator.plan.outcomes import committed, failure, parse_error, parse_result
from srlm_operator.values import JobView, PodView
from support.stage_script import error

JOB = JobView("job", "uid", 1, "generate", "generate", "key", 1, "Failed", completions=2)


def pod(code: int | None = 1, index: int = 0, **fields: Any) -> PodView:
    values: dict[str, Any] = {"phase": "Failed", "exit_code": code} | fields
    return PodView(f"pod-{index}", f"uid-{index}", "job", index, **values)


def cause(*pods: PodView, **job: Any) -> tuple[str, str]:
    from dataclasses import replace

    found = failure(replace(JOB, **job), pods, "generate")
    return found.kind, found.reason


@pytest.mark.parametrize(
    ("pods", "expected"),
    [
        ([pod(1), pod(77, message=error(77, "StorageNotPermitted").message)], ("person", "StorageNotPermitted")),
        ([pod(77, message=error(77, "NotPermitted").message)], ("person", "NotPermitted")),
        ([pod(143, disrupted=True), pod(1)], ("free", "Disrupted")),
        ([pod(75), pod(1)], ("counted", "Crashed")),
        ([pod(75), pod(75)], ("temporary", "Temporary")),
        ([pod(143, deleting=True)], ("free", "Disrupted")),
        ([pod(143, deleting=True), pod(1)], ("counted", "Crashed")),
        ([pod(143, deleting=True), pod(75)], ("temporary", "Temporary")),
        ([pod(137, terminated_reason="OOMKilled")], ("counted", "OutOfMemory")),
        ([pod(1), pod(137, terminated_reason="OOMKilled")], ("counted", "OutOfMemory")),
        ([pod(None, pod_reason="Evicted", pod_message="The node was low on resource: memory")], ("free", "Disrupted")),
        (
            [pod(None, pod_reason="Evicted", disrupted=True, pod_message="Pod ephemeral local storage usage exceeds")],
            ("counted", "DiskFull"),
        ),
        ([], ("free", "Disrupted")),
        ([pod(65, message="not JSON at all")], ("person", "InvalidSeedData")),
        ([pod(64)], ("hopeless", "InvalidTask")),
    ],
)
def test_causes(pods: list[PodView], expected: tuple[str, str]) -> None:
    assert cause(*pods) == expected


def test_the_pod_that_ended_first_explains_its_peers() -> None:
    late = pod(1, index=0, message="connection reset by peer", finished_at=datetime(2026, 1, 1, 12, 0, 9, tzinfo=UTC))
    early = pod(1, index=1, message="IndexError", finished_at=datetime(2026, 1, 1, 12, 0, 1, tzinfo=UTC))
    assert "IndexError" in failure(JOB, [late, early], "train").message


def test_deadline_outweighs_the_kill_it_causes() -> None:
    assert cause(pod(143, deleting=True), failure_reason="DeadlineExceeded") == ("counted", "DeadlineExceeded")


def test_garbage_in_a_termination_message_is_shown_not_trusted() -> None:
    found = parse_error(pod(3, message="x" * 3000))
    assert found.reason == ""
    assert len(found.message) < 600
    assert "exit code 3" in found.message


SILENT = '{"stage": "generate"}'


def complete(*messages: str, needs_answer: bool = True) -> Any:
    """Outcome of a Complete Job of two shards, with the pods that are still there."""
    pods = [pod(0, i, phase="Succeeded", message=text) for i, text in enumerate(messages)]
    return committed(JOB, pods, "generate" if needs_answer else "report")


@pytest.mark.parametrize("text", ["", "done\n", "{", SILENT[:-1], '{"stage": "other"}', "\ufffd" * 1365])
def test_a_message_that_is_no_result_counts_and_is_shown(text: str) -> None:
    for found in (complete(SILENT, text), complete(text)):
        assert (found.kind, found.reason, found.exit_code) == ("counted", "NoResult", 0)
        assert "pod-1" in found.message or "pod-0" in found.message
        assert "exit code 0" in found.message
        assert (repr(text[:20])[:-1] if text else "nothing") in found.message
        assert len(found.message) < 400


def test_a_readable_answer_outweighs_what_the_other_pods_say() -> None:
    found = complete("garbage", '{"stage": "generate", "contentDigest": "sha256:1"}')
    assert found.result.content_digest == "sha256:1"


def test_complete_without_any_digest_is_a_failure_that_counts() -> None:
    found = complete(SILENT, SILENT)
    assert (found.kind, found.reason) == ("counted", "NoResult")
    assert "pod-0, pod-1" in found.message


@pytest.mark.parametrize("messages", [(), (SILENT,)])
def test_pods_that_went_before_they_were_read_count_too(messages: tuple[str, ...]) -> None:
    found = complete(*messages)
    assert (found.kind, found.reason) == ("unseen", "PodsGone")


@pytest.mark.parametrize("messages", [(), ("garbage",), (SILENT,)])
def test_what_needs_no_answer_is_done_when_its_job_is(messages: tuple[str, ...]) -> None:
    assert not complete(*messages, needs_answer=False).result.content_digest


@pytest.mark.parametrize("loss", ["null", "NaN", "1e999", '"high"', "true"])
def test_a_result_with_odd_figures_and_new_fields_is_still_a_result(loss: str) -> None:
    start = '{"stage": "train", "contentDigest": "sha256:1", "novel": 1, "statistics"'
    text = f'{start}: {{"rewardMargin": 3, "loss": {loss}}}}}'
    found = parse_result(text)
    assert found is not None
    assert found.content_digest == "sha256:1"
    assert found.statistics["rewardMargin"] == 3


@pytest.mark.parametrize("written", [list, sorted], ids=["as measured", "as a manifest has them"])
def test_status_holds_what_figures_are_made_of(written: Callable[[list[str]], list[str]]) -> None:
    wanted = ["meanLength", "wins", "winRate", "winRatePeople", "prompts"]
    causes = [f"dropped{n}" for n in range(60)]
    names = [*causes, *(f"winRateM{n}" for n in range(1, 40)), "scoreSum", *wanted]
    found = parse_result(json.dumps({"stage": "evaluate", "statistics": dict.fromkeys(written(names), 1)}))
    assert found is not None
    assert len(found.statistics) == MAX_STATISTICS
    assert set(wanted) < found.statistics.keys() < {*wanted, *causes}


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"stage": "nonsense"}', '{"committed": [1]}'])
def test_what_is_no_result(text: str) -> None:
    assert parse_result(text) is None


@pytest.mark.parametrize("node", ["sft", "x/sft", "0/", "0/Sft", "-1/sft", "1000/sft", "0/sft\n"])
def test_an_answer_that_names_no_node_is_unreadable_and_not_an_error_of_the_plan(node: str) -> None:
    def text(node: str) -> str:
        return json.dumps({"stage": "preflight", "committed": [{"node": node, "key": "k", "contentDigest": "d"}]})

    assert parse_result(text("12/judge-heldout-r2")) is not None
    assert parse_result(text(node)) is None
