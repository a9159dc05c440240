"""Chat templates and rubrics that a run names: built into the stages, or mounted from a ConfigMap and pinned."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from srlm_contract.errors import BadInput
from srlm_contract.keys import canonical_json, sha256
from srlm_contract.spec.data import TemplateRef

from ..context import StageContext
from .chat import load_tokenizer, merges_system_prompt

CHAT_TEMPLATE_FILE = "SRLM_CHAT_TEMPLATE_FILE"
RUBRIC_FILE = "SRLM_RUBRIC_FILE"
BUILT_IN_CHAT_TEMPLATES: Mapping[str, str] = {
    "chatml": (
        "{% for message in messages %}"
        "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
}


class Conversing(Protocol):
    """Parameters of a stage that renders conversations."""

    @property
    def chat_template(self) -> str: ...
    @property
    def chat_template_kwargs(self) -> Mapping[str, Any]: ...


def chat_template(ctx: StageContext, params: Conversing) -> str | None:
    """Text of the chat template the task asks for; None for the model's own."""
    asked = params.chat_template
    return template(ctx.environ, asked, CHAT_TEMPLATE_FILE, BUILT_IN_CHAT_TEMPLATES) if asked else None


def tokenizer_of(ctx: StageContext, params: Conversing, model: Path, system_prompt: str = "") -> Any:
    """The tokenizer of a model with the chat template and its arguments that the task asks for.

    Says so when the template takes no system turn and `system_prompt` goes into the user's.
    """
    text, arguments = chat_template(ctx, params), params.chat_template_kwargs
    what = "tokenizer", model, text, canonical_json(arguments)
    tokenizer = ctx.pod.once(what, lambda: load_tokenizer(model, text, arguments))
    if system_prompt and merges_system_prompt(tokenizer):
        say_merged_system_prompt(ctx)
    return tokenizer


def say_merged_system_prompt(ctx: StageContext) -> None:
    """In the log and in the manifest."""
    if "systemPrompt" not in ctx.details:
        ctx.details["systemPrompt"] = "at the head of the first user turn"
        ctx.warn("the chat template has no system role: the system prompt goes to the head of the user's turn")


def template(environ: Mapping[str, str], asked: str, variable: str, built_in: Mapping[str, str]) -> str:
    """A built-in template by name, or the mounted one, which must have the digest the run pinned."""
    if asked in built_in:
        return built_in[asked]
    path = Path(environ.get(variable) or "/nonexistent")
    if not path.is_file():
        raise BadInput(
            "TemplateNotUsable",
            f"template {asked!r} is neither built in ({', '.join(built_in)}) nor mounted",
        )
    data = path.read_bytes()
    if asked.startswith("sha256:") and sha256(data) != asked:
        raise BadInput(
            "TemplateNotUsable",
            f"the mounted template has changed since the run pinned it ({asked[:19]}); the run pins it anew soon",
        )
    return data.decode()


def pinned(
    environ: Mapping[str, str], field: str, ref: TemplateRef | None, variable: str, built_in: Mapping[str, str]
) -> tuple[str, str | None]:
    """(name for keys, text) of what a field of the spec refers to: the built-in name, or the digest of the mounted
    text; ("", None) where it refers to nothing. Raises BadInput TemplateNotUsable."""
    if ref is None:
        return "", None
    if ref.key is None:
        if ref.name not in built_in:
            raise BadInput(
                "TemplateNotUsable",
                f"{field}: nothing built in is called {ref.name!r} ({', '.join(sorted(built_in))}); name a ConfigMap "
                "with name and key",
            )
        return ref.name, built_in[ref.name]
    path, field = environ.get(variable), f"{field} ({ref.name}, {ref.key})"
    if not path or not Path(path).is_file():
        raise BadInput("TemplateNotUsable", f"{field}: its file is not mounted ({variable} is {path or 'unset'})")
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BadInput("TemplateNotUsable", f"{field} is not UTF-8 text: {error}") from error
    if not text.strip():
        raise BadInput("TemplateNotUsable", f"{field} is empty")
    return sha256(text.encode()), text
