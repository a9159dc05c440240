"""The alphabets and lengths of names, labels and keys, with the messages that go with them."""

from __future__ import annotations

import re

_QUALIFIED = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_LABEL_VALUE = f"({_QUALIFIED})?"
_DNS_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_DNS_1035 = "[a-z]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_DNS_LABEL}(\.{_DNS_LABEL})*"

SUBDOMAIN_MESSAGE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
    f"and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '{_SUBDOMAIN}')"
)
DNS_LABEL_MESSAGE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
    f"with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '{_DNS_LABEL}')"
)
DNS_1035_MESSAGE = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    "and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is "
    f"'{_DNS_1035}')"
)
_QUALIFIED_MESSAGE = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character "
    f"(e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '{_QUALIFIED}')"
)
_LABEL_VALUE_MESSAGE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    f"'{_LABEL_VALUE}')"
)


def _bytes(text: str) -> int:
    return len(text.encode())


def subdomain(name: str) -> list[str]:
    """What is wrong with a DNS subdomain, as all `is...` functions here: nothing if the list is empty."""
    found = [] if _bytes(name) <= 253 else ["must be no more than 253 characters"]
    return found if re.fullmatch(_SUBDOMAIN, name) else [*found, SUBDOMAIN_MESSAGE]


def dns_label(name: str) -> list[str]:
    found = [] if _bytes(name) <= 63 else ["must be no more than 63 characters"]
    return found if re.fullmatch(_DNS_LABEL, name) else [*found, DNS_LABEL_MESSAGE]


def dns_1035(name: str) -> list[str]:
    found = [] if _bytes(name) <= 63 else ["must be no more than 63 characters"]
    return found if re.fullmatch(_DNS_1035, name) else [*found, DNS_1035_MESSAGE]


def path_segment(name: str) -> list[str]:
    """Names of roles and the like: anything that can be a part of a URL's path."""
    if name in (".", ".."):
        return [f"may not be '{name}'"]
    return [f"may not contain '{c}'" for c in "/%" if c in name]


def qualified_name(key: str) -> list[str]:
    """Keys of labels and annotations, names of finalizers: an optional DNS prefix and a name."""
    *prefix, name = key.split("/")
    if len(prefix) > 1:
        return [
            f"a qualified name {_QUALIFIED_MESSAGE} with an optional DNS subdomain prefix and '/' "
            "(e.g. 'example.com/MyName')"
        ]
    found = []
    if prefix:
        if not prefix[0]:
            found.append("prefix part must be non-empty")
        else:
            found += [f"prefix part {message}" for message in subdomain(prefix[0])]
    if not name:
        found.append("name part must be non-empty")
    elif _bytes(name) > 63:
        found.append("name part must be no more than 63 bytes")
    if not re.fullmatch(_QUALIFIED, name):
        found.append(f"name part {_QUALIFIED_MESSAGE}")
    return found


def label_value(value: str) -> list[str]:
    found = [] if _bytes(value) <= 63 else ["must be no more than 63 bytes"]
    return found if re.fullmatch(_LABEL_VALUE, value) else [*found, _LABEL_VALUE_MESSAGE]


def namespace(name: str) -> list[str]:
    """As a DNS label, with a message of its own for dots."""
    return ["must not contain dots"] if "." in name else dns_label(name)


RULES = {
    "namespace": namespace,
    "subdomain": subdomain,
    "dns_label": dns_label,
    "dns_1035": dns_1035,
    "path_segment": path_segment,
}
