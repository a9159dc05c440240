"""The API server gives the answers that were recorded from a real one."""

from __future__ import annotations

import json

import pytest

from local.replay import ORIGINALS, load, replay
from local.replay_exceptions import LOOSE, NOT_SENT

SCENARIOS = [
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
    "22-crd-delete",
]


@pytest.mark.parametrize("name", SCENARIOS)
async def test_equal_answers(name: str) -> None:
    differences = await replay(name)
    assert not differences, "\n".join(differences)


@pytest.mark.skipif(not ORIGINALS.is_dir(), reason="recorded exchanges are not beside this checkout")
def test_the_copies_are_those_of_the_originals() -> None:
    for file in ORIGINALS.glob("*.json"):
        assert load(file.stem) == json.loads(file.read_bytes()), f"renew {file.name}.gz, see recordings/README.md"


def test_exceptions_name_steps_that_exist() -> None:
    for name, steps in [*NOT_SENT.items(), *LOOSE.items()]:
        numbers = [key[0] if isinstance(key, tuple) else key for key in steps]
        count = len(load(name)["steps"])
        assert all(number == "*" or 0 <= int(number) < count for number in numbers), name
