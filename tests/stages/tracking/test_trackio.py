"""`tracking.trackio` as its server sees it: entries by `log_id`, of which it keeps the first."""

from __future__ import annotations

import json
from typing import Any

import pytest

from srlm_contract.spec.references import SecretKeyRef
from srlm_contract.spec.tracking import TrackioSpec
from srlm_stages.tracking.tracker import Refused, Series
from srlm_stages.tracking.trackio import Trackio
from support.http_server import QuietHandler, serving

from .conftest import Senders

CURVE = Series("M2/train", "key-1")
REF = SecretKeyRef(name="trackio")


class Server(QuietHandler):
    """`POST /api/bulk_log` of Trackio 0.43."""

    entries: dict[str, dict[str, Any]]

    def do_POST(self) -> None:
        logs = json.loads(self.body())["kwargs"]["logs"]
        if self.path != "/api/bulk_log":
            self.reply(b"{}", status=404)
        elif self.headers["X-Trackio-Write-Token"] != "secret-token":
            self.reply(b'{"error": "A write_token is required to log metrics"}', status=200)
        else:
            for entry in logs:
                self.entries.setdefault(entry["log_id"], entry)
            self.reply(b'{"data": null}')


def test_repeated_steps_are_the_same_entry_and_changed_figures_a_new_one(sender: Senders) -> None:
    Server.entries = {}
    with serving(Server) as url:
        for loss in (0.7, 0.71):
            tracker = Trackio(
                TrackioSpec(server_url=url, write_token_secret_ref=REF), sender(TRACKIO_WRITE_TOKEN="secret-token")
            )
            tracker.check()
            tracker.send(CURVE, [{"step": 1.0, "loss": loss}, {"step": 2.0, "loss": 0.6}])
            tracker.send(Series("figures"), [{"step": 1.0, "pairs": 3.0, "tokens": loss}])
            tracker.close()
    found = list(Server.entries.values())
    assert [(e["step"], e["metrics"]) for e in found] == [
        (1, {"M2/train/loss": 0.7}), (2, {"M2/train/loss": 0.6}), (1, {"figures/pairs": 3.0, "figures/tokens": 0.7}),
        (1, {"figures/pairs": 3.0, "figures/tokens": 0.71}),
    ]  # fmt: skip
    assert {(e["project"], e["run"], e["run_id"]) for e in found} == {("self-rewarding", "default/world", "world-uid")}


def test_a_loss_that_is_no_number_costs_nothing_else(sender: Senders) -> None:
    Server.entries = {}
    with serving(Server) as url:
        tracker = Trackio(
            TrackioSpec(server_url=url, write_token_secret_ref=REF), sender(TRACKIO_WRITE_TOKEN="secret-token")
        )
        tracker.send(CURVE, [{"step": 1.0, "loss": float("nan"), "margin": 2.0}, {"step": 2.0, "loss": float("inf")}])
        tracker.close()
    assert [(e["step"], e["metrics"]) for e in Server.entries.values()] == [(1, {"M2/train/margin": 2.0}), (2, {})]


@pytest.mark.parametrize(
    ("token", "says"),
    [("wrong-token", "A write_token is required"), ("", "tracking.trackio.writeTokenSecretRef is missing")],
)
def test_a_token_that_will_not_do(sender: Senders, token: str, says: str) -> None:
    with serving(Server) as url, pytest.raises(Refused, match=says):
        Trackio(TrackioSpec(server_url=url, write_token_secret_ref=REF), sender(TRACKIO_WRITE_TOKEN=token)).check()
