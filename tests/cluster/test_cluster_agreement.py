"""`srlm validate` and the API server under test judge the same manifests alike."""

from __future__ import annotations

import json
from typing import Any

import pytest

from srlm_operator.cluster.client import RUNS
from srlm_operator.crd.validate import validate_text
from support.cluster.harness import Harness
from support.corpus import MANIFESTS, NOT_SENT, runs

pytestmark = pytest.mark.e2e


def as_kubectl_sends(value: Any) -> Any:
    """A number that is whole goes without a fraction, whatever the manifest has: `1e3` as 1000."""
    if isinstance(value, dict):
        return {key: as_kubectl_sends(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_kubectl_sends(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


async def test_over_the_whole_corpus(h: Harness) -> None:
    found, sent = [], 0
    for path in sorted(MANIFESTS.glob("*/*")):
        for document in ([] if path.stem in NOT_SENT else runs(path)) or []:
            # The corpus names namespaces; everything is tried in ours, and nothing is kept.
            metadata = document.get("metadata")
            if isinstance(metadata, dict) and "namespace" in metadata and path.stem != "namespace":
                metadata["namespace"] = h.namespace
            offline = [str(problem) for problem in validate_text(json.dumps(document)).problems]
            online = await h.admin.dry_run(RUNS, h.namespace, as_kubectl_sends(document))
            sent += 1
            if bool(offline) != bool(online):
                found.append(f"{path.stem}: validate says {offline}, the API server {online or 'ok'}")
    assert found == []
    assert sent > 120
