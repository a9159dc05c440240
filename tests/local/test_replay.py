"""The API server gives the answers that were recorded from a real one."""

from __future__ import annotations

import pytest

from local.replay import RECORDINGS, replay

SCENARIOS = [
    "01-discovery",
    "02-crd",
    "03-create",
    "04-update",
    "05-finalizers",
    "06-propagation",
    "07-list",
    "08-watch",
    "16-limits",
    "17-namespaces",
    "18-auth",
    "19-leases",
    "20-events",
    "21-admission",
    "22-crd-delete",
]


@pytest.mark.skipif(not RECORDINGS.is_dir(), reason="the recordings of a real API server are not here")
@pytest.mark.parametrize("name", SCENARIOS)
async def test_equal_answers(name: str) -> None:
    differences = await replay(name)
    assert not differences, "\n".join(differences)
