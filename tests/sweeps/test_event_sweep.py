"""Watch events are lost, or come late, and the run ends as if nothing had been."""

from __future__ import annotations

import pytest

from sweeps.simulation import Loss
from sweeps.story import PARTS, sweep

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("kind", ["drop", "delay"])
def test_every_event(kind: Loss, part: int) -> None:
    sweep(kind, part, each=16)
