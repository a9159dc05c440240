"""Which strategy goes with which resource."""

from __future__ import annotations

from srlm_local.resources import ResourceType
from srlm_local.strategy import Strategy

_PLAIN = Strategy()


def strategy_for(rt: ResourceType) -> Strategy:
    """The hooks of a resource; those without any of their own are plain storage."""
    return _strategies().get(rt.storage, _custom() if rt.custom else _PLAIN)


_known: dict[str, Strategy] = {}
_for_custom: list[Strategy] = []


def _strategies() -> dict[str, Strategy]:
    return _known


def _custom() -> Strategy:
    return _PLAIN
