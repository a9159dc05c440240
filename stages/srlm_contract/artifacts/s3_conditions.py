"""Conditions of a put, and what servers make of them. Functions of values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from srlm_contract.spec.storage import IfMatch


@dataclass(frozen=True)
class Condition:
    """That an object still has an ETag, or that there is none."""

    etag: str | None
    """None: there must be no object."""

    @classmethod
    def of(cls, if_none_match: bool, if_match: str | None) -> Self | None:
        """None for a put without a condition."""
        return None if not if_none_match and if_match is None else cls(None if if_none_match else if_match)

    def headers(self, form: IfMatch | None = None) -> dict[str, str]:
        """Arguments of boto3's put_object. form: how the server takes ETags; in quotes when not known."""
        if self.etag is None:
            return {"IfNoneMatch": "*"}
        bare = _bare(self.etag)
        return {"IfMatch": bare if form == "Unquoted" else f'"{bare}"'}

    def left_to_server(self, conditional: bool | None, if_match: IfMatch | None) -> bool | None:
        """Whether the server decides this condition; None when that is not known.

        conditional: whether it decides If-None-Match. if_match: how it takes the ETag of If-Match.
        """
        if conditional is False or (self.etag is not None and if_match == "Unsupported"):
            return False
        return True if conditional and (self.etag is None or if_match is not None) else None


def same_etag(one: str, other: str) -> bool:
    """Servers quote them in some answers and leave the quotes out in others."""
    return _bare(one) == _bare(other)


def _bare(etag: str) -> str:
    return etag.removeprefix("W/").strip('"')
