"""The errors that ptune raises when its input is at fault.

    PtuneError
    ├── TemplateError      a template that cannot be parsed, or a row that does not fit it
    ├── VerbalizerError    label words that the LM's vocabulary cannot say
    ├── DataError          a file or a row that cannot be read
    ├── ConfigError        a task file, an argument or a combination of arguments
    ├── ModelError         an LM that cannot be loaded or cannot take prompts
    ├── StoreError         a saved prompt or checkpoint that is damaged or belongs to another LM
    └── DivergedError      a training without a finite state to keep, or scores that are no finite
    numbers

The command line prints the message of any of them, without a traceback, and exits with status 2.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError


class PtuneError(Exception):
    """The base of every error that a user can mend.

    Attributes:
        of_row: whether a single row is at fault, which the message names.
    """

    of_row = False


class TemplateError(PtuneError):
    """A template that cannot be parsed, or a row that does not fit it."""


class VerbalizerError(PtuneError):
    """Label words that the LM's vocabulary cannot say."""


class DataError(PtuneError):
    """A file or a row that cannot be read."""


class ConfigError(PtuneError):
    """A task file, an argument or a combination of arguments."""


class ModelError(PtuneError):
    """An LM that cannot be loaded, or cannot take prompts."""


class StoreError(PtuneError):
    """A saved prompt or checkpoint that is damaged, or belongs to another LM."""


class DivergedError(PtuneError):
    """A training that left no finite state to keep, or scores that are no finite numbers.

    Attributes:
        trained: the training history of each task that has a finite state to keep, by its number.
    """

    def __init__(self, message: str, trained: Mapping[Any, Any] | None = None):
        super().__init__(message)
        self.trained = dict(trained or {})


SHORTEST_PART = 3
"""Characters of a part of a name, by which the whole name is meant."""
LISTED = 20
"""Known names that a message lists."""


def nearest(name: str, known: Iterable[str], most: int = LISTED) -> str:
    """A sentence naming the known word closest to ``name``, or listing up to ``most`` of them; of
    several known words with commas between, that they are several."""
    known = list(known)
    parts = [part.strip().partition(":")[0] for part in name.split(",")]
    if len(parts) > 1 and set(parts) <= set(known):
        return "These are several: give each by itself, with no comma between."
    close = difflib.get_close_matches(name, known, n=1)
    if not close and len(name) >= SHORTEST_PART:
        close = [other for other in known if name.casefold() in other.casefold()]
    if close:
        return f"Did you mean {close[0]!r}?"
    listed = ", ".join(map(repr, known[:most])) or "none"
    return f"Known: {listed}{', ...' if len(known) > most else '.'}"


FORMS = ("literal[", "dict[", "constrained-")
"""How pydantic names the forms of a value that may have several."""


def first_fault(error: "ValidationError") -> str:
    """The first value that pydantic refused, and why: "lm.width: Input should be ..."."""
    faults = error.errors()
    fault = fault_within(faults, faults[0])
    key = ".".join(str(name) for name in fault["loc"] if not str(name).startswith(FORMS))
    return f"{key}: {reason(fault)}" if key else reason(fault)


def fault_within(faults: Sequence[Any], first: Any) -> Any:
    """The fault of a value that may be one of some words or a mapping, such as "balanced" or a
    weight for each label: where it is a mapping, what is wrong within it.

    Args:
        faults: the list of errors of a pydantic ``ValidationError``; first: one of them.
    """
    *place, form = first["loc"] or ("",)
    if not str(form).startswith(FORMS[0]):
        return first
    rivals = [fault for fault in faults if list(fault["loc"][: len(place)]) == place]
    return max(rivals, key=lambda fault: len(fault["loc"]))


def reason(error: Mapping[str, Any]) -> str:
    """Why a value was refused, as the end of a sentence.

    Args:
        error: one entry of the list of errors of a pydantic ``ValidationError``.

    Returns:
        The message of ptune's check where one refused the value, else pydantic's message, followed
        by the value where that is short.
    """
    if error["type"] in ("value_error", "assertion_error"):
        return str(error["ctx"]["error"])
    message, value = str(error["msg"]), error["input"]
    if error["type"] in ("tuple_type", "list_type") and isinstance(value, str | int | float):
        return f"write a list, such as [{value}]"
    if error["type"] == "missing":
        return message  # the input is what it is missing from
    shown = (
        f" (it is {value!r})"
        if isinstance(value, str | int | float | None)
        else f" (it is a {type(value).__name__})"
    )
    return message + (shown if len(shown) < 80 else "")
