"""Templates of messages: a chat as the LM's own chat template writes it.

The messages are rendered by the tokenizer's ``apply_chat_template`` with a mark in the place of
each field, learned token and answer; what stands between the marks becomes text and control tokens.
A row's text never passes through the chat template, so that nothing in it is taken for a control
token.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeGuard

from ptune.errors import TemplateError
from ptune.template.parts import (
    Control,
    Field,
    Kind,
    Mask,
    Part,
    PrefixPart,
    Role,
    Sep,
    Soft,
    Text,
    shown,
)
from ptune.template.tokenizer import Tokens

if TYPE_CHECKING:
    from ptune.template.language import Template

ASSISTANT = "assistant"
EDGE = (
    "\u2003"  # white space on both sides of a field's mark: it shows whether a message is trimmed
)
MARK = re.compile(f"({EDGE}?)\ue000(\\d+)\ue001({EDGE}?)")
PRIVATE = "\ue000\ue001" + EDGE
# The clock of a chat template stands still: a saved prompt is asked tomorrow as today.
CLOCK = "strftime_now"
FIXED_CLOCK = "{%- macro strftime_now(form) -%}26 Jul 2024{%- endmacro -%}"


@dataclass(frozen=True)
class Message:
    """One message of a chat: who speaks, and the parts of what is said."""

    role: str
    parts: tuple[Part, ...]


def for_lm(template: "Template", tokens: Tokens, kind: Kind) -> "Template":
    """A template of messages as one of text and control tokens, for an LM of this kind.

    The answer stands behind the generation prompt: an assistant's message with the ``{mask}`` at
    the end begins as the LM would begin it.

    Raises:
        TemplateError: the tokenizer has no chat template, or it refuses the messages.
    """
    front, messages = _messages(template)
    asked, begun = list(messages), None
    if kind != "masked" and messages[-1].role == ASSISTANT and template.has_mask:
        begun = asked.pop()
        if not asked:
            raise TemplateError(
                f"The chat {template.source!r} has nothing before the assistant's message: begin "
                "with a message of the user."
            )
    is_open = begun is not None or not template.has_mask and messages[-1].role != ASSISTANT
    chat = _Chat(tokens, asked)
    parts = chat.parts(chat.render(is_open))
    end, gap = None, ""
    if begun is not None:
        gap, end = chat.beginning(is_open)
        parts += [Text(gap), *begun.parts] if gap else list(begun.parts)
    parts = _with_front(front, parts, tokens)
    _check_order(template, parts)
    opens = begun is not None and isinstance(begun.parts[0], Mask) and not gap
    return replace(template, parts=tuple(parts), is_chat=True, opens=opens, end=end)


def _messages(template: "Template") -> tuple[list[Part], list[Message]]:
    """The parts before the first message, and the messages.

    Raises:
        TemplateError: text stands before the first message, or a separator in one.
    """
    starts = [i for i, part in enumerate(template.parts) if isinstance(part, Role)]
    front = [part for part in template.parts[: starts[0]] if not _is_blank(part)]
    if stray := next((part for part in front if not isinstance(part, Soft | PrefixPart)), None):
        raise TemplateError(
            f"{shown(stray)!r} stands before the first message of the chat {template.source!r}: "
            "write it into a message."
        )
    if any(isinstance(part, Sep) for part in template.parts):
        raise TemplateError(
            f"The chat {template.source!r} has a {{sep}}, and a chat template puts its own tokens "
            "between messages: write the text that should stand there."
        )
    ends = [*starts[1:], len(template.parts)]
    messages = []
    for start, end in zip(starts, ends):
        role = template.parts[start]
        assert isinstance(role, Role)
        messages.append(Message(role.name, template.parts[start + 1 : end]))
    return front, messages


def _is_blank(part: Part) -> bool:
    return isinstance(part, Text) and part.is_blank


class _Chat:
    """Messages that are being rendered; ``marked`` holds the part that each mark stands for."""

    def __init__(self, tokens: Tokens, messages: Sequence[Message]):
        self.tokens, self.marked = tokens, list[Part]()
        self.messages = [
            {"role": message.role, "content": "".join(map(self._mark, message.parts))}
            for message in messages
        ]

    def _mark(self, part: Part) -> str:
        """A part as it goes through the chat template: text as it stands, unless control tokens or
        characters of marks are written in it; all else as a mark."""
        if isinstance(part, Text) and not self._is_odd(part.text):
            return part.text
        self.marked.append(part)
        mark = f"\ue000{len(self.marked) - 1}\ue001"
        return f"{EDGE}{mark}{EDGE}" if isinstance(part, Field) else mark

    def _is_odd(self, text: str) -> bool:
        return any(sign in text for sign in PRIVATE) or bool(self.tokens.control.search(text))

    def render(self, is_open: bool, added: Sequence[dict[str, str]] = ()) -> str:
        """The messages as the tokenizer's chat template writes them.

        Args:
            is_open: the assistant's message begins at the end (the generation prompt).
        """
        return render(self.tokens, [*self.messages, *added], is_open)

    def parts(self, rendered: str) -> list[Part]:
        """The parts of a rendered chat, its marks replaced by what they stand for."""
        parts: list[Part] = []
        numbers: list[int] = []
        start = 0
        for matched in MARK.finditer(rendered):
            parts += self._scaffold(rendered[start : matched.start()])
            numbers.append(int(matched[2]))
            parts.append(_trimmed(self.marked[int(matched[2])], matched))
            start = matched.end()
        parts += self._scaffold(rendered[start:])
        if sorted(numbers) != list(range(len(self.marked))):
            raise TemplateError(
                "The chat template of this LM's tokenizer leaves out a message, or writes one "
                f"several times (roles: {_roles(self.messages)}). Leave that message out."
            )
        return parts

    def _scaffold(self, text: str) -> list[Part]:
        """What the chat template itself writes: its control tokens, and text between them."""
        parts: list[Part] = []
        start = 0
        for matched in self.tokens.control.finditer(text):
            parts += [Text(text[start : matched.start()])] if matched.start() > start else []
            parts.append(self.tokens.control_token(matched[0]))
            start = matched.end()
        return [*parts, Text(text[start:])] if start < len(text) else parts

    def beginning(self, is_open: bool) -> tuple[str, int | None]:
        """What stands between the generation prompt and the assistant's text, and the control token
        that ends its message; "" and None where the chat template does not tell."""
        mark = "\ue000answer\ue001"
        try:
            whole = self.render(False, [{"role": ASSISTANT, "content": mark}])
        except TemplateError:
            return "", None
        before, _, behind = whole.partition(mark)
        matched = self.tokens.control.match(behind.lstrip())
        end = self.tokens.control_token(matched[0]).id if matched else None
        open_prompt = self.render(is_open)
        gap = before[len(open_prompt) :] if before.startswith(open_prompt) else ""
        return gap if gap.isspace() else "", end


def form_of(template: "Template") -> str | None:
    """A hash of what a chat template wrote around the messages (``for_lm``); None of another
    template."""
    if not template.is_chat:
        return None
    written = [(part.text, getattr(part, "id", None)) for part in template.parts if _is_set(part)]
    return hashlib.sha256(json.dumps(written).encode()).hexdigest()


def _is_set(part: Part) -> TypeGuard[Text | Control]:
    return isinstance(part, Text | Control)


def message_end(tokens: Tokens) -> int | None:
    """The control token that ends an assistant's message; None where there is no chat template, or
    it does not tell."""
    if not getattr(tokens.tokenizer, "chat_template", None):
        return None
    asked = _Chat(tokens, [Message("user", (Text("a"),))])
    try:
        return asked.beginning(True)[1]
    except TemplateError:
        return None


def render(tokens: Tokens, messages: Sequence[dict[str, str]], is_open: bool) -> str:
    """Messages as the tokenizer's chat template writes them. What a template takes from the clock
    is a fixed date; thinking is switched off where a template can do so.

    Raises:
        TemplateError: the tokenizer has no chat template, or it refuses the messages.
    """
    tokenizer = tokens.tokenizer
    if not getattr(tokenizer, "chat_template", None):
        raise TemplateError(
            "This LM's tokenizer has no chat template, so a chat cannot be written for it: take an "
            "instruction-tuned LM, or give the task a template without roles."
        )
    from jinja2.exceptions import TemplateError as Refusal

    try:
        template = tokenizer.get_chat_template()
        rendered = tokenizer.apply_chat_template(
            list(messages),
            chat_template=FIXED_CLOCK + template if CLOCK in template else template,
            tokenize=False,
            add_generation_prompt=is_open,
            enable_thinking=False,
        )
    except (Refusal, TypeError, ValueError, LookupError, ImportError) as error:
        advice = "Change or leave out the message of that role."
        if any(message["role"] == "system" for message in messages):
            advice = "If it takes no system message, put that text into the user's first message."
        raise TemplateError(
            f"The chat template of this LM's tokenizer refuses the messages (roles: "
            f"{_roles(messages)}): {str(error).strip() or type(error).__name__}. {advice}"
        ) from error
    return str(rendered)


def _roles(messages: Sequence[dict[str, Any]]) -> str:
    return ", ".join(message["role"] for message in messages)


def _trimmed(part: Part, matched: re.Match[str]) -> Part:
    """The part; a field loses the white space that the chat template takes off at its edges."""
    if not isinstance(part, Field):
        return part
    sides = [
        name for name, edge in (("trim:start", matched[1]), ("trim:end", matched[3])) if not edge
    ]
    return replace(part, filters=(*part.filters, *((side, "") for side in sides)))


def _with_front(front: Sequence[Part], parts: list[Part], tokens: Tokens) -> list[Part]:
    """The parts with learned tokens in front: a prefix before everything, soft tokens behind the
    token that begins a text, where there is one."""
    prefixes = [part for part in front if isinstance(part, PrefixPart)]
    softs = [part for part in front if isinstance(part, Soft)]
    first = parts[0] if parts else None
    starts = (tokens.tokenizer.bos_token_id, *tokens.before)
    begins = isinstance(first, Control) and first.id in starts
    return [*prefixes, *parts[:begins], *softs, *parts[begins:]]


def _check_order(template: "Template", parts: Sequence[Part]) -> None:
    """Refuse learned tokens and the answer in another order than the template has them."""
    kept = (Soft, PrefixPart, Mask)
    written = [part for part in template.parts if isinstance(part, kept)]
    rendered = [part for part in parts if isinstance(part, kept)]
    if sorted(map(shown, written)) != sorted(map(shown, rendered)) or any(
        [part for part in written if isinstance(part, one)]
        != [part for part in rendered if isinstance(part, one)]
        for one in kept
    ):
        raise TemplateError(
            f"The chat template of this LM's tokenizer changes the order of the messages of "
            f"{template.source!r}: put all learned tokens into one message."
        )
