"""Events that the cluster's own components write, as client-go's recorder makes them."""

from __future__ import annotations

import contextlib
import itertools
from typing import Any

from srlm_local.store.cluster import Cluster
from srlm_local.store.errors import ApiError

Object = dict[str, Any]
_serial = itertools.count()


def record(
    cluster: Cluster, about: Object, kind: str, reason: str, message: str, component: str, *, host: str = ""
) -> None:
    """Writes an event about `about`; `kind` is Normal or Warning. The same event again raises its count."""
    metadata = about["metadata"]
    namespace = metadata.get("namespace", "default")
    now = cluster.timestamp()
    for event in cluster.list("events", namespace, fields=f"involvedObject.uid={metadata['uid']},reason={reason}"):
        if event.get("message") == message and event.get("type") == kind:
            changed = {"count": event.get("count", 1) + 1, "lastTimestamp": now}
            cluster.patch("events", event["metadata"]["name"], changed, namespace)
            return
    # By time, as client-go does: a list of events, ordered by name, is in the order of writing.
    stamp = (int(cluster.clock.now().timestamp() * 1e6) << 12) + next(_serial) % 4096
    event = {
        "metadata": {"name": f"{metadata['name']}.{stamp:016x}", "namespace": namespace},
        "involvedObject": {
            "kind": about["kind"],
            "namespace": namespace,
            "name": metadata["name"],
            "uid": metadata["uid"],
            "apiVersion": about["apiVersion"],
            "resourceVersion": metadata["resourceVersion"],
        },
        "reason": reason,
        "message": message,
        "source": {"component": component, **({"host": host} if host else {})},
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
        "type": kind,
        "eventTime": None,
        "reportingComponent": component,
        "reportingInstance": host,
    }
    # Refused in a terminating namespace: nobody is left to read it there.
    with contextlib.suppress(ApiError):
        cluster.create("events", event, namespace)
