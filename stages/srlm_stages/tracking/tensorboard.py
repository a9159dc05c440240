"""TensorBoard: event files in the run's storage, one a training and one for the figures of the models.

An object cannot grow, so each is written anew as a whole: a training that goes on from a resume point brings the steps
before it, and a step that is repeated replaces what it was.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from srlm_contract.artifacts.layout import EVENTS_FILE, events_prefix
from srlm_contract.errors import StageFailure
from srlm_contract.spec.tracking import TensorboardSpec

from .tracker import Refused, Row, Sender, Series, State, TrackerError


class Tensorboard:
    """`runs/NAMESPACE/NAME/tensorboard/<series>/`, each a run of TensorBoard."""

    name = "tracking.tensorboard"

    def __init__(self, spec: TensorboardSpec, sender: Sender) -> None:
        self.pause, self._sender = float(spec.flush_seconds), sender
        self._written: dict[Series, dict[int, tuple[float, Row]]] = {}

    def check(self) -> None:
        """Its place is the run's storage, which preflight tries anyway."""
        _writer()

    def send(self, series: Series, rows: Sequence[Row]) -> None:
        began = time.monotonic()
        steps = self._written.setdefault(series, {})
        steps |= {int(row["step"]): (time.time(), row) for row in rows}
        run = self._sender.run
        try:
            self._sender.store.put(
                f"{events_prefix(run.namespace, run.name)}{series.name}/{EVENTS_FILE}",
                events(self._sender.work / "tensorboard", [steps[step] for step in sorted(steps)]),
            )
        except StageFailure as failure:
            raise TrackerError(str(failure)) from failure
        # The file grows with every upload: little of the time goes into them, however long the training.
        self.pause = max(self.pause, 20 * (time.monotonic() - began))

    def describe(self, settings: Mapping[str, str], state: State) -> None:
        """TensorBoard has no place for it but texts; the report has the settings."""

    def close(self) -> None:
        """Nothing is on its way."""


def events(folder: Path, rows: Sequence[tuple[float, Row]]) -> bytes:
    """An event file. rows: (seconds since the epoch, figures). Names have no folder: the series is the folder."""
    record_writer, event, summary = _writer()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / EVENTS_FILE
    path.unlink(missing_ok=True)
    writer = record_writer.RecordWriter(str(path))
    begin = rows[0][0] if rows else time.time()
    writer.write(event.Event(wall_time=begin, file_version="brain.Event:2").SerializeToString())
    for wall, row in rows:
        values = [summary.Summary.Value(tag=name, simple_value=value) for name, value in row.items() if name != "step"]
        written = event.Event(wall_time=wall, step=int(row["step"]), summary=summary.Summary(value=values))
        writer.write(written.SerializeToString())
    writer.close()
    return path.read_bytes()


def _writer() -> tuple[Any, Any, Any]:
    try:
        from tensorboardX import record_writer
        from tensorboardX.proto import event_pb2, summary_pb2
    except ImportError:
        raise Refused("this image has no tensorboardX: name one with self-rewarding-operator[tracking]") from None
    return record_writer, event_pb2, summary_pb2
