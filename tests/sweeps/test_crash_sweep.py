"""The operator dies at its writes, before them or after them, and the run ends as if nothing had been."""

from __future__ import annotations

from typing import Literal

import pytest

from sweeps.simulation import Blow, Faults
from sweeps.story import PARTS, calm, sweep, tell

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(1800)]


def test_the_story_is_the_same_each_time_and_has_everything_in_it() -> None:
    end, sim = calm()
    again, other = tell(Faults())
    assert (again, other.written) == (end, sim.written)
    assert [node for node in end.made if "generate" in node] == [
        "1/generate x1",  # the shard that had failed
        "1/generate x2",
        "2/generate x2",
        "2/generate x2",  # after the pause
    ]
    assert end.made.count("1/train x1") == 2, "the edit replaced one"
    assert end.made.count("0/cleanup x1") == 1
    assert end.ran.count("1/train") == end.ran.count("2/train") == 1


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("kind", ["crash-before", "crash-after", "old-view"])
def test_death_at_writes(kind: Literal["crash-before", "crash-after", "old-view"], part: int) -> None:
    sweep(kind, part, each=16)


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("kind", ["error", "answer-lost", "overtaken"])
def test_writes_that_fail_or_seem_to(kind: Blow, part: int) -> None:
    sweep(kind, part, each=16)
