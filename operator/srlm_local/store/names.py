"""The alphabets and lengths of names, labels and keys: what is wrong with one, nothing if the list is empty."""

from __future__ import annotations

import re

_QUALIFIED = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_DNS_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_DNS_LABEL}(\.{_DNS_LABEL})*"


def _matches(pattern: str, text: str, limit: int, what: str) -> list[str]:
    found = [] if len(text.encode()) <= limit else [f"must be no more than {limit} characters"]
    return found if re.fullmatch(pattern, text) else [*found, f"{what} must match '{pattern}'"]


def subdomain(name: str) -> list[str]:
    return _matches(_SUBDOMAIN, name, 253, "a lowercase RFC 1123 subdomain")


def dns_label(name: str) -> list[str]:
    return _matches(_DNS_LABEL, name, 63, "a lowercase RFC 1123 label")


def dns_1035(name: str) -> list[str]:
    return _matches("[a-z]([-a-z0-9]*[a-z0-9])?", name, 63, "a DNS-1035 label")


def path_segment(name: str) -> list[str]:
    """Names of roles and the like: anything that can be a part of a URL's path."""
    return [f"may not be '{name}'"] if name in (".", "..") else [f"may not contain '{c}'" for c in "/%" if c in name]


def qualified_name(key: str) -> list[str]:
    """Keys of labels and annotations, names of finalizers: an optional DNS prefix and a name."""
    *prefix, name = key.split("/")
    if len(prefix) > 1:
        return ["a qualified name has at most one '/', after a DNS subdomain (e.g. 'example.com/MyName')"]
    found = [f"prefix part {message}" for message in subdomain(prefix[0])] if prefix else []
    return found + [f"name part {message}" for message in _matches(_QUALIFIED, name, 63, "it")]


def label_value(value: str) -> list[str]:
    return _matches(f"({_QUALIFIED})?", value, 63, "a valid label")
