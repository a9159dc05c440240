"""Counts what goes wrong between a pod and the object store, for statistics.

Imports no S3 library: every stage has a counter, also one that ends before it opens a store.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

#: Answers that are part of the protocol: no such object, a condition that does not hold, an unknown operation.
_EXPECTED_STATUS = {404, 405, 409, 412, 416, 501}


class RequestErrors:
    """Counts requests that the store failed or refused, those that a retry mended included. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.count = 0

    def add(self) -> None:
        with self._lock:
            self.count += 1

    def listen(self, client: Any) -> None:
        """Count from now on what happens at a boto3 client: every try of every request."""
        client.meta.events.register("response-received.s3", self._look)

    def _look(self, response_dict: Mapping[str, Any] | None, exception: Exception | None, **_: object) -> None:
        status = int(response_dict["status_code"]) if response_dict else 0
        if exception is not None or (status >= 400 and status not in _EXPECTED_STATUS):
            self.add()
