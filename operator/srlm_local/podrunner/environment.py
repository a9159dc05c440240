"""What a container's process gets: argv, environment, working directory, with mount paths made real.

There are no mount namespaces here. Instead every argument and environment value that begins with one
of the container's mount paths (or its terminationMessagePath), as a whole or after `--name=`, is rewritten
to the folder that stands for it.
"""

from __future__ import annotations

import os
import re
import sys
from base64 import b64decode
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from srlm_local.podrunner.scheduler import cpu_cores

Object = dict[str, Any]
Lookup = Callable[[str, str], Object | None]
"""(resource, name) → the object in the pod's namespace, or None."""

# fmt: off
INHERITED = {
    "CUDA_VISIBLE_DEVICES", "CURL_CA_BUNDLE", "DYLD_LIBRARY_PATH", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE",
    "HOME", "HTTPS_PROXY", "HTTP_PROXY", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "LD_PRELOAD", "LOGNAME",
    "NO_PROXY", "PYTHONPATH", "REQUESTS_CA_BUNDLE", "SSL_CERT_DIR", "SSL_CERT_FILE", "TMPDIR",
    "TRANSFORMERS_OFFLINE", "TZ", "USER", "VIRTUAL_ENV", "http_proxy", "https_proxy", "no_proxy",
}
# fmt: on
"""What a container gets of the cluster's own environment: what an image would bring, and no credentials."""


UNPULLABLE = "does-not-exist"
"""An image with this in its name cannot be pulled: what a typo or a private registry looks like. No other is used."""
REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z_.\-][A-Za-z0-9_.\-]*)\)")


class ConfigError(Exception):
    """A container cannot be made yet: kubelet's message for reason CreateContainerConfigError."""


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replaces $(NAME) by known variables; unknown ones stay, $$ is an escaped $."""
    return REFERENCE.sub(
        lambda m: "$" if m[0] == "$$" else variables.get(m[1], m[0]),
        text,
    )


class PathMap:
    """Mount paths of one container and the folders or files that stand for them."""

    def __init__(self, mounts: Mapping[str, Path]) -> None:
        self._mounts = sorted(mounts.items(), key=lambda item: -len(item[0]))

    def real(self, text: str) -> str:
        """`text` with its leading mount path, if it has one, replaced; also behind `--name=`."""
        flag, equals, value = text.partition("=")
        if equals and flag.startswith("-") and value.startswith("/"):
            return f"{flag}={self.real(value)}"
        for mount, folder in self._mounts:
            root = mount.rstrip("/") or "/"
            if text == root or text.startswith(root.rstrip("/") + "/"):
                return str(folder) + text[len(root.rstrip("/")) :]
        return text


def variables(pod: Object, container: Object, lookup: Lookup) -> dict[str, str]:
    """The container's own variables, in order, before paths are made real. Raises ConfigError."""
    found: dict[str, str] = {}
    for source in container.get("envFrom") or []:
        prefix = source.get("prefix", "")
        for resource, field in (("configmaps", "configMapRef"), ("secrets", "secretRef")):
            if (reference := source.get(field)) is not None:
                data = read_data(resource, reference["name"], reference.get("optional", False), lookup)
                found.update({prefix + key: value.decode() for key, value in data.items()})
    for entry in container.get("env") or []:
        source = entry.get("valueFrom")
        if source is None:
            found[entry["name"]] = expand(entry.get("value") or "", found)
            continue
        value = _value_from(pod, source, lookup)
        if value is not None:
            found[entry["name"]] = value
    return found


def _value_from(pod: Object, source: Object, lookup: Lookup) -> str | None:
    if (field := source.get("fieldRef")) is not None:
        return field_value(pod, field["fieldPath"])
    for kind, resource, name in (
        ("Secret", "secrets", "secretKeyRef"),
        ("ConfigMap", "configmaps", "configMapKeyRef"),
    ):
        if (reference := source.get(name)) is not None:
            optional = reference.get("optional", False)
            data = read_data(resource, reference["name"], optional, lookup)
            if reference["key"] in data:
                return data[reference["key"]].decode()
            if optional:
                return None
            where = f"{kind} {pod['metadata']['namespace']}/{reference['name']}"
            raise ConfigError(f"couldn't find key {reference['key']} in {where}")
    raise ConfigError(f"invalid valueFrom: {', '.join(source) or 'empty'}")


def read_data(resource: str, name: str, optional: bool, lookup: Lookup) -> dict[str, bytes]:
    """Data of a Secret or ConfigMap as bytes. Raises ConfigError with kubelet's words when it is missing."""
    found = lookup(resource, name)
    if found is None:
        if optional:
            return {}
        raise ConfigError(f'{resource.removesuffix("s").lower()} "{name}" not found')
    if resource == "secrets":
        return {key: b64decode(value) for key, value in (found.get("data") or {}).items()}
    data = {key: value.encode() for key, value in (found.get("data") or {}).items()}
    return data | {key: b64decode(value) for key, value in (found.get("binaryData") or {}).items()}


def field_value(pod: Object, path: str) -> str:
    """A downward API field of the pod as text."""
    metadata, spec = pod["metadata"], pod["spec"]
    if match := re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path):
        return str((metadata.get(match[1]) or {}).get(match[2], ""))
    simple = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata["namespace"],
        "metadata.uid": metadata["uid"],
        "spec.nodeName": spec.get("nodeName", ""),
        "spec.serviceAccountName": spec.get("serviceAccountName", ""),
        "status.hostIP": "127.0.0.1",
        "status.hostIPs": "127.0.0.1",
        "status.podIP": "127.0.0.1",
        "status.podIPs": "127.0.0.1",
    }
    if path not in simple:
        raise ConfigError(f"field label not supported: {path}")
    return str(simple[path])


def argv(container: Object, values: Mapping[str, str]) -> list[str]:
    """Command and arguments with $(NAME) expanded. Raises ConfigError without a command."""
    if not container.get("command"):
        raise ConfigError("no command specified")
    return [expand(word, values) for word in container["command"] + (container.get("args") or [])]


def executable(word: str) -> str:
    """`python` is this interpreter; everything else is looked up on PATH, which begins with its folder."""
    return sys.executable if word in ("python", "python3") else word


def process_environment(pod: Object, container: Object, own: Mapping[str, str], paths: PathMap) -> dict[str, str]:
    """Everything the process sees: what an image would bring, then the container's own variables."""
    base = {name: value for name, value in os.environ.items() if name in INHERITED}
    bin_folder = str(Path(sys.executable).parent)
    base["PATH"] = os.pathsep.join([bin_folder, os.environ.get("PATH", os.defpath)])
    base["HOSTNAME"] = pod["spec"].get("hostname") or pod["metadata"]["name"]
    # What a control group would make visible to libraries that count CPUs.
    base["OMP_NUM_THREADS"] = str(cpu_cores(pod))
    if (temporary := paths.real("/tmp")) != "/tmp":  # noqa: S108  (the container's /tmp, not ours)
        base["TMPDIR"] = temporary
    return {**base, **{name: paths.real(value) for name, value in own.items()}}


def pull_error(image: str) -> str | None:
    """Why the image cannot be pulled, in the words of a container runtime, or None."""
    if UNPULLABLE not in image:
        return None
    resolving = f'failed to resolve reference "{image}": {image}: not found'
    return f'failed to pull and unpack image "{image}": {resolving}'
