"""Configuration of the operator, from environment variables; flags of `srlm operator` override them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, get_type_hints

from .errors import ConfigurationError

_IMAGE = "ghcr.io/self-rewarding-operator"


@dataclass(frozen=True)
class Settings:
    """Each field is also an environment variable: `slow_recheck_seconds` is SRLM_SLOW_RECHECK_SECONDS."""

    namespaces: tuple[str, ...] = ()
    """Namespaces to serve; empty for the whole cluster."""
    local: bool = False
    """One-machine cluster: no GPUs are asked for, training meets on the loopback address."""
    image_inference: str = f"{_IMAGE}/inference:0.1.0"
    image_train: str = f"{_IMAGE}/train:0.1.0"
    image_cpu: str = f"{_IMAGE}/cpu:0.1.0"
    image_pull_policy: str = ""
    image_pull_secrets: tuple[str, ...] = ()
    gpu_resource: str = "nvidia.com/gpu"
    """Extended resource that default resources ask for; `none` for none."""
    workers: int = 16
    """Runs reconciled at the same time."""
    slow_recheck_seconds: float = 60
    """Pause between checks of something that only a person can fix."""
    resync_seconds: float = 300
    """Pause between full listings, which find what a lost watch event hid."""
    progress_seconds: float = 5
    """Pause between two looks at a pod's log."""
    refused_retry_seconds: float = 30
    """Pause before an object that the API server refused is sent again."""
    image_pull_patience_seconds: float = 600
    """After this long an image that cannot be pulled is a matter for a person."""
    cleanup_deadline_seconds: int = 600
    """Longest time that clean-up may hold up the deletion of a run."""
    max_backoff_seconds: float = 600
    """Longest pause between attempts."""
    work_volume_size: str = ""
    """Size limit of a stage pod's scratch volume; empty for none."""
    cache_claim: str = ""
    """PersistentVolumeClaim for the model cache, in the run's namespace; empty for none."""
    cache_host_path: str = ""
    """Directory of the node for the model cache: breaks the restricted Pod Security level."""
    health_host: str = "0.0.0.0"  # noqa: S104 - probes and Prometheus reach the pod's own address
    health_port: int = 8080
    """Port of /healthz, /readyz and /metrics; 0 turns them off."""
    watch_silence_seconds: float = 600
    """Liveness fails when no watch has shown life for this long."""
    leader_elect: bool = False
    lease_namespace: str = ""
    lease_name: str = "self-rewarding-operator"
    lease_seconds: float = 15
    log_format: str = "text"
    """`text` or `json`."""
    extra_env: Mapping[str, str] = field(default_factory=dict)
    """Environment of every stage pod (proxies, say), from variables SRLM_STAGE_ENV_<NAME>."""

    def override(self, **changes: Any) -> Settings:
        """A copy with the given values; None leaves a field as it is."""
        return replace(self, **{k: v for k, v in changes.items() if v is not None})


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
