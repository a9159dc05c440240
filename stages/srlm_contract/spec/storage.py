"""Where the artifacts of a run lie: `spec.storage`, what it leaves out, and what that then means.

A platform may give the operator a default location. It holds for runs that leave `storage.uri` out or name the very
same place; such a run overrides the rest field by field. A run with a place of its own takes nothing of it but the
certificate authority.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from srlm_contract.base import Contract, ShortText, Uri
from srlm_contract.spec.marks import PreflightIgnores
from srlm_contract.spec.references import ConfigMapKeyRef, SecretRef, rules

AddressingStyle = Literal["Auto", "Path", "Virtual"]
Retention = Literal["Retain", "DeleteIntermediate", "DeleteAll"]
IfMatch = Literal["Quoted", "Unquoted", "Unsupported"]
"""How a store takes the ETag of a conditional put's If-Match: in quotes as HTTP has it, without them (Ceph RGW 16
and what is built on it compares the bare value), or not at all."""


class StorageSpec(Contract):
    """The S3 location that every Job of the run reads and writes; the operator's default fills in what is left out."""

    model_config = rules(
        (
            ".uri",
            "!has(self.uri) || self.uri.matches('^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?$')",
            "storage.uri must be s3://bucket/prefix (bucket: 3 to 63 lower-case letters, digits, dots and dashes)",
        ),
        (
            ".endpointUrl",
            "!has(self.endpointUrl) || self.endpointUrl.matches('^https?://[^/@]+(/[^@]*)?$')",
            "storage.endpointUrl must begin with http:// or https:// and name a host, without user or password (those"
            " belong in the Secret of credentialsSecretRef); omit it for AWS",
        ),
    )

    uri: Uri | None = None
    """`s3://bucket/prefix`; omit for the operator's default. Who can write there can plant artifacts: it is the trust
    boundary."""
    endpoint_url: Uri | None = None
    """Endpoint of an S3-compatible store (MinIO, Ceph); omit for AWS."""
    region: ShortText | None = None
    """Region of the bucket; us-east-1 when left out."""
    addressing_style: AddressingStyle | None = None
    """How the bucket is named in requests: in the path or in the host name; Auto when left out."""
    credentials_secret_ref: SecretRef | None = None
    """Secret with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and maybe AWS_SESSION_TOKEN; omit for workload
    identity."""
    ca_bundle_ref: ConfigMapKeyRef | None = None
    """ConfigMap with the certificate authority of the endpoint; trusted for the hub and external judges, too."""
    retention: Annotated[Retention | None, PreflightIgnores()] = None
    """What is removed when the run is deleted: nothing (Retain, also when left out), all but models and metrics, or
    everything that only this run uses."""


class Place(Contract):
    """A place in a store, as a client opens it: what is added here reaches `artifacts.s3`, stages and command line."""

    uri: Uri
    """`s3://bucket/prefix`."""
    endpoint_url: Uri | None = None
    """Endpoint of an S3-compatible store."""
    region: ShortText = "us-east-1"
    """Region of the bucket."""
    addressing_style: AddressingStyle = "Auto"
    """How the bucket is named in requests."""


class Storage(Place):
    """A location with nothing left out."""

    credentials_secret_ref: SecretRef | None = None
    """Secret with the credentials, in the run's namespace."""
    ca_bundle_ref: ConfigMapKeyRef | None = None
    """ConfigMap with the certificate authority, in the run's namespace."""
    retention: Retention = "Retain"
    """What is removed when the run is deleted."""

    def as_spec(self) -> StorageSpec:
        """The same as a spec, in one spelling: what equals the built-in default is left out."""
        return StorageSpec.parse(self.wire(defaults=False))


@dataclass(frozen=True)
class StorageDefaults:
    """What the operator offers to the runs of one namespace."""

    storage: Storage | None = None
    ca_bundle: ConfigMapKeyRef | None = None
    """For runs with a place of their own; `storage` names it itself."""


def storage_basis(own: StorageSpec, pinned: Storage | None, started: bool, defaults: StorageDefaults) -> Storage | None:
    """What the fields that `spec.storage` leaves out mean; None when nothing says where artifacts shall lie.

    pinned: the basis as status keeps it. It holds once the run has started: a later change of the operator's defaults
    moves no run.
    """
    if started and pinned is None and own.uri is not None:
        return Storage(uri=own.uri)  # it started before there were defaults
    for known in (pinned if started else None, defaults.storage):
        if known is not None and own.uri in (None, known.uri):
            return known
    return None if own.uri is None else Storage(uri=own.uri, ca_bundle_ref=defaults.ca_bundle)


def effective_storage(own: StorageSpec, basis: Storage) -> Storage:
    """`basis`, overridden by every field that the spec names."""
    named = {name: getattr(own, name) for name in StorageSpec.model_fields}
    return basis.model_copy(update={name: value for name, value in named.items() if value is not None})
