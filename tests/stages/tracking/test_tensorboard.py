"""`tracking.tensorboard`: event files in the run's storage, read back by TensorBoard itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from srlm_contract.artifacts.layout import EVENTS_FILE, events_prefix
from srlm_contract.errors import StoreUnavailable
from srlm_contract.spec.tracking import TensorboardSpec
from srlm_stages.tracking.tensorboard import Tensorboard
from srlm_stages.tracking.tracker import Sender, Series, TrackerError

from .conftest import Senders

CURVE = Series("M2/train", "key-1")


def curve(sender: Sender, series: str, tag: str, tmp_path: Path) -> list[tuple[int, float]]:
    """A curve of the downloaded file, which lies in a folder of its series."""
    folder = tmp_path / "copy" / series
    folder.mkdir(parents=True, exist_ok=True)
    run = sender.run
    data = sender.store.get(f"{events_prefix(run.namespace, run.name)}{series}/{EVENTS_FILE}").data
    (folder / EVENTS_FILE).write_bytes(data)
    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, round(event.value, 6)) for event in events.Scalars(tag)]


def test_a_curve_grows_and_a_repeated_step_replaces_what_it_was(sender: Senders, tmp_path: Path) -> None:
    place = sender()
    tracker = Tensorboard(TensorboardSpec(), place)
    tracker.check()
    tracker.send(CURVE, [{"step": 1.0, "loss": 0.7}, {"step": 2.0, "loss": 0.6, "rewardMargin": 0.1}])
    assert curve(place, "M2/train", "loss", tmp_path) == [(1, 0.7), (2, 0.6)]
    tracker.send(CURVE, [{"step": 2.0, "loss": 0.65}, {"step": 3.0, "loss": 0.5}])
    assert curve(place, "M2/train", "loss", tmp_path) == [(1, 0.7), (2, 0.65), (3, 0.5)]
    again = Tensorboard(TensorboardSpec(), place)  # a resumed attempt brings the steps before it
    again.send(CURVE, [{"step": 1.0, "loss": 0.7}, {"step": 2.0, "loss": 0.6}])
    assert curve(place, "M2/train", "loss", tmp_path) == [(1, 0.7), (2, 0.6)]


def test_each_training_and_the_figures_have_a_file_of_their_own(sender: Senders, tmp_path: Path) -> None:
    place = sender()
    tracker = Tensorboard(TensorboardSpec(), place)
    for series in (CURVE, Series("M3/train", "key-2")):
        tracker.send(series, [{"step": 1.0, "loss": float(series.key[-1])}])
    tracker.send(Series("figures"), [{"step": 1.0, "winRate": 0.5}, {"step": 2.0, "winRate": 0.6}])
    assert curve(place, "M3/train", "loss", tmp_path) == [(1, 2.0)]
    assert curve(place, "figures", "winRate", tmp_path) == [(1, 0.5), (2, 0.6)]
    keys = [info.key for info in place.store.list_objects("runs/default/world/tensorboard/")]
    assert keys == [
        f"runs/default/world/tensorboard/{name}/{EVENTS_FILE}" for name in ("M2/train", "M3/train", "figures")
    ]


def test_a_store_that_is_away_is_worth_another_try(sender: Senders, monkeypatch: pytest.MonkeyPatch) -> None:
    place = sender()

    def fail(*args: object, **options: object) -> None:
        raise StoreUnavailable("the store is away")

    monkeypatch.setattr(place.store, "put", fail)
    with pytest.raises(TrackerError, match="the store is away"):
        Tensorboard(TensorboardSpec(), place).send(CURVE, [{"step": 1.0, "loss": 0.7}])
