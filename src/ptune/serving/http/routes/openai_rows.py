"""What OpenAI's requests ask for: which rows, answered how."""

import json
import secrets
from collections.abc import Sequence
from typing import Any

from ptune.serving.bank.prompt_files import Description
from ptune.serving.engines.jobs import Job
from ptune.serving.http.answering import check_fields
from ptune.serving.http.schemas import ChatRequest, CompletionRequest, Fields, WritingRequest
from ptune.serving.problems import refused


def jobs_of(
    body: CompletionRequest | ChatRequest, description: Description, most_tokens: int
) -> list[Job]:
    """A job for each row of a request.

    Raises:
        Problem: the rows or the settings are not such as the prompt takes.
    """
    chat = isinstance(body, ChatRequest)
    place = "messages[0].content" if chat else "prompt"
    given = _given(body)
    if body.fields is not None:
        if given:
            raise refused(f"Give the fields in fields or in {place}, not in both.", "fields")
        given, place = [body.fields], "fields"
    if not given:
        raise refused(f"{_wanted(description)} None are given.", "messages" if chat else "prompt")
    decoding = _decoding(body, description, most_tokens)
    jobs = []
    for number, value in enumerate(given, 1):
        fields = _fields(value, description, place) if isinstance(value, str) else value
        check_fields(fields, place)
        jobs.append(
            Job(
                description.id,
                fields,
                number=number,
                decoding=decoding,
                place=place,
                prompt_place="model",
            )
        )
    return jobs


def _given(body: CompletionRequest | ChatRequest) -> Sequence[str | Fields]:
    """The rows that stand in the place where OpenAI's clients put a prompt."""
    if isinstance(body, ChatRequest):
        return [message.text for message in body.messages]
    if isinstance(body.prompt, list):
        return body.prompt
    return [] if body.prompt in (None, "") else [body.prompt]


def _fields(text: str, description: Description, place: str) -> Fields:
    """The fields that a text stands for: those of its JSON, or the one that there is."""
    names = description.fields
    value: Any = None
    if text.lstrip().startswith("{"):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = None
    if isinstance(value, dict) and (len(names) != 1 or names[0] in value):
        return value
    if len(names) == 1:
        return {names[0]: text}
    raise refused(_wanted(description), place)


def _wanted(description: Description) -> str:
    example = json.dumps(dict.fromkeys(description.fields, "..."), ensure_ascii=False)
    if len(description.fields) == 1:
        return f"{description.id} takes one text, its field {description.fields[0]}."
    return f"{description.id} takes these fields, as a JSON object or in fields: {example}."


def _decoding(
    body: WritingRequest, description: Description, most_tokens: int
) -> dict[str, Any] | None:
    """The request's settings of writing; None for a prompt with labels."""
    if description.task == "labels":
        _check_for_labels(body, description.id)
        return None
    changes: dict[str, Any] = {}
    if (tokens := body.most_tokens) is not None:
        if tokens > most_tokens:
            raise refused(f"This server writes {most_tokens} tokens at most.", "max_tokens")
        changes["max_new_tokens"] = tokens
    if body.n > 1:
        changes["texts"] = body.n
    if stops := [body.stop] if isinstance(body.stop, str) else body.stop:
        if not all(stops):
            raise refused("A stop string has one sign at least.", "stop")
        changes["stop"] = tuple(stops)
    return changes | _drawing(body)


def _drawing(body: WritingRequest) -> dict[str, Any]:
    """How tokens are drawn; nothing where the request leaves it to the prompt."""
    narrows = body.top_p is not None and body.top_p < 1
    if body.temperature == 0:
        return {"sample": False}
    if body.temperature is not None and body.temperature < 0.001:
        raise refused("temperature is 0, which draws nothing, or at least 0.001.", "temperature")
    if body.temperature is None and not narrows:
        return {} if body.seed is None else {"seed": body.seed}
    seed = secrets.randbelow(2**31) if body.seed is None else body.seed
    changes: dict[str, Any] = {"sample": True, "beams": 1, "seed": seed}
    if body.temperature is not None:
        changes["temperature"] = body.temperature
    if body.top_p is not None:
        changes["top_p"] = body.top_p
    return changes


def _check_for_labels(body: WritingRequest, name: str) -> None:
    """Refuse what makes no sense where the best of some labels is chosen."""
    asked = {
        "temperature": bool(body.temperature),
        "top_p": body.top_p not in (None, 1),
        "n": body.n > 1,
        "stop": bool(body.stop),
    }
    for setting, is_asked in asked.items():
        if is_asked:
            raise refused(f"{name} chooses the best of its labels: leave {setting} out.", setting)
