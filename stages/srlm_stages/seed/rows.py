"""Row schemas of seed data but Open Assistant's: one row → a first-turn prompt with its answers.

Each is a pure function. It raises WrongFormat for a row that is not of its format, and Dropped for a row that is but
cannot be used. System turns are left out: runs set their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .files import Row
from .values import Dropped, absent, content_text, flag, identity, listed, number, ranks_by_score

Turn = tuple[str, Any]
"""(role: user, assistant or another, content as the file gives it)."""

ROLES = {
    "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "model": "assistant", "bot": "assistant", "chatgpt": "assistant",
    "bing": "assistant", "bard": "assistant", "claude": "assistant",
    "system": "system", "developer": "system",
}  # fmt: skip
#: What texts of whole dialogues (hh-rlhf) put before each turn.
HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
#: Names of the scores of chosen and rejected answers in the binarized editions of UltraFeedback.
BINARIZED_SCORES = (
    ("score_chosen", "score_rejected"), ("chosen-rating", "rejected-rating"),
    ("chosen_avg_rating", "rejected_avg_rating"), ("chosen_score", "rejected_score"),
)  # fmt: skip


class WrongFormat(Exception):
    """A row is not of the format; the message says what it lacks."""


@dataclass(frozen=True)
class Example:
    """Contents as the file gives them; ranks 0 for the best, None for no rank."""

    prompt: Any
    answers: tuple[tuple[Any, Any], ...]
    """(content, rank) of each answer."""


def chat(row: Row) -> Example:
    """Messages: the first user turn and the answer after it, which has rank 0. Or a prompt with its answers, the best
    first; answers that are objects may have a `rank`, or a `score` to rank them by. Or a prompt with one completion.

    >>> chat({"prompt": "Why?", "answers": ["Because.", "No idea."]}).answers
    (('Because.', 0), ('No idea.', 1))
    """
    messages, answers = listed(row.get("messages")), listed(row.get("answers"))
    if messages is not None:
        return first_exchange(turns(messages))
    if "prompt" in row and answers is not None:
        return Example(asked(row["prompt"]), _ranked_answers(answers))
    if "prompt" in row and not absent(row.get("answers")):
        return Example(asked(row["prompt"]), ((reply(row["answers"]), 0),))
    if "prompt" in row and not absent(row.get("completion")):
        return Example(asked(row["prompt"]), ((reply(row["completion"]), 0),))
    if not absent(row.get("messages")):
        raise WrongFormat("messages that are no list")
    if "messages" in row or ("prompt" in row and ("answers" in row or "completion" in row)):
        return Example(row.get("prompt"), ())  # null where the others have a text
    raise WrongFormat("neither messages (user, assistant, ...) nor prompt with answers or completion")


def preferences(row: Row) -> Example:
    """TRL's preference rows: chosen has rank 0, rejected rank 1. Texts or lists of messages; the prompt may be left
    out where chosen and rejected begin with it.

    >>> preferences({"prompt": "Why?", "chosen": "Because.", "rejected": "No idea."}).answers
    (('Because.', 0), ('No idea.', 1))
    """
    chosen = _first(row, "chosen", "chosen_response")
    rejected = _first(row, "rejected", "rejected_response")
    if absent(chosen) or absent(rejected):
        if any(name in row for name in ("chosen", "chosen_response")):
            raise Dropped("emptyAnswer")
        raise WrongFormat("no chosen and rejected")
    prompt = _first(row, "prompt", "instruction", "question", "conversations")
    if absent(prompt):
        prompt, chosen, rejected = _implicit(chosen, rejected)
    elif absent(row.get("prompt")) and not absent(row.get("instruction")):
        prompt, chosen, rejected = _instruction(row), reply(chosen), reply(rejected)
    else:
        prompt, chosen, rejected = asked(prompt), reply(chosen), reply(rejected)
    return Example(prompt, ((chosen, 0), (rejected, 1)))


def ultra_feedback(row: Row) -> Example:
    """UltraFeedback as published (`instruction` and `completions`) or binarized (`chosen` and `rejected`): answers are
    ranked by their scores, equal scores share a rank. `fine-grained_score` is preferred to `overall_score`, which is
    wrong for some answers of the published file; where both are missing the mean of the aspects' ratings counts.

    >>> ultra_feedback({"instruction": "Why?", "completions": [
    ...     {"response": "No idea.", "overall_score": 2.0}, {"response": "Because.", "overall_score": 7.5}]}).answers
    (('No idea.', 1), ('Because.', 0))
    """
    completions = listed(row.get("completions"))
    if completions is None:
        example = preferences(row)
        for names in BINARIZED_SCORES:
            scores = [number(row.get(name)) for name in names]
            if None not in scores:
                ranks = ranks_by_score(scores)
                return Example(example.prompt, tuple((a, r) for (a, _), r in zip(example.answers, ranks, strict=True)))
        return example
    prompt = _first(row, "instruction", "prompt")
    if "instruction" not in row and "prompt" not in row:
        raise WrongFormat("completions, but no instruction")
    answers = [answer for answer in completions if isinstance(answer, dict)]
    ranks = ranks_by_score([_feedback_score(answer, answers) for answer in answers])
    texts = [_first(answer, "response", "text", "content") for answer in answers]
    return Example(asked(prompt), tuple(zip(texts, ranks, strict=True)))


def share_gpt(row: Row) -> Example:
    """ShareGPT: turns with `from` and `value`; the first human turn and the answer after it, which has rank 0.

    >>> share_gpt({"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Because."}]})
    Example(prompt='Why?', answers=(('Because.', 0),))
    """
    conversation = _first(row, "conversations", "conversation", "items")
    if absent(conversation) and any(name in row for name in ("conversations", "conversation", "items")):
        raise Dropped("emptyPrompt")
    found = listed(conversation)
    if found is None:
        raise WrongFormat("no conversations with from and value")
    return first_exchange(turns(found))


def alpaca(row: Row) -> Example:
    """Alpaca: instruction, a blank line and input where there is one, make the prompt; output has rank 0. An output
    that is a list holds several, the best first.

    >>> alpaca({"instruction": "Add.", "input": "1 and 2", "output": "3"})
    Example(prompt='Add.\\n\\n1 and 2', answers=(('3', 0),))
    """
    if "instruction" not in row or "output" not in row:
        raise WrongFormat("no instruction and output")
    if row.get("history"):
        raise Dropped("notFirstTurnPrompt")
    output = row["output"]
    several = isinstance(output, (list, tuple)) and all(isinstance(text, str) for text in output)
    return Example(_instruction(row), _ranked_answers(output) if several else ((output, 0),))


def _instruction(row: Row) -> Any:
    """Instruction, a blank line and input where there is one. Raises Dropped."""
    more = row.get("input")
    if identity(more) is None:
        return asked(row["instruction"])
    try:
        return f"{content_text(asked(row['instruction']))}\n\n{content_text(more)}"
    except Dropped as dropped:
        if dropped.cause.endswith("Prompt"):
            raise
        raise Dropped(f"{dropped.cause}Prompt") from dropped


#: Format of `seedData.format` → how to read one of its rows.
SCHEMAS: dict[str, Callable[[Row], Example]] = {
    "Chat": chat, "Preferences": preferences, "UltraFeedback": ultra_feedback, "ShareGpt": share_gpt, "Alpaca": alpaca,
}  # fmt: skip


#: Fields of what belongs to a prompt and is no text.
MEDIA = ("image", "images", "video", "videos", "audio", "audios")


def check_wanted(row: Row) -> None:
    """Raises Dropped for a row whose question is about an image or the like, and for one whose answer is marked as a
    bad one: `label` of TRL's unpaired preferences, `kto_tag` of others."""
    if any(row.get(name) and not absent(row[name]) for name in MEDIA):
        raise Dropped("notTextPrompt")
    label = row.get("label")
    if row.get("kto_tag") is False or (label is False if "completion" not in row else flag(label) is False):
        raise Dropped("rejectedAnswer")


def format_of(row: Row) -> str | None:
    """The format a row looks like, by the names of its fields."""
    has = {name for name, value in row.items() if not absent(value)}
    tree = isinstance(row.get("prompt"), dict) and "text" in row["prompt"]
    if tree and not has & {"answers", "completion", "chosen"}:
        return "OasstTrees"
    if {"message_id", "text"} <= has:
        return "OasstMessages"
    if "completions" in has or has & {name for pair in BINARIZED_SCORES for name in pair}:
        return "UltraFeedback"
    if {"chosen", "rejected"} <= has:
        return "Preferences"
    if has & {"conversations", "conversation"}:
        return "ShareGpt"
    if "messages" in has or ("prompt" in has and has & {"answers", "completion"}):
        return "Chat"
    return "Alpaca" if {"instruction", "output"} <= has else None


def turns(messages: Sequence[Any]) -> list[Turn]:
    """A conversation without system turns, from messages with role and content, or from and value."""
    found = []
    for message in messages:
        if absent(message):
            continue
        if not _is_message(message):
            raise WrongFormat("a message without role and content (or from and value)")
        role = str(_first(message, "role", "from")).strip().lower()
        role = ROLES.get(role, role)
        if role == "assistant" and _first(message, "tool_calls", "function_call"):
            role = "tool call"  # not said to the user
        if role != "system":
            found.append((role, _first(message, "content", "value", "text")))
    return found


def first_exchange(conversation: Sequence[Turn]) -> Example:
    """The first turn, if it is a user's, with the assistant's answer if there is one."""
    if not conversation:
        raise Dropped("emptyPrompt")
    if conversation[0][0] != "user":
        raise Dropped("notFirstTurnPrompt")
    answered = len(conversation) > 1 and conversation[1][0] == "assistant"
    return Example(conversation[0][1], ((conversation[1][1], 0),) if answered else ())


def asked(prompt: Any) -> Any:
    """Content of a prompt: a text, or messages of which one user turn is left without the system's.

    Raises Dropped `notFirstTurnPrompt` where the answers are to a later turn.
    """
    conversation = _conversation(prompt)
    if conversation is None:
        return prompt
    if conversation and conversation[-1][0] == "assistant" and not str(conversation[-1][1] or "").strip():
        conversation.pop()  # the beginning of the answer in a text of a whole dialogue
    if len(conversation) != 1 or conversation[0][0] != "user":
        raise Dropped("notFirstTurnPrompt" if conversation else "emptyPrompt")
    return conversation[0][1]


def reply(answer: Any) -> Any:
    """Content of an answer: a text, a message, or a conversation whose first answer it is."""
    conversation = _conversation(answer)
    if not conversation:
        return answer if conversation is None else None
    spoken = [content for role, content in conversation[:2] if role == "assistant"]
    return spoken[0] if spoken else None


def _implicit(chosen: Any, rejected: Any) -> tuple[Any, Any, Any]:
    """(prompt, chosen, rejected) of a pair that begins with its prompt."""
    first, second = _conversation(chosen), _conversation(rejected)
    if first is not None and second is not None:
        better, worse = first_exchange(first), first_exchange(second)
        if better.prompt != worse.prompt or len(first) < 2 or len(second) < 2 or first[1] == second[1]:
            raise Dropped("notFirstTurnPrompt")  # what was compared is a later turn
        return better.prompt, reply(chosen), reply(rejected)
    if not isinstance(chosen, str) or not isinstance(rejected, str):
        raise WrongFormat("chosen and rejected of different kinds, and no prompt")
    same = next((i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), None)
    end = min(len(chosen), len(rejected)) if same is None else same
    while end and not (chosen[end - 1].isspace() or chosen[end : end + 1].isspace() or end == len(chosen)):
        end -= 1  # a prompt ends between words
    return chosen[:end], chosen[end:], rejected[end:]


def _conversation(value: Any) -> list[Turn] | None:
    """The turns of messages or of the text of a dialogue; None for a text or the parts of one."""
    if isinstance(value, str) and value.startswith((HUMAN, HUMAN.lstrip())):
        return _dialogue(value)
    if _is_message(value):
        return turns([value])
    found = listed(value)
    return turns(found) if found and all(map(_is_message, found)) else None


def _dialogue(text: str) -> list[Turn]:
    """Turns of `Human: ... Assistant: ...`."""
    found: list[Turn] = []
    for piece in ("\n\n" + text.lstrip()).split("\n\n"):
        role = next((r for r, mark in (("user", HUMAN), ("assistant", ASSISTANT)) if piece.startswith(mark[2:])), None)
        if role is not None:
            found.append((role, piece.partition(":")[2].strip()))
        elif found:
            found[-1] = (found[-1][0], f"{found[-1][1]}\n\n{piece}")
    return found


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and any(isinstance(value.get(name), str) for name in ("role", "from"))


def _ranked_answers(answers: Sequence[Any]) -> tuple[tuple[Any, Any], ...]:
    """Answers with ranks by their `rank` or `score`, or, where none has one, by their place. The best has rank 0, also
    where a file counts from 1; an answer without a mark among answers that have one has no rank."""
    objects = [answer if isinstance(answer, dict) else {} for answer in answers]
    given = [answer.get("rank") for answer in objects]
    scores = [number(answer.get("score")) for answer in objects]
    ranks: Sequence[Any] = range(len(answers))
    if not all(map(absent, given)):
        numbers = [number(rank) for rank in given]
        least = max(0, min((n for n in numbers if n is not None), default=0))
        ranks = [rank if n is None else n - least for rank, n in zip(given, numbers, strict=True)]
    elif any(score is not None for score in scores):
        ranks = ranks_by_score(scores)
    return tuple(zip(answers, ranks, strict=True))


def _feedback_score(answer: Row, answers: Sequence[Row]) -> float | None:
    """Score of a completion, by the best measure that all completions of the row have."""
    for name in ("fine-grained_score", "overall_score"):
        if all(number(other.get(name)) is not None for other in answers):
            return number(answer.get(name))
    aspects = answer.get("annotations")
    ratings = [
        rating
        for aspect in (aspects.values() if isinstance(aspects, dict) else ())
        if isinstance(aspect, dict) and (rating := number(aspect.get("Rating"))) is not None
    ]
    return sum(ratings) / len(ratings) if ratings else None


def _first(row: Row, *names: str) -> Any:
    """The first of these fields that is there."""
    return next((row[name] for name in names if not absent(row.get(name))), None)
