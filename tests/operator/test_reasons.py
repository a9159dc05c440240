"""Every reason of a condition, event or failure stands in `srlm_contract.reasons`, and none is idle there."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import srlm_operator
import srlm_stages
from srlm_contract import reasons

OPERATOR = Path(srlm_operator.__file__).parent
STAGES = Path(srlm_stages.__file__).parent
TABLES = (reasons.WAITING, reasons.STALLED, reasons.READY, reasons.FAILURES)


def trees(folder: Path) -> Iterator[ast.Module]:
    for path in sorted(folder.rglob("*.py")):
        yield ast.parse(path.read_text(encoding="utf-8"))


def first_texts(name: str, place: int = 0) -> set[str]:
    """Literal arguments at `place` of all calls of a function or method in the operator."""
    found = set()
    for tree in trees(OPERATOR):
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or len(node.args) <= place:
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            argument = node.args[place]
            if called == name and isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                found.add(argument.value)
    return found


def test_what_is_waited_for_is_documented() -> None:
    assert first_texts("wait") - {""} <= reasons.WAITING.keys()


def test_what_stalls_is_documented() -> None:
    assert first_texts("stall") >= {"BudgetExceeded", "InvalidPodTemplate"}
    assert first_texts("stall") <= reasons.STALLED.keys() | reasons.WAITING.keys()


def test_refusals_and_failures_are_documented() -> None:
    assert first_texts("Refusal") >= {"QuotaExceeded", "NameConflict"}
    assert first_texts("Refusal") <= reasons.STALLED.keys() | reasons.WAITING.keys()
    known = set().union(*TABLES)
    assert first_texts("Failed", 1) >= {"JobGone", "OutOfMemory"}
    assert first_texts("Failed", 1) <= known


def test_no_documented_reason_is_idle() -> None:
    texts = {
        node.value
        for folder in (OPERATOR, STAGES)
        for tree in trees(folder)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert set().union(*TABLES) - texts - {"StorageUnavailable", "StorageNotFound"} == set()


def test_each_says_what_to_do() -> None:
    for table in TABLES:
        for reason, text in table.items():
            assert reason[0].isupper(), reason
            assert reason.isalnum(), reason
            assert text.endswith("."), reason
