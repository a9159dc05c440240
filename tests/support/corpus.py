"""Manifests that are right and wrong, a file each: `manifests/{valid,invalid}`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from srlm_operator.crd.yaml12 import ManifestError, load_documents

MANIFESTS = Path(__file__).parent / "manifests"
#: What never reaches an API server as a SelfRewardingRun: clients refuse it or send it elsewhere.
NOT_SENT = {"a-list-of-values", "no-run-at-all", "missing-api-version", "missing-kind", "wrong-kind"}


def runs(path: Path) -> list[Any] | None:
    """The documents of a manifest as a client would send them; None if it cannot read the file."""
    try:
        documents = load_documents(path.read_text(encoding="utf-8"))
    except ManifestError:
        return None
    flat = [item for document in documents for item in document.get("items", [document])]
    return [document for document in flat if document.get("kind") not in ("Secret", "ConfigMap")]
