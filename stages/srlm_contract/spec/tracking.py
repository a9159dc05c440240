"""`spec.tracking`: experiment trackers that are told the curves of every training and the figures of every iteration.

None of it changes what is computed, and none of it is part of a key.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from srlm_contract.base import Contract, Uri
from srlm_contract.spec.references import SecretKeyRef, SecretRef, rules

ProjectName = Annotated[str, Field(min_length=1, max_length=128)]

_DEFAULT_NAME = "self-rewarding"


def _address_rule(field: str, path: str, when: str = "") -> tuple[str, str, str]:
    return (
        f".{field}",
        f"{when}self.{field}.matches('^https?://[^/@]+(/[^@]*)?$')",
        f"{path} must begin with http:// or https:// and name a host, without user or password (those belong in the"
        " Secret)",
    )


class MlflowSpec(Contract):
    """A tracking server of MLflow, reached by its REST API."""

    model_config = rules(_address_rule("uri", "tracking.mlflow.uri"))

    uri: Uri
    """Address of the tracking server, as in MLFLOW_TRACKING_URI: `https://mlflow.example.com`."""
    experiment: ProjectName = _DEFAULT_NAME
    """Name of the experiment; made when it is not there."""
    credentials_secret_ref: SecretRef | None = None
    """Secret with MLFLOW_TRACKING_TOKEN, or with MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD; omit for a
    server that asks for neither."""


class WandbSpec(Contract):
    """Weights & Biases, hosted or self-hosted."""

    model_config = rules(_address_rule("baseUrl", "tracking.wandb.baseUrl", "!has(self.baseUrl) || "))

    project: ProjectName = _DEFAULT_NAME
    """Name of the project."""
    entity: ProjectName | None = None
    """Team or user that the project belongs to; omit for the default of the key."""
    base_url: Uri | None = None
    """Address of a server of one's own; omit for the hosted service."""
    api_key_secret_ref: SecretKeyRef
    """Secret with the API key."""


class TensorboardSpec(Contract):
    """Event files beside the report, in the run's storage: `runs/NAMESPACE/NAME/tensorboard/`."""

    flush_seconds: Annotated[int, Field(ge=1, le=3600)] = 30
    """Least pause in seconds between two uploads of the events of a training that runs."""


class TrackioSpec(Contract):
    """A Trackio server of one's own."""

    model_config = rules(_address_rule("serverUrl", "tracking.trackio.serverUrl"))

    server_url: Uri
    """Address of the server, as in TRACKIO_SERVER_URL."""
    project: ProjectName = _DEFAULT_NAME
    """Name of the project."""
    write_token_secret_ref: SecretKeyRef
    """Secret with the server's write token."""


class TrackingSpec(Contract):
    """Experiment trackers, any of them, several at once. A tracker that is down or refuses fails no stage."""

    mlflow: MlflowSpec | None = None
    """MLflow."""
    wandb: WandbSpec | None = None
    """Weights & Biases."""
    tensorboard: TensorboardSpec | None = None
    """TensorBoard: `{}` is enough."""
    trackio: TrackioSpec | None = None
    """Trackio."""

    @property
    def wanted(self) -> bool:
        """Whether any tracker is told anything."""
        return any(getattr(self, name) is not None for name in type(self).model_fields)
