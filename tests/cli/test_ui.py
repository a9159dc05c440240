"""`srlm ui` over HTTP: who may look, what the pages say, what is sent while a run goes on."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from srlm_cli.ui import pages, server
from srlm_cli.ui.command import serving
from srlm_cli.ui.loop import lanes
from srlm_cli.ui.source import Memory, Pace
from srlm_contract.graph import NodeId
from srlm_contract.status import RunStatus
from srlm_local.ports import free_port
from srlm_operator.cluster.client import RUNS
from srlm_operator.errors import ConfigurationError
from support.builders import START
from support.cluster.harness import SHORT, Harness
from support.person import AT_A_TERMINAL, become
from support.report_world import evil_run, make_run, spec
from support.s3_world import WRITER
from support.stage_world import World
from support.ui_world import MadeSource

RUNNING: dict[str, Any] = {
    "phase": "Running",
    "startedAt": "2026-05-01T11:00:00Z",
    "currentModel": "M1",
    "iteration": 1,
    "stage": "judge",
    "progress": {
        "percent": 41, "message": "M2 judge: 40/100 verdicts, 3,900 tok/s", "etaSeconds": 125, "shardsDone": 3,
        "shardsTotal": 8,
    },
    "iterations": [
        {"name": "M1", "stages": [{"name": "sft", "stage": "sft", "state": "Succeeded", "reused": True}]},
        {
            "name": "M2",
            "stages": [
                {"name": "judge", "stage": "judge", "state": "Running", "shards": 8, "attempt": 2,
                 "startedAt": "2026-05-01T11:51:00Z"},
                {"name": "pairs", "stage": "pairs", "state": "Pending"},
                {"name": "train", "stage": "train", "state": "Pending"},
                {"name": "evaluate", "stage": "evaluate", "state": "Pending"},
            ],
        },
    ],
    "models": [{"name": "M1", "uri": "s3://x", "createdAt": "2026-05-01T11:50:00Z"}],
}  # fmt: skip


@asynccontextmanager
async def browser(source: Any) -> AsyncIterator[tuple[aiohttp.ClientSession, str]]:
    """Somebody who has opened the printed address, and the address of the pages."""
    async with serving(source) as address:
        jar = aiohttp.CookieJar(unsafe=True)  # it takes cookies of addresses without a name
        async with aiohttp.ClientSession(cookie_jar=jar) as session:
            async with session.get(address) as answer:
                assert answer.status == 200, await answer.text()
            yield session, address.partition("/?")[0]


async def text(session: aiohttp.ClientSession, address: str) -> str:
    async with session.get(address) as answer:
        assert answer.status == 200
        return await answer.text()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeSource:
    """`done` and `twin`, which differ in beta, and `going`."""
    folder, found = tmp_path_factory.mktemp("runs"), MadeSource()
    done = make_run(World(folder / "done"), spec(2))
    found.add("done", done)
    found.add("twin", make_run(World(folder / "twin"), spec(2, training={"dpo": {"beta": 0.5}})))
    found.add("going", done, RunStatus.parse(RUNNING))
    return found


@pytest.fixture
def source(made: MadeSource) -> MadeSource:
    """The same for a test that may change it."""
    return MadeSource(dict(made.made), dict(made.stores))


class TestWhoMayLook:
    async def test_the_key_is_asked_for_and_becomes_a_cookie(self, source: MadeSource) -> None:
        async with serving(source) as address, aiohttp.ClientSession() as session:
            root = address.partition("?")[0]
            for path in ("", "runs/team/done", "events/", "static/style.css", "?key=wrong"):
                async with session.get(root + path) as answer:
                    assert answer.status == 403
                    assert "srlm ui has printed" in await answer.text()
            async with session.get(address, allow_redirects=False) as answer:
                assert (answer.status, answer.headers["Location"]) == (303, "/")
                cookie = answer.headers["Set-Cookie"]
            assert "HttpOnly" in cookie
            assert "SameSite=Strict" in cookie

    @pytest.mark.parametrize(
        ("host", "status"),
        [("evil.example", 403), ("127.0.0.1.evil.example", 403), ("localhost:9", 200), ("[::1]", 200)],
    )
    async def test_no_foreign_name_leads_here(self, source: MadeSource, host: str, status: int) -> None:
        async with serving(source) as address, aiohttp.ClientSession() as session:
            port = host.partition(":")[2] if host.startswith("localhost") else "80"
            key = address.partition("key=")[2]
            headers = {"Host": host, "Cookie": f"srlm-{port}={key}"}
            async with session.get(address.partition("?")[0], headers=headers) as answer:
                assert answer.status == status

    async def test_nothing_can_be_written_and_no_file_leaves(self, source: MadeSource) -> None:
        async with browser(source) as (session, root):
            for method in ("POST", "PUT", "DELETE", "PATCH"):
                async with session.request(method, f"{root}/runs/team/done") as answer:
                    assert answer.status == 405
            for path in ("runs/..%2f..%2fapi/x", "runs/team/%2e%2e", "static/..%2fserver.py", "runs/team/done?model=x"):
                async with session.get(f"{root}/{path}") as answer:
                    assert answer.status == 404, path
            async with session.get(f"{root}/compare") as answer:
                assert answer.status == 400

    async def test_every_answer_lets_nothing_foreign_run(self, source: MadeSource) -> None:
        async with browser(source) as (session, root):
            for path in ("", "runs/team/done", "static/live.js", "nowhere"):
                async with session.get(f"{root}/{path}") as answer:
                    assert answer.headers["Content-Security-Policy"].startswith("default-src 'self'; base-uri 'none'")
                    assert answer.headers["X-Content-Type-Options"] == "nosniff"
                    assert answer.headers["Referrer-Policy"] == "no-referrer"

    async def test_a_port_that_is_taken(self, source: MadeSource) -> None:
        async with serving(source) as address:
            port = int(re.findall(r":(\d+)", address)[0])
            with pytest.raises(ConfigurationError, match="choose another --port"):
                async with serving(source, port):
                    pass


class TestPages:
    async def test_all_runs(self, source: MadeSource) -> None:
        async with browser(source) as (session, root):
            page = await text(session, root)
        assert re.findall(r'href="/runs/team/(\w+)"', page) == ["done", "twin", "going"]
        assert "41%" in page

    async def test_a_finished_run(self, source: MadeSource) -> None:
        async with browser(source) as (session, root):
            page = await text(session, f"{root}/runs/team/done")
        assert [title in page for title in ("The loop", "Figures", "Training and speed", "Answers")] == [True] * 4
        charts = re.findall(r'aria-label="([^"]*)\. ', page)
        assert {"win rate", "Loss (supervised) by step", "Reward margin by step"} <= set(charts)
        assert "Loss (preferences) by step. M2: from 0.69 to 0.09, 8 points; M3: from" in page
        assert page.count('class="answer chosen"') == page.count('class="answer rejected"') > 0
        assert "<style" not in page, "the policy would refuse it"
        assert " style=" not in page

    async def test_what_runs_now(self, source: MadeSource) -> None:
        source.paces = [Pace(second, NodeId(1, "judge"), 3000.0 + second) for second in range(5)]
        async with browser(source) as (session, root):
            page = await text(session, f"{root}/runs/team/going")
        assert "judge: 40/100 verdicts, 3,900 tok/s, shards 3/8, about 2m 05s left in this stage" in page
        assert "attempt 2" in page
        assert (page.count('<i class="done">'), page.count("<i>")) == (3, 5)
        assert "by seconds since you look. judge: from 3,000 to 3,004, 5 points" in page
        assert "so far" not in page, "it does not train"
        assert "No model has given no answers yet" in page

    async def test_the_loss_of_what_trains_now(self, source: MadeSource) -> None:
        node = NodeId(1, "train")
        source.paces = [
            Pace(0.0, NodeId(1, "judge"), 9.0),
            Pace(1.0, node, 20.0, 1, 0.7),
            Pace(2.0, node, 20.0, 2, 0.5),
        ]
        async with browser(source) as (session, root):
            page = await text(session, f"{root}/runs/team/going")
        assert "Loss of train so far, by step. train: from 0.700 to 0.500, 2 points" in page

    async def test_answers_of_one_model(self, source: MadeSource) -> None:
        async with browser(source) as (session, root):
            page = await text(session, f"{root}/runs/team/done?model=M3")
        assert "M3: answers to validation prompts" in page

    async def test_runs_side_by_side(self, source: MadeSource) -> None:
        async with browser(source) as (session, root):
            page = await text(session, f"{root}/compare?run=team/done&run=team/twin")
        assert re.findall(
            r'class="setting"><th scope="row"><code>(.*?)</code>.*?<td>(.*?)</td><td>(.*?)</td>', page
        ) == [("training.dpo.beta", "0.1", "0.5")]
        assert "data" in page.partition("Shared artifacts")[2]
        assert "win rate. done: from" in page

    async def test_what_cannot_be_read_says_why_beside_the_rest(self, source: MadeSource) -> None:
        source.broken = ConfigurationError("Secret team/s3 has no AWS_ACCESS_KEY_ID")
        async with browser(source) as (session, root):
            page = await text(session, f"{root}/runs/team/done")
            absent = await text(session, f"{root}/runs/team/absent")
        assert page.count("Secret team/s3 has no AWS_ACCESS_KEY_ID") == 2
        assert "win rate" in page
        assert "run absent does not exist in namespace team" in absent

    async def test_a_store_that_does_not_answer_holds_nothing_up(
        self, source: MadeSource, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(server, "LOOK_SECONDS", 0.02)
        monkeypatch.setattr(pages, "PATIENCE_SECONDS", 0.05)
        source.hangs = True
        async with browser(source) as (session, root):
            page = await text(session, f"{root}/runs/team/done")
            assert "Being read …" in page.partition('id="answers"')[2]
            assert "win rate" in page
            async with session.get(events(root, page)) as answer:
                following = Following(answer)
                await following.look()
                source.hangs = False
                assert (await following.next())["id"] == "answers"
                source.hangs = True
                await following.look()

    async def test_nothing_that_others_wrote_is_markup(self, tmp_path: Path) -> None:
        source = MadeSource()
        source.add("evil", evil_run(World(tmp_path)))
        async with browser(source) as (session, root):
            for path in ("", "runs/team/evil", "runs/team/evil?model=M1", "compare?run=team/evil"):
                page = await text(session, f"{root}/{path}")
                assert not re.search(r"<img|<script>|<svg onload|javascript:", page.replace("&#39;javascript:", ""))
                assert not set(page) & set("\x1b\x00\u202e\u2066")
            page = await text(session, f"{root}/runs/team/evil?model=M1")
        assert "&lt;script&gt;" in page
        assert "{{ 7*7 }}" in page


def events(root: str, page: str) -> str:
    """Where the page follows its run."""
    return root + re.findall(r'data-events="([^"]*)"', page)[0].replace("&amp;", "&")


class Following:
    """Server-sent events of a page."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer

    async def next(self) -> dict[str, str]:
        async for line in self._answer.content:
            if line.startswith(b"data: "):
                found: dict[str, str] = json.loads(line.removeprefix(b"data: "))
                return found
        raise AssertionError("the server has ended")

    async def look(self) -> None:
        """Until the server has looked and found nothing new."""
        async for line in self._answer.content:
            assert not line.startswith(b"data: ")
            if line.startswith(b":"):
                return


async def test_only_what_changes_is_sent(source: MadeSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "LOOK_SECONDS", 0.02)
    done = source.made["done"]
    async with browser(source) as (session, root):
        page = await text(session, f"{root}/runs/team/done")
        async with session.get(events(root, page)) as answer:
            assert answer.headers["Content-Type"] == "text/event-stream"
            following = Following(answer)
            await following.look()
            held = done.status.model_copy(update={"phase": "Held"})
            source.made["done"] = replace(done, status=held)
            first = await following.next()
            assert (first["id"], "Held" in first["html"]) == ("state", True)
            await following.look()
            source.broken = ConfigurationError("the store is gone")
            assert [(await following.next())["id"] for _ in range(2)] == ["training", "answers"]


def test_the_picture_has_the_model_where_it_is_made() -> None:
    first, second = lanes(RunStatus.parse(RUNNING), START)
    assert (first.before, first.model, first.finished, first.boxes[0].state) == ("base model", "M1", True, "reused")
    assert [(box.name, box.made) for box in second.boxes] == [
        ("judge", ""),
        ("pairs", ""),
        ("train", "M2"),
        ("evaluate", ""),
    ]
    assert (second.working, second.finished) == (True, False)
    judge = second.boxes[0]
    assert (judge.time, judge.shards, judge.attempt, sum(judge.cells)) == ("9m 00s", (3, 8), 2, 3)


def test_a_stage_in_the_job_of_another_one_stands_there_with_it() -> None:
    running = {"name": "evaluate", "stage": "evaluate", "state": "Running", "job": "one"}
    waiting = {"name": "prompts", "stage": "prompts", "state": "Pending", "job": "one"}
    stages = [{"name": "M1", "stages": [running]}, {"name": "M2", "stages": [waiting, waiting | {"job": "two"}]}]
    _, lane = lanes(RunStatus.parse({"iterations": stages}), START)
    assert [box.time for box in lane.boxes] == ["same Job", ""]


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("M2 judge: 40/100 verdicts, 3,900 tok/s", (3900, 0, None)),
        ("train of M3: 1,002/~3,000 steps, 21 tok/s, loss 0.6931", (21, 1002, 0.6931)),
        ("M2 train: its pods start and read their inputs", None),
        ("", None),
    ],
)
def test_what_progress_tells(message: str, told: tuple[int, int, float | None] | None) -> None:
    status = RunStatus.parse({"progress": {"message": message}, "iteration": 1, "stage": "train"})
    pace = Pace.told(status, 5.0)
    assert pace == (Pace(5.0, NodeId(1, "train"), *told) if told is not None else None)


class TestMemory:
    async def test_many_who_ask_at_once_are_one_question(self) -> None:
        asked, go = [], asyncio.Event()

        async def ask() -> int:
            asked.append(1)
            await go.wait()
            return len(asked)

        memory = Memory(clock=lambda: 0.0)
        both = [asyncio.create_task(memory.get("a", ask)) for _ in range(2)]
        await asyncio.sleep(0)
        both[0].cancel()  # who leaves takes the answer from nobody else
        go.set()
        assert await both[1] == 1
        assert await memory.get("a", ask) == 1

    async def test_what_is_old_or_failed_is_asked_again(self) -> None:
        now, asked = [0.0], []

        async def ask() -> int:
            asked.append(1)
            if len(asked) == 1:
                raise ConfigurationError("no")
            return len(asked)

        memory = Memory(clock=lambda: now[0])
        for _ in range(2):
            with pytest.raises(ConfigurationError):
                await memory.get("a", ask)
        assert len(asked) == 1
        now[0] = 31.0
        assert await memory.get("a", ask) == 2
        now[0] = 1e6
        assert await memory.get("a", ask) == 2
        assert await memory.get("a", ask, 1.0) == 3

    async def test_an_answer_that_takes_long_is_no_older_for_that(self) -> None:
        now, asked = [0.0], []

        async def ask() -> int:
            asked.append(1)
            now[0] += 5.0
            return len(asked)

        memory = Memory(clock=lambda: now[0])
        assert [await memory.get("a", ask, 1.0) for _ in range(2)] == [1, 1]
        assert not memory.asking

    async def test_it_forgets_what_was_asked_longest_ago(self) -> None:
        asked = []

        async def ask() -> None:
            asked.append(1)

        memory = Memory(most=2, clock=lambda: 0.0)
        for key in ("a", "b", "a", "c", "a", "b"):
            await memory.get(key, ask)
        assert len(asked) == 4


@asynccontextmanager
async def silent() -> AsyncIterator[tuple[str, asyncio.Event]]:
    """A store that takes connections and never answers; and what is set once somebody has asked."""
    held, asked = [], asyncio.Event()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)
        asked.set()
        await reader.read()
        writer.close()

    listening = await asyncio.start_server(hold, "127.0.0.1", 0)
    async with listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}", asked
        for writer in held:
            writer.close()


@asynccontextmanager
async def started(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A command at a terminal; gone afterwards."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", AT_A_TERMINAL, *arguments, stdout=pipe, stderr=pipe
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def interrupted(process: asyncio.subprocess.Process) -> tuple[int | None, str]:
    """Exit status and last words after Ctrl-C."""
    process.send_signal(signal.SIGINT)
    _, err = await asyncio.wait_for(process.communicate(), 30)
    return process.returncode, err.decode()


@pytest.mark.one_machine("the store is on this machine")
@pytest.mark.usefixtures("stranger")
async def test_the_commands_end_at_once_though_a_store_does_not_answer(
    h: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    await become(h, "read", monkeypatch)
    for name, value in WRITER.environ.items():
        monkeypatch.setenv(name, value)
    async with silent() as (store, asked):
        run = await h.create("first", **SHORT, storage={"uri": "s3://made/x", "endpointUrl": store})
        judged = [{"name": "judge", "stage": "judge", "state": "Succeeded", "key": "abcdef"}]
        await h.admin.write_status(RUNS, run, {"iterations": [{"name": "M1"}, {"name": "M2", "stages": judged}]})
        async with started("samples", "first") as process:
            await asked.wait()
            assert await interrupted(process) == (130, "stopped\n")
        async with started("ui") as process:
            assert process.stdout is not None
            address = (await process.stdout.readline()).decode().strip()
            async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
                assert 'href="/runs/team/first"' in await text(session, address)
                page = await text(session, f"{address.partition('/?')[0]}/runs/team/first")
            assert "M2" in page
            assert "Being read …" in page
            assert await interrupted(process) == (0, "Ctrl-C ends it\n")


@pytest.mark.one_machine("the page is on this machine")
@pytest.mark.usefixtures("stranger")
async def test_behind_a_service_it_reads_runs_alone_and_the_key_decides(
    h: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    await become(h, "look", monkeypatch)
    run = await h.create("first", **SHORT, storage={"uri": "s3://made/x", "credentialsSecretRef": {"name": "s3"}})
    judged = [{"name": "judge", "stage": "judge", "state": "Succeeded", "key": "abcdef"}]
    await h.admin.write_status(RUNS, run, {"iterations": [{"name": "M1"}, {"name": "M2", "stages": judged}]})
    monkeypatch.setenv("SRLM_UI_NAMESPACES", h.namespace)
    monkeypatch.setenv("SRLM_UI_KEY", "the-key-of-a-secret")
    async with started("ui", "--in-cluster", "--port", str(free_port())) as process:
        assert process.stdout is not None
        address = (await process.stdout.readline()).decode().strip()
        assert "key" not in address, "it is no secret any more once it is in a log"
        foreign = {"Host": "srlm.example"}
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
            for path, status in (("healthz", 200), ("", 403), ("?key=wrong", 403)):
                async with session.get(f"{address}{path}", headers=foreign) as answer:
                    assert answer.status == status, path
            assert 'href="/runs/team/first"' in await text(session, f"{address}?key=the-key-of-a-secret")
            page = await text(session, f"{address}runs/team/first")
        assert page.count("this page reads no store: `srlm ui -n team` on your machine does") == 1
        assert "Curves of finished trainings" not in page, "none has ended"
        assert (await interrupted(process))[0] == 0
