"""Comparing answers with recordings: placeholders are bound, what was normalised is normalised here too."""

from __future__ import annotations

import itertools
import re
from typing import Any

PLACEHOLDER = re.compile(r"<(uid-\d+|rv-\d+\+?|rv|time-micro|time|rand-\d+|token-\d+|continue-\d+|server|age)>")
_REPEATED = re.compile(r"<(\d+) times (.)>")
_PATTERNS = {
    "uid": r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "rv": r"\d+",
    "time": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ",
    "time-micro": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z",
    "rand": r"[a-z0-9]{5}|[0-9a-f]{16}",
    "token": r"[\w.-]+",
    "continue": r"[\w=-]+",
    "server": r"[\w.:]+",
    "age": r".*",
}


def expand(value: Any) -> Any:
    """Long strings of one character, written out."""
    if isinstance(value, str):
        return _REPEATED.sub(lambda match: match[2] * int(match[1]), value)
    if isinstance(value, list):
        return [expand(item) for item in value]
    if isinstance(value, dict):
        return {key: expand(item) for key, item in value.items()}
    return value


class Bindings:
    """What each placeholder stood for in this replay."""

    def __init__(self) -> None:
        self._values: dict[str, str] = {}

    def value(self, placeholder: str) -> str:
        return self._values[placeholder]

    def fill(self, value: Any, now: str) -> Any:
        """A request with values in place of placeholders; `<time>` becomes `now`. KeyError if one is unbound."""
        if isinstance(value, str):
            return PLACEHOLDER.sub(lambda match: self._filled(match[0], now), value)
        if isinstance(value, list):
            return [self.fill(item, now) for item in value]
        if isinstance(value, dict):
            return {self.fill(key, now): self.fill(item, now) for key, item in value.items()}
        return value

    def _filled(self, placeholder: str, now: str) -> str:
        if placeholder == "<time>":
            return now
        if placeholder == "<time-micro>":
            return now.replace("Z", ".000000Z")
        return self._values[placeholder]

    def match(self, wanted: str, got: str) -> bool:
        """Whether a string is what was recorded, binding placeholders met for the first time."""
        names: list[str] = []
        pattern = ""
        position = 0
        for found in PLACEHOLDER.finditer(wanted):
            pattern += re.escape(wanted[position : found.start()])
            kind = re.sub(r"-?\d+\+?$", "", found[1])
            pattern += f"({_PATTERNS[kind]})"
            names.append(found[0])
            position = found.end()
        match = re.fullmatch(pattern + re.escape(wanted[position:]), got, re.DOTALL)
        if match is None:
            return False
        for name, value in zip(names, match.groups(), strict=True):
            if name in ("<rv>", "<time>", "<time-micro>", "<age>"):
                continue
            if name.endswith("+>"):
                self._bind_list_version(name, value)
            elif self._values.setdefault(name, value) != value:
                return False
        return True

    def _bind_list_version(self, name: str, value: str) -> None:
        """`<rv-7+>` may differ from list to list; a query gets the first one, which is surely not too new."""
        self._values.setdefault(name, value)

    def disorder(self) -> list[str]:
        """Versions whose order is not that of the recording."""
        ranks = sorted(
            (int(match[1]), int(value))
            for name, value in self._values.items()
            if (match := re.fullmatch(r"<rv-(\d+)>", name))
        )
        found = []
        for (rank, version), (later, newer) in itertools.pairwise(ranks):
            if newer <= version:
                found.append(f"ranks: <rv-{later}> is {newer}, not later than <rv-{rank}>, which is {version}")
        return found


def fits(wanted: Any, got: Any) -> bool:
    """The recorder's `until`: given keys match, `"*"` is any value, None is absence, a number a list's length."""
    if wanted == "*":
        return got is not None
    if wanted is None:
        return got is None
    if isinstance(wanted, dict):
        return isinstance(got, dict) and all(fits(item, got.get(key)) for key, item in wanted.items())
    if isinstance(wanted, list):
        return isinstance(got, list) and all(any(fits(item, have) for have in got) for item in wanted)
    if isinstance(got, list) and isinstance(wanted, int):
        return len(got) == wanted
    return bool(wanted == got)


def compare(wanted: Any, got: Any, bindings: Bindings, path: str = "") -> list[str]:
    """Differences, each beginning with the path where it is."""
    if isinstance(wanted, dict) and isinstance(got, dict):
        return _compare_objects(wanted, got, bindings, path)
    if isinstance(wanted, list) and isinstance(got, list):
        if path.endswith("conditions"):
            wanted, got = (sorted(items, key=lambda c: str(c["type"])) for items in (wanted, got))
        found = []
        if len(wanted) != len(got):
            found.append(f"{path} has {len(got)} items, not {len(wanted)}: {_short(got)} instead of {_short(wanted)}")
        for index, (a, b) in enumerate(zip(wanted, got, strict=False)):
            found += compare(a, b, bindings, f"{path}[{index}]")
        return found
    if isinstance(wanted, str) and isinstance(got, str):
        if bindings.match(wanted, got):
            return []
    elif (wanted == got and type(wanted) is type(got)) or wanted == "<age>":
        return []
    return [f"{path} is {_short(got)}, not {_short(wanted)}"]


FREE = {
    "managedFields", "message", "details", "qosClass", "tolerations", "volumes", "volumeMounts",
}  # fmt: skip
"""Fields that may differ: words, and what is not kept here."""
EMPTY: tuple[Any, ...] = (None, {}, [], "")
"""What means the same as not to be there."""


def _compare_objects(wanted: Any, got: Any, bindings: Bindings, path: str) -> list[str]:
    found = []
    wanted, got = (
        {key: value for key, value in side.items() if key not in FREE and value not in EMPTY} for side in (wanted, got)
    )
    for key in wanted:
        at = f"{path}.{key}" if path else key
        if key not in got:
            found.append(f"{at} is missing; it should be {_short(wanted[key])}")
        else:
            found += compare(wanted[key], got[key], bindings, at)
    for key in got:
        if key not in wanted:
            found.append(f"{path}.{key}".lstrip(".") + f" is {_short(got[key])}, but should not be there")
    return found


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 400 else text[:400] + "..."
