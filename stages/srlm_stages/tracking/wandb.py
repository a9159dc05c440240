"""Weights & Biases, by its client, which is told to send figures and nothing about the machine, code or log."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from srlm_contract.spec.tracking import WandbSpec

from .http import Http
from .known import Known
from .tracker import Refused, Row, Sender, Series, State, TrackerError

HOSTED = "https://api.wandb.ai"
#: Seconds to reach the server, and to hand over the rest.
_INIT_SECONDS, _FINISH_SECONDS = 20.0, 20.0
_KEYS = "series"
"""Field of the run's configuration with the key of each training."""


class Wandb:
    """One W&B run, whose id is the UID. Steps are figures of their own: those of W&B count what is sent."""

    name, pause = "tracking.wandb", 5.0

    def __init__(self, spec: WandbSpec, sender: Sender) -> None:
        self._spec, self._sender = spec, sender
        self._run: Any = None
        self._known = Known()
        self._defined: set[str] = set()

    def check(self) -> None:
        """Raises for a server that does not answer, and for a key that it does not know."""
        self._package()
        http = Http(self._spec.base_url or HOSTED, auth=("api", self._key()))
        try:
            found = http.post("graphql", {"query": "query { viewer { id } }"})
        finally:
            http.close()
        if not (isinstance(found, dict) and (found.get("data") or {}).get("viewer")):
            raise Refused(f"{http.url} does not know the key of tracking.wandb.apiKeySecretRef")

    def send(self, series: Series, rows: Sequence[Row]) -> None:
        self._open()
        place = self._known.place(series)
        if place not in self._defined:
            # `*` stands for one part of a name at its end.
            self._run.define_metric(f"{place}/step")
            self._run.define_metric(f"{place}/*", step_metric=f"{place}/step")
            self._run.config.update({_KEYS: dict(self._known.keys)}, allow_val_change=True)
            self._defined.add(place)
        for step, figures in self._known.new(place, rows):
            self._run.log({f"{place}/step": step, **figures})
            self._known.note(step, figures)

    def describe(self, settings: Mapping[str, str], state: State) -> None:
        self._open()
        self._run.config.update(dict(settings), allow_val_change=True)
        self._run.summary["state"] = state

    def close(self) -> None:
        """Raises TrackerError when the rest could not be handed over in time."""
        if self._run is None:
            return
        try:
            self._run.finish()
        except Exception as error:
            raise TrackerError(f"{type(error).__name__}: {error}") from error

    def _open(self) -> None:
        if self._run is not None:
            return
        wandb, folder = self._package(), self._sender.work / "wandb"
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self._run = wandb.init(
                id=self._sender.run.uid,
                resume="allow",
                project=self._spec.project,
                entity=self._spec.entity,
                name=self._sender.title,
                dir=str(folder),
                settings=wandb.Settings(
                    base_url=self._spec.base_url or HOSTED,
                    api_key=self._key(),
                    init_timeout=_INIT_SECONDS,
                    finish_timeout=_FINISH_SECONDS,
                    finish_timeout_raises=True,
                    silent=True,
                    console="off",
                    disable_code=True,
                    disable_git=True,
                    x_disable_meta=True,
                    x_disable_stats=True,
                    x_disable_machine_info=True,
                    x_save_requirements=False,
                ),
            )
        except Exception as error:
            raise TrackerError(f"{type(error).__name__}: {error}") from error
        summary = dict(self._run.summary)
        steps = {name.removesuffix("/step"): int(step) for name, step in summary.items() if name.endswith("/step")}
        self._known = Known(
            {
                name: (steps[place], float(value))
                for name, value in summary.items()
                if (place := name.rpartition("/")[0]) in steps and isinstance(value, int | float)
            },
            dict(self._run.config.get(_KEYS, {})),
        )

    def _key(self) -> str:
        return self._sender.secret("WANDB_API_KEY", "tracking.wandb.apiKeySecretRef")

    def _package(self) -> Any:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # its own crash reports go to a third party
        try:
            import wandb
        except ImportError:
            raise Refused("this image has no wandb: name one with self-rewarding-operator[tracking]") from None
        return wandb
