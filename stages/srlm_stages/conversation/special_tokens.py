"""Special tokens come from the template alone: spelled in a text, such as `<|im_end|>`, they stay plain text.

An answer that could close its own turn could write its own verdict into the judge's prompt. Escaping would change
what the model reads, and encoding text and template piece by piece would change tokens at every border. So the places
where a text spells a special token are marked before the template is rendered, and the whole rendering is encoded in
one go by a twin of the tokenizer in which special tokens have another, secret spelling. The template's get that
spelling; the texts' mean nothing to the twin.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from .thoughts import KNOWN_THOUGHTS

#: Characters that Unicode keeps out of texts, one of which marks the places.
_MARKS = tuple(chr(code) for code in range(0xFDD0, 0xFDE0))
#: What control tokens look like that a tokenizer forgot to call special.
_CONTROL = re.compile(r"<[|｜].*[|｜]?>|<.*[|｜]>|\[/?[A-Z_]+\]|</?s>|<(?:bos|eos|pad|unk)>|</?(?:start|end)_of_\w+>")

#: Tokens of single bytes, which tokenizers write by these names where they have no other.
_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")


def unused_mark(texts: Iterable[str]) -> str:
    """A character that is in none of the texts."""
    seen = set().union(*texts)
    return next((mark for mark in _MARKS if mark not in seen), _MARKS[0])


@dataclass
class SpecialTokens:
    """The tokens of one tokenizer that a text must not be able to write."""

    tokenizer: Any
    ids: Mapping[str, int]
    """Id by spelling."""
    thoughts: frozenset[str] = frozenset()
    """Those that open or close a thought."""
    called: frozenset[str] = frozenset()
    """Those the tokenizer calls special: engines leave them out of their texts."""
    _twin: Any = field(default=None, init=False)
    _secret: str = field(default_factory=lambda: secrets.token_hex(8), init=False)

    @classmethod
    def of(cls, tokenizer: Any, template: str) -> SpecialTokens:
        """Every token called special, spelled in the template, or shaped like a control token or a thought's mark.

        Tokens of ordinary text (blanks, HTML tags) are not among them.
        """
        thoughts = {mark for thought in KNOWN_THOUGHTS for mark in (thought.opening, thought.closing)}
        called = set(tokenizer.all_special_tokens)
        ids = {
            token.content: number
            for number, token in tokenizer.added_tokens_decoder.items()
            if token.content.strip()
            and not _BYTE.fullmatch(token.content)
            and (
                token.special
                or token.content in called
                or token.content in template
                or token.content in thoughts
                or _CONTROL.fullmatch(token.content)
            )
        }
        called |= {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
        return cls(tokenizer, ids, frozenset(thoughts & set(ids)), frozenset(called))

    def spelled_in(self, text: str) -> bool:
        """Whether a text spells one."""
        return self._pattern.search(text) is not None

    def marked(self, text: str, mark: str, *, but_thoughts: bool = False) -> str:
        """`text` with `mark` inside every spelling of a token."""
        pattern = self._pattern_but_thoughts if but_thoughts else self._pattern
        while pattern.search(text):  # breaking one spelling may uncover another
            text = pattern.sub(lambda found: found[0][0] + mark + found[0][1:], text)
        return text

    def left_out(self, text: str) -> str:
        """`text` without the tokens: what engines answer."""
        return self._pattern.sub("", text)

    def encode(self, text: str, mark: str) -> tuple[int, ...]:
        """Ids of a text in which spellings that are no tokens are marked."""
        if mark not in text:
            return tuple(self.tokenizer.encode(text, add_special_tokens=False))
        if getattr(self.tokenizer, "backend_tokenizer", None) is None:
            return tuple(self._in_pieces(text, mark))
        secretly = self._pattern.sub(lambda found: self._alias(found[0]), text)
        return tuple(self._backend().encode(secretly.replace(mark, ""), add_special_tokens=False).ids)

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return _any_of(self.ids)

    @cached_property
    def _pattern_but_thoughts(self) -> re.Pattern[str]:
        return _any_of(self.ids.keys() - self.thoughts)

    def _in_pieces(self, text: str, mark: str) -> Iterable[int]:
        """For tokenizers that are not made of a backend to copy."""
        for piece in text.split(mark):
            yield from self.tokenizer.encode(piece, add_special_tokens=False)

    def _alias(self, name: str) -> str:
        return f"\ufdee{self._secret}.{self.ids[name]}\ufdef"

    def _backend(self) -> Any:
        """The twin, made when first needed."""
        if self._twin is None:
            from tokenizers import Tokenizer

            described = json.loads(self.tokenizer.backend_tokenizer.to_str())
            self._twin = Tokenizer.from_str(json.dumps(renamed(described, {n: self._alias(n) for n in self.ids})))
        return self._twin


def _any_of(names: Iterable[str]) -> re.Pattern[str]:
    """Longest first, as tokenizers match. A token of one character cannot be broken in two: it stays."""
    ordered = sorted((name for name in names if len(name) > 1), key=lambda name: (-len(name), name))
    return re.compile("|".join(map(re.escape, ordered)) or r"(?!)")


def renamed(described: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """tokenizer.json with other spellings of some tokens, and nothing that adds, cuts or pads."""
    described |= {"post_processor": None, "truncation": None, "padding": None}
    for token in described["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    model = described["model"]
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        model["vocab"] = {names.get(piece, piece): number for piece, number in vocabulary.items()}
    else:
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in vocabulary]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    if model.get("merges"):
        model["merges"] = [merge for merge in model["merges"] if not _makes(merge, names)]
    return described


def _makes(merge: str | list[str], names: Mapping[str, str]) -> bool:
    """Whether a merge uses or makes one of the names: it would make a token out of its plain spelling."""
    left, right = merge if isinstance(merge, list) else merge.split(" ", 1)
    return left in names or right in names or left + right in names
