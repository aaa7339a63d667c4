"""Answers as OpenAI's two interfaces write them."""

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ptune.serving.engines.jobs import LabelAnswer, TextAnswer

Answer = LabelAnswer | TextAnswer


def texts_of(answer: Answer) -> list[str]:
    """The texts of an answer; a label is one, and so are several labels of a row."""
    if isinstance(answer, TextAnswer):
        return answer.texts
    return [answer.label if isinstance(answer.label, str) else ", ".join(answer.label)]


def ends_of(answer: Answer) -> list[str]:
    """How each text has ended."""
    return ["stop"] if isinstance(answer, LabelAnswer) else answer.ends


def usage(answers: Sequence[Answer]) -> dict[str, int]:
    """How many tokens were read and written."""
    read = sum(answer.tokens for answer in answers)
    written = sum(one.written if isinstance(one, TextAnswer) else 1 for one in answers)
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
    }


@dataclass
class CompletionForm:
    """``/v1/completions``."""

    model: str
    id: str = field(default_factory=lambda: f"cmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))
    whole, chunk = "text_completion", "text_completion"

    def document(self, kind: str, choices: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """A whole answer or a piece of one."""
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": list(choices),
        }

    def choice(self, index: int, text: str, end: str) -> dict[str, Any]:
        """A whole text."""
        return {"index": index, "text": text, "logprobs": None, "finish_reason": end}

    def opening(self, index: int) -> dict[str, Any] | None:
        """What a stream begins with; None for nothing."""
        return None

    def piece(self, index: int, text: str, end: str | None) -> dict[str, Any]:
        """A piece of a text, or its end."""
        return {"index": index, "text": text, "logprobs": None, "finish_reason": end}


class ChatForm(CompletionForm):
    """``/v1/chat/completions``."""

    whole, chunk = "chat.completion", "chat.completion.chunk"

    def choice(self, index: int, text: str, end: str) -> dict[str, Any]:
        message = {"role": "assistant", "content": text, "refusal": None}
        return {"index": index, "message": message, "logprobs": None, "finish_reason": end}

    def opening(self, index: int) -> dict[str, Any] | None:
        return self._delta(index, {"role": "assistant", "content": ""}, None)

    def piece(self, index: int, text: str, end: str | None) -> dict[str, Any]:
        return self._delta(index, {"content": text} if text else {}, end)

    def _delta(self, index: int, delta: dict[str, str], end: str | None) -> dict[str, Any]:
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": end}
