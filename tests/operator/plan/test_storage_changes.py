"""Storage that a run leaves out: the operator's default fills it in, and a started run keeps what it has."""

from __future__ import annotations

from typing import Any

import pytest

from srlm_contract.spec.run import RunSpec
from srlm_contract.spec.storage import Storage
from srlm_contract.tasks import SourceRef, StageTask
from srlm_operator.cluster.views import parse_run
from srlm_operator.errors import ConfigurationError
from srlm_operator.names import FINALIZER
from srlm_operator.settings import Settings, from_environment
from support.builders import manifest_spec, settings, spec
from support.fake_cluster import FakeCluster, attempts, until_node
from support.stage_script import PINS, FakeStages

DEFAULT = {
    "storage_uri": "s3://shared/{namespace}",
    "storage_endpoint_url": "https://minio.example:9000",
    "storage_addressing_style": "Path",
    "storage_credentials_secret": "team-s3",
    "ca_bundle_config_map": "corp-ca",
}
OTHER = {"storage_uri": "s3://moved/{namespace}", "storage_credentials_secret": "moved-s3"}


def without_storage(**storage: Any) -> RunSpec:
    """A run that leaves storage out, or all of it but some fields."""
    return spec(storage=storage)


def world_of(found: RunSpec, **changes: Any) -> FakeCluster:
    return FakeCluster(spec=found, settings=settings(**changes))


def places(world: FakeCluster) -> set[str]:
    return {task.storage.uri for task in world.tasks.values()}


def pod_of(world: FakeCluster, name: str) -> dict[str, Any]:
    return world.manifests[name]["spec"]["template"]["spec"]


def test_a_run_without_storage_uses_the_default_of_its_namespace() -> None:
    world = world_of(without_storage(), **DEFAULT)
    world.settle()
    assert world.status.phase == "Succeeded"
    assert places(world) == {"s3://shared/team"}
    location = world.tasks[world.created[0]].storage
    assert (location.endpoint_url, location.addressing_style) == ("https://minio.example:9000", "Path")
    assert all(model.uri.startswith("s3://shared/team/artifacts/") for model in world.status.models)
    assert world.status.storage is not None
    assert world.status.storage.uri == "s3://shared/team"
    pod = pod_of(world, world.created[-1])
    env = {e["name"]: e for e in pod["containers"][0]["env"]}
    assert env["AWS_ACCESS_KEY_ID"]["valueFrom"]["secretKeyRef"]["name"] == "team-s3"
    assert {"name": "corp-ca", "items": [{"key": "ca.crt", "path": "ca-bundle"}]} in [
        volume.get("configMap") for volume in pod["volumes"]
    ]


def test_fields_are_overridden_one_by_one() -> None:
    world = world_of(without_storage(credentialsSecretRef={"name": "mine"}, region="eu-west-1"), **DEFAULT)
    world.reconcile()
    (name,) = world.created
    location = world.tasks[name].storage
    assert (location.uri, location.region, location.endpoint_url) == (
        "s3://shared/team", "eu-west-1", "https://minio.example:9000",
    )  # fmt: skip
    env = {e["name"]: e for e in pod_of(world, name)["containers"][0]["env"]}
    assert env["AWS_SECRET_ACCESS_KEY"]["valueFrom"]["secretKeyRef"]["name"] == "mine"


def test_a_place_of_its_own_takes_nothing_but_the_certificate_authority() -> None:
    world = world_of(without_storage(uri="s3://mine/runs"), **DEFAULT)
    world.reconcile()
    (name,) = world.created
    location = world.tasks[name].storage
    assert (location.uri, location.endpoint_url, location.addressing_style) == ("s3://mine/runs", None, "Auto")
    pod = pod_of(world, name)
    assert not [e for e in pod["containers"][0]["env"] if e["name"].startswith("AWS_")]
    assert "ca-bundle" in {volume["name"] for volume in pod["volumes"]}


def test_without_a_default_the_run_waits_and_says_what_to_do() -> None:
    world = world_of(without_storage())
    world.reconcile()
    assert (world.condition("Stalled"), world.created) == ("StorageNotSet", [])
    (stalled,) = [c for c in world.status.conditions if c.type == "Stalled"]
    assert "set spec.storage.uri" in stalled.message
    assert "storage.uri" in stalled.message
    writes = world.writes
    world.advance(3600)
    world.reconcile()
    assert world.writes == writes
    # The operator starts again with a default, or a person sets it.
    world.settings = settings(**DEFAULT)
    world.settle()
    assert (world.status.phase, places(world)) == ("Succeeded", {"s3://shared/team"})


def test_a_run_that_never_had_a_place_can_be_deleted() -> None:
    world = world_of(without_storage())
    world.reconcile()
    world.finalizers = (FINALIZER,)
    world.deleted_at = world.now
    world.reconcile()
    assert world.finalizers == ()


@pytest.mark.parametrize("node", ["0/data", "1/generate"])
def test_another_default_moves_no_started_run(node: str) -> None:
    world = world_of(without_storage(), **DEFAULT)
    name = until_node(world, node)
    world.start_pods(name)
    world.reconcile()
    world.settings = settings(**OTHER)
    world.reconcile()
    assert name in world.jobs
    world.settle()
    assert places(world) == {"s3://shared/team"}
    assert attempts(world, "0/preflight") == 1
    # Nor does taking it away.
    world.settings = settings()
    world.edit(iterations=3)
    world.settle()
    assert (world.status.phase, places(world)) == ("Succeeded", {"s3://shared/team"})


def test_a_run_that_has_not_started_follows_the_default() -> None:
    world = world_of(without_storage(), **DEFAULT)
    world.reconcile()
    world.settings = settings(**OTHER)
    world.settle()
    assert attempts(world, "0/preflight") == 2
    assert {task.storage.uri for task in world.tasks.values() if task.stage != "preflight"} == {"s3://moved/team"}


def test_spelling_the_place_out_changes_nothing() -> None:
    world = world_of(without_storage(), **DEFAULT)
    until_node(world, "1/generate")
    world.edit(storage=spec(storage={"uri": "s3://shared/team"}).storage)
    world.settings = settings(**OTHER)
    world.settle()
    assert places(world) == {"s3://shared/team"}
    assert attempts(world, "0/preflight") == attempts(world, "1/generate") == 1
    assert {task.storage.endpoint_url for task in world.tasks.values()} == {"https://minio.example:9000"}


def test_a_run_from_before_there_were_defaults_stays_as_it_is() -> None:
    world = world_of(without_storage(uri="s3://shared/team", credentialsSecretRef={"name": "mine"}))
    until_node(world, "1/generate")
    world.status = world.status.model_copy(update={"storage": None})
    world.settings = settings(**DEFAULT)
    world.settle()
    assert attempts(world, "0/preflight") == 1
    assert {task.storage.endpoint_url for task in world.tasks.values()} == {None}
    assert world.status.storage == Storage(uri="s3://shared/team")


def test_values_spelled_out_by_the_api_servers_defaults_are_the_same_spec() -> None:
    """Objects stored by an older definition carry region and addressing style."""
    stored = {"uri": "s3://bucket/prefix", "region": "us-east-1", "addressingStyle": "Auto", "retention": "Retain"}
    world = world_of(without_storage(uri="s3://bucket/prefix"))
    until_node(world, "1/generate")
    world.edit(storage=spec(storage=stored).storage)
    world.settle()
    assert attempts(world, "0/preflight") == 1


def test_keys_do_not_depend_on_the_place() -> None:
    own, default = world_of(spec()), world_of(without_storage(), **DEFAULT)
    for world in (own, default):
        world.settle()
    assert sorted(own.stages.committed) == sorted(default.stages.committed)


def test_default_retention_cleans_up_where_the_artifacts_are() -> None:
    world = world_of(without_storage(), **DEFAULT, storage_retention="DeleteAll")
    world.settle()
    assert world.finalizers == (FINALIZER,)
    world.settings = settings(**OTHER)
    world.deleted_at = world.now
    world.reconcile()
    (name,) = world.active()
    assert (world.tasks[name].stage, world.tasks[name].storage.uri) == ("cleanup", "s3://shared/team")
    world.start_pods(name)
    world.finish(name)
    world.reconcile()
    assert world.finalizers == ()


def test_parsed_runs_carry_the_effective_storage() -> None:
    """What `branchFrom`, clean-up and commands read."""
    obj = {"metadata": {"name": "run", "namespace": "team-b", "uid": "u"}, "spec": manifest_spec(storage={})}
    run = parse_run(obj, Settings(**DEFAULT))
    assert run.spec is not None
    assert run.spec.storage.uri == "s3://shared/team-b"
    # Without the operator's settings, what status keeps: commands on another machine.
    started = {"iterations": [{"name": "M1", "stages": [{"name": "data", "stage": "data", "state": "Running"}]}]}
    kept = parse_run(obj | {"status": started | {"storage": {"uri": "s3://shared/team-b"}}})
    assert kept.spec is not None
    assert kept.spec.storage.uri == "s3://shared/team-b"


class MovingHub(FakeStages):
    """A hub whose repositories get new commits; revisions that are asked for are found."""

    head = "1" * 40

    def run(self, task: StageTask, index: int = 0) -> Any:
        if task.stage == "preflight":
            base = task.params.spec.base_model.uri
            place, _, revision = base.partition("@")
            self.pins = PINS.model_copy(update={"base_model": SourceRef(uri=place, revision=revision or self.head)})
        return super().run(task, index)


def test_a_hub_uri_keeps_its_revision_through_later_preflights() -> None:
    world = FakeCluster(stages=MovingHub())
    until_node(world, "1/generate")
    world.stages.head = "2" * 40
    world.edit(preferences=world.spec.preferences.model_copy(update={"min_margin": 0.5}))
    world.settle()
    assert world.status.phase == "Succeeded"
    assert attempts(world, "0/preflight") == 2
    assert attempts(world, "0/sft") == attempts(world, "1/generate") == 1
    assert world.status.preflight.pins is not None
    assert world.status.preflight.pins.base_model == SourceRef(uri="hf://org/base", revision="1" * 40)
    # Seed data too, and what is asked for by name is taken at its word.
    task = [t for t in world.tasks.values() if t.stage == "preflight"][-1]
    assert task.params.spec.seed_data.uri == f"hf://org/data@{PINS.seed_data.revision}"
    assert task.params.spec.base_model.uri == f"hf://org/base@{'1' * 40}"
    world.edit(base_model=world.spec.base_model.model_copy(update={"uri": "hf://org/base@v2"}))
    world.reconcile()
    task = [t for t in world.tasks.values() if t.stage == "preflight"][-1]
    assert task.params.spec.base_model.uri == "hf://org/base@v2"


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"SRLM_STORAGE_URI": "s3://bucket/shared"}, r"\{namespace\}"),
        ({"SRLM_STORAGE_URI": "s3://bucket/{namespace}-x"}, r"\{namespace\}"),
        ({"SRLM_STORAGE_URI": "file:///data/{namespace}"}, "s3://bucket"),
        ({"SRLM_STORAGE_REGION": "eu-west-1"}, "SRLM_STORAGE_REGION needs SRLM_STORAGE_URI"),
        ({"SRLM_STORAGE_URI": "s3://bucket/{namespace}", "SRLM_STORAGE_ENDPOINT_URL": "minio:9000"}, "ENDPOINT_URL"),
        ({"SRLM_STORAGE_URI": "s3://bucket/{namespace}", "SRLM_STORAGE_RETENTION": "Never"}, "retention"),
        ({"SRLM_STORAGE_URI": "s3://bucket/{namespace}", "SRLM_STORAGE_ADDRESSING_STYLE": "path"}, "ddressing"),
        ({"SRLM_STORAGE_URI": "s3://bucket/{namespace}", "SRLM_STORAGE_CREDENTIALS_SECRET": "A B"}, "credentials"),
        ({"SRLM_CA_BUNDLE_CONFIG_MAP": "Corp CA"}, "name"),
    ],
)
def test_the_operator_does_not_start_with_a_default_that_cannot_work(environment: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        from_environment(environment)


def test_stages_are_told_how_the_store_takes_conditional_puts() -> None:
    """What preflight found out, so that no other pod tries; clean-up and report are told, too."""
    found = PINS.model_copy(update={"if_match": "Unquoted"})
    kept = without_storage(uri="s3://shared/team", retention="DeleteAll")
    world = FakeCluster(spec=kept, settings=settings(), stages=FakeStages(pins=found))
    world.settle()
    world.deleted_at = world.now
    world.reconcile()
    told = {task.stage: task.storage.if_match for task in world.tasks.values() if task.stage != "preflight"}
    assert {"data", "generate", "train", "judge", "report", "cleanup"} <= told.keys()
    assert set(told.values()) == {"Unquoted"}
    assert {task.storage.conditional_puts for task in world.tasks.values()} == {True}
