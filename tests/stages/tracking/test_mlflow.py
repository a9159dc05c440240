"""`tracking.mlflow` against a tracking server of MLflow's own package."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from srlm_contract.spec.references import SecretRef
from srlm_contract.spec.tracking import MlflowSpec
from srlm_stages.tracking.mlflow import Mlflow
from srlm_stages.tracking.tracker import Refused, Series, State, TrackerError
from support.http_server import QuietHandler, serving
from support.mlflow_server import MlflowServer, mlflow_server
from support.report_world import EVIL, make_run, spec
from support.stage_world import World
from support.tracked_world import tracked

from .conftest import Senders

CURVE = Series("M2/train", "key-1")
SECRET = {"MLFLOW_TRACKING_TOKEN": "secret-token"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as found:
        yield found


def rows(*losses: float, first: int = 1) -> list[dict[str, float]]:
    return [{"step": float(first + i), "loss": loss} for i, loss in enumerate(losses)]


def test_one_run_takes_the_curves_of_all_stages_and_the_figures_of_all_models(
    server: MlflowServer, sender: Senders
) -> None:
    place = MlflowSpec(uri=f"{server.url}/", experiment="loops")
    for series, some in (
        (Series("M1/sft", "key-0"), rows(2.0, 1.5)),
        (CURVE, rows(0.7, 0.6)),
        (Series("figures"), [{"step": 1.0, "winRate": 0.5}]),
        (Series("figures"), [{"step": 1.0, "winRate": 0.5}, {"step": 2.0, "winRate": 0.6}]),
    ):
        tracker = Mlflow(place, sender("several"))  # each in a pod of its own
        tracker.check()
        tracker.send(series, some)
        tracker.close()
    assert server.run("default/several")["info"]["status"] == "RUNNING"
    assert server.curve("default/several", "M1/sft/loss") == [(1, 2.0), (2, 1.5)]
    assert server.curve("default/several", "M2/train/loss") == [(1, 0.7), (2, 0.6)]
    assert server.curve("default/several", "figures/winRate") == [(1, 0.5), (2, 0.6)]


def test_a_retried_training_goes_on_and_doubles_no_step(server: MlflowServer, sender: Senders) -> None:
    place = MlflowSpec(uri=server.url)
    Mlflow(place, sender("retried")).send(CURVE, rows(0.9, 0.8, 0.7))
    again = Mlflow(place, sender("retried"))
    again.send(CURVE, rows(0.91, 0.81, 0.71, 0.6))  # no resume point: it begins anew
    again.send(CURVE, rows(float("nan"), first=5))
    again.send(CURVE, rows(float("nan"), first=5))
    curve = server.curve("default/retried", "M2/train/loss")
    assert [step for step, _ in curve] == [1, 2, 3, 3, 4, 5], "only the last step may have come twice"
    assert [value for _, value in curve[:3]] == [0.9, 0.8, 0.7]


def test_another_training_of_the_same_model_is_another_curve(server: MlflowServer, sender: Senders) -> None:
    place = MlflowSpec(uri=server.url)
    Mlflow(place, sender("changed")).send(CURVE, rows(0.9, 0.8))
    Mlflow(place, sender("changed")).send(Series(CURVE.name, "other-key"), rows(0.5))
    assert server.curve("default/changed", "M2/train/loss") == [(1, 0.9), (2, 0.8)]
    assert server.curve("default/changed", "M2/train-other-ke/loss") == [(1, 0.5)]


def test_settings_are_parameters_and_a_changed_one_is_a_tag(server: MlflowServer, sender: Senders) -> None:
    place = MlflowSpec(uri=server.url)
    settings = {f"training.n{i}": str(i) for i in range(150)} | {"training.dpo.beta": "0.1"}
    said: list[tuple[dict[str, str], State]] = [
        (settings, "Running"),
        (settings | {"training.dpo.beta": "0.2"}, "Succeeded"),
    ]
    for some, state in said:
        Mlflow(place, sender("described")).describe(some, state)
    found = server.run("default/described")
    tags = {tag["key"]: tag["value"] for tag in found["data"]["tags"]}
    assert {p["key"]: p["value"] for p in found["data"]["params"]} == settings
    assert (tags["changed/training.dpo.beta"], found["info"]["status"]) == ("0.2", "FINISHED")
    assert tags["selfrewarding.dev/run-uid"] == "described-uid"


def test_more_figures_than_one_request_may_have(server: MlflowServer, sender: Senders) -> None:
    Mlflow(MlflowSpec(uri=server.url), sender("long")).send(CURVE, [
        {"step": float(step), **{f"f{i}": float(i) for i in range(12)}} for step in range(100)
    ])  # fmt: skip
    assert len(server.curve("default/long", "M2/train/f11")) == 100


def test_curves_and_figures_of_all_models_land_in_one_run(server: MlflowServer, tmp_path: Path) -> None:
    world = World(tmp_path / "world")
    tracking = {"mlflow": {"uri": server.url}, "tensorboard": {}}
    texts = dict.fromkeys(("prompt", "answer", "verdict"), EVIL)
    half = make_run(world, spec(tracking=tracking), until="2/train", phase="Failed", texts=texts)
    assert tracked(half, tmp_path / "first", **SECRET) == []
    assert server.run("default/world")["info"]["status"] == "FAILED"
    whole = make_run(world, spec(tracking=tracking), texts=texts)
    for work in ("second", "third"):
        assert tracked(whole, tmp_path / work, **SECRET) == []
    found = server.run("default/world")
    assert found["info"]["status"] == "FINISHED"
    assert [step for step, _ in server.curve("default/world", "M1/sft/loss")] == [1, 2, 3, 4, 5]
    assert [step for step, _ in server.curve("default/world", "M3/train/rewardMargin")] == list(range(1, 9))
    rates = [record.metrics.win_rate for record in whole.status.iterations]
    assert server.curve("default/world", "figures/winRate") == [
        (number, rate) for number, rate in enumerate(rates, start=1) if rate is not None
    ]
    params = {param["key"]: param["value"] for param in found["data"]["params"]}
    assert (params["training.dpo.beta"], params["baseModel.uri"]) == ("0.1", "hf://example/small-model")
    keys = [info.key for info in world.store.list_objects("runs/default/world/tensorboard/")]
    assert {key.split("/")[4] for key in keys} == {"M1", "M2", "M3", "figures"}
    said = json.dumps(found)
    assert "onerror" not in said
    assert "secret-token" not in said


class Other(QuietHandler):
    """Neither MLflow nor JSON."""

    status, text, seen = 200, b"<html>", [""]

    def do_GET(self) -> None:
        self.seen.append(self.headers.get("Authorization", ""))
        self.reply(self.text, status=self.status)


@pytest.mark.parametrize(
    ("status", "text", "raises", "says"),
    [
        (200, b"<html>", Refused, "answers no JSON: is this the address of the tracker?"),
        (404, b"not found", Refused, "this is no tracking server of MLflow"),
        (401, b"who?", Refused, "the credentials are refused"),
        (503, b"later", TrackerError, "answers 503: later"),
    ],
)
def test_what_a_server_says_that_will_not_do(
    sender: Senders, status: int, text: bytes, raises: type[TrackerError], says: str
) -> None:
    class Server(Other):
        pass

    Server.status, Server.text = status, text
    with serving(Server) as url, pytest.raises(TrackerError, match=says.replace("?", r"\?")) as error:
        Mlflow(MlflowSpec(uri=url), sender()).check()
    assert type(error.value) is raises


def test_a_server_that_is_down_is_worth_another_try(sender: Senders) -> None:
    with serving(Other) as url:
        pass
    with pytest.raises(TrackerError, match="does not answer: ConnectError") as error:
        Mlflow(MlflowSpec(uri=url), sender()).check()
    assert not isinstance(error.value, Refused)


@pytest.mark.parametrize(
    ("secret", "header"),
    [
        ({"MLFLOW_TRACKING_TOKEN": "t"}, "Bearer t"),
        ({"MLFLOW_TRACKING_USERNAME": "u", "MLFLOW_TRACKING_PASSWORD": "p"}, "Basic dTpw"),
        ({}, ""),
    ],
)
def test_credentials_come_from_the_secret(sender: Senders, secret: dict[str, Any], header: str) -> None:
    with serving(Other) as url, pytest.raises(Refused):
        Mlflow(MlflowSpec(uri=url), sender(**secret)).check()
    assert Other.seen[-1] == header


def test_a_secret_that_is_missing_is_named(sender: Senders) -> None:
    place = MlflowSpec(uri="http://127.0.0.1:9", credentials_secret_ref=SecretRef(name="mlflow"))
    with pytest.raises(Refused, match=r"tracking.mlflow.credentialsSecretRef is missing, or has neither"):
        Mlflow(place, sender()).check()
