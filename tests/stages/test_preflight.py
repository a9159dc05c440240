"""preflight over the wire: real S3 requests, files on disk, and a Hugging Face Hub that answers on this machine."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from srlm_contract.artifacts.artifacts import ArtifactStore
from srlm_contract.artifacts.commits import Produced
from srlm_contract.artifacts.manifest import Producer
from srlm_contract.artifacts.retention import read_refs
from srlm_contract.artifacts.s3 import S3Store
from srlm_contract.artifacts.store import Probe
from srlm_contract.spec.storage import Place
from srlm_contract.tasks import PreflightParams, RunIdentity, StageResult, StageTask, StorageLocation
from srlm_stages.run import main
from support.s3_world import READER, WRITER, Server, server
from support.tiny_model import build_tiny_model

pytestmark = pytest.mark.heavy
RUN = RunIdentity(namespace="default", name="look", uid="11111111-2222-3333-4444-555555555555")


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server(tmp_path_factory.mktemp("s3")) as made:
        yield made


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    build_tiny_model(folder / "chat", context=4096)
    build_tiny_model(folder / "base", chat_template=False, context=4096)
    return folder


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in WRITER.environ.items():
        monkeypatch.setenv(name, value)


class Machine:
    """What a preflight pod sees; fields are changed by tests."""

    def __init__(self, tmp_path: Path, s3: Server, models: Path) -> None:
        self.folder, self.url, self.prefix = tmp_path, s3.url, tmp_path.name
        self.storage = f"s3://made/{self.prefix}"
        self.model = tmp_path / "model"
        shutil.copytree(models / "chat", self.model)
        self.seed = tmp_path / "seed.jsonl"
        self.seed.write_text(trees(40))
        self.environ: dict[str, str] = {}
        self.spec: dict[str, Any] = {}

    def store(self) -> S3Store:
        return S3Store.open(Place(uri=self.storage, endpoint_url=self.url))

    def run(self, known: dict[str, str] | None = None) -> tuple[int, StageResult]:
        spec = {
            "baseModel": {"uri": self.model.as_uri()}, "seedData": {"uri": self.seed.as_uri()},
            "storage": {"uri": self.storage, "endpointUrl": self.url},
        }  # fmt: skip
        for section, fields in self.spec.items():
            spec[section] = {**spec.get(section, {}), **fields}
        params = PreflightParams.parse({"kind": "preflight", "spec": spec, "known": known or {}})
        storage = StorageLocation(uri=self.storage, endpoint_url=self.url)
        task = StageTask(stage="preflight", run=RUN, params=params, storage=storage)
        log = self.folder / "termination-log"
        environ = {
            "SRLM_TASK": task.model_dump_json(by_alias=True), "SRLM_WORK_DIR": str(self.folder / "work"),
            "SRLM_TERMINATION_LOG": str(log), "SRLM_POD_UID": "pod-1", **self.environ,
        }  # fmt: skip
        code = main(["preflight"], environ)
        assert len(log.read_bytes()) <= 4096
        return code, StageResult.model_validate_json(log.read_bytes())

    def fails(self, code: int, reason: str, says: str) -> None:
        exit_code, result = self.run()
        assert result.error is not None
        assert (exit_code, result.error.reason) == (code, reason), result.error.message
        assert says in result.error.message


@pytest.fixture
def machine(tmp_path: Path, s3: Server, models: Path) -> Machine:
    return Machine(tmp_path, s3, models)


def trees(count: int, **changes: Any) -> str:
    rows = [
        {"prompt": {"text": f"Question {i}?", "lang": "en", "replies": [
            {"text": f"answer {i}.{rank}", "lang": "en", "rank": rank} for rank in (0, 1)]} | changes}
        for i in range(count)
    ]  # fmt: skip
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_pins_what_it_checked(machine: Machine) -> None:
    code, result = machine.run()
    assert (code, result.warnings, result.committed) == (0, (), ())
    pins = result.pins
    assert pins is not None
    assert pins.conditional_puts
    assert pins.base_model.revision.startswith("sha256:")
    assert (pins.seed_data.uri, pins.seed_data.file) == (machine.seed.as_uri(), None)
    machine.spec = {"tracking": {"mlflow": {"uri": "http://127.0.0.1:9"}, "tensorboard": {}}}
    code, result = machine.run()
    (warning,) = result.warnings
    assert (code, result.pins) == (0, pins), "a tracker that is down stops no run"
    assert warning.startswith("tracking.mlflow: http://127.0.0.1:9 does not answer")
    machine.spec = {}
    machine.seed.write_text(trees(41))
    changed = machine.run()[1].pins
    assert changed is not None
    assert changed.base_model == pins.base_model
    assert changed.seed_data != pins.seed_data


def test_pins_how_the_store_takes_conditional_puts(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Probe(conditional=True, if_match="Unquoted", lacks=("the store does not list unfinished uploads",))
    monkeypatch.setattr(S3Store, "probe", lambda store: found)
    code, result = machine.run()
    assert (code, result.warnings) == (0, found.lacks)
    assert result.pins is not None
    assert (result.pins.conditional_puts, result.pins.if_match) == (True, "Unquoted")


def test_model_and_seed_data_in_s3(machine: Machine) -> None:
    store = machine.store()
    for path in machine.model.iterdir():
        store.upload_file(path, f"model/{path.name}")
    store.put("data/seed.ready.trees.jsonl.gz", gzip.compress(machine.seed.read_bytes()))
    machine.spec = {"baseModel": {"uri": f"{machine.storage}/model"}, "seedData": {"uri": f"{machine.storage}/data"}}
    code, result = machine.run()
    assert code == 0, result.error
    assert result.pins is not None
    assert result.pins.seed_data.file == "seed.ready.trees.jsonl.gz"
    machine.spec["baseModel"] = {"uri": f"{machine.storage}/nothing"}
    machine.fails(65, "ModelNotUsable", "no object of that name and none below it")


def test_finds_what_is_committed_and_records_its_use(machine: Machine) -> None:
    from srlm_contract.graph import Outcome, graph, node_key
    from srlm_contract.spec.run import RunSpec

    _, result = machine.run()
    assert result.pins is not None
    spec = RunSpec.parse(
        {"baseModel": {"uri": machine.model.as_uri()}, "seedData": {"uri": machine.seed.as_uri()},
         "storage": {"uri": machine.storage, "endpointUrl": machine.url}}
    )  # fmt: skip
    artifacts = ArtifactStore(machine.store(), producer=Producer(run=RUN, pod_uid="p"), scratch=machine.folder)
    outcomes: dict[str, Outcome] = {}
    for node in graph(spec, result.pins, {}):
        key = node_key(node, outcomes, spec.seed)
        assert key is not None
        folder = machine.folder / "artifacts" / node.id
        folder.mkdir(parents=True)
        (folder / "rows.jsonl").write_text(node.id)
        statistics = {f"figure{i}": i / 3 for i in range(12)} | {"droppedForSomeReason": 1.0}
        ref = artifacts.commit(node.stage, key, Produced(folder, statistics=statistics)).manifest.ref
        outcomes[node.id] = Outcome(key, ref.content_digest)
    known: dict[str, str] = {}
    rounds = 0
    while True:
        code, result = machine.run(known)
        assert code == 0
        rounds += 1
        known |= {c.node: c.content_digest for c in result.committed}
        if not result.more:
            break
        assert result.committed, "asking again must lead further"
    assert list(known) == list(outcomes)
    assert known == {node: outcome.content_digest for node, outcome in outcomes.items()}
    assert rounds < 8
    refs = read_refs(machine.store(), RUN.namespace, RUN.name).runs[RUN.uid]
    assert {ref.key for ref in refs} == {outcome.key for outcome in outcomes.values()}


# Storage


def test_no_such_bucket(machine: Machine) -> None:
    machine.storage = "s3://another/prefix"
    machine.fails(77, "StorageNotFound", "s3://another")


def test_wrong_secret(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    machine.fails(77, "StorageNotPermitted", "SignatureDoesNotMatch")


def test_no_right_to_write(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in READER.environ.items():
        monkeypatch.setenv(name, value)
    machine.fails(77, "StorageNotPermitted", "cannot write")


def test_unreachable_storage_is_temporary(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda seconds: None)
    machine.url = "http://127.0.0.1:9"
    machine.fails(75, "StorageUnavailable", "127.0.0.1:9")


# Base model


def change_config(machine: Machine, **fields: Any) -> None:
    path = machine.model / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_model_that_does_not_exist(machine: Machine) -> None:
    machine.spec = {"baseModel": {"uri": "file:///no/such/model"}}
    machine.fails(65, "ModelNotUsable", "file:///no/such/model does not exist")


def test_no_causal_language_model(machine: Machine) -> None:
    change_config(machine, architectures=["BertForSequenceClassification"])
    machine.fails(65, "ModelNotUsable", "BertForSequenceClassification, which is no causal language model")


def test_model_that_needs_foreign_code(machine: Machine) -> None:
    change_config(machine, model_type="their-own", auto_map={"AutoModelForCausalLM": "code.Model"})
    machine.fails(65, "ModelNotUsable", "")


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("config.json", None, "no config.json"),
        ("config.json", "{", "is not JSON"),
        ("config.json", "[]", "is not a JSON object"),
        ("model.safetensors", None, "no *.safetensors file"),
        ("tokenizer.json", "{}", "tokenizer"),
        ("model.safetensors.index.json", '{"weight_map": {"a": "gone.safetensors"}}', "missing: gone.safetensors"),
        ("model.safetensors.index.json", "{}", "index.json is damaged"),
    ],
)
def test_damaged_model_folder(machine: Machine, file: str, content: str | None, says: str) -> None:
    path = machine.model / file
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_text(content)
    machine.fails(65, "ModelNotUsable", says)


def test_a_base_model_needs_a_chat_template(machine: Machine, models: Path) -> None:
    machine.model = models / "base"
    machine.fails(65, "ModelNotUsable", "no chat template")
    machine.spec = {"baseModel": {"chatTemplateRef": {"name": "chatml"}}}
    code, result = machine.run()
    assert code == 0
    assert result.pins is not None
    assert result.pins.chat_template == "chatml"


def test_a_chat_template_of_a_config_map_is_pinned_by_digest(machine: Machine) -> None:
    file = machine.folder / "template"
    file.write_text("{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}")
    machine.spec = {"baseModel": {"chatTemplateRef": {"name": "mine", "key": "template"}}}
    machine.environ = {"SRLM_CHAT_TEMPLATE_FILE": str(file)}
    _, result = machine.run()
    assert result.pins is not None
    assert result.pins.chat_template.startswith("sha256:")
    file.write_text("{% for m in messages %}{{ m['role'] }}{% endfor %}")
    machine.fails(65, "TemplateNotUsable", "leaves out the user's or the assistant's text")
    file.write_text("{% for m in messages %}")
    machine.fails(65, "TemplateNotUsable", "cannot render this conversation")
    file.write_text("")
    machine.fails(65, "TemplateNotUsable", "is empty")
    machine.environ = {}
    machine.fails(65, "TemplateNotUsable", "not mounted")


def test_the_chat_template_is_tried_with_its_arguments(machine: Machine) -> None:
    file = machine.folder / "template"
    file.write_text(
        "{% if not mode %}{{ raise_exception('mode is missing') }}{% endif %}"
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    )
    machine.environ = {"SRLM_CHAT_TEMPLATE_FILE": str(file)}
    named: dict[str, Any] = {"chatTemplateRef": {"name": "mine", "key": "template"}}
    machine.spec = {"baseModel": named}
    machine.fails(65, "TemplateNotUsable", "mode is missing")
    machine.spec = {"baseModel": named | {"chatTemplateKwargs": {"mode": "chat", "tokenize": True}}}
    machine.fails(65, "TemplateNotUsable", "chatTemplateKwargs cannot set tokenize")
    machine.spec = {"baseModel": named | {"chatTemplateKwargs": {"mode": "chat"}}}
    assert machine.run()[0] == 0


def test_built_in_templates_are_called_by_name(machine: Machine) -> None:
    machine.spec = {"baseModel": {"chatTemplateRef": {"name": "unheard-of"}}}
    machine.fails(65, "TemplateNotUsable", "chatTemplateRef: nothing built in is called 'unheard-of'")
    machine.spec = {"judging": {"templateRef": {"name": "unheard-of"}}}
    machine.fails(65, "TemplateNotUsable", "templateRef: nothing built in is called 'unheard-of'")


def test_rubric_of_a_config_map(machine: Machine) -> None:
    file = machine.folder / "rubric"
    file.write_text("Judge {question} and {answer}.")
    machine.spec = {"judging": {"templateRef": {"name": "mine", "key": "template"}}}
    machine.environ = {"SRLM_RUBRIC_FILE": str(file)}
    _, result = machine.run()
    assert result.pins is not None
    assert result.pins.rubric.startswith("sha256:")
    file.write_text("Judge {answer} alone.")
    machine.fails(65, "TemplateNotUsable", "{question}")


# Seed data


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"not JSON", "line 1 is not JSON"),
        (gzip.compress(trees(40).encode())[:-30], "damaged gzip"),
        (trees(9, lang="de").encode(), "no usable prompt in language 'en'"),
        (trees(9, replies=[{"text": "one", "lang": "en", "rank": 0}]).encode(), "two answers of different human rank"),
        (trees(9, replies=[{"text": "one"}, {"text": "two"}]).encode(), "two answers of different human rank"),
    ],
)
def test_unusable_seed_data(machine: Machine, content: bytes, says: str) -> None:
    machine.seed.write_bytes(content)
    machine.fails(65, "InvalidSeedData", says)


def test_seed_data_that_does_not_exist(machine: Machine) -> None:
    machine.seed.unlink()
    machine.fails(65, "InvalidSeedData", "does not exist")
    machine.seed.write_text(trees(9))
    machine.spec = {"seedData": {"uri": machine.folder.as_uri(), "file": "other.jsonl"}}
    machine.fails(65, "InvalidSeedData", "no file other.jsonl")


def test_of_a_large_file_only_the_beginning_is_read(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("srlm_stages.preflight.WHOLE_FILE_BYTES", 1000)
    monkeypatch.setattr("srlm_stages.preflight.BEGINNING_BYTES", 2000)
    machine.seed.write_bytes(gzip.compress((trees(500) + "damage behind the beginning").encode()))
    assert machine.run()[0] == 0
    machine.seed.write_bytes(gzip.compress((trees(500) + "damage behind the beginning").encode("utf-16")))
    assert machine.run()[0] == 0
    rows = [json.loads(line) for line in trees(500).splitlines()]
    machine.seed.write_text(json.dumps(rows)[:-9])
    assert machine.run()[0] == 0
    pq.write_table(pa.Table.from_pylist(rows), machine.seed)
    assert machine.run()[0] == 0
    machine.seed.write_text("damage at the beginning\n" * 100)
    machine.fails(65, "InvalidSeedData", "line 1 is not JSON")


def test_prompt_pool(machine: Machine) -> None:
    pool = machine.folder / "pool.jsonl"
    machine.spec = {"prompts": {"generator": {"source": "Pool", "uri": pool.as_uri()}}}
    machine.fails(65, "InvalidSeedData", "prompts.generator.uri")
    pool.write_text("")
    machine.fails(65, "InvalidSeedData", "is empty")
    pool.write_text('{"prompt": "Why?"}\n')
    _, result = machine.run()
    assert result.pins is not None
    assert result.pins.prompt_source is not None
    assert result.pins.prompt_source.revision.startswith("sha256:")
