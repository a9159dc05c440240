"""Reads a run's status even when it was cut or written by another version of the operator."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from srlm_contract.status import RunStatus

#: So many rounds of leaving out what does not fit; a status needs one or two.
MAX_ROUNDS = 20


def read_status(status: Mapping[str, Any]) -> tuple[RunStatus, list[str]]:
    """(the status without the parts that do not fit this version, a note on what was left out)."""
    data = copy.deepcopy(dict(status))
    left_out: list[str] = []
    for _ in range(MAX_ROUNDS):
        try:
            found = RunStatus.parse(data)
        except ValidationError as error:
            places = {e["loc"] if e["type"] != "missing" else e["loc"][:-1] for e in error.errors(include_url=False)}
            # From the end, so that positions in lists stay right.
            for place in sorted(places, key=_order, reverse=True):
                if _remove(data, place):
                    left_out.append(".".join(map(str, place)))
            continue
        return found, _note(left_out)
    return RunStatus(), ["the status given to the report cannot be read; only artifacts are shown"]


def _note(left_out: list[str]) -> list[str]:
    if not left_out:
        return []
    shown = ", ".join(sorted(left_out)[:5]) + (" and more" if len(left_out) > 5 else "")
    return [f"parts of the run's status do not fit this version of the report and are not shown: {shown}"]


def _order(place: tuple[int | str, ...]) -> tuple[tuple[int, str, int], ...]:
    return tuple((0, part, 0) if isinstance(part, str) else (1, "", part) for part in place)


def _remove(data: Any, place: tuple[int | str, ...]) -> bool:
    """Take a value out of nested maps and lists; whether it was there."""
    if not place:
        return False
    for part in place[:-1]:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return False
    last = place[-1]
    if isinstance(data, dict) and last in data:
        del data[last]
        return True
    if isinstance(data, list) and isinstance(last, int) and last < len(data):
        del data[last]
        return True
    return False
