"""A stage's pod dies at its requests to the object store, before them or after them: the next one ends as if nothing
had been, and clean-up knows of all that is left."""

from __future__ import annotations

import itertools
import logging
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest
from moto.s3 import models as moto
from werkzeug.wrappers import Response

from contract.artifacts.faulty_s3 import Fault, S3Server
from srlm_contract.artifacts import layout, reader
from srlm_contract.artifacts.artifacts import ArtifactStore
from srlm_contract.artifacts.commits import Produced
from srlm_contract.artifacts.manifest import Manifest, Producer
from srlm_contract.artifacts.retention import delete_orphans
from srlm_contract.artifacts.s3 import S3Store
from srlm_contract.artifacts.s3_transfer import TransferSettings
from srlm_contract.keys import row_id
from srlm_contract.rows import Candidate, Judgement
from srlm_contract.spec.loop import ExternalJudgeSpec
from srlm_contract.spec.storage import Place
from srlm_contract.tasks import CleanupParams, JudgeParams, PairsParams, RunIdentity, StageTask, StorageLocation
from support.judge_server import judge_server, said
from support.memory_store import MemoryStore
from support.s3_world import CREDENTIALS
from support.stage_world import QUESTIONS, World

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(600)]
#: Bytes of a part of an upload, and of a file that takes two. Real sizes take a minute; `test_uploads` has them.
PART, LARGE = 2000, 3000
New = Callable[[str], StageTask]
"""A task of the run with this UID."""
When = Literal["before", "after"]
TIMES: tuple[When, ...] = ("before", "after")


class Killed(BaseException):
    """In place of SIGKILL: what a stage does about errors must not see it."""


@dataclass
class Death:
    """Of what uses a store: at a request, before it is sent or when its answer has come. Nothing is sent after it."""

    number: int = 0
    when: When = "before"
    sent: list[str] = field(default_factory=list)
    """Requests since it last began to live."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def at(self, number: int = 0, when: When = "before") -> None:
        """Live until then; for ever without a number."""
        self.number, self.when, self.sent = number, when, []

    def before(self, request: str) -> None:
        with self._lock:
            self.sent.append(request)
            if self.number and len(self.sent) >= self.number + (self.when == "after"):
                raise Killed

    def after(self) -> None:
        if self.number and self.when == "after" and len(self.sent) >= self.number:
            raise Killed


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        running = S3Server.start()
        yield running
        running.stop()


@dataclass
class Scene:
    """A world whose pods die."""

    world: World
    death: Death
    unfinished: Callable[[], Collection[str]]
    """Uploads that nobody has ended."""
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def task(self, params: Any, run: str, **about: Any) -> StageTask:
        """A task with a key of its own, so that nothing is done already. run: its UID."""
        task = self.world.task(params, key=f"{next(self.numbers):024d}", **about)
        return task.model_copy(update={"run": RunIdentity(namespace="default", name="world", uid=run)})

    def clean_up(self, run: str) -> StageTask:
        """The task."""
        return self.task(CleanupParams(retention="DeleteAll"), run)

    def dies(self, number: int, when: When, what: Callable[[], object]) -> bool:
        """False when it came to its end before."""
        self.death.at(number, when)
        try:
            what()
        except Killed:
            return True
        finally:
            self.death.at()
        return False

    def deaths(self, what: Callable[[], Callable[[], object]]) -> Iterator[str]:
        """Dies at each request, and goes on once it is dead. what: makes what dies, each time anew."""
        for when in TIMES:
            for number in itertools.count(1):
                if not self.dies(number, when, what()):
                    break
                yield f"{when} request {number}"

    def there(self) -> list[str]:
        """Objects and unfinished uploads; the list of what a run uses stays, and is empty at last."""
        objects = [info.key for info in self.world.store.list_objects("")]
        return [key for key in objects if key != "runs/default/world/refs.json"] + sorted(self.unfinished())

    def a_week_later(self) -> list[str]:
        """What is still there when some clean-up has looked for what no manifest names."""
        assert not self.unfinished(), "they go at once"
        delete_orphans(self.world.store, datetime.now(UTC) + timedelta(days=1))
        return self.there()


@pytest.fixture
def over_http(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Scene:
    """In a bucket of moto's server."""
    caplog.set_level(logging.ERROR, "werkzeug")
    monkeypatch.setattr(moto, "S3_UPLOAD_PART_MIN_SIZE", 1)
    monkeypatch.setattr(reader, "SMALL_FILE_BYTES", PART)
    transfer = TransferSettings(part_bytes=PART, workers=1, backoff_seconds=0)
    store = S3Store.open(
        Place(uri=f"s3://sweep-{uuid.uuid4().hex}/some", endpoint_url=server.url), transfer=transfer,
        conditional=True, if_match="Quoted",
    )  # fmt: skip
    store.client.create_bucket(Bucket=store.bucket)
    death = Death()
    events = store.client.meta.events
    events.register("before-send.s3", lambda event_name, **_: death.before(event_name.rsplit(".", 1)[-1]))
    events.register("response-received.s3", lambda **_: death.after())

    def unfinished() -> list[str]:
        found = store.client.list_multipart_uploads(Bucket=store.bucket).get("Uploads", ())
        return [upload["Key"] for upload in found]

    return Scene(World(tmp_path, store), death, unfinished)


@pytest.fixture
def in_memory(tmp_path: Path) -> Scene:
    """Every call of the store is a request."""
    death, store = Death(), MemoryStore()

    def mortal(name: str) -> Callable[..., object]:
        call = getattr(store, name)

        def sent(*arguments: Any, **options: Any) -> object:
            death.before(name)
            answer = call(*arguments, **options)
            death.after()
            return answer

        return sent

    for name in ("head", "get", "put", "list_objects", "delete", "abort_uploads"):
        setattr(store, name, mortal(name))
    return Scene(World(tmp_path, store), death, lambda: store.uploads)


def judged(answer: str, score: float) -> Judgement:
    return Judgement(
        id=row_id("Why?", answer[:99]), prompt_id=row_id("Why?"), prompt="Why?", answer=answer, verdicts=(), score=score
    )


def pairs(scene: Scene, size: int) -> New:
    """Tasks that read and write about `size` bytes."""
    rows = [judged("x" * size, 5), judged("No.", 1)]
    inputs = {"judgements-1": scene.world.put("judge", {"judgements.jsonl": rows})}
    return lambda run: scene.task(PairsParams(), run, inputs=inputs)


def content(manifest: Manifest) -> Any:
    files = [(entry.path, entry.size, entry.sha256) for entry in manifest.files]
    return manifest.content_digest, files, manifest.statistics, manifest.rows, manifest.inputs, manifest.parameters


def sweep(scene: Scene, new: New) -> list[str]:
    """Dies at every request of a task, once before it and once after it. Returns the requests of an undisturbed pod."""
    world, tasks = scene.world, list[StageTask]()
    before = scene.there()
    scene.death.at()
    wanted = content(world.manifest(world.run(new("run"))))
    requests = scene.death.sent

    def begin(run: str) -> Callable[[], object]:
        tasks.append(new(run))
        return partial(world.run, tasks[-1])

    for point in scene.deaths(partial(begin, "run")):
        found = world.manifest(world.run(tasks[-1]))
        assert content(found) == wanted, point
        world.artifacts().fetch(found.ref, world.root / f"fetched-{found.key}")
    world.run(scene.clean_up("run"))
    assert scene.there() == before
    left: dict[str, str] = {}
    for point in scene.deaths(partial(begin, "given-up")):
        left[tasks[-1].key] = point
    world.run(scene.clean_up("given-up"))
    after = scene.a_week_later()
    assert after == before, [point for key, point in left.items() if key in str(after)]
    assert len(left) >= 2 * len(requests) - 2, "each request, once before it and once after it"
    return requests


def test_a_stage_with_large_files(over_http: Scene) -> None:
    requests = sweep(over_http, pairs(over_http, LARGE))
    assert requests.count("UploadPart") == 2
    assert requests.count("CompleteMultipartUpload") == 1


def test_shards(in_memory: Scene) -> None:
    """Of which the last one puts the manifest of all."""
    rows = [
        Candidate(id=row_id(q, "a"), prompt_id=row_id(q), prompt=q, answer="a", sample=0, tokens=4)
        for q in QUESTIONS[:3]
    ]
    inputs = {"candidates": in_memory.world.put("generate", {"candidates.jsonl": rows})}
    with judge_server(lambda body, number: said("It helps.\nScore: 4")) as server:
        params = JudgeParams(external=ExternalJudgeSpec(url=server.url, model="judge"), samples=1)
        requests = sweep(in_memory, lambda run: in_memory.task(params, run, inputs=inputs, shards=2))
    assert requests.count("put") >= 5, "two files, two manifests of shards, and that of all"


def test_clean_up(in_memory: Scene) -> None:
    """A run with an artifact, with a shard of another one, and with what a killed pod had sent of a large file."""
    world, store = in_memory.world, in_memory.world.store
    assert isinstance(store, MemoryStore)
    new = pairs(in_memory, 10)
    before = in_memory.there()

    def begin() -> Callable[[], object]:
        world.run(new("run"))
        unfinished = new("run")
        folder = world.root / unfinished.key
        folder.mkdir()
        artifacts = ArtifactStore(store, Producer(run=unfinished.run, pod_uid="killed"), scratch=folder)
        artifacts.commit_shard("pairs", unfinished.key, 0, 2, Produced(folder))
        store.put(layout.upload_key("pairs", unfinished.key, "run", "1-of-2"), b'{"podUid":"killed"}')
        store.uploads[f"{layout.part_prefix('pairs', unfinished.key, 'killed')}pairs.jsonl"] = datetime.now(UTC)
        return partial(world.run, in_memory.clean_up("run"))

    points = []
    for point in in_memory.deaths(begin):
        points.append(point)
        world.run(in_memory.clean_up("run"))
        assert in_memory.a_week_later() == before, point
    assert len(points) > 40


def test_what_preflight_tries_on_the_store(in_memory: Scene) -> None:
    before = in_memory.there()
    points = [in_memory.a_week_later() for _ in in_memory.deaths(lambda: in_memory.world.store.probe)]
    assert points == [before] * len(points)
    assert len(points) > 15


@pytest.mark.parametrize(
    ("method", "path", "arrives"),
    [
        ("GET", "judgements.jsonl", False),
        ("PUT", "pairs.jsonl", True),
        ("PUT", "manifest.json", False),
        ("PUT", "manifest.json", True),
    ],
)
def test_a_process_is_killed(
    server: S3Server, over_http: Scene, tmp_path: Path, method: str, path: str, arrives: bool
) -> None:
    """As the kernel does it."""
    bucket = over_http.world.store.uri("").split("/")[2]
    task = pairs(over_http, 10)("run")
    storage = StorageLocation(uri=f"s3://{bucket}/some", endpoint_url=server.url)
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(name for name in sys.path if name),
        "SRLM_WORK_DIR": str(tmp_path / "work"),
        "SRLM_TERMINATION_LOG": str(tmp_path / "log"),
        "SRLM_POD_UID": "killed",
        "SRLM_TASK": task.model_copy(update={"storage": storage}).model_dump_json(by_alias=True),
        **CREDENTIALS,
    }

    def kill(request: dict[str, Any]) -> Response:
        answer = server.app.real(request) if arrives else Response(status=500)
        pod.kill()
        return answer

    server.app.faults = [Fault(method, path, kill)]
    pod = subprocess.Popen([sys.executable, "-m", "srlm_stages", "pairs"], env=environ, stderr=subprocess.PIPE)
    _, log = pod.communicate(timeout=60)
    server.app.faults = []
    assert pod.returncode == -signal.SIGKILL, log
    reused = over_http.world.run(task).reused
    assert reused == (arrives and path == "manifest.json")
