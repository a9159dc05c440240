"""Tokenizers and chat templates: the one way from messages to the token ids a model sees.

Training, generation and judging all go through here, so they agree on the four things that templates leave open:
what a text spells is never a token (special_tokens.py), a document begins with exactly one BOS where the tokenizer
begins it so, a system prompt reaches models whose template has no system role, and thoughts (thoughts.py) are found.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from srlm_contract.errors import BadInput

from .cpu_limit import cpu_limit
from .special_tokens import SpecialTokens, unused_mark
from .thoughts import Thought, opened_in, thoughts_in

Message = Mapping[str, str]

#: Arguments of a rendering that say what is rendered and how: not for users to set.
RESERVED_ARGUMENTS = frozenset({
    "add_generation_prompt", "chat_template", "continue_final_message", "conversation", "conversations", "documents",
    "max_length", "messages", "padding", "return_assistant_tokens_mask", "return_dict", "return_tensors", "tokenize",
    "tokenizer_kwargs", "tools", "truncation",
})  # fmt: skip


#: CPU time that a template may take for one conversation; a long one takes a thousandth of it.
RENDERING_SECONDS = 5


class TemplateLoops(BadInput):
    """A chat template that does not come to its end."""


@dataclass(frozen=True)
class Rendered:
    """The text of a conversation; where one of its texts spells a special token, `mark` stands inside."""

    text: str
    mark: str
    opened: Thought | None = None
    """The thought it ends in: what the model writes next is none of its answer."""

    def closed(self) -> Rendered:
        """With an opened thought ended, for answers that are not to begin with one."""
        if self.opened is None:
            return self
        return Rendered(self.text + self.opened.closed_after(self.text), self.mark)


@dataclass(frozen=True)
class Traits:
    """What a tokenizer and its template do with conversations."""

    special: SpecialTokens
    beginning: tuple[int, ...]
    """Ids that the tokenizer puts before every document: BOS, or nothing."""
    system_role: bool
    """Whether a system turn reaches the text."""
    parts: bool
    """Whether contents are lists of parts (`[{"type": "text", "text": ...}]`), as for models that also see images."""
    thoughts: tuple[Thought, ...]

    @property
    def hidden_thoughts(self) -> bool:
        """Whether marks of thoughts may be special tokens, which engines leave out of their texts."""
        return any(mark in self.special.called for thought in self.thoughts for mark in thought.tokens)


@dataclass(frozen=True)
class Prompt:
    """What an engine is given."""

    ids: tuple[int, ...]
    opened: Thought | None = None
    """The thought it ends in."""


_TRAITS: WeakKeyDictionary[Any, tuple[str, Traits]] = WeakKeyDictionary()


def load_tokenizer(path: Path, template: str | None = None, arguments: Mapping[str, Any] | None = None) -> Any:
    """The tokenizer of a model folder, with `template` as its chat template if given.

    arguments: what every rendering of the template is given besides the messages, such as `enable_thinking`.
    Raises BadInput ModelNotUsable when there is none, or when it has no chat template and none is given, and
    TemplateNotUsable for arguments that are not for the user to set.
    """
    from transformers import AutoTokenizer

    try:
        # Mistral's own format has no template, and not every image has the library for it.
        tokenizer = AutoTokenizer.from_pretrained(str(path), trust_remote_code=False, mistral_format=False)
    except (OSError, ValueError, KeyError) as error:
        own_code = "it needs code from its repository, which is not run; save it as tokenizer.json"
        why = own_code if "trust_remote_code" in str(error) else error
        raise BadInput("ModelNotUsable", f"{path.name}: the tokenizer cannot be read: {why}") from error
    if template is not None:
        tokenizer.chat_template = template
    if not tokenizer.chat_template:
        tokenizer.chat_template = _processor_template(path)
    if not tokenizer.chat_template:
        raise BadInput(
            "ModelNotUsable",
            f"{path.name} has no chat template; name one in baseModel.chatTemplateRef (built in: chatml)",
        )
    if arguments:
        taken = sorted(RESERVED_ARGUMENTS & set(arguments))
        if taken:
            raise BadInput(
                "TemplateNotUsable",
                f"baseModel.chatTemplateKwargs cannot set {', '.join(taken)}: the stages do; remove it",
            )
        tokenizer.apply_chat_template = partial(tokenizer.apply_chat_template, **arguments)
    return tokenizer


def _processor_template(path: Path) -> str | None:
    """The template that models which also see images keep beside their tokenizer."""
    try:
        found = json.loads((path / "chat_template.json").read_bytes()).get("chat_template")
    except (OSError, ValueError, AttributeError):
        return None
    return found if isinstance(found, str) else None


def traits_of(tokenizer: Any) -> Traits:
    """What the tokenizer does with conversations, found out once by trying."""
    template = json.dumps(tokenizer.chat_template)
    known = _TRAITS.get(tokenizer)
    if known is None or known[0] != template:
        known = _TRAITS[tokenizer] = template, _tried(tokenizer)
    return known[1]


def _tried(tokenizer: Any) -> Traits:
    system, user, answer = "A system prompt for trial.", "A question for trial?", "An answer for trial."
    turns = messages(user)
    plain = _shows(tokenizer, turns, [user])
    parts = not plain and _shows(tokenizer, _in_parts(turns), [user])
    told = messages(user, system)
    exchange = [*told, {"role": "assistant", "content": answer}]
    role = all(
        _shows(tokenizer, _in_parts(some) if parts else some, [system, user], add_generation_prompt=some is told)
        for some in (told, exchange)
    )
    role = role and not _taken_for_another(tokenizer, _in_parts(told) if parts else told)
    template = tokenizer.chat_template
    source = template if isinstance(template, str) else "\n".join((template or {}).values())
    special = SpecialTokens.of(tokenizer, source)
    tokens = [token.content for token in tokenizer.added_tokens_decoder.values()]
    # A template that cannot even render a question is told so when it is used.
    return Traits(special, _beginning(tokenizer), role or not (plain or parts), parts, thoughts_in(source, tokens))


def _written(tokenizer: Any, turns: Sequence[Any], add_generation_prompt: bool) -> str:
    """What the template makes of the turns. Raises TemplateLoops, and whatever the template raises."""

    def loops() -> TemplateLoops:
        template = " ".join(str(tokenizer.chat_template).split())
        return TemplateLoops(
            "TemplateNotUsable",
            f"the chat template of {Path(tokenizer.name_or_path).name} does not end: it was stopped after "
            f"{RENDERING_SECONDS} s of computing. Name another one in baseModel.chatTemplateRef. It begins with "
            f"{template[:200]!r}",
        )

    with cpu_limit(RENDERING_SECONDS, loops):
        return str(
            tokenizer.apply_chat_template(list(turns), tokenize=False, add_generation_prompt=add_generation_prompt)
        )


def _shows(tokenizer: Any, turns: Sequence[Any], texts: Sequence[str], add_generation_prompt: bool = True) -> bool:
    try:
        rendered = _written(tokenizer, turns, add_generation_prompt)
    except TemplateLoops:
        raise
    except Exception:  # templates are programs: they raise whatever they like
        return False
    return all(text in rendered for text in texts)


def _taken_for_another(tokenizer: Any, told: Sequence[Any]) -> bool:
    """Whether a template knows no system turn and writes it as another role's: its `else` is the user's, or even the
    assistant's, who would say the system prompt."""
    system, *rest = told

    def written(role: str) -> str | None:
        try:
            return _written(tokenizer, [{**system, "role": role}, *rest], False)
        except TemplateLoops:
            raise
        except Exception:  # as in _shows
            return None

    return written("system") in (written("assistant"), written("user"))


def _in_parts(turns: Sequence[Message]) -> list[dict[str, Any]]:
    return [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in turns]


def _beginning(tokenizer: Any) -> tuple[int, ...]:
    """What comes before the ids of a text when the tokenizer adds its special tokens; an end it adds is left out."""
    plain = tokenizer.encode("a", add_special_tokens=False)
    whole = tokenizer.encode("a", add_special_tokens=True)
    for start in range(len(whole) - len(plain) + 1):
        if plain and whole[start : start + len(plain)] == plain:
            return tuple(whole[:start])
    return ()


def messages(user: str, system: str = "") -> list[Message]:
    """One user turn, after a system turn if there is a system prompt."""
    turn: list[Message] = [{"role": "user", "content": user}]
    return [{"role": "system", "content": system}, *turn] if system else turn


def merges_system_prompt(tokenizer: Any) -> bool:
    """Whether a system prompt goes into the first user turn, because the template refuses or drops a system turn."""
    return not traits_of(tokenizer).system_role


def render_chat(tokenizer: Any, turns: Sequence[Message]) -> Rendered:
    """A conversation up to the assistant's turn. Raises BadInput TemplateNotUsable."""
    rendered = _render(tokenizer, turns, add_generation_prompt=True)
    asked = _render(tokenizer, turns, add_generation_prompt=False).text
    added = rendered.text[len(asked) :] if rendered.text.startswith(asked) else ""
    return Rendered(rendered.text, rendered.mark, opened_in(added, traits_of(tokenizer).thoughts))


def render_exchange(tokenizer: Any, turns: Sequence[Message], answer: str) -> Rendered:
    """A conversation with the assistant's answer at its end. Raises BadInput TemplateNotUsable."""
    return _render(tokenizer, [*turns, {"role": "assistant", "content": answer}], add_generation_prompt=False)


def _render(tokenizer: Any, turns: Sequence[Message], *, add_generation_prompt: bool) -> Rendered:
    traits = traits_of(tokenizer)
    turns = _without_system_turn(turns) if not traits.system_role else list(turns)
    mark = unused_mark(turn["content"] for turn in turns)

    def text(shown: Sequence[Message]) -> str:
        given = _in_parts(shown) if traits.parts else list(shown)
        try:
            return _written(tokenizer, given, add_generation_prompt)
        except TemplateLoops:
            raise
        except Exception as error:  # templates are programs: they raise whatever they like
            raise BadInput(
                "TemplateNotUsable", f"the chat template cannot render this conversation: {error}"
            ) from error

    if not any(traits.special.spelled_in(turn["content"]) for turn in turns):
        return Rendered(text(turns), mark)
    # Templates that look for thoughts in texts must see them as they are: in the assistant's, at worst in all.
    plain, tries = text(turns), []
    for seen_in in ((), ("assistant",), [turn["role"] for turn in turns]):
        tries.append(text([_marked(traits.special, turn, mark, turn["role"] in seen_in) for turn in turns]))
        if tries[-1].replace(mark, "") == plain:
            return Rendered(tries[-1], mark)
    return Rendered(tries[0], mark)


def _marked(special: SpecialTokens, turn: Message, mark: str, but_thoughts: bool) -> Message:
    return {**turn, "content": special.marked(turn["content"], mark, but_thoughts=but_thoughts)}


def _without_system_turn(turns: Sequence[Message]) -> list[Message]:
    """The system prompt at the head of the first user turn."""
    if len(turns) < 2 or turns[0]["role"] != "system":
        return list(turns)
    system, first, *others = turns
    return [{**first, "content": f"{system['content']}\n\n{first['content']}"}, *others]


def encode_rendered(tokenizer: Any, rendered: Rendered, prefill: str = "") -> tuple[int, ...]:
    """Ids of a conversation whose last turn begins with `prefill`, as a document: with the tokenizer's beginning."""
    traits = traits_of(tokenizer)
    ids, beginning = traits.special.encode(rendered.text + prefill, rendered.mark), traits.beginning
    if not beginning:
        return ids
    while ids[: 2 * len(beginning)] == beginning * 2:  # some templates write a BOS to a BOS
        ids = ids[len(beginning) :]
    ends_turns = tokenizer.eos_token_id in beginning  # then it tells nothing further on
    written = ids[: len(beginning)] == beginning or (not ends_turns and beginning[0] in ids)
    return ids if written else beginning + ids


def encode_chat(tokenizer: Any, turns: Sequence[Message]) -> tuple[int, ...]:
    """Ids of a conversation up to the assistant's turn."""
    return encode_rendered(tokenizer, render_chat(tokenizer, turns))


def chat_prompt(tokenizer: Any, turns: Sequence[Message], *, thinking: bool = True) -> Prompt:
    """A conversation up to the assistant's turn; `thinking=False` ends a thought that the template has opened."""
    rendered = render_chat(tokenizer, turns)
    rendered = rendered if thinking else rendered.closed()
    return Prompt(encode_rendered(tokenizer, rendered), rendered.opened)


def encode_text(tokenizer: Any, text: str, special: bool = False) -> tuple[int, ...]:
    """Ids of plain text, in which nothing is a special token; `special` adds what begins a document, never its end."""
    traits = traits_of(tokenizer)
    mark = unused_mark([text])
    ids = traits.special.encode(traits.special.marked(text, mark), mark)
    return traits.beginning + ids if special else ids


def encode_inside(tokenizer: Any, rendered: Rendered) -> tuple[int, ...]:
    """Ids of a piece of a rendered conversation that begins no document."""
    return traits_of(tokenizer).special.encode(rendered.text, rendered.mark)
