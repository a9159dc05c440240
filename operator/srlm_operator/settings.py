"""Configuration of the operator, from environment variables; flags of `srlm operator` override them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pydantic import ValidationError
from pydantic.alias_generators import to_camel

from srlm_contract.spec.references import ConfigMapKeyRef
from srlm_contract.spec.storage import Storage, StorageDefaults

from .errors import ConfigurationError

#: Without a registry: whoever installs the operator names theirs.
_IMAGE = "self-rewarding-operator"
NAMESPACE_PLACEHOLDER = "{namespace}"
PodSecurity = Literal["Restricted", "Baseline", "Privileged"]
"""Levels of Kubernetes' Pod Security Standards that podTemplate patches may go down to."""
_STORAGE_URI = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^/{}]+)*/\{namespace\}(/[^/{}]+)*/?")


@dataclass(frozen=True)
class Settings:
    """Each field is also an environment variable: `slow_recheck_seconds` is SRLM_SLOW_RECHECK_SECONDS."""

    namespaces: tuple[str, ...] = ()
    """Namespaces to serve; empty for the whole cluster."""
    local: bool = False
    """One-machine cluster: no GPUs are asked for, training meets on the loopback address."""
    image_inference: str = f"{_IMAGE}/inference:0.1.0"
    image_train: str = f"{_IMAGE}/train:0.1.0"
    image_light: str = f"{_IMAGE}/light:0.1.0"
    image_pull_policy: str = ""
    image_pull_secrets: tuple[str, ...] = ()
    gpu_resource: str = "nvidia.com/gpu"
    """Extended resource that default resources ask for; `none` for none."""
    pod_template: Mapping[str, Any] = field(default_factory=dict)
    """Strategic merge patch for the pod template of every stage; those of a run come after it."""
    gpu_pod_template: Mapping[str, Any] = field(default_factory=dict)
    """The same for pods that ask for GPUs."""
    pod_security: PodSecurity = "Restricted"
    """What podTemplate patches may open. Pods without such a patch are `restricted` at every level."""
    queue_name: str = ""
    """Kueue local queue of pods that ask for GPUs, where a run names none."""
    cpu_queue_name: str = ""
    """The same for all other pods; empty: they do not queue."""
    priority_class_name: str = ""
    """PriorityClass of stage pods, where a run names none."""
    service_account_name: str = ""
    """Service account of stage pods in the run's namespace, where a run names none."""
    runtime_class_name: str = ""
    """RuntimeClass of stage pods."""
    workers: int = 16
    """Runs reconciled at the same time."""
    slow_recheck_seconds: float = 60
    """Pause before something that only a person can fix is checked again; it doubles up to an hour."""
    resync_seconds: float = 300
    """Pause between full listings, which find what a lost watch event hid."""
    progress_seconds: float = 5
    """Pause between two looks at a pod's log; longer when more than a hundred pods run."""
    refused_retry_seconds: float = 30
    """Pause before an object that the API server refused is sent again."""
    look_again_seconds: float = 5
    """Pause between looks at the events of a Job without pods, or of a pod that does not start."""
    image_pull_patience_seconds: float = 600
    """After this long an image that cannot be pulled, or a pod that cannot be configured, is a matter for a person."""
    wedged_seconds: float = 900
    """A stopped pod that its Job keeps for longer waits for a replacement that never comes; Jobs back off for less."""
    node_lost_seconds: float = 180
    """So long after its grace period a pod that has not ended is lost with its node."""
    cleanup_deadline_seconds: int = 600
    """Longest time that clean-up may hold up the deletion of a run."""
    max_backoff_seconds: float = 600
    """Longest pause between attempts."""
    storage_uri: str = ""
    """Where runs keep their artifacts that name no place of their own, such as `s3://training/{namespace}`; empty for
    no default. The placeholder is the run's namespace: a location is a trust boundary, so no two share one."""
    storage_endpoint_url: str = ""
    storage_region: str = ""
    storage_addressing_style: str = ""
    storage_credentials_secret: str = ""
    """A Secret in the run's namespace; empty for workload identity."""
    storage_retention: str = ""
    ca_bundle_config_map: str = ""
    """ConfigMap in the run's namespace with the certificate authority of object stores; a run may name another."""
    ca_bundle_key: str = "ca.crt"
    work_volume_size: str = ""
    """Size limit of a stage pod's scratch volume; empty for none."""
    tmp_volume_size: str = "10Gi"
    """Size limit of a stage pod's /tmp."""
    work_claim_size: str = ""
    """Size of a generic ephemeral volume, made for each stage pod and gone with it; empty for an emptyDir."""
    work_claim_class: str = ""
    """Its storage class; empty for the cluster's default."""
    work_claim_modes: tuple[str, ...] = ("ReadWriteOnce",)
    cache_claim: str = ""
    """PersistentVolumeClaim for the model cache, in the run's namespace; empty for none."""
    cache_host_path: str = ""
    """Directory of the node for the model cache, with a folder for each namespace: breaks the restricted Pod Security
    level."""
    cache_gib: int = 64
    """GiB of models that a cache holds; those used least recently go."""
    fs_group: int = 65532
    """Group that volumes of claims belong to, so that stage pods can write there; 0 where the cluster chooses it."""
    health_host: str = "0.0.0.0"  # noqa: S104 - probes and Prometheus reach the pod's own address
    health_port: int = 8080
    """Port of /healthz, /readyz and /metrics; 0 turns them off."""
    watch_silence_seconds: float = 600
    """Liveness fails when one of the watches has shown no life for this long. Each is asked for anew four times
    within it, so that a quiet cluster is not a silent one."""
    metrics_runs: int = 200
    """Runs that have metrics with their name: stalled and unfinished ones first, the youngest first; 0 for none."""
    leader_elect: bool = False
    lease_namespace: str = ""
    lease_name: str = "self-rewarding-operator"
    lease_seconds: float = 15
    log_format: str = "text"
    """`text` or `json`."""
    extra_env: Mapping[str, str] = field(default_factory=dict)
    """Environment of every stage pod (proxies, say), from variables SRLM_STAGE_ENV_<NAME>."""

    def __post_init__(self) -> None:
        for name, least in (("watch_silence_seconds", 1), ("metrics_runs", 0)):
            if getattr(self, name) < least:
                raise ConfigurationError(f"SRLM_{name.upper()}={getattr(self, name)} must be at least {least}")
        given = [name for name in _STORAGE_DEFAULTS if getattr(self, name)]
        if given and not self.storage_uri:
            raise ConfigurationError(f"SRLM_{given[0].upper()} needs SRLM_STORAGE_URI")
        if self.storage_uri and not _STORAGE_URI.fullmatch(self.storage_uri):
            raise ConfigurationError(
                f"SRLM_STORAGE_URI={self.storage_uri!r} must be s3://bucket/prefix with {NAMESPACE_PLACEHOLDER} as a"
                " whole part of the prefix, such as s3://bucket/{namespace}"
            )
        if self.storage_endpoint_url and not re.fullmatch(r"https?://[^/@]+(/[^@]*)?", self.storage_endpoint_url):
            raise ConfigurationError("SRLM_STORAGE_ENDPOINT_URL is no http(s) address without user and password")
        try:
            self.storage_defaults("namespace")
        except ValidationError as problem:
            found = problem.errors()[0]
            where = ".".join(str(part) for part in found["loc"])
            raise ConfigurationError(f"default storage (SRLM_STORAGE_*, SRLM_CA_*): {where}: {found['msg']}") from None

    def storage_defaults(self, namespace: str) -> StorageDefaults:
        """What the runs of a namespace may leave out of `spec.storage`."""
        bundle = None
        if self.ca_bundle_config_map:
            bundle = ConfigMapKeyRef(name=self.ca_bundle_config_map, key=self.ca_bundle_key)
        if not self.storage_uri:
            return StorageDefaults(ca_bundle=bundle)
        given: dict[str, Any] = {_STORAGE_DEFAULTS[name]: getattr(self, name) for name in _STORAGE_DEFAULTS}
        given["uri"] = self.storage_uri.replace(NAMESPACE_PLACEHOLDER, namespace)
        given["caBundleRef"] = bundle and bundle.wire()
        if self.storage_credentials_secret:
            given["credentialsSecretRef"] = {"name": self.storage_credentials_secret}
        return StorageDefaults(Storage.parse({name: value for name, value in given.items() if value}), bundle)

    def override(self, **changes: Any) -> Settings:
        """A copy with the given values; None leaves a field as it is."""
        return replace(self, **{k: v for k, v in changes.items() if v is not None})


_STORAGE_DEFAULTS: Mapping[str, str] = {
    item.name: "credentialsSecretRef" if item.name == "storage_credentials_secret" else to_camel(item.name[8:])
    for item in fields(Settings)
    if item.name.startswith("storage_") and item.name != "storage_uri"
}
"""The settings of the default storage, with the fields of `spec.storage` that they stand for."""


def from_environment(environ: Mapping[str, str] | None = None) -> Settings:
    """Settings from SRLM_* variables. Raises ConfigurationError naming the variable."""
    environ = os.environ if environ is None else environ
    hints = get_type_hints(Settings)
    values: dict[str, Any] = {}
    for item in fields(Settings):
        if item.name == "extra_env":
            continue
        variable = f"SRLM_{item.name.upper()}"
        text = environ.get(variable)
        if text:
            values[item.name] = _convert(variable, text, hints[item.name])
    prefix = "SRLM_STAGE_ENV_"
    values["extra_env"] = {k.removeprefix(prefix): v for k, v in environ.items() if k.startswith(prefix)}
    return Settings(**values)


def _convert(variable: str, text: str, kind: Any) -> Any:
    if get_origin(kind) is Literal:
        if text not in get_args(kind):
            raise ConfigurationError(f"{variable}={text!r} is none of {', '.join(get_args(kind))}")
        return text
    if get_origin(kind) is Mapping:
        return _object(variable, text)
    try:
        if kind is bool:
            return {"1": True, "true": True, "0": False, "false": False}[text.lower()]
        if kind in (int, float):
            return kind(text)
    except (KeyError, ValueError):
        raise ConfigurationError(f"{variable}={text!r} is no {kind.__name__}") from None
    if kind is str:
        return text
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _object(variable: str, text: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as problem:
        raise ConfigurationError(f"{variable} is no JSON: {problem}") from None
    if not isinstance(found, dict):
        raise ConfigurationError(f"{variable} is no JSON object")
    return found
