"""Every reason stands in operator/README.md with its meaning and a remedy, under the heading it belongs to."""

from __future__ import annotations

import re

import pytest

from docs.pages import ROOT
from srlm_contract import reasons, rows
from srlm_contract.base import Contract

TEXT = (ROOT / "operator" / "README.md").read_text(encoding="utf-8")
HEADINGS = {
    "Reconciling: it goes on by itself": reasons.WAITING,
    "Stalled: a person is needed": reasons.STALLED,
    "Ready": reasons.READY,
    "Why an attempt failed": reasons.FAILURES,
}


def table(heading: str) -> dict[str, tuple[str, str]]:
    """Reason → (meaning, remedy) of one table."""
    _, _, rest = TEXT.partition(f"\n### {heading}\n")
    section = re.split(r"^##", rest, maxsplit=1, flags=re.M)[0]
    return {m[1]: (m[2], m[3]) for m in re.finditer(r"^\| `(\w+)` \| (.+?) \| (.+?) \|$", section, re.M)}


@pytest.mark.parametrize("heading", HEADINGS)
def test_reasons(heading: str) -> None:
    found = table(heading)
    assert list(found) == list(HEADINGS[heading]), "the same reasons, in the same order"
    for reason, (meaning, remedy) in found.items():
        assert len(meaning) > 10, reason
        assert remedy.endswith("."), reason


def test_files_and_fields_of_rows() -> None:
    """stages/README.md names every file that stages hand over, with the fields of its rows."""
    text = (ROOT / "stages" / "README.md").read_text(encoding="utf-8")
    models = [model for model in vars(rows).values() if isinstance(model, type) and issubclass(model, Contract)]
    told = 0
    for model in models:
        for file in re.findall(r"[\w-]+\.jsonl", model.__doc__ or ""):
            told += 1
            (row,) = re.findall(rf"^\| .*`{re.escape(file)}`.*: .* \| (.*) \|$", text, re.M)
            fields = [field.alias or name for name, field in model.model_fields.items()]
            assert re.findall(r"`(\w+)`", row) == fields, file
    assert told == 13
