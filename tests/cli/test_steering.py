"""`srlm list | logs | suspend | resume | retry | continue` against an operator: what people ask of a run in hand."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from srlm_local.store import errors
from srlm_operator.names import LABEL_ATTEMPT
from support.cluster.fixtures import MakeHarness
from support.cluster.harness import SHORT, Harness
from support.person import become, srlm
from support.stage_script import Ending, error

pytestmark = pytest.mark.one_machine("the logs are scripted")


async def test_a_run_is_paused_and_goes_on(
    h: Harness, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    await become(h, "ask", monkeypatch)
    await h.start()
    h.pods.held.add("train")
    await h.create(**SHORT)
    await h.until(lambda: h.running("train"))
    assert await srlm("suspend", "run") == 0
    await h.until(lambda: h.status()["phase"] == "Suspended")
    assert await srlm("suspend", "run") == 0
    assert await srlm("resume", "run", "-n", h.namespace) == 0
    await h.pods.release("train")
    await h.succeeded()
    assert await srlm("resume", "run") == 0
    assert await srlm("suspend", "run") == await srlm("retry", "run") == 1
    out, err = capfd.readouterr()
    assert out.splitlines() == [
        "team/run: suspended; its Jobs go, and what is committed stays. `srlm resume` goes on",
        "team/run: is suspended already",
        "team/run: goes on",
        "team/run: is not suspended",
    ]
    assert err.splitlines() == [
        "error: run team/run is done: nothing runs",
        "error: run team/run is done: nothing has failed",
    ]


async def test_what_failed_is_tried_again(h: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    await become(h, "ask", monkeypatch)
    h.pods.stages.fail("train", error(65, "InputTooLong", "no row fits"))
    await h.start()
    await h.create(**SHORT)
    await h.until(lambda: h.status().get("phase") == "Failed")
    assert await srlm("retry", "run") == 0
    await h.succeeded()


async def test_a_missed_gate_is_accepted_and_stays_so(
    h: Harness, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The second one, too: what was accepted before is not forgotten."""
    await become(h, "ask", monkeypatch)
    await h.start()
    assert await srlm("continue", "run") == 1
    assert "run run does not exist in namespace team" in capfd.readouterr().err
    await h.create(**SHORT | {"iterations": 2}, gates={"maxTieRate": 0.05, "onFailure": "Hold"})
    for model in ("M2", "M3"):
        await h.until(lambda: h.status().get("phase") == "Held")
        assert await srlm("continue", "run") == 0
        assert capfd.readouterr().out == f"team/run: goes on although {model} missed a gate\n"
        await h.until(lambda: h.status().get("phase") != "Held")
    await h.succeeded()
    assert await srlm("continue", "run") == 1
    assert "is not held by a gate (it is Succeeded)" in capfd.readouterr().err
    assert await srlm("continue", "run", "--model", "M9") == 1
    assert "run team/run makes no M9: it makes M1 to M3" in capfd.readouterr().err
    assert await srlm("continue", "run", "--model", "m3") == 0
    assert capfd.readouterr().out == "team/run: goes on although M3 missed a gate\n"
    assert (await h.get())["metadata"]["annotations"]["selfrewarding.dev/continue"] == "M2,M3"


async def test_without_the_right_it_says_which(
    h: Harness, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    await become(h, "read", monkeypatch)
    await h.create(**SHORT)
    assert await srlm("suspend", "run") == 1
    assert "you may not change run team/run; ask for the right to patch selfrewardingruns" in capfd.readouterr().err
    await become(h, "ask", monkeypatch)
    assert await srlm("list") == 1
    assert "you may not list runs in namespace team" in capfd.readouterr().err


async def test_runs_at_a_glance(h: Harness, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    await become(h, "read", monkeypatch)
    assert await srlm("list") == 0
    assert capfd.readouterr().out == "no runs in namespace team\n"
    await h.start()
    await h.create("first", **SHORT)
    await h.create("second", **SHORT, suspend=True)
    long = "a-name-of-as-many-characters-as-a-name-of-something-can-have-63"
    await h.create(long, **SHORT, suspend=True)
    await h.succeeded("first")
    await h.until(lambda: {h.status(name).get("phase") for name in ("second", long)} == {"Suspended"})
    assert await srlm("list") == 0
    head, longest, first, second = (line.split() for line in capfd.readouterr().out.splitlines())
    assert head == ["NAME", "PHASE", "REASON", "MODEL", "STAGE", "DONE", "TIME"]
    assert longest[0] == long
    assert first[:5] == ["first", "Succeeded", "Succeeded", "M2", "–"]
    assert second == ["second", "Suspended", "Suspended", "–", "–", "0%", "–"]
    assert await srlm("list", "-o", "json") == 0
    found = json.loads(capfd.readouterr().out)
    assert [(run["name"], run["phase"], run["model"], run["percent"]) for run in found[1:]] == [
        ("first", "Succeeded", "M2", 100),
        ("second", "Suspended", "", 0),
    ]


def reading(pod: Mapping[str, Any], query: Mapping[str, str]) -> str | AsyncIterator[bytes]:
    """A log of two lines, the second without its end; followed it comes in pieces, cut inside a character."""
    text = f"{pod['metadata']['name']} says hello\nünd good bye"
    if not query.get("follow"):
        return text if "tailLines" not in query else text.splitlines()[-1]

    async def pieces() -> AsyncIterator[bytes]:
        data = text.encode()
        cut = data.index(b"\xc3") + 1
        yield data[:cut]
        yield data[cut:]

    return pieces()


def broken_first(pod: Mapping[str, Any], query: Mapping[str, str]) -> str | AsyncIterator[bytes]:
    """The kubelet of the first shard does not answer."""
    if pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"] == "0":
        raise errors.bad_request("no route to the node")
    return reading(pod, query)


async def test_logs_of_the_newest_attempt(
    make_harness: MakeHarness, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async with make_harness() as h:
        assert h.machine is not None
        h.machine.cluster.log_reader = reading
        await become(h, "read", monkeypatch)
        h.pods.stages.fail("generate", Ending(1, "boom"))
        await h.start()
        await h.create(**SHORT, judging={"shards": 2}, scheduling={"chain": "Off"})
        assert await srlm("logs", "run", "--model", "M9") == 1
        assert "run team/run has no pod of M9: it has not begun" in capfd.readouterr().err
        await h.succeeded()
        for pod in (
            *h.pods_of("generate"),
            *h.pods_of("judge"),
        ):  # scripted pods have no node, and what has none has no log
            h.machine.cluster.bind(pod["metadata"]["name"], h.namespace, "node")
        newest = [p["metadata"] for p in h.pods_of("generate") if p["metadata"]["labels"][LABEL_ATTEMPT] == "2"]
        for options in ([], ["-f"]):
            assert await srlm("logs", "run", "generate", *options) == 0
            out, err = capfd.readouterr()
            assert err.startswith("# team/run M2 generate, attempt 2")
            [pod] = newest
            assert out.splitlines() == [f"{pod['name']} says hello", "ünd good bye"]
        assert await srlm("logs", "run", "generate", "--tail", "1") == 0
        assert "hello" not in capfd.readouterr().out

        readable = h.machine.cluster.log_reader
        h.machine.cluster.log_reader = broken_first
        assert await srlm("logs", "run", "judge") == 0
        out, err = capfd.readouterr()
        assert "[0] (the log of pod" in err
        assert [line.split()[0] for line in out.splitlines() if "hello" in line] == ["[1]"], (
            "the other one all the same"
        )
        h.machine.cluster.log_reader = readable
        assert await srlm("logs", "run", "judge") == 0
        shards = [line.split()[0] for line in capfd.readouterr().out.splitlines() if "hello" in line]
        assert shards == ["[0]", "[1]"]


async def test_logs_of_a_stage_that_ran_in_the_pods_of_another_one(
    make_harness: MakeHarness, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async with make_harness() as h:
        assert h.machine is not None
        h.machine.cluster.log_reader = reading
        await become(h, "read", monkeypatch)
        await h.start()
        await h.create(**SHORT, judging={"shards": 2})
        await h.succeeded()
        for pod in h.pods_of("generate"):
            h.machine.cluster.bind(pod["metadata"]["name"], h.namespace, "node")
        for options in ([], ["--model", "M2"]):
            assert await srlm("logs", "run", "judge", *options) == 0
            out, err = capfd.readouterr()
            assert err.startswith("# team/run M2 generate, attempt 1 of 2 pods")
            assert out.count("hello") == 2
