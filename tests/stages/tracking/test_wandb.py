"""`tracking.wandb` by its own client without a network, read back from the file that it keeps for later."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from srlm_contract.spec.references import SecretKeyRef
from srlm_contract.spec.tracking import WandbSpec
from srlm_stages.tracking.tracker import Refused, Series
from srlm_stages.tracking.wandb import Wandb
from support.http_server import QuietHandler, serving

from .conftest import Senders

KEY = "0123456789" * 4
SPEC = WandbSpec(api_key_secret_ref=SecretKeyRef(name="wandb"), project="loops")
_BLOCK, _HEADER = 32 * 1024, 7


def records(path: Path) -> Iterator[Any]:
    """Of a file of W&B: LevelDB's log format after seven bytes, each record a protobuf."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, position, whole = path.read_bytes(), 7, b""
    while position + _HEADER <= len(data):
        if _BLOCK - position % _BLOCK < _HEADER:
            position += _BLOCK - position % _BLOCK
            continue
        length, kind = int.from_bytes(data[position + 4 : position + 6], "little"), data[position + 6]
        whole += data[position + _HEADER : position + _HEADER + length]
        position += _HEADER + length
        if kind in (1, 4):  # whole, or the last piece
            yield Record.FromString(whole)
            whole = b""


def test_curves_go_by_their_own_steps_and_nothing_else_is_sent(
    sender: Senders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    tracker = Wandb(SPEC, sender(WANDB_API_KEY=KEY))
    tracker.send(Series("M2/train", "key-1"), [{"step": 1.0, "loss": 0.7}, {"step": 2.0, "loss": 0.6}])
    tracker.send(Series("M2/train", "key-1"), [{"step": 2.0, "loss": 0.6}])
    tracker.describe({"training.dpo.beta": "0.1"}, "Running")
    tracker.close()
    (path,) = (p for p in tmp_path.rglob("*.wandb") if "latest-run" not in str(p))
    found, end = list(records(path)), time.monotonic() + 60
    while not any(record.HasField("exit") for record in found):  # a process of its own writes it
        assert time.monotonic() < end
        time.sleep(0.02)
        found = list(records(path))
    rows = [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        for record in found if record.HasField("history")
    ]  # fmt: skip
    ours = [{name: value for name, value in row.items() if not name.startswith("_")} for row in rows]
    assert ours == [{"M2/train/step": 1, "M2/train/loss": 0.7}, {"M2/train/step": 2, "M2/train/loss": 0.6}]
    (run,) = (record.run for record in found if record.HasField("run"))
    assert (run.run_id, run.project, run.display_name) == ("world-uid", "loops", "default/world")
    assert not run.git.remote_url
    steps = {record.metric.glob_name: record.metric.step_metric for record in found if record.HasField("metric")}
    assert steps["M2/train/*"] == "M2/train/step"
    assert KEY.encode() not in path.read_bytes()


class Graphql(QuietHandler):
    viewer: Any = None

    def do_POST(self) -> None:
        self.reply(
            json.dumps({"data": {"viewer": self.viewer}}).encode(), status=200 if self.path == "/graphql" else 404
        )


def test_preflight_asks_a_server_whether_it_knows_the_key(sender: Senders) -> None:
    with serving(Graphql) as url:
        spec = SPEC.model_copy(update={"base_url": url})
        with pytest.raises(Refused, match=r"does not know the key of tracking.wandb.apiKeySecretRef"):
            Wandb(spec, sender(WANDB_API_KEY=KEY)).check()
        Graphql.viewer = {"id": "VXNlcjox"}
        Wandb(spec, sender(WANDB_API_KEY=KEY)).check()
    with pytest.raises(Refused, match=r"the Secret of tracking.wandb.apiKeySecretRef is missing"):
        Wandb(SPEC, sender()).check()
