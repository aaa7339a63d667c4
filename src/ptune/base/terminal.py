"""What goes to the terminal. Names, rows, facts and saved prompts come from strangers; what they
hold for a terminal to obey (colours, moves of the cursor, titles, changes of the direction of
writing) is shown and not obeyed. All printing comes here.
"""

import re
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console as RichConsole
from rich.segment import Segment
from rich.text import Text

COMMANDS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


def clean(text: str) -> str:
    """The text with each character that a terminal would obey, line breaks and tabs aside, spelt
    out as Python writes it."""
    return COMMANDS.sub(
        lambda match: match[0].encode("unicode_escape", "surrogatepass").decode("ascii"), text
    )


def clean_json(text: str) -> str:
    """JSON that says the same, with each character that a terminal would obey as JSON spells
    it."""
    return COMMANDS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def print_json(text: str) -> None:
    """Print JSON to standard output."""
    print(clean_json(text))


def print_line(text: str) -> None:
    """Print a line to standard output."""
    print(clean(text))


def print_nothing(text: str) -> None:
    """Take a line in the place of ``print_line`` where nobody is to see it."""


def warn(text: str) -> None:
    """Print a line to standard error, at once."""
    print(clean(text), file=sys.stderr, flush=True)


def announce(text: str) -> None:
    """Print a line to standard error where a person sits before it."""
    if sys.stderr.isatty():
        warn(text)


class Console(RichConsole):
    """Rich's console for texts of strangers: brackets in them are brackets, and nothing in them is
    obeyed."""

    def __init__(self, **settings: Any):
        super().__init__(markup=False, emoji=False, **settings)

    def render_str(self, text: str, **settings: Any) -> Text:
        """Rich's text of a string, without anything that a terminal would obey."""
        return super().render_str(clean(text), **settings)

    def render(self, *arguments: Any, **settings: Any) -> Iterable[Segment]:
        """Rich's segments; those of texts hold nothing that a terminal would obey."""
        for segment in super().render(*arguments, **settings):
            yield segment if segment.control else Segment(clean(segment.text), segment.style)
