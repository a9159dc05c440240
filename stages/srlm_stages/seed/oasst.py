"""Open Assistant's two formats: message trees, and flat messages that name their parents."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .files import Located, Row
from .languages import same_language
from .rows import WrongFormat
from .values import absent, flag, identity

Message = tuple[str, Row]
"""(where it stands, the message)."""


def trees(rows: Iterator[Located]) -> Iterator[tuple[str, Row, list[Message]]]:
    """(where, root message, its replies) of trees, one a row: `{"prompt": {"text": ..., "replies": [...]}}`."""
    for where, tree in rows:
        root = tree.get("prompt")
        if "prompt" in tree and absent(root):
            root = {"text": None}
        if not isinstance(root, dict) or "text" not in root:
            raise WrongFormat(f"{where} has no prompt.text: not an Open Assistant tree")
        replies = root.get("replies")
        listed = replies if isinstance(replies, (list, tuple)) else ()
        yield where, root, [(where, reply) for reply in listed if isinstance(reply, dict)]


def messages(rows: Iterator[Located]) -> Iterator[tuple[str, Row, list[Message]]]:
    """As `trees`, from messages in any order: `{"message_id": ..., "parent_id": ..., "text": ..., "rank": ...}`."""
    roots: dict[str, Message] = {}
    replies: dict[str, list[Message]] = {}
    for where, message in rows:
        name = identity(message.get("message_id"))
        if name is None or "text" not in message:
            raise WrongFormat(f"{where} has no message_id and text: not an Open Assistant message")
        parent = identity(message.get("parent_id"))
        if parent is None:
            roots[name] = where, message
        else:
            replies.setdefault(parent, []).append((where, message))
    if not roots:
        raise WrongFormat("has no message without parent_id, which would be a prompt")
    for name, (where, root) in roots.items():
        yield where, root, replies.get(name, [])


def unwanted(message: Row, language: str) -> str | None:
    """Why a message is left out: taken back, spam by its reviewers, in another language or a model's; or None.

    What a message does not tell (null, NaN, no such field) speaks for it.
    """
    spoken: Any = message.get("lang")
    if flag(message.get("deleted")):
        return "deleted"
    if flag(message.get("review_result")) is False:
        return "spam"
    if identity(spoken) is not None and not same_language(str(spoken), language):
        return "otherLanguage"
    return "synthetic" if flag(message.get("synthetic")) else None
